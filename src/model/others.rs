//! What other versions say in a document: members that this version does not know, and does not lose by writing it anew.
//!
//! Members of objects are found wherever they stand, but not inside lists: what is in a list has no name by which it
//! would be found again.

use std::collections::BTreeMap;

use serde_json::Value;

/// The members of a document that this version does not know.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Others(BTreeMap<String, Other>);

#[derive(Debug, Clone, PartialEq)]
enum Other {
    /// A member that is not known at all.
    Whole(Value),
    /// What is not known inside of one that is.
    Within(Others),
}

impl Others {
    /// What `document` says beyond `known`, which is the same document as this version would write it.
    pub fn of(document: Value, known: &Value) -> Self {
        let Value::Object(members) = document else { return Self::default() };
        let mut found = BTreeMap::new();
        for (name, value) in members {
            let other = match known.get(&name) {
                None => Other::Whole(value),
                Some(known) => match Self::of(value, known) {
                    Self(inner) if inner.is_empty() => continue,
                    inner => Other::Within(inner),
                },
            };
            found.insert(name, other);
        }
        Self(found)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts them back where they stood, as far as what they stood in is still there. What the document says stays.
    pub fn put_back(&self, document: &mut Value) {
        let Value::Object(members) = document else { return };
        for (name, other) in &self.0 {
            match (members.get_mut(name), other) {
                (Some(there), Other::Within(inner)) => inner.put_back(there),
                (None, Other::Whole(value)) => drop(members.insert(name.clone(), value.clone())),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_known_comes_back_wherever_it_stood_and_never_over_what_is_said_now() {
        let document = json!({
            "mood": "new", "watch": { "id": "a", "tint": 1 }, "list": [{ "lost": true }], "gone": { "x": 1, "y": 2 },
            "ended": { "x": 1, "y": 2 },
        });
        let known = json!({ "ended": { "x": 1 }, "watch": { "id": "a" }, "list": [{}], "gone": { "x": 1 } });
        let others = Others::of(document, &known);
        let mut now = json!({ "watch": { "id": "b" }, "list": [], "gone": null, "more": 3 });
        others.put_back(&mut now);
        let expected = json!({
            "mood": "new", "watch": { "id": "b", "tint": 1 }, "list": [], "gone": null, "more": 3,
        });
        assert_eq!(now, expected);
        let mut claimed = json!({ "mood": "mine" });
        others.put_back(&mut claimed);
        assert_eq!(claimed["mood"], "mine");
        assert!(Others::of(known.clone(), &known).is_empty());
    }
}
