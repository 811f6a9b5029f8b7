//! What follows from a failure: every port's error answers "and now?" in these words.

use std::time::Duration;

/// What the queue does with a mailbox whose turn failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Try again, not before `after` where the far side named a time; else with back-off.
    Retry {
        /// The far side's own wish (`Retry-After`), counted from the answer.
        after: Option<Duration>,
    },
    /// Trying again soon is useless: a person or a slow process must act first. Looked at again rarely.
    Park,
    /// Nothing is left to be done: the subject of the work is gone.
    Drop,
}
