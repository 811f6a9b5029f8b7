//! The same for a store in Redis: from and to it, with what its own structures may have wrong.

use std::sync::Arc;

use narvaro::{
    app::{check_at_rest, survey_at_rest},
    clock::{Clock, SharedClock, SystemClock},
    model::Generation,
    queue::{DueStore, Reason, Replica, Replicas, Settled, Shares},
    store::{
        CopyError,
        embedded::Files,
        portable::{BeginError, Fault, InCopy, Piece, Portable},
        redis::{AtRest, OpenError, Redis, RedisSettings},
    },
};

use super::{HOLD, MANY, apply, clock, copied, deed, fill, filled, summary};
use crate::{
    support::redis::{ClusterOf, PLAIN, RedisServer, link_settings},
    world::World,
};

/// The store at that address, without a service.
pub(super) async fn at_rest(url: &str) -> AtRest {
    AtRest::open(&link_settings(url), "narvaro", url.to_owned()).await.unwrap()
}

async fn open(url: &str, clock: SharedClock) -> Result<Redis, OpenError> {
    let prefix = "narvaro".to_owned();
    let settings =
        RedisSettings { link: link_settings(url), prefix, shares: Shares::of(10_000), trail_entries: 5 };
    Redis::open(&settings, clock).await
}

fn me() -> Replica {
    Replica { name: "a-server".into(), version: "1".into(), started: clock().now(), key: String::new() }
}

async fn faults(server: &RedisServer) -> Vec<Fault> {
    check_at_rest(&at_rest(&server.url()).await, &mut |_| {}).await.faults
}

#[tokio::test]
async fn a_store_goes_to_redis_and_back_and_on_to_a_cluster_and_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (highest, last) = filled(&folder.path().join("a.db")).await;
    let from = Files::open(&folder.path().join("a.db")).unwrap();
    let server = RedisServer::start(PLAIN);
    let there = at_rest(&server.url()).await;
    let whole = copied(&from, &there).await.unwrap();
    assert_eq!(faults(&server).await, []);
    let back = Files::create(&folder.path().join("b.db")).unwrap();
    assert_eq!(copied(&there, &back).await.unwrap(), whole);
    let cluster = ClusterOf::start().await;
    let in_cluster = at_rest(&cluster.url()).await;
    assert_eq!(copied(&there, &in_cluster).await.unwrap(), whole);
    assert_eq!(check_at_rest(&in_cluster, &mut |_| {}).await.faults, []);

    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    store.announce(&me()).await.unwrap();
    apply(&store, "acme", 201..207).await;
    let all: &dyn narvaro::store::Store = &store;
    let new = all.mailboxes().await.unwrap().into_iter().map(|mailbox| mailbox.id).max().unwrap();
    assert!(new > last, "a mailbox that is gone has {last}, and a new one {new}");
    let leases = store.lease(10_000, HOLD).await.unwrap();
    assert_eq!(leases.len(), MANY as usize + 6, "the first start makes every mailbox due");
    let old = leases.iter().filter(|lease| lease.mailbox <= last);
    assert!(old.clone().all(|lease| lease.generation > highest), "i3: generations grow over a copy");
    assert!(old.filter(|lease| lease.gathered.reasons.contains(Reason::Started)).count() > MANY as usize);
    let waiting = leases.iter().filter(|lease| lease.gathered.reasons.contains(Reason::RenewAsked));
    assert_eq!(waiting.clone().count(), 2);
    for lease in waiting {
        assert_eq!(lease.gathered.hints.len(), 2);
        assert_eq!(lease.intent.as_deref(), Some(b"announced".as_slice()));
    }
    let expires = clock().now() + jiff::SignedDuration::from_mins(30);
    assert!(!all.spend("ticket", expires, clock().now()).await.unwrap(), "a spent ticket stays spent");
    all.note(deed("after")).await.unwrap();
    let revision = all.revision().await.unwrap();
    assert!(revision > from.numbers().await.unwrap().revision, "revisions go on growing");
}

#[tokio::test]
async fn generations_go_on_above_those_of_a_store_that_was_started_very_often() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder.path().join("a.db")).await;
    let from = Files::open(&folder.path().join("a.db")).unwrap();
    let server = RedisServer::start(PLAIN);
    let there = at_rest(&server.url()).await;
    // Far beyond what the time gives.
    let high = Generation(1 << 52);
    let numbers = narvaro::store::portable::Numbers { generation: high, ..from.numbers().await.unwrap() };
    there.begin(&numbers).await.unwrap();
    there.put(Piece::Companies(from.companies().await.unwrap())).await.unwrap();
    there.put(Piece::Mailboxes(from.mailboxes_after(None, 10).await.unwrap())).await.unwrap();
    there.complete().await.unwrap();
    assert!(there.numbers().await.unwrap().reach(&numbers));
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    store.announce(&me()).await.unwrap();
    let leases = store.lease(100, HOLD).await.unwrap();
    assert_eq!(leases.len(), 10);
    assert!(leases.iter().all(|lease| lease.generation > high));
}

#[tokio::test]
async fn what_a_service_that_was_killed_holds_is_copied_as_what_waits() {
    let server = RedisServer::start(PLAIN);
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    let (highest, _) = fill(&store).await;
    let held = store.lease(2, HOLD).await.unwrap();
    assert!(held.iter().all(|lease| !lease.gathered.is_empty()));
    drop(store);
    assert_eq!(faults(&server).await, []);
    let from = at_rest(&server.url()).await;
    let folder = tempfile::tempdir().unwrap();
    let files = Files::create(&folder.path().join("a.db")).unwrap();
    let whole = copied(&from, &files).await.unwrap();
    assert_eq!(whole.counts.waiting, 4);
    let mailboxes = files.mailboxes_after(None, 10_000).await.unwrap();
    for lease in held {
        let mailbox = mailboxes.iter().find(|mailbox| mailbox.record.id == lease.mailbox).unwrap();
        assert!(lease.gathered.reasons.iter().all(|reason| mailbox.gathered.reasons.contains(reason)));
        assert_eq!(mailbox.gathered.since, lease.gathered.since);
    }
    drop(files);
    let store = super::open(&folder.path().join("a.db")).unwrap();
    let leases = store.lease(10_000, HOLD).await.unwrap();
    assert!(leases.iter().all(|lease| lease.generation > highest), "i3: generations grow over a copy");
}

#[tokio::test]
async fn announcements_that_nobody_has_looked_for_yet_are_copied_with_their_mailboxes() {
    let server = RedisServer::start(PLAIN);
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    apply(&store, "acme", 201..203).await;
    let leases = store.lease(10, HOLD).await.unwrap();
    for lease in &leases {
        super::settle(&store, lease).await;
    }
    let marked = leases[1].mailbox;
    store.mark(super::waiting_marks(marked)).await.unwrap();
    drop(store);
    assert_eq!(faults(&server).await, []);
    let folder = tempfile::tempdir().unwrap();
    let files = Files::create(&folder.path().join("a.db")).unwrap();
    copied(&at_rest(&server.url()).await, &files).await.unwrap();
    let mailboxes = files.mailboxes_after(None, 10).await.unwrap();
    let mailbox = mailboxes.iter().find(|mailbox| mailbox.record.id == marked).unwrap();
    let items: Vec<_> = mailbox.gathered.hints.iter().map(|hint| hint.item.as_str()).collect();
    assert_eq!(items, ["möte", "annat"]);
    assert_eq!(mailbox.gathered.since, Some(clock().now()), "announcements are as old as they were");
    assert!([Reason::Notification, Reason::Removed].iter().all(|it| mailbox.gathered.reasons.contains(*it)));
    assert!(mailboxes.iter().all(|mailbox| mailbox.record.id == marked || mailbox.gathered.is_empty()));
}

#[tokio::test]
async fn a_store_with_a_living_process_is_neither_copied_nor_copied_into() {
    let server = RedisServer::start(PLAIN);
    let store = open(&server.url(), Arc::new(SystemClock)).await.unwrap();
    store.announce(&me()).await.unwrap();
    let (there, folder) = (at_rest(&server.url()).await, tempfile::tempdir().unwrap());
    let files = Files::create(&folder.path().join("a.db")).unwrap();
    for refused in [copied(&there, &files).await, copied(&files, &there).await] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.ends_with("is in use: 1 process is at work on it: `a-server`"), "{refused}");
    }
    store.leave().await.unwrap();
    copied(&files, &there).await.unwrap();
}

#[tokio::test]
async fn no_service_starts_on_half_a_copy_and_of_two_copies_the_later_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    filled(&folder.path().join("a.db")).await;
    let from = Files::open(&folder.path().join("a.db")).unwrap();
    let server = RedisServer::start(PLAIN);
    let (first, second) = (at_rest(&server.url()).await, at_rest(&server.url()).await);
    let numbers = from.numbers().await.unwrap();
    first.begin(&numbers).await.unwrap();
    first.put(Piece::Companies(from.companies().await.unwrap())).await.unwrap();
    first.put(Piece::Mailboxes(from.mailboxes_after(None, 10_000).await.unwrap())).await.unwrap();
    let refused = open(&server.url(), clock() as SharedClock).await.err().unwrap();
    assert!(matches!(refused, OpenError::Incomplete { .. }), "{refused}");
    let found = faults(&server).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].said, "a copy into it was begun and not finished");
    let files = Files::create(&folder.path().join("b.db")).unwrap();
    assert!(matches!(copied(&first, &files).await, Err(CopyError::SourceIncomplete { .. })));

    second.begin(&numbers).await.unwrap();
    assert_eq!(server.cli(&["KEYS", "*"]).trim(), "{narvaro}:meta", "what the first has left is gone");
    for late in [
        first.put(Piece::Companies(from.companies().await.unwrap())).await,
        first.put(Piece::Mailboxes(from.mailboxes_after(None, 1).await.unwrap())).await,
        first.complete().await,
    ] {
        assert!(late.is_err());
    }
    assert_eq!(summary(&second).await.counts, Default::default());
    let whole = copied(&from, &second).await.unwrap();
    let refused = first.begin(&numbers).await.unwrap_err();
    assert!(matches!(refused, BeginError::NotEmpty { .. }), "{refused}");
    assert_eq!(summary(&first).await, whole);
    open(&server.url(), clock() as SharedClock).await.unwrap();
}

/// Keys that something else has written over.
const OVERWRITTEN: [(&[&str], &str, &str); 4] = [
    (&["SET", "m:3", "x"], "m:3", "it is a string, and has to be a hash"),
    (&["SET", "meta", "x"], "meta", "it is a string, and has to be a hash"),
    (&["LPUSH", "timed", "x"], "timed", "it is a list, and has to be a sorted set"),
    (&["HSET", "recalled:a", "x", "y"], "recalled:a", "it is a hash, and has to be a set"),
];

#[tokio::test]
async fn a_key_of_another_type_is_named_and_the_rest_once_it_is_gone() {
    let server = RedisServer::start(PLAIN);
    for (planted, name, said) in OVERWRITTEN {
        assert_eq!(server.cli(&["FLUSHALL"]).trim(), "OK");
        with_three(&server).await;
        // What the table does not have is nobody's concern, wherever it stands.
        server.cli(&["MSET", "{narvaro}:other", "x", "{narvaro}:meta:x", "x", "m:4", "x"]);
        assert_eq!(faults(&server).await, []);
        let key = format!("{{narvaro}}:{name}");
        server.cli(&["DEL", &key]);
        let words: Vec<&str> = planted.iter().map(|word| if *word == name { &key } else { *word }).collect();
        assert!(!server.cli(&words).contains("ERR"), "{planted:?}");
        let found = faults(&server).await;
        assert_eq!((found[0].place.clone(), found[0].said.as_str()), (format!("key `{key}`"), said));
        assert!(found[0].remedy.contains(&format!("`redis-cli -n 0 del '{key}'`")), "{found:#?}");
        let surveyed = survey_at_rest(&at_rest(&server.url()).await, &mut |_| {}).await.unwrap();
        assert!(surveyed.iter().all(|fault| fault.in_copy == InCopy::InTheWay), "{surveyed:#?}");
        assert_eq!(surveyed[0], found[0], "no copy is begun either");
        let rest = &found[1..];
        assert!(
            rest.iter().all(|fault| fault.remedy == "mend what else is named, and check again"),
            "{rest:#?}"
        );
        server.cli(&["DEL", &key]);
        let left = faults(&server).await;
        assert!(left.iter().all(|fault| !fault.said.contains("cannot be read to its end")), "{left:#?}");
        assert_eq!(left.is_empty(), name == "recalled:a", "what is missing is named: {left:#?}");
    }
}

#[tokio::test]
async fn keys_of_another_type_are_found_among_very_many_and_in_a_cluster() {
    let cluster = ClusterOf::start().await;
    let owner = cluster.master_of("{narvaro}:state:0");
    let script = "for n = 1, 5000 do redis.call('SET', KEYS[1] .. 'state:' .. n, 'x') end \
                  for n = 1, 25 do redis.call('SET', KEYS[1] .. 'users:' .. n, 'x') end";
    owner.cli(&["EVAL", script, "1", "{narvaro}:"]);
    let found = at_rest(&cluster.url()).await.obstacles().await.unwrap();
    assert_eq!(found.len(), 21, "{found:#?}");
    assert!(found[..20].iter().all(|fault| fault.place.starts_with("key `{narvaro}:users:")), "{found:#?}");
    assert_eq!(found[20].said, "5 more are of another type than they have to be");
}

/// What is planted into a whole store, and how it is told.
const PLANTS: [(&[&str], &str, &str); 21] = [
    (&["HSET", "users:acme", "299", "99999"], "mailbox 99999 (company acme, extension 299)", "has no record"),
    (&["DEL", "m:3"], "mailbox 3 (company acme, extension 203)", "has no record"),
    (&["HDEL", "users:acme", "203"], "mailbox 3 (company acme, extension 203)", "among no company's users"),
    (
        &["HSET", "m:3", "e", "777"],
        "mailbox 3 (company acme, extension 203)",
        "its record is of company `acme`, extension `777`",
    ),
    (&["SET", "state:5", "{}"], "mailbox 5", "documents are left of it"),
    (&["HINCRBY", "meta", "mailboxes", "3"], "the count of mailboxes", "it is 6, and there are 3"),
    (&["HSET", "meta", "last", "2"], "the last number of a mailbox", "it is 2, and there is a mailbox 3"),
    (&["HSET", "meta", "trail", "0"], "the last number of the audit trail", "there is an entry 1"),
    (&["HSET", "meta", "revision", "0"], "company acme", "only 0 were counted"),
    (&["SET", "held:3", "\n{\"r\":5}\n"], "mailbox 3", "there is no lease"),
    (&["SADD", "companies", "nobody"], "company nobody", "it is known by name"),
    (&["ZREM", "timed", "1"], "mailbox 1", "it says that it stands in `timed`, and does not"),
    (&["ZADD", "timed", "7", "1"], "mailbox 1", "and stands there at 7"),
    (&["ZREM", "ready:acme", "3"], "mailbox 3", "it says that it stands in `ready:acme`, and does not"),
    (&["HDEL", "m:3", "z"], "mailbox 3", "it is due, and waits nowhere"),
    (&["ZADD", "timed", "7", "88"], "`timed`", "mailbox 88 stands in it, and there is none"),
    (&["ZADD", "ready:acme", "7", "1"], "`ready:acme`", "mailbox 1 stands in it, and says otherwise"),
    (&["ZADD", "leases", "7", "1"], "`leases`", "mailbox 1 stands in it, and says otherwise"),
    (&["ZADD", "heads", "7", "acme"], "`heads`", "company `acme` begins at 7"),
    (
        &["ZADD", "reading-heads", "7", "acme"],
        "`reading-heads`",
        "company `acme` begins at 7, and its first waits at nothing",
    ),
    (&["ZADD", "jobs", "7", "lost"], "job lost", "it is known by name"),
];

/// A store in which mailboxes 1 and 2 wait for a time, and 3 waits to be taken.
async fn with_three(server: &RedisServer) {
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    apply(&store, "acme", 201..204).await;
    for lease in store.lease(2, HOLD).await.unwrap() {
        super::settle(&store, &lease).await;
    }
    let all: &dyn narvaro::store::Store = &store;
    all.note(deed("one")).await.unwrap();
    // As if two more had been there, and were gone.
    server.cli(&["HSET", "{narvaro}:meta", "last", "5"]);
}

#[tokio::test]
async fn each_thing_that_does_not_fit_in_redis_is_found_and_a_copy_mends_what_is_said_to_be() {
    let server = RedisServer::start(PLAIN);
    for (planted, place, said) in PLANTS {
        assert_eq!(server.cli(&["FLUSHALL"]).trim(), "OK");
        with_three(&server).await;
        assert_eq!(faults(&server).await, []);
        let mut words: Vec<String> = planted.iter().map(ToString::to_string).collect();
        words[1] = format!("{{narvaro}}:{}", words[1]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let answered = server.cli(&words);
        assert!(!answered.contains("ERR"), "{planted:?}: {answered}");
        let found = faults(&server).await;
        let named = found.iter().find(|fault| fault.place == place && fault.said.contains(said));
        assert!(named.is_some_and(|fault| !fault.remedy.is_empty()), "{planted:?}: {found:#?}");
        if named.is_some_and(|fault| fault.remedy.contains("`narvaro store copy --with-faults` it")) {
            let other = RedisServer::start(PLAIN);
            copied(&at_rest(&server.url()).await, &at_rest(&other.url()).await).await.unwrap();
            let left = at_rest(&other.url()).await.faults().await.unwrap();
            assert_eq!(left, [], "{planted:?}");
        }
    }
}

#[tokio::test]
async fn a_mailbox_that_is_leased_or_waits_to_be_read_stands_where_it_says() {
    let server = RedisServer::start(PLAIN);
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    apply(&store, "acme", 201..204).await;
    let leases = store.lease(2, HOLD).await.unwrap();
    let next = Settled::Next {
        state: Vec::new(),
        due: None,
        urgency: narvaro::queue::Urgency::Now,
        to_read: Some(narvaro::queue::Urgency::Soon),
    };
    store.settle(&leases[0], next).await.unwrap();
    assert_eq!(faults(&server).await, []);
    let (to_read, leased) = (leases[0].mailbox.to_string(), leases[1].mailbox.to_string());
    for (set, member) in [("to-read:acme", &to_read), ("leases", &leased)] {
        let key = format!("{{narvaro}}:{set}");
        assert_eq!(server.cli(&["ZREM", &key, member]).trim(), "1");
        let said = format!("it says that it stands in `{set}`, and does not");
        let found = faults(&server).await;
        assert!(
            found.iter().any(|fault| fault.place == format!("mailbox {member}") && fault.said == said),
            "{found:#?}"
        );
    }
}

#[tokio::test]
async fn a_service_that_is_moved_to_redis_shows_what_it_would_have_shown() {
    let mut world = World::new().await;
    world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.stop().await;
    let before = world.config().store.url;
    let url = world.move_to_redis();
    let there = at_rest(&url).await;
    match before {
        narvaro::config::StoreUrl::Embedded(path) => {
            copied(&Files::open(&path).unwrap(), &there).await.unwrap();
        }
        narvaro::config::StoreUrl::Redis(_) => {
            panic!("this test begins with files: run it without `NARVARO_TEST_ON_REDIS`")
        }
    }
    world.start().await;
    world.until_fine("acme").await;
    world.advance_to("2026-11-23 10:00").await;
    world.until_shows("201", "meeting").await;
    world.advance_to("2026-11-23 11:00").await;
    world.until_shows("201", "available").await;
    world.end().await;
}

fn narvaro(folder: &std::path::Path, arguments: &[&str]) -> (String, String, Option<i32>) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_narvaro"));
    let said = command.args(arguments).current_dir(folder).env_remove("NARVARO_CONFIG");
    let said = said.env("OLD_STORE", format!("embedded:{}", folder.join("a.db").display())).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (text(said.stdout), text(said.stderr), said.status.code())
}

#[tokio::test]
async fn the_command_reaches_a_redis_with_a_password_that_no_list_of_processes_shows() {
    let server = RedisServer::with_tls();
    let folder = tempfile::tempdir().unwrap();
    filled(&folder.path().join("a.db")).await;
    std::fs::write(folder.path().join("client-state.key"), "a key").unwrap();
    let url = format!("rediss://127.0.0.1:{}", server.port);
    let ca = server.file("ca.pem");
    std::fs::write(folder.path().join("password"), "s3cret").unwrap();
    let config = format!(
        "[store]\nurl = '{url}'\nusername = 'anna'\npassword_file = 'password'\nca_file = '{}'\n",
        ca.display()
    );
    std::fs::write(folder.path().join("narvaro.toml"), config).unwrap();

    let shown = format!("rediss://anna:s3cret@127.0.0.1:{}", server.port);
    let (out, err, code) =
        narvaro(folder.path(), &["store", "copy", "--from", "env:OLD_STORE", "--to", &shown]);
    assert_eq!((out.as_str(), code), ("", Some(1)));
    assert!(err.contains("can be read by everybody on this machine") && !err.contains("s3cret"), "{err}");

    let (out, err, code) =
        narvaro(folder.path(), &["store", "copy", "--from", "env:OLD_STORE", "--to", &url]);
    assert_eq!(code, Some(0), "{err}");
    assert!(out.contains(&format!("into `{url}`, read back and equal.")), "{out}");
    assert!(
        out.contains(
            "client-state.key` to where each process reads it, and name that as `keys.client_state_file`: "
        ),
        "{out}"
    );
    let (out, err, code) = narvaro(folder.path(), &["store", "check"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.ends_with("It holds together.\n"), "{out}");
    let (_, err, code) = narvaro(folder.path(), &["store", "check", "env:NONE"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: the environment variable `NONE` is not set\n"), "{err}");
}

#[tokio::test]
async fn a_store_of_which_a_company_s_users_are_lost_is_not_copied_as_if_it_were_whole() {
    let (server, other) = (RedisServer::start(PLAIN), RedisServer::start(PLAIN));
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    apply(&store, "acme", 201..231).await;
    drop(store);
    assert_eq!(server.cli(&["DEL", "{narvaro}:users:acme"]).trim(), "1");
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (server.url(), other.url());
    let copy = ["store", "copy", "--from", &from, "--to", &to];
    let (out, err, code) = narvaro(folder.path(), &copy);
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    // Each mailbox, each user that has none, and the count of mailboxes.
    assert!(
        err.contains(&format!("`{from}` does not hold together: 61 things do not fit; nothing was written")),
        "{err}"
    );
    assert!(err.contains("of those, 30 left behind, 1 made anew, 30 copied with what is wrong\n"), "{err}");
    assert_eq!(other.cli(&["DBSIZE"]).trim(), "0", "nothing was written");
    let lost =
        faults(&server).await.into_iter().find(|fault| fault.said.contains("no company's users")).unwrap();
    assert!(lost.remedy.contains("a copy of the store leaves this mailbox behind"), "{}", lost.remedy);

    // Half a copy is begun anew as ever.
    let half = at_rest(&to).await;
    half.begin(&at_rest(&from).await.numbers().await.unwrap()).await.unwrap();
    let (out, err, code) = narvaro(folder.path(), &[&copy[..], &["--with-faults"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("was not finished; it is begun anew"), "{err}");
    assert!(out.starts_with("Copied 1 company, 0 mailboxes, "), "{out}");
    let told = format!(
        "Of 61 things that did not fit in `{from}`: 30 left behind, 1 made anew, 30 copied with what is wrong."
    );
    assert!(out.contains(&told), "{out}");
    let left = faults(&other).await;
    assert_eq!(left.len(), 30, "{left:#?}");
    assert!(left.iter().all(|fault| fault.said == "the user has no mailbox"), "{left:#?}");
}

#[tokio::test]
async fn another_database_of_a_redis_is_named_as_empty_and_not_copied() {
    let (server, other) = (RedisServer::start(PLAIN), RedisServer::start(PLAIN));
    with_three(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let (wrong, to) = (format!("{}/9", server.url()), other.url());
    let (out, err, code) = narvaro(folder.path(), &["store", "copy", "--from", &wrong, "--to", &to]);
    assert_eq!((out.as_str(), code), ("", Some(1)), "{err}");
    let told = format!(
        "  caused by: there is nothing at `{wrong}`\n\nhint: see the database number in the URL, and `store.prefix`\n"
    );
    assert!(err.ends_with(&told), "{err}");
    assert_eq!(other.cli(&["DBSIZE"]).trim(), "0", "nothing was written");
    let (out, err, code) = narvaro(folder.path(), &["store", "check", &wrong]);
    let told = format!(
        "There is nothing at `{wrong}`. If that is not expected, see the database number in the URL, and `store.prefix`.\n"
    );
    assert_eq!((out, err.as_str(), code), (told, "", Some(0)));
    let (_, err, code) = narvaro(folder.path(), &["store", "copy", "--from", &server.url(), "--to", &to]);
    assert_eq!(code, Some(0), "{err}");
}

#[tokio::test]
async fn users_that_were_lost_and_put_in_again_are_whole_in_a_copy() {
    let (server, other) = (RedisServer::start(PLAIN), RedisServer::start(PLAIN));
    let store = open(&server.url(), clock() as SharedClock).await.unwrap();
    apply(&store, "acme", 201..204).await;
    assert_eq!(server.cli(&["DEL", "{narvaro}:users:acme"]).trim(), "1");
    // As the remedy says.
    apply(&store, "acme", 0..0).await;
    apply(&store, "acme", 201..204).await;
    drop(store);
    let found = faults(&server).await;
    assert!(found.iter().any(|fault| fault.said.contains("no company's users")), "{found:#?}");
    assert!(found.iter().all(|fault| fault.said != "the user has no mailbox"), "{found:#?}");
    let whole = copied(&at_rest(&server.url()).await, &at_rest(&other.url()).await).await.unwrap();
    assert_eq!(whole.counts.mailboxes, 3);
    assert_eq!(faults(&other).await, []);
}
