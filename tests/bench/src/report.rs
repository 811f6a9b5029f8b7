//! Medians, and promises with what was measured.

use std::time::Duration;

/// The middle of `values`; of an even number the upper of the two. `None` if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// The value below which `share` of `sorted` lie.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into a list that fits into memory"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// The same in milliseconds.
pub(crate) fn millis(sorted: &[Duration], share: f64) -> f64 {
    percentile(sorted, share).as_secs_f64() * 1_000.0
}

/// A promise and what was measured of it.
pub(crate) struct Promise {
    what: String,
    measured: String,
    bound: String,
    kept: bool,
}

impl Promise {
    /// `measured` may be at most `bound`.
    pub(crate) fn at_most(what: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            measured: format!("{measured:.2}{unit}"),
            bound: format!("at most {bound:.2}{unit}"),
            kept: measured <= bound,
        }
    }

    /// `measured` must be at least `bound`.
    pub(crate) fn at_least(what: &str, measured: f64, bound: f64, unit: &str) -> Self {
        Self {
            what: what.to_owned(),
            measured: format!("{measured:.2}{unit}"),
            bound: format!("at least {bound:.2}{unit}"),
            kept: measured >= bound,
        }
    }
}

impl Promise {
    /// At most so many.
    pub(crate) fn no_more(what: &str, counted: usize, bound: usize) -> Self {
        Self::counted(what, counted, format!("at most {bound}"), counted <= bound)
    }

    /// At least so many.
    pub(crate) fn no_fewer(what: &str, counted: usize, bound: usize) -> Self {
        Self::counted(what, counted, format!("at least {bound}"), counted >= bound)
    }

    fn counted(what: &str, counted: usize, bound: String, kept: bool) -> Self {
        Self { what: what.to_owned(), measured: counted.to_string(), bound, kept }
    }
}

/// Prints promises as a table; `true` if all are kept.
pub(crate) fn judge(promises: &[Promise]) -> bool {
    println!();
    for Promise { what, measured, bound, kept } in promises {
        let verdict = if *kept { "PASS" } else { "FAIL" };
        println!("{verdict}  {what:<68} {measured:>10}  ({bound})");
    }
    promises.iter().all(|promise| promise.kept)
}

/// Prints what kind of machine this is, because no number means anything without it.
pub(crate) fn print_machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let cpu =
        cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, cpu)| cpu);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    println!(
        "machine: {cores} cores ({}), Linux {}, load before {load}",
        cpu.unwrap_or("unknown"),
        kernel.trim()
    );
}
