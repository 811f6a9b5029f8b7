//! Marks as they wait in Redis: a line of JSON each, so that a replica of another version can tell what it knows and keep the
//! rest in mind.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    model::{EventId, ItemVersion, MailboxId},
    queue::{Gathered, Hint, Mark, Reason},
};

/// A mark without its mailbox and time, which stand elsewhere.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    #[serde(rename = "r")]
    reason: u64,
    #[serde(rename = "w", skip_serializing_if = "Option::is_none")]
    watch: Option<u32>,
    /// Written by [`add_line`].
    #[serde(rename = "i", skip_serializing)]
    item: Option<EventId>,
    #[serde(rename = "v", skip_serializing)]
    version: Option<ItemVersion>,
}

/// A mark as a line, and as the line that stands for it where items are no longer kept apart.
pub(super) fn lines_of(mark: &Mark) -> (String, String) {
    let written = |add: fn(&mut Vec<u8>, &Mark)| {
        let mut bytes = Vec::new();
        add(&mut bytes, mark);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    (written(add_line), written(add_short))
}

/// Adds an announcement to a parcel of the inbox: a line feed, mailbox, urgency, and the line.
pub(super) fn add_entry(parcel: &mut Vec<u8>, mark: &Mark) {
    parcel.push(b'\n');
    write(parcel, &mark.mailbox.0);
    parcel.push(b' ');
    write(parcel, &(mark.reason.urgency() as u8));
    parcel.push(b' ');
    add_line(parcel, mark);
}

fn add_short(to: &mut Vec<u8>, mark: &Mark) {
    let reason = u8::from(mark.reason).into();
    write(to, &Line { reason, watch: mark.watch, item: None, version: None });
}

/// The item comes after what all lines have: see `take_in` in `common.lua`.
fn add_line(to: &mut Vec<u8>, mark: &Mark) {
    add_short(to, mark);
    let Some(Hint { item, version }) = &mark.hint else { return };
    // What ends it comes later.
    to.pop();
    to.extend_from_slice(b",\"i\":");
    add_id(to, item.as_str());
    if let Some(version) = version {
        to.extend_from_slice(b",\"v\":");
        write(to, version);
    }
    to.push(b'}');
}

/// An id, which has no control characters, as JSON. Those of Exchange need no escapes, and are written as a whole.
fn add_id(to: &mut Vec<u8>, id: &str) {
    // To the end in any case: without a way out it is done for many bytes at a time.
    if id.bytes().fold(true, |plain, byte| plain & (byte != b'"') & (byte != b'\\')) {
        to.push(b'"');
        to.extend_from_slice(id.as_bytes());
        to.push(b'"');
    } else {
        write(to, &id);
    }
}

/// JSON of numbers and of an id: nothing of it can fail.
fn write(to: &mut Vec<u8>, what: &impl Serialize) {
    let _ = serde_json::to_writer(to, what);
}

/// For whom the entries of a parcel are, and their lines.
pub(super) fn entries(parcel: &str) -> impl Iterator<Item = (MailboxId, &str)> {
    // Before the first line feed is nothing.
    parcel.split('\n').skip(1).filter_map(|entry| {
        let mut parts = entry.splitn(3, ' ');
        let mailbox = parts.next()?.parse().ok().map(MailboxId)?;
        Some((mailbox, parts.nth(1)?))
    })
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
    fn an_entry_names_its_mailbox_and_its_line_is_the_short_one_up_to_the_item() {
        let mut parcel = Vec::new();
        let items = ["möte=\"", "back\\slash", "plain"];
        for item in items {
            add_entry(&mut parcel, &mark(Some(item)));
        }
        let parcel = String::from_utf8(parcel).unwrap();
        let lines = items.map(|item| lines_of(&mark(Some(item))));
        let read: Vec<_> = entries(&parcel).collect();
        assert_eq!(read, lines.each_ref().map(|(whole, _)| (MailboxId(7), whole.as_str())));
        for (whole, short) in &lines {
            let (common, _) = whole.split_once(",\"i\":").unwrap();
            assert_eq!(format!("{common}}}"), *short);
        }
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
