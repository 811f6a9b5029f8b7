//! A simulated month in which nearly everything goes wrong, and presence follows the calendar all the same (issue 3, B1
//! and B2; the figures are those of B3).
//!
//! One clock for the service and the simulator is moved from event to event: to the next edit, fault or sample of the
//! [`plan`], or to what the service's queue or the simulator's delivery have due before. At each stop the test waits
//! until everything has come to rest; nothing sleeps. At the samples every extension is compared with a plain
//! recomputation ([`oracle`]) from the simulator's calendar.
//!
//! **The bound** ([`bound`]): a difference is allowed only for changes younger than the longest time between two
//! sweeps (a lost notification costs that much) and some minutes for single failures. Where Graph, the login or the
//! consent were away meanwhile, until that is over and the service has tried again. Where nothing goes wrong, the
//! bound is nothing: what was changed shows as soon as the turn is done. What shows has to be what the calendar gives
//! with some of those young edits left out and all others in; every other difference fails. A phone whose calendar was
//! kept from us for more than a day has to be let go.
//!
//! At the quiet end everything has to become whole: each mailbox is watched once, by the night at the latest.
//!
//! Edits, faults and samples are drawn from one seed. `NARVARO_MONTH_SEED` gives another one;
//! `scripts/month.sh` runs the long form. The order in which one moment's requests arrive is the machine's own, so a
//! seed replays what happens, not each step of how.

mod bound;
mod dice;
mod figures;
mod oracle;
mod people;
mod plan;
mod town;

use jiff::SignedDuration;

use self::{plan::Form, town::Town};
use crate::world::at;

/// The seed, unless `NARVARO_MONTH_SEED` has another one.
const SEED: u64 = 20_270_328;

/// A number of the environment, or else this one.
fn given(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().unwrap())
}

fn short() -> Form {
    Form {
        seed: given("NARVARO_MONTH_SEED", SEED),
        mailboxes: 21,
        // Stockholm changes to summer time on the 28th.
        from: at("2027-03-25 00:00"),
        days: 6,
        faults: true,
        sample_every: SignedDuration::from_mins(30),
        stride: SignedDuration::from_secs(1),
    }
}

#[tokio::test]
async fn b1_b2_a_week_of_faults_leaves_no_difference_beyond_the_bound_and_no_violation() {
    let form = short();
    println!("seed {}", form.seed);
    println!("{}", Town::settle(form).await.live().await);
}

#[tokio::test]
async fn b3_without_faults_every_edit_shows_at_once() {
    let form = Form { mailboxes: 9, days: 4, faults: false, ..short() };
    println!("seed {}", form.seed);
    println!("{}", Town::settle(form).await.live().await);
}

fn long() -> Form {
    Form {
        mailboxes: usize::try_from(given("NARVARO_MONTH_MAILBOXES", 1_000)).unwrap(),
        from: at("2027-03-01 00:00"),
        days: i64::try_from(given("NARVARO_MONTH_DAYS", 31)).unwrap(),
        stride: SignedDuration::from_secs(60),
        ..short()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes its time: started by scripts/month.sh"]
async fn b1_b2_a_month_of_a_thousand_mailboxes() {
    let form = long();
    println!("seed {}", form.seed);
    println!("{}", Town::settle(form).await.live().await);
}

/// What requests come to does not depend on how many mailboxes there are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes its time: started by scripts/month.sh"]
async fn b3_a_quiet_month_of_a_hundred_mailboxes() {
    let full = long();
    let form = Form { mailboxes: full.mailboxes.min(100), faults: false, ..full };
    println!("seed {}", form.seed);
    println!("{}", Town::settle(form).await.live().await);
}
