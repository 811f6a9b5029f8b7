//! A store without a service: opened for moving and checking, and held against what the service expects of it.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use jiff::Timestamp;

use super::{renewal, standing::Standing};
use crate::{
    chain::Chain,
    clock::{Clock, SystemClock},
    company::{Company, records::CompanyRecord},
    model::{CompanyId, Extension, MailboxId},
    queue::StoreError,
    store::{
        self, CopyError, Stage,
        embedded::{Files, OpenError},
        portable::{self, Fault, InCopy, Portable, StoredJob, StoredMailbox, Summary},
        redis::{self, LinkSettings},
    },
    turn::state::MailboxState,
};

/// Mailboxes that are looked at in one go.
const PIECE: usize = 500;

/// Where a store without a service is.
#[derive(Debug, Clone)]
pub enum Place {
    /// In files.
    Files(PathBuf),
    /// In Redis.
    Redis {
        /// The way there.
        link: Box<LinkSettings>,
        /// The first part of its keys.
        prefix: String,
        /// What to call it in messages.
        name: String,
    },
}

/// Why a store cannot be opened without a service.
#[derive(Debug, thiserror::Error)]
pub enum AtRestError {
    /// Its files.
    #[error(transparent)]
    Files(#[from] OpenError),
    /// Its Redis.
    #[error(transparent)]
    Redis(#[from] redis::OpenError),
}

/// Opens a store that no service uses, to read it.
///
/// # Errors
/// [`AtRestError`], also where there is none.
pub async fn open_at_rest(place: &Place) -> Result<Box<dyn Portable>, AtRestError> {
    match place {
        Place::Files(path) => Ok(Box::new(Files::open(path)?)),
        Place::Redis { link, prefix, name } => in_redis(link, prefix, name).await,
    }
}

/// Opens a store that no service uses, to be copied into; it need not be there yet.
///
/// # Errors
/// [`AtRestError`].
pub async fn create_at_rest(place: &Place) -> Result<Box<dyn Portable>, AtRestError> {
    match place {
        Place::Files(path) => Ok(Box::new(Files::create(path)?)),
        Place::Redis { link, prefix, name } => in_redis(link, prefix, name).await,
    }
}

async fn in_redis(link: &LinkSettings, prefix: &str, name: &str) -> Result<Box<dyn Portable>, AtRestError> {
    Ok(Box::new(redis::AtRest::open(link, prefix, name.to_owned()).await?))
}

/// Copies all that is in one store into another, empty one ([`copy`](crate::store::copy())).
///
/// # Errors
/// [`CopyError`].
pub async fn copy_at_rest(
    from: &dyn Portable,
    to: &dyn Portable,
    told: &mut dyn FnMut(Stage),
) -> Result<Summary, CopyError> {
    store::copy(from, to, now(), told).await
}

fn now() -> Timestamp {
    SystemClock.now()
}

/// Looks whether a store can be copied from, and finds what in it does not fit together, before anything is written anywhere. `told` hears
/// how many mailboxes it has looked at.
///
/// # Errors
/// [`CopyError`]: it is in use, a half copy, or empty.
pub async fn survey_at_rest(from: &dyn Portable, told: &mut dyn FnMut(u64)) -> Result<Vec<Fault>, CopyError> {
    let mut check = Check::default();
    match from.obstacles().await {
        Ok(faults) => check.faults = faults,
        Err(error) => check.unreadable(&error),
    }
    if !check.faults.is_empty() {
        // What is in the way of reading would be told as a store that cannot be reached.
        return Ok(check.faults);
    }
    store::ensure_whole(from).await?;
    if let Err(error) = check.look(from, told).await {
        check.unreadable(&error);
    }
    // Where something is wrong, what is missing was perhaps lost, and is no sign of another store.
    if check.faults.is_empty() {
        store::ensure_filled(from).await?;
    }
    Ok(check.faults)
}

/// What a look at a whole store has found.
pub struct Checked {
    /// What is in it; absent where it could not be read to its end.
    pub summary: Option<Summary>,
    /// What does not fit together.
    pub faults: Vec<Fault>,
    /// Whether nothing at all is in it.
    pub is_empty: bool,
}

/// Reads all that is in a store, and finds what does not fit together. `told` hears how many mailboxes it has read.
pub async fn check_at_rest(store: &dyn Portable, told: &mut dyn FnMut(u64)) -> Checked {
    let mut check = Check::default();
    match check.all(store, told).await {
        Ok((summary, is_empty)) => Checked { summary: Some(summary), faults: check.faults, is_empty },
        Err(error) => {
            check.unreadable(&error);
            Checked { summary: None, faults: check.faults, is_empty: false }
        }
    }
}

#[derive(Default)]
struct Check {
    faults: Vec<Fault>,
    companies: HashMap<CompanyId, Known>,
    extensions: HashMap<(CompanyId, Extension), MailboxId>,
    mailboxes: HashSet<MailboxId>,
}

/// What is known of a company before its mailboxes are looked at.
#[derive(Default)]
struct Known {
    /// Whether something is applied that can be read: else nothing follows for its mailboxes.
    readable: bool,
    applied: bool,
    /// Extensions that are to have a mailbox each.
    users: HashSet<Extension>,
}

impl Check {
    fn fault(&mut self, place: String, said: String, remedy: impl Into<String>) {
        self.faults.push(Fault::new(place, said, remedy));
    }

    fn unreadable(&mut self, error: &StoreError) {
        let remedy = if self.faults.is_empty() {
            "see that the store can be reached, and check again; report it if it stays"
        } else {
            "mend what else is named, and check again"
        };
        let said = format!("it cannot be read to its end: {}", Chain(error));
        let in_copy = InCopy::InTheWay;
        self.faults.push(Fault { in_copy, ..Fault::new("the store", said, remedy) });
    }

    /// Finds what does not fit, and sums up; whether nothing is in it, too.
    async fn all(
        &mut self,
        store: &dyn Portable,
        told: &mut dyn FnMut(u64),
    ) -> Result<(Summary, bool), StoreError> {
        self.faults.extend(store.obstacles().await?);
        if store.is_incomplete().await? {
            self.fault(
                "the store".to_owned(),
                "a copy into it was begun and not finished".to_owned(),
                "copy again, to the end: `narvaro store copy` begins anew",
            );
            return Ok((portable::sum_up(store, told).await?, false));
        }
        self.look(store, &mut |_| {}).await?;
        let is_empty = self.faults.is_empty() && portable::is_empty(store).await?;
        Ok((portable::sum_up(store, told).await?, is_empty))
    }

    /// Finds what does not fit; `told` hears how many mailboxes it has looked at.
    async fn look(&mut self, store: &dyn Portable, told: &mut dyn FnMut(u64)) -> Result<(), StoreError> {
        self.faults.extend(store.faults().await?);
        for company in store.companies().await? {
            self.company(&company);
        }
        let mut after = None;
        loop {
            let mailboxes = store.mailboxes_after(after, PIECE).await?;
            let Some(last) = mailboxes.last() else { break };
            after = Some(last.record.id);
            mailboxes.iter().for_each(|mailbox| self.mailbox(mailbox));
            told(self.mailboxes.len() as u64);
        }
        self.users_without_mailbox();
        for job in store.jobs().await? {
            self.job(&job);
        }
        Ok(())
    }

    fn company(&mut self, record: &CompanyRecord) {
        let place = || format!("company {}", record.id);
        let mut known = Known { applied: record.applied.is_some(), ..Known::default() };
        match record.applied.as_deref().map(|document| Company::from_json(&String::from_utf8_lossy(document)))
        {
            None => {}
            Some(Ok(company)) if *company.id() != record.id => self.fault(
                place(),
                format!("what is applied is of company `{}`", company.id()),
                format!("`narvaro apply` the company file of `{}` again", record.id),
            ),
            Some(Ok(company)) => {
                known.readable = true;
                known.users = company.users().iter().map(|user| user.extension.clone()).collect();
            }
            Some(Err(error)) => self.fault(
                place(),
                Chain(&error).to_string(),
                "`narvaro apply` its company file again; until then the service leaves it out",
            ),
        }
        if let Some(document) = &record.standing
            && let Err(error) = read_standing(document)
        {
            self.fault(
                place(),
                format!("what is known of its consent cannot be read: {error}"),
                format!("let it consent again: `narvaro consent-url {}`", record.id),
            );
        }
        self.companies.insert(record.id.clone(), known);
    }

    fn mailbox(&mut self, mailbox: &StoredMailbox) {
        let record = &mailbox.record;
        let place =
            format!("mailbox {} (company {}, extension {})", record.id, record.company, record.extension);
        self.mailboxes.insert(record.id);
        let key = (record.company.clone(), record.extension.clone());
        if let Some(first) = self.extensions.insert(key, record.id) {
            self.fault(
                place.clone(),
                format!("mailbox {first} has the same extension"),
                "take the user out of the company file, `narvaro apply` it, and once both are gone put the user in again",
            );
        }
        if let Some((said, remedy)) = self.misplaced(mailbox) {
            self.fault(place.clone(), said, remedy);
        }
        match MailboxState::read(&mailbox.state) {
            Ok(state) if state.unread.is_empty() => {}
            Ok(state) => self.fault(
                place,
                format!("its state can be read in part only: `{}` cannot", state.unread.join("`, `")),
                "nothing: its next turn reads the calendar anew, and goes by what could be read",
            ),
            Err(error) => self.fault(
                place,
                format!("its state cannot be read: {error}"),
                "nothing: its next turn reads the calendar anew; what was set by hand is forgotten then",
            ),
        }
    }

    /// What is wrong between a mailbox and its company, with the remedy.
    fn misplaced(&self, mailbox: &StoredMailbox) -> Option<(String, String)> {
        let record = &mailbox.record;
        let company = &record.company;
        let Some(known) = self.companies.get(company) else {
            return Some((
                format!("there is no company `{company}`"),
                format!(
                    "`narvaro apply` the company file of `{company}`, then remove the company if it is not wanted"
                ),
            ));
        };
        if !known.applied {
            return Some((
                format!("nothing is applied of company `{company}`"),
                format!(
                    "`narvaro apply` the company file of `{company}`, then remove the company if it is not wanted"
                ),
            ));
        }
        let is_user = known.users.contains(&record.extension);
        match (known.readable, is_user, record.retired) {
            (true, false, false) => Some((
                "the company has no such user, and it is not being given up".to_owned(),
                "put the user into the company file, `narvaro apply` it, take the user out and apply it again".to_owned(),
            )),
            (true, true, true) => Some((
                "it is being given up, and the company has the user".to_owned(),
                "take the user out of the company file, `narvaro apply` it, and put the user in again".to_owned(),
            )),
            _ => None,
        }
    }

    fn users_without_mailbox(&mut self) {
        let wanted = self.companies.iter().flat_map(|(company, known)| {
            known.users.iter().map(|extension| (company.clone(), extension.clone()))
        });
        let mut missing: Vec<_> = wanted.filter(|key| !self.extensions.contains_key(key)).collect();
        missing.sort();
        for (company, extension) in missing {
            self.fault(
                format!("company {company}, extension {extension}"),
                "the user has no mailbox".to_owned(),
                "take the user out of the company file, `narvaro apply` it, and put the user in again",
            );
        }
    }

    fn job(&mut self, job: &StoredJob) {
        let place = || format!("job {}", job.record.id);
        if let Err(error) = renewal::stored(&job.record) {
            self.fault(
                place(),
                format!("it cannot be read: {error}"),
                "start the renewal again: the service leaves this one alone",
            );
        }
        let gone = job.left.iter().filter(|mailbox| !self.mailboxes.contains(mailbox));
        let gone: Vec<String> = gone.map(ToString::to_string).collect();
        if let Some((first, rest)) = gone.split_first() {
            let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            self.fault(
                place(),
                format!("it is not done with mailbox {first}{more}, which there is not"),
                "nothing: the next start of the service takes it off",
            );
        }
    }
}

fn read_standing(document: &[u8]) -> Result<Standing, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(document))
}
