//! Change notifications and lifecycle notifications in.
//!
//! A notification is a hint, never data: it says *look at this mailbox*. The receiver checks that the hint is
//! ours (`clientState`), marks the mailbox, and answers 202 once the mark is durable; it calls nobody (I2).
//! Where a notification brings its item, sealed, that is put aside unopened ([`sealed`]) and the rest is the same.
//! Statuses, all of them:
//!
//! | Request | Answer |
//! |---|---|
//! | `POST` with `validationToken` | 200, the token decoded once, `text/plain`, `nosniff`; 400 where it is longer than 4 KiB |
//! | any other method | 405 |
//! | a content type other than JSON, or an encoded body | 415 |
//! | a body over the limit (8 MiB as delivered) | 413 |
//! | a body that takes longer than 10 s to arrive | 408 |
//! | not JSON, or not of the documented shape | 400 |
//! | notifications that do not verify, of unknown mailboxes, of unknown kinds | 202, dropped and counted |
//! | the store cannot take the marks, or not within 2 s | 503, so that Graph delivers again |
//! | more requests under way than allowed | 503 |
//!
//! 202 for what is dropped: Graph retries every other answer for four hours, and an attacker learns nothing.
//!
//! Sources: "Receive change notifications through webhooks" and "Reduce missing subscriptions and change
//! notifications" in Microsoft's Graph documentation, as of 2026-04.

pub mod client_state;
mod compact;
mod notification;
mod receive;
pub mod sealed;

pub use receive::{Receiver, ReceiverLimits};
