//! Where words go: data to stdout, talk to stderr.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use super::Failure;

/// The two streams, and whether writing data went wrong.
pub(super) struct Streams<'a> {
    out: &'a mut dyn Write,
    err: &'a mut dyn Write,
    broken: Option<std::io::Error>,
}

impl<'a> Streams<'a> {
    pub(super) fn new(out: &'a mut dyn Write, err: &'a mut dyn Write) -> Self {
        Self { out, err, broken: None }
    }

    /// Data, with a line's end.
    pub(super) fn data(&mut self, text: &str) {
        let written = writeln!(self.out, "{}", text.trim_end_matches('\n'));
        match written.and_then(|()| self.out.flush()) {
            // The reader has seen enough: `narvaro status | head`.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) => self.broken = self.broken.take().or(Some(error)),
            Ok(()) => {}
        }
    }

    /// Talk. Where stderr is closed there is nobody to tell.
    pub(super) fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{}", text.trim_end_matches('\n'));
    }

    /// Data for scripts.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::of("the answer cannot be written as JSON", &error))?;
        self.data(&text);
        Ok(())
    }

    /// Whether all data was written.
    pub(super) fn written(&mut self) -> Result<(), Failure> {
        match self.broken.take() {
            None => Ok(()),
            Some(error) => Err(Failure::of("the output cannot be written", &error)
                .hint("check the disk that stdout leads to")),
        }
    }
}
