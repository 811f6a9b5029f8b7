//! What does not fit together in the store's own structures: which mailboxes there are, and where they wait.
//!
//! All of it is read in pieces and held against one another here, so that Redis is never kept from anybody for long.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    at_rest::{AtRest, pieces},
    keys,
    value::{Answer, Args},
};
use crate::{
    company::{records::MailboxRecord, trail::JobRecord},
    model::MailboxId,
    queue::StoreError,
    store::portable::{Fault, InCopy, Numbers},
};

/// Members of a set in one answer.
const MEMBERS: usize = 1_000;

/// Most faults of one kind that are told one by one.
const MOST_TOLD: usize = 20;

/// What to do about something, and what a copy does.
#[derive(Clone, Copy)]
struct Cure {
    remedy: &'static str,
    in_copy: InCopy,
}

/// What a copy makes anew.
const ANEW: Cure = Cure {
    remedy: "`narvaro store copy --with-faults` it into an empty store, and use that: this is made anew there from what is whole",
    in_copy: InCopy::MadeAnew,
};

/// What nothing misses that is not in a copy.
const LEFT: Cure = Cure {
    remedy: "`narvaro store copy --with-faults` it into an empty store, and use that: this is left behind, and nothing misses it",
    in_copy: InCopy::LeftBehind,
};

/// A mailbox that no company knows. An apply of the same file would find nothing to change.
const LOST: Cure = Cure {
    remedy: "put the newest copy of Redis's own files in its place; without one, take the user out of the company file, `narvaro apply` it, and put the user in again, who begins anew; a copy of the store leaves this mailbox behind, with its state and what was set by hand",
    in_copy: InCopy::LeftBehind,
};

/// Keys that are looked at in one call: some 1 ms of Redis.
const KEYS: usize = 1_000;

/// With what each kind of key begins, or its whole name, and its type, as the table in [`keys`] has them.
const TYPES: [(&str, &str); 29] = [
    ("meta", "hash"),
    ("companies", "set"),
    ("company:", "hash"),
    ("users:", "hash"),
    ("m:", "hash"),
    ("state:", "string"),
    ("inbox", "list"),
    ("parcel:", "string"),
    ("waiting:", "string"),
    ("held:", "string"),
    ("intent:", "string"),
    ("timed", "zset"),
    ("edges", "zset"),
    ("ready:", "zset"),
    ("to-read:", "zset"),
    ("heads", "zset"),
    ("reading-heads", "zset"),
    ("leases", "zset"),
    ("ahead", "zset"),
    ("recalled:", "set"),
    ("announced:", "string"),
    ("trail", "list"),
    ("jobs", "zset"),
    ("job:", "hash"),
    ("job-mailboxes:", "set"),
    ("tickets", "zset"),
    ("alive", "zset"),
    ("replicas", "hash"),
    ("duties", "hash"),
];

/// What is there of a mailbox.
struct Facts {
    has_record: bool,
    company: String,
    extension: String,
    place: String,
    reading: String,
    leased_until: String,
    is_held: bool,
    is_due: bool,
    is_ahead: bool,
}

impl Facts {
    fn read(answer: &mut Answer) -> Result<(MailboxId, Self), StoreError> {
        let id = MailboxId(answer.number()?);
        let facts = Self {
            has_record: answer.number()? == 1,
            company: answer.text()?,
            extension: answer.text()?,
            place: answer.text()?,
            reading: answer.text()?,
            leased_until: answer.text()?,
            is_held: answer.number()? == 1,
            is_due: answer.number()? == 1,
            is_ahead: answer.number()? == 1,
        };
        Ok((id, facts))
    }

    /// Sets in which it should stand, with its score.
    fn places(&self) -> Vec<(String, &str)> {
        let mut places = Vec::new();
        if let Some(score) = self.place.strip_prefix('t') {
            places.push(("timed".to_owned(), score));
        } else if let Some(score) = self.place.strip_prefix('e') {
            places.push(("edges".to_owned(), score));
        } else if let Some(score) = self.place.strip_prefix('r') {
            places.push((format!("ready:{}", self.company), score));
        }
        if !self.reading.is_empty() {
            places.push((format!("to-read:{}", self.company), self.reading.as_str()));
        }
        if !self.leased_until.is_empty() {
            let set = if self.is_ahead { "ahead" } else { "leases" };
            places.push((set.to_owned(), self.leased_until.as_str()));
        }
        places
    }
}

/// Everything that is held against one another.
struct Search<'a> {
    store: &'a AtRest,
    mailboxes: BTreeMap<MailboxId, Facts>,
    /// Sets of mailboxes by name, with the scores of their members, the first of all too.
    sets: BTreeMap<String, HashMap<String, String>>,
    firsts: HashMap<String, String>,
    faults: Vec<Fault>,
}

/// Keys of another type than they should be: no script gets past them.
pub(super) async fn find_obstacles(store: &AtRest) -> Result<Vec<Fault>, StoreError> {
    let mut found = BTreeMap::new();
    let mut next = "0".to_owned();
    loop {
        let args = TYPES
            .iter()
            .fold(Args::default().add(next).add(KEYS), |args, (kind, its_type)| args.add(kind).add(its_type));
        let mut answer = Answer::list(store.run(&keys::KINDS, args).await?)?;
        next = answer.text()?;
        while !answer.is_empty() {
            let name = String::from_utf8_lossy(&answer.bytes()?).into_owned();
            // It may be told more than once.
            found.insert(name, (answer.text()?, answer.text()?));
        }
        if next == "0" {
            return Ok(obstacles(store, found));
        }
    }
}

fn obstacles(store: &AtRest, found: BTreeMap<String, (String, String)>) -> Vec<Fault> {
    let more = found.len().saturating_sub(MOST_TOLD);
    let fault = |(name, (is, right)): (String, (String, String))| {
        let key = format!("{}{name}", store.prefix);
        let fault = Fault::new(
            format!("key `{key}`"),
            format!("it is a {}, and has to be a {}", in_words(&is), in_words(&right)),
            format!(
                "find out what else writes to this Redis; `redis-cli -n {} del '{key}'`, and check again before a service starts: what is missing then is named",
                store.database
            ),
        );
        Fault { in_copy: InCopy::InTheWay, ..fault }
    };
    let mut faults: Vec<Fault> = found.into_iter().take(MOST_TOLD).map(fault).collect();
    if more > 0 {
        let said = format!("{more} more are of another type than they have to be");
        let remedy = "mend the ones above, and check again: the next ones are named then";
        let in_copy = InCopy::InTheWay;
        faults.push(Fault { in_copy, things: more as u64, ..Fault::new("keys", said, remedy) });
    }
    faults
}

/// A type as people call it.
fn in_words(its_type: &str) -> &str {
    if its_type == "zset" { "sorted set" } else { its_type }
}

/// Finds all of them.
pub(super) async fn find_faults(store: &AtRest) -> Result<Vec<Fault>, StoreError> {
    let roll = store.roll().await?;
    let (numbers, said) = store.counted_on().await?;
    let mut search = Search {
        store,
        mailboxes: BTreeMap::new(),
        sets: BTreeMap::new(),
        firsts: HashMap::new(),
        faults: Vec::new(),
    };
    let companies = search.companies(&numbers).await?;
    search.numbers(&roll, &numbers, said).await?;
    let last = roll.last().map_or(0, |last| last.id.0).max(numbers.mailbox);
    search.read_mailboxes(last).await?;
    search.read_sets(&companies).await?;
    search.records(&roll);
    search.places();
    search.members();
    search.heads("heads", "ready:").await?;
    search.heads("reading-heads", "to-read:").await?;
    search.jobs().await?;
    Ok(search.faults)
}

impl Search<'_> {
    fn fault(&mut self, place: impl Into<String>, said: impl Into<String>, remedy: &str) {
        self.faults.push(Fault::new(place, said, remedy));
    }

    fn cured(&mut self, place: impl Into<String>, said: impl Into<String>, things: u64, cure: Cure) {
        let Cure { remedy, in_copy } = cure;
        self.faults.push(Fault { in_copy, things, ..Fault::new(place, said, remedy) });
    }

    /// Notes faults of one kind; of very many the last says how many more there are.
    fn all(&mut self, found: Vec<(String, String)>, cure: Cure) {
        let more = found.len().saturating_sub(MOST_TOLD);
        for (place, said) in found.into_iter().take(MOST_TOLD) {
            self.cured(place, said, 1, cure);
        }
        if more > 0 {
            self.cured("mailboxes", format!("{more} more are as the ones above"), more as u64, cure);
        }
    }

    async fn companies(&mut self, numbers: &Numbers) -> Result<Vec<String>, StoreError> {
        let mut hollow = Answer::list(self.store.run(&keys::HOLLOW, Args::default()).await?)?;
        while !hollow.is_empty() {
            let company = hollow.text()?;
            let remedy = format!(
                "`narvaro apply` the company file of `{company}`, then remove the company if it is not wanted"
            );
            self.fault(
                format!("company {company}"),
                "it is known by name, and nothing of it is there",
                &remedy,
            );
        }
        let mut answer = Answer::list(self.store.run(&keys::REVISIONS, Args::default()).await?)?;
        let mut companies = Vec::new();
        while !answer.is_empty() {
            let (company, revision) = (answer.text()?, answer.number()?);
            if revision > numbers.revision {
                let said = format!("its revision is {revision}, and only {} were counted", numbers.revision);
                self.fault(
                    format!("company {company}"),
                    said,
                    "`narvaro apply` its company file again until its revision grows",
                );
            }
            companies.push(company);
        }
        companies.sort_unstable();
        Ok(companies)
    }

    async fn numbers(
        &mut self,
        roll: &[MailboxRecord],
        numbers: &Numbers,
        said: u64,
    ) -> Result<(), StoreError> {
        if said != roll.len() as u64 {
            let said = format!("it is {said}, and there are {}", roll.len());
            self.cured("the count of mailboxes", said, 1, ANEW);
        }
        if let Some(last) = roll.last().filter(|last| last.id.0 > numbers.mailbox) {
            let said = format!("it is {}, and there is a mailbox {}", numbers.mailbox, last.id);
            self.cured("the last number of a mailbox", said, 1, ANEW);
        }
        let mut newest = Answer::list(self.store.run(&keys::TRAIL, Args::default().add(0).add(1)).await?)?;
        let newest = if newest.is_empty() { String::new() } else { newest.text()? };
        let newest = newest.split_once(' ').and_then(|(number, _)| number.parse().ok()).unwrap_or(0_u64);
        if newest > numbers.trail {
            let said = format!("it is {}, and there is an entry {newest}", numbers.trail);
            self.fault(
                "the last number of the audit trail",
                said,
                "nothing: entries that are added go on after it; two may have one number",
            );
        }
        Ok(())
    }

    async fn read_mailboxes(&mut self, last: u64) -> Result<(), StoreError> {
        for (first, last) in pieces(last) {
            let args = Args::default().add(first).add(last);
            let mut answer = Answer::list(self.store.run(&keys::FACTS, args).await?)?;
            while !answer.is_empty() {
                let (id, facts) = Facts::read(&mut answer.inner_list()?)?;
                self.mailboxes.insert(id, facts);
            }
        }
        Ok(())
    }

    async fn read_sets(&mut self, companies: &[String]) -> Result<(), StoreError> {
        let mut names: Vec<String> = ["timed", "edges", "leases", "ahead"].map(str::to_owned).into();
        let known = companies.iter().chain(self.mailboxes.values().map(|facts| &facts.company));
        let lanes: HashSet<String> =
            known.flat_map(|company| [format!("ready:{company}"), format!("to-read:{company}")]).collect();
        names.extend(lanes);
        for name in names {
            let members = self.members_of(&name).await?;
            if let Some((first, _)) = members.first() {
                self.firsts.insert(name.clone(), first.clone());
            }
            self.sets.insert(name, members.into_iter().collect());
        }
        Ok(())
    }

    /// Members and scores, the lowest score first.
    async fn members_of(&self, set: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut members = Vec::new();
        loop {
            let args = Args::default().add(set).add(members.len()).add(members.len() + MEMBERS - 1);
            let mut answer = Answer::list(self.store.run(&keys::RANKS, args).await?)?;
            if answer.is_empty() {
                return Ok(members);
            }
            while !answer.is_empty() {
                members.push((answer.text()?, answer.text()?));
            }
        }
    }

    /// Users without a record, records without a user, and what neither has.
    fn records(&mut self, roll: &[MailboxRecord]) {
        let users: HashMap<MailboxId, &MailboxRecord> = roll.iter().map(|user| (user.id, user)).collect();
        let (mut without_record, mut without_user, mut left, mut held) = (vec![], vec![], vec![], vec![]);
        for user in roll {
            let place =
                format!("mailbox {} (company {}, extension {})", user.id, user.company, user.extension);
            match self.mailboxes.get(&user.id) {
                Some(facts)
                    if facts.company == user.company.as_str()
                        && facts.extension == user.extension.as_str() => {}
                Some(facts) if facts.has_record => {
                    let said = format!(
                        "its record is of company `{}`, extension `{}`",
                        facts.company, facts.extension
                    );
                    without_record.push((place, said));
                }
                _ => without_record
                    .push((place, "it is among the company's users, and has no record".to_owned())),
            }
        }
        for (id, facts) in &self.mailboxes {
            if facts.has_record && !users.contains_key(id) {
                let place =
                    format!("mailbox {id} (company {}, extension {})", facts.company, facts.extension);
                without_user.push((place, "it has a record, and is among no company's users".to_owned()));
            } else if !facts.has_record && !users.contains_key(id) {
                left.push((format!("mailbox {id}"), "documents are left of it, and it is gone".to_owned()));
            }
            if facts.is_held && facts.leased_until.is_empty() && facts.has_record {
                held.push((
                    format!("mailbox {id}"),
                    "marks of a lease are held, and there is no lease".to_owned(),
                ));
            }
        }
        for (found, cure) in [(without_record, ANEW), (without_user, LOST), (left, LEFT), (held, ANEW)] {
            self.all(found, cure);
        }
    }

    /// Mailboxes that do not stand where they say.
    fn places(&mut self) {
        let mut found = Vec::new();
        for (id, facts) in self.mailboxes.iter().filter(|(_, facts)| facts.has_record) {
            let place = || format!("mailbox {id}");
            for (set, score) in facts.places() {
                match self.sets.get(&set).and_then(|set| set.get(&id.to_string())) {
                    Some(there) if same(there, score) => {}
                    Some(there) => found.push((
                        place(),
                        format!("it says that it stands in `{set}` at {score}, and stands there at {there}"),
                    )),
                    None => found.push((place(), format!("it says that it stands in `{set}`, and does not"))),
                }
            }
            if facts.is_due && facts.place.is_empty() && facts.leased_until.is_empty() {
                found.push((place(), "it is due, and waits nowhere".to_owned()));
            }
        }
        self.all(found, ANEW);
    }

    /// Members of sets that are not there, or do not say so.
    fn members(&mut self) {
        let mut found = Vec::new();
        for (set, members) in &self.sets {
            let mut strangers: Vec<&String> =
                members.keys().filter(|member| !self.says(member, set)).collect();
            strangers.sort_unstable();
            for member in strangers {
                let known = member.parse().ok().and_then(|id| self.mailboxes.get(&MailboxId(id)));
                let said = match known {
                    Some(facts) if facts.has_record => {
                        format!("mailbox {member} stands in it, and says otherwise")
                    }
                    _ => format!("mailbox {member} stands in it, and there is none"),
                };
                found.push((format!("`{set}`"), said));
            }
        }
        self.all(found, ANEW);
    }

    fn says(&self, member: &str, set: &str) -> bool {
        let facts = member.parse().ok().and_then(|id| self.mailboxes.get(&MailboxId(id)));
        facts.is_some_and(|facts| facts.has_record && facts.places().iter().any(|(place, _)| place == set))
    }

    /// The order of companies against the first of each lane.
    async fn heads(&mut self, heads: &str, lane: &str) -> Result<(), StoreError> {
        let members: HashMap<String, String> = self.members_of(heads).await?.into_iter().collect();
        let mut found = Vec::new();
        let lanes = self.sets.keys().filter_map(|set| set.strip_prefix(lane));
        let companies: HashSet<&str> = lanes.chain(members.keys().map(String::as_str)).collect();
        let mut companies: Vec<&str> = companies.into_iter().collect();
        companies.sort_unstable();
        for company in companies {
            let set = format!("{lane}{company}");
            let first = self.firsts.get(&set).and_then(|first| self.sets.get(&set)?.get(first));
            let agree = match (first, members.get(company)) {
                (None, None) => true,
                (Some(first), Some(head)) => same(first, head),
                _ => false,
            };
            if !agree {
                let told = |score: Option<&String>| score.cloned().unwrap_or_else(|| "nothing".to_owned());
                let said = format!(
                    "company `{company}` begins at {}, and its first waits at {}",
                    told(members.get(company)),
                    told(first)
                );
                found.push((format!("`{heads}`"), said));
            }
        }
        self.all(found, ANEW);
        Ok(())
    }

    async fn jobs(&mut self) -> Result<(), StoreError> {
        let there = super::trail::jobs(self.store.run(&keys::JOBS, Args::default()).await?)?;
        let there: HashSet<String> = there.into_iter().map(|job: JobRecord| job.id).collect();
        for (job, _) in self.members_of("jobs").await? {
            if !there.contains(&job) {
                let cure = Cure {
                    remedy: "start the renewal again; a copy of the store is without this one",
                    in_copy: InCopy::LeftBehind,
                };
                self.cured(format!("job {job}"), "it is known by name, and nothing of it is there", 1, cure);
            }
        }
        Ok(())
    }
}

/// Whether two scores are one.
fn same(one: &str, other: &str) -> bool {
    one == other || one.parse::<f64>().is_ok_and(|one| other.parse() == Ok(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_of_the_table_is_known_with_its_type() {
        let rows = include_str!("keys.rs").lines().filter_map(|line| line.strip_prefix("//! | `"));
        let mut table = Vec::new();
        for row in rows {
            let mut columns = row.split(" | ");
            let names = columns.next().unwrap().split(", ").map(|name| name.trim_matches('`'));
            let types: Vec<&str> = columns.next().unwrap().split(", ").filter(|it| *it != "packed").collect();
            for (index, name) in names.enumerate() {
                let start = name.find(':').map_or(name, |colon| &name[..=colon]);
                table.push((start, *types.get(index).unwrap_or(&types[0])));
            }
        }
        assert_eq!(TYPES.map(|(start, its_type)| (start, in_words(its_type))).as_slice(), table);
    }
}
