//! How fast subjects are judged: the service's matcher with the standard words against Python's `re`.
//!
//! What is timed is what the service does with an event's subject: fold it, find all words, weigh them and say why the
//! losers lost. Python only says whether some word is there, from one compiled alternation. Both read the same
//! subjects and are timed by processor time, around the loop only.

mod subjects;

use std::{
    fs,
    hint::black_box,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use narvaro::{
    company::standard,
    model::{Counting, EndTo, Language, Matching, OverrideRule, Rules},
    timetable::Matcher,
};

use crate::{
    process::own_thread_time,
    report::{self, Promise, median},
};

const ALTERNATION: &str = include_str!("alternation.py");

/// Passes of ours in a round: the kernel's figure for a running thread may be one tick (4 ms) old, which is to be little.
const PASSES: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Subjects, generated
    #[arg(long, default_value_t = 100_000)]
    subjects: usize,
    /// Rounds; the median is taken over them
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(3..))]
    rounds: u32,
}

/// Measures, prints, and returns whether the promise is kept.
pub(crate) fn run(options: &Options) -> anyhow::Result<bool> {
    report::print_machine();
    let rules = standard_rules();
    let matcher = Matcher::new(&rules)?;
    let words: Vec<&str> =
        rules.profiles.iter().flat_map(|profile| &profile.triggers).map(String::as_str).collect();
    let subjects = subjects::generate(options.subjects);
    let characters: usize = subjects.iter().map(|subject| subject.chars().count()).sum();
    println!(
        "{} words; {} subjects of {} characters on average",
        words.len(),
        subjects.len(),
        characters / subjects.len().max(1)
    );
    let folder = tempfile::tempdir()?;
    let mut python = Python::start(folder.path(), &words, &subjects)?;

    println!(
        "\n{:>5} {:>18} {:>18} {:>8}   (hits)",
        "round", "python ns/subject", "judge ns/subject", "ratio"
    );
    let mut ratios = Vec::new();
    for round in 0..=options.rounds {
        let (theirs, their_hits) = python.round()?;
        let (ours, our_hits) = judge_all(&matcher, &subjects)?;
        // The first one warms up.
        if round > 0 {
            let each = |nanoseconds: f64| nanoseconds / subjects.len() as f64;
            let ratio = theirs / ours;
            println!(
                "{round:>5} {:>18.0} {:>18.0} {ratio:>8.1}   ({their_hits}, {our_hits})",
                each(theirs),
                each(ours)
            );
            ratios.push(ratio);
        }
        ensure!(our_hits > 0 && their_hits > 0, "nothing was found: this is not what was to be measured");
    }
    println!("fewer hits here: words inside the name of another profile do not count");
    let ratio = median(ratios).context("no rounds")?;
    Ok(report::judge(&[Promise::at_least("time of Python's alternation / ours", ratio, 10.0, "")]))
}

/// Nanoseconds and hits of one pass over all subjects.
fn judge_all(matcher: &Matcher, subjects: &[String]) -> anyhow::Result<(f64, usize)> {
    let mut hits = 0;
    let before = own_thread_time()?;
    for _ in 0..PASSES {
        let has_word = |subject: &&String| black_box(matcher.judge(subject)).winner.is_some();
        hits = subjects.iter().filter(has_word).count();
    }
    let time = own_thread_time()?.saturating_sub(before) / PASSES;
    Ok((time.as_secs_f64() * 1e9, hits))
}

fn standard_rules() -> Rules {
    Rules {
        language: Language::Sv,
        time_zone: "Europe/Stockholm".to_owned(),
        profiles: standard::profiles(Language::Sv),
        matching: Matching::default(),
        counting: Counting::default(),
        bridge_secs: 0,
        end_to: EndTo::Base,
        override_rule: OverrideRule::UntilEventEnd,
    }
}

/// The other engine, in a process of its own.
struct Python {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Python {
    fn start(folder: &Path, words: &[&str], subjects: &[String]) -> anyhow::Result<Self> {
        let [script, word_file, subject_file] =
            ["alternation.py", "words", "subjects"].map(|name| folder.join(name));
        fs::write(&script, ALTERNATION)?;
        fs::write(&word_file, words.join("\n"))?;
        fs::write(&subject_file, subjects.join("\n"))?;
        let mut child = Command::new("python3")
            .args([script, word_file, subject_file])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("`python3` is needed for comparison and could not be started")?;
        let ask = child.stdin.take().context("no input")?;
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, ask, answers })
    }

    /// Nanoseconds and hits of one round.
    fn round(&mut self) -> anyhow::Result<(f64, usize)> {
        writeln!(self.ask)?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (time, hits) = line.trim().split_once(' ').context("python3 gave up")?;
        Ok((time.parse()?, hits.parse()?))
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended already, and then there is nothing to end.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
