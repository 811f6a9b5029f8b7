//! DND in AstDB, as FreePBX keeps it, without ever taking away what a person has set.
//!
//! `DND/<ext>` must be exactly `YES`, so it cannot carry a mark itself. The mark is a key of its own beside
//! it, `narvaro/dnd/<ext>`: it survives restarts of both sides and is seen by every replica, which a mark in
//! this process or in `Write::previous` (what was written *or found*) is not. What stands there without the
//! mark, or with another value, is a person's and stays.
//!
//! Limit: a person who switches ours off and on again before we write anew leaves the mark in place; the DND
//! then counts as ours.

use crate::model::Extension;

use super::{codec::Action, fields::DND_ON, link::Answer};

const FAMILY: &str = "DND";
const MARKS: &str = "narvaro";
const FREEPBX_USERS: &str = "AMPUSER";

/// What AstDB says about one extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Value of `DND/<ext>`; empty where it is not there.
    pub(super) value: String,
    /// Whether the mark is there.
    pub(super) ours: bool,
    /// FreePBX: the devices that the user of this extension sits at.
    pub(super) devices: Vec<Extension>,
}

/// Whether these words only say that a key is not there (`... not found`, `... could not be deleted`).
pub(super) fn says_no_such_key(reason: &str) -> bool {
    reason.starts_with("Database entry ")
}

/// One write, and whether it does not matter that the key had gone before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) action: Action,
    pub(super) may_be_gone: bool,
}

/// Asks for what [`Found::read`] reads.
pub(super) fn questions(extension: &Extension) -> Vec<Action> {
    let get = |family: &str, key: String| Action::new("DBGet").with("Family", family).with("Key", key);
    vec![
        get(FAMILY, extension.to_string()),
        get(MARKS, mark(extension)),
        get(FREEPBX_USERS, format!("{extension}/device")),
    ]
}

impl Found {
    /// From the answers to [`questions`].
    pub(super) fn read(answers: &[Answer]) -> Self {
        let value = |place: usize| answers.get(place).and_then(stored).unwrap_or_default();
        Self {
            value: value(0),
            ours: !value(1).is_empty(),
            devices: value(2).split('&').filter_map(|device| device.parse().ok()).collect(),
        }
    }

    /// Whether it is on, whoever's it is.
    pub(super) fn is_on(&self) -> bool {
        !self.value.is_empty()
    }

    /// Whether it will be on once we wish for `on`.
    pub(super) fn outcome(&self, on: bool) -> bool {
        on || (self.is_on() && !self.is_removable())
    }

    fn is_removable(&self) -> bool {
        self.ours && self.value == DND_ON
    }

    /// The writes that lead to [`outcome`](Self::outcome). `by_person`: what is wished is what a person had
    /// set, and is theirs again from now on.
    pub(super) fn steps(&self, extension: &Extension, on: bool, by_person: bool) -> Vec<Step> {
        let mark_should_be = on && !by_person && (self.ours || !self.is_on());
        let mut steps = Vec::new();
        // The mark comes first and goes last: a DND of ours is never without it.
        if mark_should_be && !self.ours {
            steps.push(put(MARKS, mark(extension)));
        }
        if on && !self.is_on() {
            steps.push(put(FAMILY, extension.to_string()));
        }
        if !on && self.is_removable() {
            steps.push(delete(FAMILY, extension.to_string()));
        }
        if self.ours && !mark_should_be {
            steps.push(delete(MARKS, mark(extension)));
        }
        steps
    }
}

fn mark(extension: &Extension) -> String {
    format!("dnd/{extension}")
}

fn put(family: &str, key: String) -> Step {
    let action = Action::new("DBPut").with("Family", family).with("Key", key).with("Val", DND_ON);
    Step { action, may_be_gone: false }
}

fn delete(family: &str, key: String) -> Step {
    Step { action: Action::new("DBDel").with("Family", family).with("Key", key), may_be_gone: true }
}

fn stored(answer: &Answer) -> Option<String> {
    let event = answer.events.iter().find(|event| event.is_event("DBGetResponse"))?;
    event.get("Val").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [&str; 0] = [];

    fn found(value: &str, ours: bool) -> Found {
        Found { value: value.to_owned(), ours, devices: Vec::new() }
    }

    /// The steps in short: `DBPut narvaro`.
    fn told(found: &Found, on: bool, by_person: bool) -> Vec<String> {
        let extension = "1001".parse().unwrap();
        let header = |wire: &str, key: &str| {
            wire.lines().find_map(|line| Some(line.strip_prefix(key)?.to_owned())).unwrap()
        };
        let short = |step: Step| {
            let wire = String::from_utf8(step.action.encode("1").unwrap()).unwrap();
            format!("{} {}/{}", header(&wire, "Action: "), header(&wire, "Family: "), header(&wire, "Key: "))
        };
        found.steps(&extension, on, by_person).into_iter().map(short).collect()
    }

    #[test]
    fn dnd_of_ours_is_marked_before_it_is_set_and_unmarked_after_it_is_removed() {
        assert_eq!(told(&found("", false), true, false), ["DBPut narvaro/dnd/1001", "DBPut DND/1001"]);
        assert_eq!(told(&found("YES", true), false, false), ["DBDel DND/1001", "DBDel narvaro/dnd/1001"]);
    }

    #[test]
    fn dnd_that_a_person_has_set_is_neither_marked_nor_removed() {
        assert_eq!(told(&found("YES", false), true, false), NOTHING);
        assert_eq!(told(&found("YES", false), false, false), NOTHING);
        assert!(found("YES", false).outcome(false));
    }

    #[test]
    fn a_value_that_is_not_ours_any_more_stays_and_loses_the_mark() {
        assert_eq!(told(&found("1", true), false, false), ["DBDel narvaro/dnd/1001"]);
        assert!(found("1", true).outcome(false));
    }

    #[test]
    fn a_mark_left_after_a_person_switched_dnd_off_goes() {
        assert_eq!(told(&found("", true), false, false), ["DBDel narvaro/dnd/1001"]);
        assert!(!found("", true).outcome(false));
    }

    #[test]
    fn what_a_person_had_set_is_put_back_as_theirs() {
        assert_eq!(told(&found("", false), true, true), ["DBPut DND/1001"]);
        assert_eq!(told(&found("YES", true), true, true), ["DBDel narvaro/dnd/1001"]);
        assert_eq!(told(&found("", true), true, true), ["DBPut DND/1001", "DBDel narvaro/dnd/1001"]);
    }

    #[test]
    fn doing_it_twice_writes_nothing_more() {
        assert_eq!(told(&found("YES", true), true, false), NOTHING);
        assert_eq!(told(&found("", false), false, false), NOTHING);
    }
}
