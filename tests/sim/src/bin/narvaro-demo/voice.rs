//! How the story is told: a line for each thing that happened, when it happened, and a table at the end.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the story is this program's output")]

use std::{error::Error, time::Instant};

use jiff::SignedDuration;

/// Tells, with the seconds since it began to.
pub(crate) struct Voice {
    began: Instant,
}

impl Voice {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// A chapter begins.
    pub(crate) fn chapter(&self, title: &str) {
        println!("\n{title}");
    }

    /// Something happened.
    pub(crate) fn say(&self, text: &str) {
        let at = self.began.elapsed().as_secs_f64();
        println!("  {at:6.2} s  {text}");
    }

    /// A command and what it printed.
    pub(crate) fn command(&self, command: &str, printed: &str) {
        self.say(&format!("$ {command}"));
        for line in printed.lines() {
            self.more(&format!("  {line}"));
        }
    }

    /// More of the same.
    pub(crate) fn more(&self, text: &str) {
        println!("{:12}{text}", "");
    }

    /// A line that stands by itself.
    pub(crate) fn plain(&self, text: &str) {
        println!("{text}");
    }

    /// The measured times.
    pub(crate) fn table(&self, rows: &[(String, SignedDuration)]) {
        let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or(0);
        for (what, took) in rows {
            println!("  {what:width$}  {:>7} ms", took.as_millis());
        }
    }

    /// What the service logged last.
    pub(crate) fn log(&self, lines: &[String]) {
        eprintln!("\nThe service's last lines:");
        for line in lines {
            eprintln!("  {line}");
        }
    }

    /// The story ended badly.
    pub(crate) fn failed(&self, error: &(dyn Error + 'static)) {
        eprintln!("\nerror: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  caused by: {error}");
            cause = error.source();
        }
    }
}
