//! The mailboxes of the run, what is changed in their calendars, and what their phones have to show for it.

use std::collections::HashMap;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use narvaro_sim::{EventSpec, Sim, TenantSpec, UserSpec};

use crate::{dice::Dice, service::extension};

/// Trigger words that are written, and what they make the phone show.
const WORDS: [(&str, &str); 4] =
    [("MÖT", "meeting"), ("LUN", "lunch"), ("DND", "do-not-disturb"), ("HOL", "holiday")];

/// What shows while there is no event.
const FREE: &str = "available";

/// What a phone has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shows {
    pub(super) profile: String,
    pub(super) until: Option<Timestamp>,
}

impl Shows {
    /// As the simulator's PBX was told.
    pub(super) fn of(profile: &str, until: Option<&str>) -> Self {
        Self { profile: profile.to_owned(), until: until.and_then(|until| until.parse().ok()) }
    }
}

/// One mailbox with at most one event, which is on now and outlasts the run.
pub(super) struct Mailbox {
    pub(super) company: usize,
    pub(super) extension: String,
    alias: String,
    event: Option<String>,
    pub(super) shows: Shows,
    changes: usize,
}

/// All of them.
pub(super) struct Town {
    pub(super) companies: Vec<String>,
    pub(super) tenants: Vec<String>,
    pub(super) mailboxes: Vec<Mailbox>,
    /// Place of a mailbox by the simulator's id of its user.
    pub(super) by_user: HashMap<String, usize>,
    /// Place of a mailbox by company and extension.
    pub(super) by_phone: HashMap<(String, String), usize>,
    began: Timestamp,
    /// Places of every other mailbox, which are changed once at most: what is lost of one no later change makes up for.
    once: Vec<usize>,
}

impl Town {
    /// Makes tenants and users.
    pub(super) fn found(sim: &Sim, companies: usize, mailboxes: usize) -> anyhow::Result<Self> {
        let began = Timestamp::from_second(sim.clock().now().as_second())?;
        let mut town = Self {
            companies: Vec::new(),
            tenants: Vec::new(),
            mailboxes: Vec::new(),
            by_user: HashMap::new(),
            by_phone: HashMap::new(),
            began,
            once: Vec::new(),
        };
        for company in 0..companies {
            let id = format!("company-{company}");
            let tenant = sim.add_tenant(TenantSpec::new(&format!("{id}.example")))?;
            for n in 0..(mailboxes + company) / companies {
                let alias = format!("u{n:05}@{id}.example");
                let user = sim.add_user(&tenant, UserSpec::new(&alias))?;
                let place = town.mailboxes.len();
                town.by_user.insert(user, place);
                town.by_phone.insert((id.clone(), extension(n)), place);
                town.mailboxes.push(Mailbox {
                    company,
                    extension: extension(n),
                    alias,
                    event: None,
                    shows: Shows { profile: FREE.to_owned(), until: None },
                    changes: 0,
                });
            }
            town.companies.push(id);
            town.tenants.push(tenant);
        }
        town.once = (0..town.mailboxes.len()).skip(1).step_by(2).collect();
        Ok(town)
    }

    /// A company file.
    pub(super) fn file(&self, sim: &Sim, company: usize, concurrency: usize) -> String {
        let (id, tenant) = (&self.companies[company], &self.tenants[company]);
        let mut file = format!(
            "id = \"{id}\"\nname = \"{id}\"\n[integration]\nkind = \"microsoft365\"\ntenant = \"{tenant}\"\n\
             [pbx]\nkind = \"http\"\n[pbx.http]\nbase_url = \"{}\"\nallow_plain_http = true\nconcurrency = {concurrency}\n\
             [pbx.http.set]\nmethod = \"PUT\"\npath = \"/extensions/{{extension}}/presence\"\n\
             json = {{ profile = \"{{profile.id}}\", text = \"{{text}}\", until = \"{{until|json}}\" }}\n",
            sim.pbx_url(id)
        );
        for mailbox in self.mailboxes.iter().filter(|mailbox| mailbox.company == company) {
            let Mailbox { extension, alias, .. } = mailbox;
            file.push_str(&format!("[[users]]\nextension = \"{extension}\"\nalias = \"{alias}\"\n"));
        }
        file
    }

    /// How many mailboxes are left that are changed once.
    pub(super) fn once(&self) -> usize {
        self.once.len()
    }

    /// Changes the calendar of a mailbox so that its phone has to show something else: of one that was not changed yet and is not
    /// changed again, or of any of the others.
    pub(super) fn change(&mut self, sim: &Sim, dice: &mut Dice, once: bool) -> anyhow::Result<()> {
        let drawn = (once && !self.once.is_empty()).then(|| dice.below(self.once.len()));
        let place = match drawn {
            Some(drawn) => self.once.swap_remove(drawn),
            None => 2 * dice.below(self.mailboxes.len().div_ceil(2)),
        };
        let began = self.began;
        let mailbox = &mut self.mailboxes[place];
        mailbox.changes += 1;
        if mailbox.event.is_some() && dice.below(4) == 0 {
            let event = mailbox.event.take().context("there is an event")?;
            sim.delete_event(&mailbox.alias, &event)?;
            mailbox.shows = Shows { profile: FREE.to_owned(), until: None };
            return Ok(());
        }
        let (word, profile) = loop {
            let (word, profile) = WORDS[dice.below(WORDS.len())];
            if profile != mailbox.shows.profile {
                break (word, profile);
            }
        };
        // Each end is another one, and none comes before the run is over.
        let end =
            began + SignedDuration::from_hours(6) + SignedDuration::from_mins(mailbox.changes as i64 % 600);
        let event = EventSpec::new(word).at(began - SignedDuration::from_mins(1), end);
        let ids = match &mailbox.event {
            Some(known) => sim.patch_event(&mailbox.alias, known, event)?,
            None => sim.add_event(&mailbox.alias, event)?,
        };
        mailbox.event = Some(ids.id);
        mailbox.shows = Shows { profile: profile.to_owned(), until: Some(end) };
        Ok(())
    }

    /// Whether a phone shows what it has to.
    pub(super) fn is_right(&self, sim: &Sim, place: usize) -> bool {
        let mailbox = &self.mailboxes[place];
        let shown = sim.pbx().presence(&self.companies[mailbox.company], &mailbox.extension);
        Shows::of(&shown.profile, shown.until.as_deref()) == mailbox.shows
    }

    /// Mailboxes whose phones show something else than they have to.
    pub(super) fn wrong(&self, sim: &Sim) -> Vec<usize> {
        let shown: Vec<_> = self.companies.iter().map(|company| sim.pbx().all(company)).collect();
        let is_wrong = |mailbox: &Mailbox| {
            let shown = shown[mailbox.company].get(&mailbox.extension);
            shown.is_none_or(|shown| Shows::of(&shown.profile, shown.until.as_deref()) != mailbox.shows)
        };
        self.mailboxes
            .iter()
            .enumerate()
            .filter(|(_, mailbox)| is_wrong(mailbox))
            .map(|(place, _)| place)
            .collect()
    }
}
