//! All keys, and the scripts that know them.
//!
//! Every key begins with the prefix `{narvaro}:` (`store.prefix`); its hash tag puts all of them into one slot, so that a script
//! may touch any of them, in Redis Cluster too. Only scripts name keys: each is given the prefix and makes the rest. (One is written
//! by [`marker`](super::marker) itself, for a script to find.)
//!
//! | key | type | holds | lives | size |
//! |---|---|---|---|---|
//! | `meta` | hash | layout, last numbers, how many mailboxes, how many entries are in the inbox, run of Redis; while a copy is written, which (`copying`) | always | 200 B |
//! | `companies` | set | companies' ids | always | 60 B a company |
//! | `company:ID` | hash | documents (`applied`, `draft`, `standing`), `revision` | with the company | its documents, some 10 kB |
//! | `users:ID` | hash | extension → mailbox number, `r` behind it where retired | with the company | 20 to 80 B a mailbox |
//! | `m:N` | hash, packed | a mailbox's times, place, lease and generation | with the mailbox | 200 to 300 B |
//! | `state:N` | string | the turn's document, with the timetable | from the first turn on | the document and 70 B |
//! | `inbox` | list | parcels of announcements on their way to their mailboxes: in turn when one came, how many are in it, and its name | until somebody looks what is due | 70 B a parcel |
//! | `parcel:REPLICA:N:ATTEMPT` | string | announcements that came together | with its name in `inbox`; for a minute where its call was not run | 250 B each, up to 100,000 of them in all |
//! | `waiting:N` | string | what has gathered, a line a mark | until it is leased | up to 25 lines of some 200 B |
//! | `held:N` | string | what the lease has gathered | until the turn ends | as `waiting:N` |
//! | `intent:N` | string | what a turn is about to write | until the turn ends | 200 B |
//! | `timed`, `edges` | sorted set | mailboxes that are due later, by time; of the second each is due for an edge, or as urgent | always | 90 B a mailbox |
//! | `ready:ID`, `to-read:ID` | sorted set | a company's mailboxes that are due, and that wait for room to read, by urgency and time | while some are | 90 B each |
//! | `heads`, `reading-heads` | sorted set | companies that have any of these, by their first | while some have | 90 B a company |
//! | `leases` | sorted set | leased mailboxes, by end | while some are | 90 B a worker |
//! | `ahead` | sorted set | mailboxes that are leased ahead of their edge, by the end of the lease | from `queue.ahead_secs` before an edge until its turn ends | 90 B a mailbox |
//! | `recalled:REPLICA` | set | leases given ahead that a replica is to hand back | until it has read them, at most 10 min | 40 B each |
//! | `announced:MINUTE` | string | fingerprints of versions that were announced in a minute, one behind the other | 4 min | 8 B a notification |
//! | `trail` | list | the audit trail, the newest first | `admin.audit_entries` | 200 B each |
//! | `jobs`, `job:ID`, `job-mailboxes:ID` | sorted set, hash, set | jobs, and which mailboxes they are not done with | the newest hundred | 300 B a job |
//! | `tickets` | sorted set | consent links that were used, by when they would have run out | until the next one is used after that | 100 B each |
//! | `alive`, `replicas`, `duties` | sorted set, hash, hash | replicas by when they were heard of, what they say, who does what | 15 s after the last word | 300 B a replica |
//!
//! Channels: `due`, when something is due that was not; `edges`, when an edge comes before all others; `recall:REPLICA`, when something was
//! added to the set of that name; `companies`, with the number of a change.

use std::sync::LazyLock;

use super::script::Script;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            Script::new($file, &[include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $file, ".lua"))])
        });)*
    };
}

scripts! {
    LAYOUT = "layout";
    MAY = "may";
    MARK = "mark";
    LEASE = "lease";
    AHEAD = "ahead";
    RECALLED = "recalled";
    HOLD = "hold";
    READ = "read";
    INTEND = "intend";
    SETTLE = "settle";
    GONE = "gone";
    RELEASE = "release";
    ABANDON = "abandon";
    HAND_BACK = "hand_back";
    LOOK = "look";
    DEPTH = "depth";
    APPLY = "apply";
    DRAFT = "draft";
    STANDING = "standing";
    FORGET = "forget";
    COMPANIES = "companies";
    COMPANY = "company";
    REVISIONS = "revisions";
    USERS = "users";
    REVISION = "revision";
    SPEND = "spend";
    NOTE = "note";
    TRAIL = "trail";
    OPEN_JOB = "open_job";
    ADVANCE_JOB = "advance_job";
    CLOSE_JOB = "close_job";
    CANCEL_JOB = "cancel_job";
    JOBS = "jobs";
    LEFT_OF_JOB = "left_of_job";
    ANNOUNCE = "announce";
    REPLICAS = "replicas";
    DUTY = "duty";
    SIGN_OFF = "sign_off";
    ANOTHER = "another";
    CAUGHT_UP = "caught_up";
    INCOMPLETE = "incomplete";
    NUMBERS = "numbers";
    NEWEST = "newest";
    MAILBOXES = "mailboxes";
    INBOX = "inbox";
    TRAIL_AFTER = "trail_after";
    TICKETS = "tickets";
    BEGIN = "begin";
    CLEAR_MAILBOXES = "clear_mailboxes";
    CLEAR = "clear";
    PUT_COMPANIES = "put_companies";
    PUT_MAILBOXES = "put_mailboxes";
    PUT_TRAIL = "put_trail";
    PUT_JOB = "put_job";
    PUT_TICKETS = "put_tickets";
    COMPLETE = "complete";
    FACTS = "facts";
    RANKS = "ranks";
    HOLLOW = "hollow";
    KINDS = "kinds";
}
