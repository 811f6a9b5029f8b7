//! A store is moved to another and looked at as a whole, while no service works on it.

mod redis;

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::SignedDuration;
use narvaro::{
    app::check_at_rest,
    clock::{Clock, ManualClock, SharedClock},
    company::{
        records::{CompanyRecord, Records},
        trail::{Deed, JobRecord, Trail, TrailEntry},
    },
    model::{Generation, ItemVersion, MailboxId},
    queue::{DueStore, Hint, Lease, Mark, Reason, Settled, Shares, StoreError, Urgency},
    store::{
        CopyError, Store, copy,
        embedded::{Embedded, EmbeddedSettings, Files, OpenError},
        portable::{
            BeginError, Fault, Numbers, Piece, Portable, SpentTicket, StoredJob, StoredMailbox, Summary,
            sum_up,
        },
    },
};

use crate::support::redis::{PLAIN, RedisServer};

const HOLD: Duration = Duration::from_secs(60);

/// Mailboxes of company `beta`: more than fit into two pieces.
const MANY: u32 = 1_200;

fn clock() -> Arc<ManualClock> {
    ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap())
}

fn open(path: &Path) -> Result<Embedded, OpenError> {
    let settings = EmbeddedSettings { path: path.to_owned(), shares: Shares::of(10_000), trail_entries: 5 };
    Embedded::open(&settings, clock() as SharedClock)
}

fn company(id: &str, extensions: &[String]) -> Vec<u8> {
    let users: String = extensions
        .iter()
        .map(|e| format!("[[users]]\nextension = '{e}'\nalias = 'u{e}@{id}.example'\n"))
        .collect();
    let text = format!("id = '{id}'\nname = '{id}'\n{users}");
    narvaro::company::Company::parse("x", &text).unwrap().company.to_json().into_bytes()
}

async fn apply(store: &dyn Store, id: &str, extensions: std::ops::Range<u32>) {
    let users: Vec<String> = extensions.map(|extension| extension.to_string()).collect();
    let parsed = users.iter().map(|extension| extension.parse().unwrap()).collect();
    store.apply(&id.parse().unwrap(), company(id, &users), parsed).await.unwrap();
}

fn deed(outcome: &str) -> Deed {
    let at = clock().now() + SignedDuration::from_micros(1);
    Deed { at, who: "admin".into(), what: "sync", company: "acme".parse().ok(), outcome: outcome.into() }
}

/// A store with something of everything; the highest generation that it gave, and the highest number of a mailbox.
async fn filled(path: &Path) -> (Generation, MailboxId) {
    fill(&open(path).unwrap()).await
}

async fn fill(store: &dyn Store) -> (Generation, MailboxId) {
    apply(store, "beta", 1_000..1_000 + MANY).await;
    apply(store, "acme", 201..206).await;
    let acme = "acme".parse().unwrap();
    store
        .set_standing(&acme, br#"{"tenant":"01234567-89ab-cdef-0123-456789abcdef"}"#.to_vec())
        .await
        .unwrap();
    store.save_draft(&"gamma".parse().unwrap(), Some("ett utkast".into())).await.unwrap();
    // 205, which has the highest number, goes for good; 204 is on its way.
    apply(store, "acme", 201..205).await;
    let leases = store.lease(10_000, HOLD).await.unwrap();
    assert_eq!(leases.len(), MANY as usize + 5);
    let highest = leases.iter().map(|lease| lease.generation).max().unwrap();
    let last = leases.iter().map(|lease| lease.mailbox).max().unwrap();
    let (gone, leases): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| lease.mailbox == last);
    store.settle(&gone[0], Settled::Gone).await.unwrap();
    let (of_acme, others): (Vec<_>, Vec<_>) = leases.into_iter().partition(|lease| lease.company == acme);
    let (left, settled) = of_acme.split_at(2);
    for lease in left {
        store.intend(lease, b"announced".to_vec()).await.unwrap();
    }
    // At a time, as commits of their own would take a minute.
    futures_util::future::join_all(others.iter().chain(settled).map(|lease| settle(store, lease))).await;
    let left: Vec<MailboxId> = left.iter().map(|lease| lease.mailbox).collect();
    apply(store, "acme", 201..204).await;
    let marks = left.iter().flat_map(|mailbox| waiting_marks(*mailbox)).collect();
    store.mark(marks).await.unwrap();
    for outcome in ["one", "två", "three", "four", "five", "six"] {
        store.note(deed(outcome)).await.unwrap();
    }
    let job = |id: &str| JobRecord::new(id.into(), job_document(id));
    store.open_job(job("first"), vec![], deed("begun")).await.unwrap();
    store.open_job(job("second"), left, deed("begun")).await.unwrap();
    assert!(
        store.spend("ticket", clock().now() + SignedDuration::from_mins(30), clock().now()).await.unwrap()
    );
    (highest, last)
}

fn job_document(id: &str) -> Vec<u8> {
    let progress = r#"{"total":2,"done":0,"failed":[],"finished":false}"#;
    format!(r#"{{"job":"{id}","by":"admin","started":"2026-11-23T08:00:00Z","company":null,"user":null,"progress":{progress}}}"#)
        .into_bytes()
}

async fn settle(store: &dyn Store, lease: &Lease) {
    let due = Some(clock().now() + SignedDuration::from_hours(1));
    let next =
        Settled::Next { state: b"{\"alias\":\"x\"}".to_vec(), due, urgency: Urgency::Upkeep, to_read: None };
    store.settle(lease, next).await.unwrap();
}

fn waiting_marks(mailbox: MailboxId) -> Vec<Mark> {
    let at = clock().now();
    let hint = |item: &str, version| {
        Some(Hint { item: item.parse().unwrap(), version: Some(ItemVersion::from_bits(version)) })
    };
    vec![
        Mark { hint: hint("möte", 7), watch: Some(3), ..Mark::new(mailbox, at, Reason::Notification) },
        Mark { hint: hint("annat", 8), ..Mark::new(mailbox, at, Reason::Notification) },
        Mark::of_watch(mailbox, at, Reason::Removed, 3),
        Mark::new(mailbox, at, Reason::RenewAsked),
    ]
}

async fn summary(store: &dyn Portable) -> Summary {
    sum_up(store, &mut |_| {}).await.unwrap()
}

async fn copied(from: &dyn Portable, to: &dyn Portable) -> Result<Summary, CopyError> {
    copy(from, to, clock().now(), &mut |_| {}).await
}

async fn faults(path: &Path) -> Vec<Fault> {
    check_at_rest(&Files::open(path).unwrap(), &mut |_| {}).await.faults
}

#[tokio::test]
async fn a_copy_is_equal_and_goes_on_where_the_source_was() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b/b.db"));
    let (highest, last) = filled(&source).await;
    let from = Files::open(&source).unwrap();
    let before = summary(&from).await;
    assert_eq!((before.counts.companies, before.counts.mailboxes), (3, u64::from(MANY) + 4));
    assert_eq!((before.counts.waiting, before.counts.trail, before.counts.jobs), (2, 5, 2));
    let to = Files::create(&target).unwrap();
    assert_eq!(copied(&from, &to).await.unwrap(), before);
    assert_eq!(summary(&from).await, before, "the source is as it was");
    drop((from, to));
    assert_eq!(faults(&target).await, []);
    let store = open(&target).unwrap();
    apply(&store, "acme", 201..207).await;
    let new = store.mailboxes().await.unwrap().into_iter().map(|mailbox| mailbox.id).max().unwrap();
    assert!(new > last, "a mailbox that is gone has {last}, and a new one {new}");
    let leases = store.lease(10_000, HOLD).await.unwrap();
    assert!(leases.iter().all(|lease| lease.generation > highest), "i3: generations grow over a copy");
    let waiting: Vec<&Lease> =
        leases.iter().filter(|lease| lease.gathered.reasons.contains(Reason::RenewAsked)).collect();
    assert_eq!(waiting.len(), 2);
    for lease in waiting {
        assert_eq!(lease.gathered.hints.len(), 2);
        assert_eq!(lease.intent.as_deref(), Some(b"announced".as_slice()));
    }
    let again = store.spend("ticket", clock().now() + SignedDuration::from_mins(30), clock().now()).await;
    assert!(!again.unwrap(), "a spent ticket is spent in the copy too");
    store.note(deed("after")).await.unwrap();
}

#[tokio::test]
async fn generations_and_numbers_go_on_in_a_store_that_had_higher_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b.db"));
    filled(&source).await;
    // A store on which services were started often, and which is empty.
    let mut started = Generation(0);
    for _ in 0..3 {
        let store = open(&target).unwrap();
        apply(&store, "old", 1..2).await;
        apply(&store, "old", 0..0).await;
        let lease = store.lease(1, HOLD).await.unwrap().remove(0);
        started = lease.generation;
        store.settle(&lease, Settled::Gone).await.unwrap();
        store.forget(&"old".parse().unwrap()).await.unwrap();
    }
    let to = Files::create(&target).unwrap();
    copied(&Files::open(&source).unwrap(), &to).await.unwrap();
    drop(to);
    let lease = open(&target).unwrap().lease(1, HOLD).await.unwrap().remove(0);
    assert!(lease.generation > started);
}

#[tokio::test]
async fn nothing_is_copied_over_something_and_what_is_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b.db"));
    filled(&source).await;
    apply(&open(&target).unwrap(), "other", 1..3).await;
    let to = Files::create(&target).unwrap();
    let before = summary(&to).await;
    let refused = copied(&Files::open(&source).unwrap(), &to).await.unwrap_err();
    assert!(refused.to_string().ends_with("it has 1 company, 2 mailboxes already"), "{refused}");
    assert_eq!(summary(&to).await, before);
    assert!(!to.is_incomplete().await.unwrap());
}

#[tokio::test]
async fn a_store_in_use_is_neither_copied_nor_copied_into_nor_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let _service = open(&path).unwrap();
    assert!(matches!(Files::open(&path), Err(OpenError::InUse { .. })));
    assert!(matches!(Files::create(&path), Err(OpenError::InUse { .. })));
    let absent = folder.path().join("none/none.db");
    assert!(matches!(Files::open(&absent), Err(OpenError::Absent { .. })));
    assert!(!absent.parent().unwrap().exists(), "looking makes nothing");
}

#[tokio::test]
async fn no_service_starts_while_a_store_is_open_for_copying() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path).await;
    let files = Files::open(&path).unwrap();
    assert!(matches!(open(&path), Err(OpenError::InUse { .. })));
    drop(files);
    open(&path).unwrap();
}

/// What goes wrong with a store on the way.
#[derive(Clone, Copy, PartialEq)]
enum Mishap {
    /// Writing ends after so many parts.
    StopsAfter(usize),
    /// A state is read back otherwise than it was written.
    Alters,
    /// Numbers start anew.
    ForgetsNumbers,
    /// Spent tickets are not kept.
    LosesTickets,
    /// A service is started on it before the end.
    IsStartedOn,
}

/// A store to which something happens.
struct Unlucky {
    store: Files,
    mishap: Mishap,
    written: std::sync::atomic::AtomicUsize,
}

impl Unlucky {
    fn over(store: Files, mishap: Mishap) -> Self {
        Self { store, mishap, written: 0.into() }
    }

    fn written(&self) -> usize {
        self.written.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[async_trait]
impl Portable for Unlucky {
    fn name(&self) -> String {
        "unlucky".into()
    }

    async fn in_use(&self) -> Result<Option<String>, StoreError> {
        let started = self.mishap == Mishap::IsStartedOn && self.written() > 0;
        Ok(started.then(|| "replica 7 is alive".into()))
    }

    async fn is_incomplete(&self) -> Result<bool, StoreError> {
        self.store.is_incomplete().await
    }

    async fn numbers(&self) -> Result<Numbers, StoreError> {
        match self.mishap {
            Mishap::ForgetsNumbers => Ok(Numbers::default()),
            _ => self.store.numbers().await,
        }
    }

    async fn companies(&self) -> Result<Vec<CompanyRecord>, StoreError> {
        self.store.companies().await
    }

    async fn mailboxes_after(
        &self,
        after: Option<MailboxId>,
        most: usize,
    ) -> Result<Vec<StoredMailbox>, StoreError> {
        // Of another size, so that a digest which depended on it would be caught.
        let mut mailboxes = self.store.mailboxes_after(after, most / 3).await?;
        if let (Mishap::Alters, Some(first)) = (self.mishap, mailboxes.first_mut()) {
            first.state.push(b' ');
        }
        Ok(mailboxes)
    }

    async fn trail_after(&self, after: Option<u64>, most: usize) -> Result<Vec<TrailEntry>, StoreError> {
        self.store.trail_after(after, most.min(2)).await
    }

    async fn jobs(&self) -> Result<Vec<StoredJob>, StoreError> {
        self.store.jobs().await
    }

    async fn tickets(&self) -> Result<Vec<SpentTicket>, StoreError> {
        match self.mishap {
            Mishap::LosesTickets => Ok(Vec::new()),
            _ => self.store.tickets().await,
        }
    }

    async fn faults(&self) -> Result<Vec<Fault>, StoreError> {
        self.store.faults().await
    }

    async fn begin(&self, numbers: &Numbers) -> Result<(), BeginError> {
        self.store.begin(numbers).await
    }

    async fn put(&self, piece: Piece) -> Result<(), StoreError> {
        if self.mishap == Mishap::StopsAfter(self.written()) {
            return Err(StoreError::Busy);
        }
        self.written.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.store.put(piece).await
    }

    async fn complete(&self) -> Result<(), StoreError> {
        self.store.complete().await
    }
}

#[tokio::test]
async fn a_copy_that_did_not_come_to_its_end_is_started_on_by_nobody_and_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("a.db"), folder.path().join("b.db"));
    filled(&source).await;
    let from = Files::open(&source).unwrap();
    let before = summary(&from).await;
    for mishap in [
        Mishap::StopsAfter(0),
        Mishap::StopsAfter(3),
        Mishap::StopsAfter(8),
        Mishap::Alters,
        Mishap::ForgetsNumbers,
        Mishap::LosesTickets,
        Mishap::IsStartedOn,
    ] {
        let to = Unlucky::over(Files::create(&target).unwrap(), mishap);
        let failed = copied(&from, &to).await.unwrap_err();
        let told = failed.to_string();
        let expected = match mishap {
            Mishap::StopsAfter(_) => "cannot be written",
            Mishap::Alters => "its digest is ",
            Mishap::ForgetsNumbers => "it would count on from ",
            Mishap::LosesTickets => "1 spent consent link is missing",
            Mishap::IsStartedOn => "is in use: replica 7 is alive",
        };
        assert!(told.contains(expected), "{told}");
        drop(to);
        assert!(matches!(open(&target), Err(OpenError::Incomplete { .. })), "{told}");
        let found = faults(&target).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].said, "a copy into it was begun and not finished");
        let half = Files::open(&target).unwrap();
        let elsewhere = Files::create(&folder.path().join("c.db")).unwrap();
        let refused = copied(&half, &elsewhere).await.unwrap_err();
        assert!(matches!(refused, CopyError::SourceIncomplete { .. }), "{refused}");
    }
    assert_eq!(summary(&from).await, before, "the source is as it was");
    let to = Files::create(&target).unwrap();
    assert_eq!(copied(&from, &to).await.unwrap(), before);
    assert_eq!(summary(&Unlucky::over(to, Mishap::StopsAfter(0))).await, before, "pieces do not count");
    open(&target).unwrap();
}

/// The names of what [`filled`] makes, which a plant relies on.
const FIRST_OF_ACME: u32 = MANY + 1;

#[tokio::test]
async fn each_thing_that_does_not_fit_is_found_with_its_place_and_its_remedy() {
    let n = FIRST_OF_ACME;
    let whole = tempfile::tempdir().unwrap();
    filled(&whole.path().join("a.db")).await;
    assert_eq!(faults(&whole.path().join("a.db")).await, []);
    for (planted, place, said) in [
        (
            "UPDATE mailbox SET company = 'nobody' WHERE extension = '201'",
            format!("mailbox {n} (company nobody, extension 201)"),
            "there is no company `nobody`",
        ),
        (
            "UPDATE company SET applied = NULL WHERE id = 'acme'",
            format!("mailbox {n} (company acme, extension 201)"),
            "nothing is applied of company `acme`",
        ),
        (
            "UPDATE company SET applied = x'7b' WHERE id = 'acme'",
            "company acme".into(),
            "the stored company is damaged",
        ),
        (
            "UPDATE company SET applied = (SELECT applied FROM company WHERE id = 'beta') WHERE id = 'acme'",
            "company acme".into(),
            "what is applied is of company `beta`",
        ),
        (
            "UPDATE company SET applied = CAST(replace(CAST(applied AS TEXT), '\"schema\":1', '\"schema\":99') AS BLOB) WHERE id = 'acme'",
            "company acme".into(),
            "form 99",
        ),
        (
            "UPDATE company SET standing = CAST('{\"tenant\": 5}' AS BLOB) WHERE id = 'acme'",
            "company acme".into(),
            "what is known of its consent cannot be read",
        ),
        (
            "UPDATE mailbox SET state = CAST('[1]' AS BLOB) WHERE extension = '202'",
            format!("mailbox {} (company acme, extension 202)", n + 1),
            "its state cannot be read: ",
        ),
        (
            "UPDATE mailbox SET state = CAST('{\"alias\": []}' AS BLOB) WHERE extension = '202'",
            format!("mailbox {} (company acme, extension 202)", n + 1),
            "its state can be read in part only: `alias` cannot",
        ),
        (
            "UPDATE job SET document = x'7b7d' WHERE id = 'first'",
            "job first".into(),
            "it cannot be read: missing field",
        ),
        (
            "DROP INDEX mailbox_of_extension; UPDATE mailbox SET extension = '201' WHERE extension = '202'",
            format!("mailbox {} (company acme, extension 201)", n + 1),
            "has the same extension",
        ),
        (
            "DELETE FROM mailbox WHERE extension = '203'",
            "company acme, extension 203".into(),
            "the user has no mailbox",
        ),
        (
            "UPDATE mailbox SET retired = 0 WHERE extension = '204'",
            format!("mailbox {} (company acme, extension 204)", n + 3),
            "the company has no such user",
        ),
        (
            "UPDATE mailbox SET retired = 1 WHERE extension = '203'",
            format!("mailbox {} (company acme, extension 203)", n + 2),
            "it is being given up, and the company has the user",
        ),
        (
            "INSERT INTO job_mailbox VALUES ('second', 99999)",
            "job second".into(),
            "it is not done with mailbox 99999, which there is not",
        ),
        (
            "UPDATE mailbox SET extension = 'not one' || char(10) WHERE extension = '203'",
            format!("mailbox {}", n + 2),
            "is not an extension",
        ),
        (
            "UPDATE mailbox SET due = 9000000000000000000 WHERE extension = '203'",
            format!("mailbox {}", n + 2),
            "which is no time",
        ),
        (
            "UPDATE mailbox SET urgency = 7 WHERE extension = '203'",
            format!("mailbox {}", n + 2),
            "its urgency is 7",
        ),
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '(company, extension)', '(company, id)') WHERE name = 'mailbox_of_extension'",
            "the database".into(),
            "mailbox_of_extension",
        ),
        (
            "INSERT INTO meta VALUES ('copying', 1)",
            "the store".into(),
            "a copy into it was begun and not finished",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        for file in std::fs::read_dir(whole.path()).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
        rusqlite::Connection::open(&path).unwrap().execute_batch(planted).unwrap();
        let found = faults(&path).await;
        let named = found.iter().find(|fault| fault.place == place && fault.said.contains(said));
        assert!(named.is_some_and(|fault| !fault.remedy.is_empty()), "{planted}: {found:#?}");
    }
}

#[tokio::test]
async fn a_log_of_marks_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    filled(&path).await;
    let mut segment = path.as_os_str().to_owned();
    segment.push("-marks.1");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[..8].copy_from_slice(b"NVRMARK9");
    std::fs::write(&segment, bytes).unwrap();
    let found = faults(&path).await;
    assert!(
        found.iter().any(|fault| fault.place == "the log of marks" && fault.said.contains("a.db-marks.1")),
        "{found:?}"
    );
}

#[test]
fn what_numbers_reach_is_all_of_them() {
    let low = Numbers { mailbox: 1, trail: 1, generation: Generation(1), revision: 1 };
    assert!(low.reach(&low));
    for higher in [
        Numbers { mailbox: 2, ..low },
        Numbers { trail: 2, ..low },
        Numbers { generation: Generation(2), ..low },
        Numbers { revision: 2, ..low },
    ] {
        assert!(higher.reach(&low) && !low.reach(&higher), "{higher:?}");
    }
}

#[tokio::test]
async fn what_a_crash_has_left_in_the_files_is_read_and_copied_too() {
    let folder = tempfile::tempdir().unwrap();
    let alive = folder.path().join("alive.db");
    let store = open(&alive).unwrap();
    apply(&store, "acme", 201..204).await;
    let lease = store.lease(1, HOLD).await.unwrap().remove(0);
    settle(&store, &lease).await;
    store.mark(waiting_marks(lease.mailbox)).await.unwrap();
    // As the process would leave them now; the index of SQLite's log would be lost.
    for (from, to) in
        [("alive.db", "dead.db"), ("alive.db-wal", "dead.db-wal"), ("alive.db-marks.1", "dead.db-marks.1")]
    {
        std::fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    }
    assert!(std::fs::metadata(folder.path().join("dead.db-wal")).unwrap().len() > 0);
    let dead = Files::open(&folder.path().join("dead.db")).unwrap();
    let to = Files::create(&folder.path().join("new.db")).unwrap();
    let counts = copied(&dead, &to).await.unwrap().counts;
    assert_eq!((counts.companies, counts.mailboxes, counts.waiting), (1, 3, 1));
    let found = to.mailboxes_after(None, 1).await.unwrap().remove(0);
    assert_eq!((found.record.id, found.gathered.hints.len()), (lease.mailbox, 2));
    assert_eq!(found.state, b"{\"alias\":\"x\"}");
}

/// An empty store, with what it lies in.
struct Empty {
    _in: Box<dyn std::any::Any>,
    store: Box<dyn Portable>,
}

/// One of each form.
async fn empty_stores() -> Vec<Empty> {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::create(&folder.path().join("empty.db")).unwrap();
    let server = RedisServer::start(PLAIN);
    let in_redis = redis::at_rest(&server.url()).await;
    vec![
        Empty { _in: Box::new(folder), store: Box::new(files) },
        Empty { _in: Box::new(server), store: Box::new(in_redis) },
    ]
}

#[tokio::test]
async fn every_form_of_store_is_filled_begun_anew_and_copied_from_again() {
    for Empty { _in, store } in empty_stores().await {
        let store = &*store;
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("a.db");
        filled(&source).await;
        let from = Files::open(&source).unwrap();
        let nothing = summary(store).await;
        assert_eq!((nothing.counts, store.in_use().await.unwrap()), (Default::default(), None));
        assert!(!store.is_incomplete().await.unwrap());
        // Half of one, which goes as soon as the next begins.
        let numbers = from.numbers().await.unwrap();
        store.begin(&numbers).await.unwrap();
        store.put(Piece::Companies(from.companies().await.unwrap())).await.unwrap();
        store.put(Piece::Mailboxes(from.mailboxes_after(None, 2_000).await.unwrap())).await.unwrap();
        store.put(Piece::Jobs(from.jobs().await.unwrap())).await.unwrap();
        store.put(Piece::Tickets(from.tickets().await.unwrap())).await.unwrap();
        assert!(store.is_incomplete().await.unwrap());
        store.begin(&numbers).await.unwrap();
        assert_eq!(summary(store).await, nothing);
        assert_eq!(store.tickets().await.unwrap(), []);

        let copied_whole = copied(&from, store).await.unwrap();
        assert_eq!(store.companies().await.unwrap(), from.companies().await.unwrap());
        assert_eq!(store.jobs().await.unwrap(), from.jobs().await.unwrap());
        let mut after = None;
        let mut read = Vec::new();
        while let [.., last] = &store.mailboxes_after(after, 7).await.unwrap()[..] {
            read.extend(store.mailboxes_after(after, 7).await.unwrap());
            after = Some(last.record.id);
        }
        assert_eq!(read, from.mailboxes_after(None, 2_000).await.unwrap());
        assert_eq!(store.faults().await.unwrap(), []);
        assert!(store.numbers().await.unwrap().reach(&numbers));
        let refused = store.begin(&numbers).await.unwrap_err();
        assert!(matches!(&refused, BeginError::NotEmpty { has } if has.contains("3 companies")), "{refused}");

        let back = Files::create(&folder.path().join("back.db")).unwrap();
        assert_eq!(copied(store, &back).await.unwrap(), copied_whole);
        assert!(back.numbers().await.unwrap().reach(&store.numbers().await.unwrap()));
    }
}
