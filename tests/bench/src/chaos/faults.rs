//! What goes wrong on purpose: with replicas in one lane, with Redis and the way to it in another, so that both may happen at
//! once. Each lane throws dice of its own and draws its faults from a shuffled deck, so that none is left out.

use std::{
    collections::BTreeMap,
    process::ExitStatus,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use jiff::Timestamp;

use super::LEASE;
use crate::{
    dice::Dice,
    fleet::Fleet,
    relay::Relay,
    site::{Form, Site},
};

/// Longest that an orderly stop may take.
pub(super) const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// What faults are done to.
pub(super) struct Stage {
    pub(super) fleet: Fleet,
    pub(super) site: Mutex<Site>,
    /// Each replica's way to the only Redis; empty in other forms.
    pub(super) ways: Vec<Relay>,
    pub(super) form: Form,
    pub(super) done: Mutex<Done>,
}

/// What was done.
#[derive(Default)]
pub(super) struct Done {
    pub(super) faults: BTreeMap<&'static str, usize>,
    /// How long orderly stops took.
    pub(super) stops: Vec<Duration>,
    pub(super) bad_stops: Vec<String>,
    /// How long it was until a Redis took commands again.
    pub(super) outages: Vec<Duration>,
    /// When which replica was woken.
    pub(super) wakings: Vec<(usize, Timestamp)>,
    /// When which replica was told to stop, and when it was gone.
    pub(super) endings: Vec<Ending>,
}

/// An orderly stop.
#[derive(Debug, Clone)]
pub(super) struct Ending {
    pub(super) replica: usize,
    pub(super) told: Timestamp,
    pub(super) gone: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Rolling,
    Cut,
    Stall,
    FailRedis,
}

impl Fault {
    fn name(self, form: Form) -> &'static str {
        match self {
            Self::Kill => "a replica killed and started again",
            Self::Stop => "a replica stopped for longer than a lease and woken",
            Self::Rolling => "rolling restart of all replicas",
            Self::Cut => "connections to Redis cut",
            Self::Stall => "way to Redis silent for seconds",
            Self::FailRedis if form == Form::Single => "redis-server killed and started again",
            Self::FailRedis => "master of Redis killed, another takes over",
        }
    }
}

/// Names of all faults that a run with this form has to see.
pub(super) fn expected(form: Form) -> Vec<&'static str> {
    deck_of_replicas().iter().chain(deck_of_redis(form)).map(|fault| fault.name(form)).collect()
}

fn deck_of_replicas() -> &'static [Fault] {
    &[Fault::Kill, Fault::Stop, Fault::Rolling]
}

fn deck_of_redis(form: Form) -> &'static [Fault] {
    match form {
        Form::Embedded => &[],
        Form::Single => &[Fault::Cut, Fault::Stall, Fault::FailRedis],
        Form::Sentinel | Form::Cluster => &[Fault::Cut, Fault::FailRedis],
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stage {
    /// Does things to replicas until `end`, each kind at least once.
    pub(super) async fn trouble_replicas(
        self: Arc<Self>,
        dice: Dice,
        began: Instant,
        end: Instant,
    ) -> anyhow::Result<()> {
        self.trouble(deck_of_replicas(), dice, began, end).await
    }

    /// The same to Redis, and the way to it.
    pub(super) async fn trouble_redis(
        self: Arc<Self>,
        dice: Dice,
        began: Instant,
        end: Instant,
    ) -> anyhow::Result<()> {
        self.trouble(deck_of_redis(self.form), dice, began, end).await
    }

    async fn trouble(
        self: &Arc<Self>,
        faults: &[Fault],
        mut dice: Dice,
        began: Instant,
        end: Instant,
    ) -> anyhow::Result<()> {
        let mut seen_all = faults.is_empty();
        while !seen_all || Instant::now() < end {
            let mut deck = faults.to_vec();
            dice.shuffle(&mut deck);
            for fault in deck {
                tokio::time::sleep(dice.millis(1_000, 4_000)).await;
                if seen_all && Instant::now() >= end {
                    return Ok(());
                }
                let name = fault.name(self.form);
                let at = began.elapsed().as_secs_f64();
                let detail = self.cause(fault, &mut dice).await.with_context(|| name.to_owned())?;
                println!("  {at:>6.1} s  {name}{detail}");
                *lock(&self.done).faults.entry(name).or_default() += 1;
            }
            seen_all = true;
            if faults.is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn cause(self: &Arc<Self>, fault: Fault, dice: &mut Dice) -> anyhow::Result<String> {
        let place = dice.below(self.fleet.len());
        match fault {
            Fault::Kill => {
                self.fleet.kill(place)?;
                tokio::time::sleep(dice.millis(100, 3_000)).await;
                self.fleet.start_again(place).await?;
                Ok(format!(": {place}"))
            }
            Fault::Stop => self.stop(place, dice.millis(1_500, 5_000)).await,
            Fault::Rolling => self.roll().await,
            Fault::Cut => {
                match self.ways.get(place) {
                    Some(way) => way.cut(0),
                    None => lock(&self.site).cut()?,
                }
                Ok(format!(": {place}"))
            }
            Fault::Stall => {
                let lasts = dice.millis(2_000, 7_000);
                let way = self.ways.get(place).context("there is no such way")?;
                way.stall(0, true);
                tokio::time::sleep(lasts).await;
                way.stall(0, false);
                Ok(format!(": {place} for {:.1} s", lasts.as_secs_f64()))
            }
            Fault::FailRedis => {
                let down = dice.millis(200, 3_000);
                let stage = Arc::clone(self);
                let took = tokio::task::spawn_blocking(move || lock(&stage.site).fail(down)).await??;
                lock(&self.done).outages.push(took);
                Ok(format!(": away for {:.1} s", took.as_secs_f64()))
            }
        }
    }

    async fn stop(&self, place: usize, longer: Duration) -> anyhow::Result<String> {
        ensure!(self.fleet.signal(place, "STOP")?, "replica {place} does not run");
        tokio::time::sleep(LEASE + longer).await;
        lock(&self.done).wakings.push((place, Timestamp::now()));
        self.fleet.signal(place, "CONT")?;
        Ok(format!(": {place} for {:.1} s", (LEASE + longer).as_secs_f64()))
    }

    async fn roll(&self) -> anyhow::Result<String> {
        let mut slowest = Duration::ZERO;
        for place in 0..self.fleet.len() {
            let ending = Ending { replica: place, told: Timestamp::now(), gone: None };
            lock(&self.done).endings.push(ending);
            let (status, took) = self.fleet.terminate(place).await?;
            if let Some(ending) = lock(&self.done).endings.last_mut() {
                ending.gone = Some(Timestamp::now());
            }
            slowest = slowest.max(took);
            self.note_stop(place, status, took);
            self.fleet.start_again(place).await?;
        }
        Ok(format!(": the slowest stop took {:.1} s", slowest.as_secs_f64()))
    }

    fn note_stop(&self, place: usize, status: ExitStatus, took: Duration) {
        let mut done = lock(&self.done);
        done.stops.push(took);
        if !status.success() {
            done.bad_stops.push(format!("replica {place}: {status} after {took:.1?}"));
        }
    }
}
