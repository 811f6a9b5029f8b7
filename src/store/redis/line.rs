//! Marks as they wait in Redis: a line of JSON each, so that a replica of another version can tell what it knows and keep the
//! rest in mind.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{EventId, ItemVersion},
    queue::{Gathered, Hint, Mark, Reason},
};

/// A mark without its mailbox and time, which stand elsewhere.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(rename = "r")]
    reason: u64,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    watch: Option<u32>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    item: Option<EventId>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    version: Option<ItemVersion>,
}

/// A mark as a line, and as the line that stands for it where items are no longer kept apart.
pub(super) fn lines_of(mark: &Mark) -> (String, String) {
    let (item, version) = mark.hint.as_ref().map_or((None, None), |hint| (Some(&hint.item), hint.version));
    let short = Line { reason: u8::from(mark.reason).into(), watch: mark.watch, item: None, version: None };
    let whole = Line { item: item.cloned(), version, ..short_of(&short) };
    (written(&whole), written(&short))
}

fn short_of(line: &Line) -> Line {
    Line { reason: line.reason, watch: line.watch, item: None, version: None }
}

/// JSON of numbers and of an id, in which a line feed is written as `\n`: nothing of it can fail, or break a line.
fn written(line: &Line) -> String {
    serde_json::to_string(line).unwrap_or_default()
}

/// What lines have come to. A line that is not understood (a later version wrote it) asks for a complete read.
pub(super) fn gathered(lines: &str, since: Option<Timestamp>) -> Gathered {
    let mut gathered = Gathered::default();
    let at = since.unwrap_or(Timestamp::UNIX_EPOCH);
    for line in lines.split('\n').filter(|line| !line.is_empty()) {
        gathered.add(mark_of(line, at));
    }
    gathered.since = since;
    gathered
}

fn mark_of(line: &str, at: Timestamp) -> Mark {
    use crate::model::MailboxId;

    let nobody = MailboxId(0);
    let Ok(line) = serde_json::from_str::<Line>(line) else {
        return Mark::new(nobody, at, Reason::Missed);
    };
    let reason = Reason::from(line.reason);
    let hint = line.item.map(|item| Hint { item, version: line.version });
    Mark { mailbox: nobody, at, reason, watch: line.watch, hint }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MailboxId;

    fn mark(item: Option<&str>) -> Mark {
        let hint = item.map(|item| Hint {
            item: item.parse().unwrap(),
            version: Some(ItemVersion::from_bits(u64::MAX)),
        });
        let at = Timestamp::from_second(1_000).unwrap();
        Mark { mailbox: MailboxId(7), at, reason: Reason::Notification, watch: Some(3), hint }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (whole, short) = lines_of(&mark(Some("möte=\"")));
        assert!(!whole.contains('\n'), "{whole}");
        let mut expected = Gathered::default();
        expected.add(mark(Some("möte=\"")));
        assert_eq!(gathered(&format!("\n{whole}\n"), Timestamp::from_second(1_000).ok()), expected);
        assert!(gathered(&format!("\n{short}\n"), None).overflow);
    }

    #[test]
    fn what_a_later_version_wrote_asks_for_a_complete_read_and_what_it_added_does_no_harm() {
        for line in ["something else", r#"{"r":"?"}"#] {
            assert!(gathered(&format!("\n{line}\n"), None).reasons.contains(Reason::Missed), "{line}");
        }
        assert!(gathered("\n{\"r\":200}\n", None).reasons.contains(Reason::Unknown));
        let more = gathered("\n{\"r\":5,\"later\":[1]}\n", None);
        assert!(more.reasons.contains(Reason::Asked) && !more.reasons.contains(Reason::Missed));
    }
}
