//! The receiver on Redis against the bare route, and against receivers of other makes that do the same job on Redis.
//!
//! Each is a process of its own, each that stores has a `redis-server` of its own (append-only file, on disk once a second),
//! and all of them are on one core; the load is on another. A round gives all the very same requests, one after the other, in
//! another order each time. Processor time is the kernel's, of all threads of server and Redis, the one that does Redis's
//! `fdatasync` included; what the kernel does for the disk in threads of its own is charged to nobody.
//!
//! A machine may be twice as fast in one second as in the next. So a round's requests are given in slices, to one after the
//! other of those that are compared, and what a round costs is the sum of its slices.
//!
//! Nothing is taken out of a queue while a round is under way, and everything between rounds: turns are no part of the path.
//! Nor is what Redis does with its file because of them, so that is waited for.
//! There are so many mailboxes that a round brings each only a few notifications, fewer than are kept singly, and that in
//! rounds of both kinds as many of them find something waiting already.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};

use super::{
    MARKED, MARKED_AT_LEAST, Options, PACE, PACED_CONNECTIONS,
    deliveries::Deliveries,
    load::{self, ClosedLoop, Connection},
    rivals::{Form, Make, Rivals},
};
use crate::{
    process::{Server, on_core, take_two_cores},
    redis::{self, RedisServer},
    report::{self, Promise, median, percentile},
};

/// Mailboxes that notifications are about: a round brings two to each.
const MAILBOXES: u64 = 15_000;

/// Notifications in a large POST.
const BATCH: usize = super::BATCH;

/// Parts in which the requests of a round are given, at most.
const SLICES: usize = 10;

/// Requests of a part for each connection, at least: of less, beginning and end would be much of it.
const OF_EACH_CONNECTION: usize = 10;

/// Connections over which large POSTs come.
const LARGE_CONNECTIONS: usize = 8;

/// Scripts and commands that a receiver sends to Redis itself; what a script calls is counted by Redis too.
const SENT: [&str; 4] = ["evalsha", "eval", "set", "xadd"];

/// What the receiver of this build is called.
const OURS: &str = "ours";

/// One that takes notifications.
struct Contender {
    name: &'static str,
    server: Server,
    redis: Option<RedisServer>,
    is_ours: bool,
    /// Notifications that ours says it has stored, since its start.
    stored: u64,
}

/// Processor time of a server and of its Redis.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    server: Duration,
    redis: Duration,
}

impl Spent {
    /// Adds what was spent between two looks.
    fn add(&mut self, before: Self, after: Self) {
        self.server += after.server - before.server;
        self.redis += after.redis - before.redis;
    }

    fn each_of(self, posts: usize, sent: f64) -> Cost {
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let posts = posts as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / posts;
        Cost { server: each(self.server), redis: each(self.redis), sent }
    }
}

/// Microseconds of processor time a POST.
#[derive(Debug, Clone, Copy)]
struct Cost {
    server: f64,
    redis: f64,
    /// What was sent to Redis, a POST.
    sent: f64,
}

impl Cost {
    fn total(self) -> f64 {
        self.server + self.redis
    }
}

/// Costs of all rounds of one kind, for each contender.
type Costs = Vec<Vec<Cost>>;

struct Contest {
    contenders: Vec<Contender>,
    deliveries: Deliveries,
    sent: u64,
    stored: u64,
}

/// Measures, prints, and returns whether all promises are kept.
pub(super) fn run(options: &Options, folder: &Path) -> anyhow::Result<bool> {
    report::print_machine();
    let (measured, load) = take_two_cores()?;
    println!("servers and their Redis on core {measured}, the load on core {load}");
    let mut deliveries = Deliveries::new(MAILBOXES)?;
    println!("bodies: {} bytes with one notification, the same for all", deliveries.body_bytes()?);
    println!("Redis {} (appendonly, everysec)", redis::version()?);
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let mut contenders = vec![bare(&program, folder, measured)?, receiver(OURS, &program, folder, measured)?];
    if !options.without_rivals {
        let states = serde_json::to_vec(&deliveries.client_states())?;
        let rivals = Rivals::install(&folder.join("rivals"), &states)?;
        println!("{}", rivals.versions()?);
        contenders.extend(others(&rivals, folder, measured)?);
    }
    if let Some(other) = &options.beside {
        contenders.push(receiver("the other build", other, folder, measured)?);
    }
    let mut contest = Contest { contenders, deliveries, sent: 0, stored: 0 };
    let everybody: Vec<usize> = (0..contest.contenders.len()).collect();
    let two = &everybody[..2];
    contest.round(0, &everybody, options.posts / 5, 1, options.connections)?;

    let (mut single, mut large, mut alone) = (contest.no_costs(), contest.no_costs(), contest.no_costs());
    println!(
        "\nprocessor time (µs a POST; of that, Redis; sent to Redis a POST), closed loop: one notification over {} connections, \
         {BATCH} over {LARGE_CONNECTIONS}, one over a single connection",
        options.connections
    );
    for round in 1..=options.rounds {
        contest.costs(&mut single, round, &everybody, options.posts, 1, options.connections)?;
        contest.costs(&mut large, round, &everybody, options.posts / BATCH, BATCH, LARGE_CONNECTIONS)?;
        contest.costs(&mut alone, round, two, options.posts / 5, 1, 1)?;
    }

    println!("\ntime to the answer at {PACE} POST/s (ms: p50, p99, p99.9)");
    let paced = contest.paced(options.rounds, options.paced_seconds)?;
    contest.judge(&single, &large, &alone, paced)
}

/// A server of a build of this program.
fn serve(program: &Path, kind: &str, folder: &Path, core: usize) -> Command {
    let mut command = on_core(program, Some(core));
    command.args(["serve", kind, "--mailboxes", &MAILBOXES.to_string(), "--store"]).arg(folder);
    command
}

/// The bare route.
fn bare(program: &Path, folder: &Path, core: usize) -> anyhow::Result<Contender> {
    let server = Server::launch("bare", serve(program, "bare", folder, core))?;
    Ok(Contender { name: "bare route", server, redis: None, is_ours: false, stored: 0 })
}

/// The receiver.
fn receiver(name: &'static str, program: &Path, folder: &Path, core: usize) -> anyhow::Result<Contender> {
    let redis = RedisServer::start(&folder.join(name), Some(core), &[])?;
    let mut command = serve(program, "ack", folder, core);
    command.args(["--redis", &redis.url()]);
    Ok(Contender {
        name,
        server: Server::launch(name, command)?,
        redis: Some(redis),
        is_ours: true,
        stored: 0,
    })
}

/// Receivers of other makes.
fn others(rivals: &Rivals, folder: &Path, core: usize) -> anyhow::Result<Vec<Contender>> {
    let mut all = Vec::new();
    for (name, make, form) in [
        ("aiohttp, commands", Make::Aiohttp, Form::Commands),
        ("aiohttp, script", Make::Aiohttp, Form::Script),
        ("Express, commands", Make::Express, Form::Commands),
        ("Express, script", Make::Express, Form::Script),
    ] {
        let redis = RedisServer::start(&folder.join(name.replace(", ", "-")), Some(core), &[])?;
        let server = Server::launch(name, rivals.start(make, form, redis.port, core))?;
        all.push(Contender { name, server, redis: Some(redis), is_ours: false, stored: 0 });
    }
    Ok(all)
}

impl Contender {
    /// Since its start.
    fn spent(&self) -> anyhow::Result<Spent> {
        let redis = self.redis.as_ref().map(RedisServer::cpu_time).transpose()?;
        Ok(Spent {
            server: self.server.cpu_time()?.total(),
            redis: redis.map(|time| time.total()).unwrap_or_default(),
        })
    }

    /// How many of what may be sent has been.
    fn sent(&self) -> anyhow::Result<u64> {
        let Some(redis) = &self.redis else { return Ok(0) };
        let calls = redis.client()?.calls()?;
        let scripts = || SENT[..2].iter().filter_map(|name| calls.get(*name)).sum();
        let commands = || SENT[2..].iter().filter_map(|name| calls.get(*name)).sum::<u64>();
        Ok(if self.name.ends_with("commands") { commands() } else { scripts() })
    }

    /// How many notifications were stored since the last time this was asked; its queue is empty then.
    fn empty(&mut self) -> anyhow::Result<u64> {
        let Some(redis) = &self.redis else { return Ok(0) };
        if self.is_ours {
            let ask = |path| Connection::open(self.server.side_port)?.ask(path);
            let counts: std::collections::BTreeMap<String, u64> = serde_json::from_str(&ask("/counts")?)?;
            let marked = counts.get(MARKED).copied().unwrap_or(0);
            let drained = ask("/drain")?;
            ensure!(drained.parse::<u64>().is_ok(), "the queue could not be worked off: {drained}");
            redis.rewrite_file()?;
            let new = marked - self.stored;
            self.stored = marked;
            return Ok(new);
        }
        let mut client = redis.client()?;
        let stored = client.ask(&["XLEN", "queue"])?.number();
        client.ask(&["DEL", "queue"])?;
        redis.rewrite_file()?;
        Ok(u64::try_from(stored)?)
    }
}

impl Contest {
    fn no_costs(&self) -> Costs {
        self.contenders.iter().map(|_| Vec::new()).collect()
    }

    fn costs(
        &mut self,
        costs: &mut Costs,
        round: u32,
        who: &[usize],
        posts: usize,
        notifications: usize,
        connections: usize,
    ) -> anyhow::Result<()> {
        for (place, cost) in self.round(round, who, posts, notifications, connections)? {
            println!(
                "{round:>3} {notifications:>4} over {connections:>2}  {:<18} {:>9.1} {:>9.1} {:>7.3}",
                self.contenders[place].name,
                cost.total(),
                cost.redis,
                cost.sent
            );
            costs[place].push(cost);
        }
        Ok(())
    }

    /// Gives the same requests to each of `who`, another one first each time.
    fn round(
        &mut self,
        round: u32,
        who: &[usize],
        posts: usize,
        notifications: usize,
        connections: usize,
    ) -> anyhow::Result<Vec<(usize, Cost)>> {
        let requests = self.deliveries.make(posts, notifications);
        let sent = |place: &usize| self.contenders[*place].sent();
        // Redis works for it when it is asked: not while a slice is under way.
        let sent_before: Vec<u64> = who.iter().map(sent).collect::<anyhow::Result<_>>()?;
        let (mut spent, mut counted) = (vec![Spent::default(); who.len()], 0);
        let slice = posts.div_ceil(SLICES).max(OF_EACH_CONNECTION * connections);
        for (number, slice) in requests.chunks(slice).enumerate() {
            // Not counted: with the first request of a connection comes what it takes to accept that.
            let (first, counted_ones) = slice.split_at(connections.min(slice.len()));
            counted += counted_ones.len();
            for turn in 0..who.len() {
                let turn = (round as usize + number + turn) % who.len();
                let contender = &self.contenders[who[turn]];
                let mut closed_loop = ClosedLoop::open(contender.server.port, connections)?;
                closed_loop.send(first)?;
                let before = contender.spent()?;
                closed_loop.send(counted_ones)?;
                spent[turn].add(before, contender.spent()?);
            }
        }
        ensure!(
            counted > 0,
            "{posts} requests are too few for {connections} connections: give more `--posts`"
        );
        let mut costs = Vec::new();
        for (turn, place) in who.iter().enumerate() {
            let sent = self.contenders[*place].sent()? - sent_before[turn];
            costs.push((*place, spent[turn].each_of(counted, super::ratio(sent, posts as u64))));
            self.check_stored(*place, requests.len() * notifications)?;
        }
        Ok(costs)
    }

    /// Whether really everything was stored; empties the queue.
    fn check_stored(&mut self, place: usize, sent: usize) -> anyhow::Result<()> {
        let contender = &mut self.contenders[place];
        if contender.redis.is_none() {
            return Ok(());
        }
        let sent = u64::try_from(sent)?;
        let stored = contender.empty()?;
        if contender.name == OURS {
            self.stored += stored;
            self.sent += sent;
        } else {
            ensure!(stored == sent, "{} has stored {stored} of {sent} notifications", contender.name);
        }
        Ok(())
    }

    /// Ratios of the two p99, ours to the bare route's, one for each round.
    fn paced(&mut self, rounds: u32, seconds: u32) -> anyhow::Result<Vec<f64>> {
        let mut ratios = Vec::new();
        for round in 1..=rounds {
            let requests = self.deliveries.make((PACE * seconds) as usize, 1);
            let mut p99 = [0.0; 2];
            for place in [round as usize % 2, (round as usize + 1) % 2] {
                let port = self.contenders[place].server.port;
                let times = load::paced(port, PACED_CONNECTIONS, Duration::from_secs(1) / PACE, &requests)?;
                let [p50, high, highest] =
                    [0.5, 0.99, 0.999].map(|share| 1e3 * percentile(&times, share).as_secs_f64());
                println!("{round:>3} {:<12} {p50:.2} {high:.2} {highest:.2}", self.contenders[place].name);
                p99[place] = high;
                self.check_stored(place, requests.len())?;
            }
            ratios.push(p99[1] / p99[0]);
        }
        Ok(ratios)
    }

    fn judge(&self, single: &Costs, large: &Costs, alone: &Costs, paced: Vec<f64>) -> anyhow::Result<bool> {
        let middle = |costs: &[Cost], pick: fn(&Cost) -> f64| {
            median(costs.iter().map(pick).collect()).context("no rounds")
        };
        println!("\nmedians (µs a POST; of that, Redis; sent to Redis a POST)");
        for (kind, costs) in [("1 notification", single), ("100", large), ("1, one connection", alone)] {
            for (contender, costs) in self.contenders.iter().zip(costs).filter(|(_, costs)| !costs.is_empty())
            {
                println!(
                    "  {kind:<18} {:<18} {:>9.1} {:>9.1} {:>7.3}",
                    contender.name,
                    middle(costs, |cost| cost.total())?,
                    middle(costs, |cost| cost.redis)?,
                    middle(costs, |cost| cost.sent)?
                );
            }
        }
        let ratios = |of: &[Cost], to: &[Cost]| {
            let each = of.iter().zip(to).map(|(of, to)| of.total() / to.total()).collect();
            median(each).context("no rounds")
        };
        let marked = super::ratio(self.stored, self.sent);
        println!("\nstored: {} of {} notifications ({:.3} %)", self.stored, self.sent, 100.0 * marked);
        let (shared, lonely) = (ratios(&single[0], &single[1])?, ratios(&alone[0], &alone[1])?);
        let extra =
            |costs: &Costs| anyhow::Ok(middle(&costs[1], |c| c.total())? - middle(&costs[0], |c| c.total())?);
        let (extra_shared, extra_lonely) = (extra(single)?, extra(alone)?);
        println!(
            "pipelining across requests {}: a POST costs {extra_shared:.1} µs more than the bare route where many come at once \
             ({:.3} calls of Redis each), and {extra_lonely:.1} µs more where one comes after the other ({:.3} calls); \
             of the bare route's time that is {shared:.2} and {lonely:.2}",
            if extra_shared < extra_lonely { "helps" } else { "does not help" },
            middle(&single[1], |cost| cost.sent)?,
            middle(&alone[1], |cost| cost.sent)?,
        );
        let of_batch = large[1].iter().map(|large| large.total() / BATCH as f64);
        let of_batch = of_batch.zip(&single[1]).map(|(large, single)| large / single.total()).collect();
        let best = |places: [usize; 2]| {
            anyhow::Ok(f64::min(
                ratios(&single[places[0]], &single[1])?,
                ratios(&single[places[1]], &single[1])?,
            ))
        };
        let mut promises = vec![
            Promise::at_least(
                "share of the notifications that were really stored",
                marked,
                MARKED_AT_LEAST,
                "",
            ),
            Promise::at_least(
                "processor time of the bare route / ours with Redis, 1 notification a POST",
                shared,
                0.45,
                "",
            ),
            Promise::at_most(
                "a notification in a POST of 100 / one alone",
                median(of_batch).context("no rounds")?,
                0.25,
                "",
            ),
            Promise::at_most(
                "p99 of the answer at 500 POST/s / the bare route's",
                median(paced).context("no rounds")?,
                2.0,
                "",
            ),
        ];
        for (make, places, least) in [("aiohttp", [2, 3], 5.0), ("Express", [4, 5], 8.0)] {
            if self.contenders.len() > places[1] {
                let what = format!("processor time of {make}, its better form / ours");
                promises.push(Promise::at_least(&what, best(places)?, least, ""));
            }
        }
        Ok(report::judge(&promises))
    }
}
