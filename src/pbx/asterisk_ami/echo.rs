//! Telling our own writes' events from others', so that a write does not cost another turn.
//!
//! For each presence and lamp it keeps what was last written over the present connection. An event that says just
//! that is our write coming back. It never hides a difference: the first event that says anything else ends the
//! expectation, and all that follow about that name are told, even if they say again what we wrote. Somebody else's
//! change to the very same value is no difference.
//!
//! Asterisk sends the events of one name in the order of its changes, which is what this rests on; over a new
//! connection nothing is expected.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::codec::Message;

/// What one presence or lamp says, in the words of its event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said(String);

impl Said {
    pub(super) fn presence(state: &str, subtype: &str, message: &str) -> Self {
        // None of what we write holds a control character, so that this is unambiguous.
        Self(format!("{state}\n{subtype}\n{message}"))
    }

    pub(super) fn lamp(state: &str) -> Self {
        Self(state.to_owned())
    }

    /// From an event about a presence.
    pub(super) fn presence_in(event: &Message) -> Self {
        let part = |key| event.get(key).unwrap_or_default();
        Self::presence(part("Status"), part("Subtype"), part("Message"))
    }

    /// From an event about a device.
    pub(super) fn lamp_in(event: &Message) -> Self {
        Self::lamp(event.get("State").unwrap_or_default())
    }
}

/// What is expected to come back, by the name of the presence provider or device.
#[derive(Debug, Default)]
pub(super) struct Echoes {
    expected: Mutex<HashMap<String, Said>>,
}

impl Echoes {
    fn expected(&self) -> MutexGuard<'_, HashMap<String, Said>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That is about to be written.
    pub(super) fn expect(&self, name: &str, said: Said) {
        self.expected().insert(name.to_owned(), said);
    }

    /// What became of that write is not known.
    pub(super) fn forget(&self, name: &str) {
        self.expected().remove(name);
    }

    /// A new connection.
    pub(super) fn forget_all(&self) {
        self.expected().clear();
    }

    /// Whether an event that says this of that name is our own write coming back.
    pub(super) fn is_ours(&self, name: &str, said: &Said) -> bool {
        let mut expected = self.expected();
        let ours = expected.get(name) == Some(said);
        if !ours {
            expected.remove(name);
        }
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "CustomPresence:1001";

    fn meeting() -> Said {
        Said::presence("away", "Möte", "till 11:00")
    }

    #[test]
    fn what_was_written_comes_back_as_often_as_it_likes() {
        let echoes = Echoes::default();
        assert!(!echoes.is_ours(NAME, &meeting()));
        echoes.expect(NAME, meeting());
        assert!(echoes.is_ours(NAME, &meeting()) && echoes.is_ours(NAME, &meeting()));
        assert!(!echoes.is_ours("CustomPresence:1002", &meeting()));
    }

    #[test]
    fn after_a_difference_the_same_value_again_is_news() {
        let echoes = Echoes::default();
        echoes.expect(NAME, meeting());
        assert!(!echoes.is_ours(NAME, &Said::presence("away", "Möte", "")));
        assert!(!echoes.is_ours(NAME, &meeting()));
    }

    #[test]
    fn after_a_write_that_failed_and_over_a_new_connection_nothing_is_expected() {
        let echoes = Echoes::default();
        echoes.expect(NAME, meeting());
        echoes.forget(NAME);
        assert!(!echoes.is_ours(NAME, &meeting()));
        echoes.expect(NAME, meeting());
        echoes.forget_all();
        assert!(!echoes.is_ours(NAME, &meeting()));
    }
}
