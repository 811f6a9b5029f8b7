//! The log of marks that are not worked off: what a 202 rests on.
//!
//! It lies beside the database in segments, `FILE-marks.1`, `FILE-marks.2` and so on, each made at its full length in
//! advance and used again and again. So an append overwrites bytes that the file has already: one `write`, one
//! `fdatasync`, no change to the file's size for the file system to journal, and no checkpoint in between.
//!
//! ```text
//! segment   "NVRMARK1", records, then what is left of an earlier use
//! record    length u32 | CRC-32 u32 | entry u64 | needed u64 | marks      (little endian; CRC over all behind it)
//! mark      mailbox u64 | nanoseconds since 1970 i64 | reason u8 | flags u8 | version u64? | watch u32? | length u16, item?
//! ```
//!
//! Entries count up by one without end. A segment ends where a record does not fit its checksum or does not count on:
//! a record cut by a crash, or one of an earlier use. `needed` is the first entry that was not worked off when
//! the record was written; what lies before the newest `needed` is not read back. A segment is used again once all its
//! entries are worked off.
//!
//! A failed append leaves everything as it was; what it may have written is overwritten by the next one, or read back
//! as a mark that nobody was promised, which is harmless.

use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use tracing::warn;

use crate::{
    chain::Chain,
    model::{ItemVersion, MailboxId},
    queue::{Hint, Mark, Reason},
};

/// Length of a segment in bytes: some 4,000 marks, ten seconds at 400 a second.
const SEGMENT_BYTES: u64 = 1 << 20;

/// First bytes of a segment; the last one is the version of the layout.
const MAGIC: &[u8; 8] = b"NVRMARK1";

/// Length of a record's head in bytes.
const HEAD_BYTES: usize = 24;

/// Longest record in bytes; more marks than fit become several records. A mark alone is far below it.
const RECORD_BYTES: usize = 256 << 10;

/// Segments without use that are kept for the next storm.
const SPARE_SEGMENTS: usize = 2;

const HAS_ITEM: u8 = 1;
const HAS_VERSION: u8 = 2;
const HAS_WATCH: u8 = 4;

/// The log, open for appending.
pub(super) struct MarkLog {
    /// The database's file; segments are named after it.
    beside: PathBuf,
    active: Segment,
    /// Where the next record goes in `active`.
    offset: u64,
    others: Vec<Segment>,
    next_entry: u64,
    buffer: Vec<u8>,
}

struct Segment {
    file: File,
    number: u32,
    /// Its last entry; 0 where it has none.
    last_entry: u64,
}

/// A record that was read back.
pub(super) struct Record {
    /// Its number.
    pub(super) entry: u64,
    /// Its marks.
    pub(super) marks: Vec<Mark>,
}

impl MarkLog {
    /// Opens the log beside `database` and reads back what was not worked off, oldest first.
    pub(super) fn open(database: &Path) -> io::Result<(Self, Vec<Record>)> {
        let mut segments = Vec::new();
        let mut records = Vec::new();
        let (mut needed, mut end) = (0, (0, 0, 0));
        for number in numbers(database)? {
            let file = open_segment(&segment_path(database, number))?;
            let found = read_segment(&file)?;
            let last_entry = found.records.last().map_or(0, |record| record.entry);
            needed = needed.max(found.needed);
            records.extend(found.records);
            if last_entry >= end.0 {
                end = (last_entry, segments.len(), found.end);
            }
            segments.push(Segment { file, number, last_entry });
        }
        if segments.is_empty() {
            segments.push(create_segment(database, 1)?);
            end = (0, 0, MAGIC.len() as u64);
        }
        records.retain(|record| record.entry >= needed);
        records.sort_by_key(|record| record.entry);
        let (last_entry, position, offset) = end;
        let active = segments.swap_remove(position);
        let log = Self {
            beside: database.to_owned(),
            active,
            offset,
            others: segments,
            next_entry: last_entry + 1,
            buffer: Vec::new(),
        };
        Ok((log, records))
    }

    /// Appends marks; when this returns they are on disk. `needed` is the first entry that is not worked off, `None` where
    /// all are. Returns the entry that stands for all of them.
    pub(super) fn append(&mut self, marks: &[Mark], needed: Option<u64>) -> io::Result<u64> {
        let first = self.next_entry;
        // Nothing of this record is needed where it has no marks.
        let needed = needed.unwrap_or(first + u64::from(marks.is_empty()));
        let (mut entry, mut offset) = (first, self.offset);
        let mut marks = marks.iter().peekable();
        loop {
            self.buffer.clear();
            self.buffer.resize(HEAD_BYTES, 0);
            while let Some(mark) = marks.next_if(|_| self.buffer.len() < RECORD_BYTES) {
                put_mark(&mut self.buffer, mark);
            }
            put_head(&mut self.buffer, entry, needed);
            let length = self.buffer.len() as u64;
            if offset + length > SEGMENT_BYTES {
                // What was written before the change of segments has to be as safe as what comes after it.
                self.active.file.sync_data()?;
                self.next_segment(needed)?;
                offset = MAGIC.len() as u64;
            }
            self.active.file.write_all_at(&self.buffer, offset)?;
            // Also where the rest fails: a segment with records that nobody was promised is not used again too early.
            self.active.last_entry = entry;
            offset += length;
            entry += 1;
            if marks.peek().is_none() {
                break;
            }
        }
        self.active.file.sync_data()?;
        self.offset = offset;
        self.next_entry = entry;
        Ok(first)
    }

    /// Writes down what is worked off, before an orderly stop: a start after it reads nothing back that is.
    pub(super) fn close(&mut self, needed: Option<u64>) -> io::Result<()> {
        self.append(&[], needed).map(drop)
    }

    /// Goes on in a segment that nothing of is needed, or in a new one.
    fn next_segment(&mut self, needed: u64) -> io::Result<()> {
        let free = |segment: &Segment| segment.last_entry < needed;
        let next = match self.others.iter().position(free) {
            Some(position) => self.others.swap_remove(position),
            None => {
                let highest = self.others.iter().map(|segment| segment.number).max();
                create_segment(&self.beside, highest.unwrap_or(0).max(self.active.number) + 1)?
            }
        };
        self.others.push(std::mem::replace(&mut self.active, next));
        self.offset = MAGIC.len() as u64;
        self.give_back(needed);
        Ok(())
    }

    /// Deletes what a storm has left behind.
    fn give_back(&mut self, needed: u64) {
        let mut spare = 0;
        self.others.retain(|segment| {
            if segment.last_entry >= needed {
                return true;
            }
            spare += 1;
            if spare <= SPARE_SEGMENTS {
                return true;
            }
            if let Err(error) = std::fs::remove_file(segment_path(&self.beside, segment.number)) {
                // It only takes room.
                warn!(error = %Chain(&error), "A log of marks that is done with could not be deleted");
            }
            false
        });
    }
}

fn segment_path(database: &Path, number: u32) -> PathBuf {
    let mut name = OsString::from(database);
    name.push(format!("-marks.{number}"));
    name.into()
}

/// Numbers of the segments that are there.
fn numbers(database: &Path) -> io::Result<Vec<u32>> {
    let mut stem = database.file_name().unwrap_or_default().to_owned();
    stem.push("-marks.");
    let stem = stem.to_string_lossy().into_owned();
    let mut numbers = Vec::new();
    for file in std::fs::read_dir(folder(database))? {
        let name = file?.file_name();
        if let Some(number) = name.to_string_lossy().strip_prefix(&stem)
            && let Ok(number) = number.parse()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

fn folder(database: &Path) -> &Path {
    database.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_segment(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut magic = [0; MAGIC.len()];
    let whole = file.metadata()?.len() >= SEGMENT_BYTES
        && file.read_exact_at(&mut magic, 0).is_ok()
        && magic != [0; MAGIC.len()];
    if whole && magic != *MAGIC {
        let said = format!("`{}` is no log of marks that this version knows", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, said));
    }
    if !whole {
        // New, or a crash came while it was made: then there is no record in it.
        let mut zeros = vec![0; usize::try_from(SEGMENT_BYTES).unwrap_or_default()];
        zeros[..MAGIC.len()].copy_from_slice(MAGIC);
        file.write_all_at(&zeros, 0)?;
        file.sync_all()?;
    }
    Ok(file)
}

fn create_segment(database: &Path, number: u32) -> io::Result<Segment> {
    let file = open_segment(&segment_path(database, number))?;
    // The name has to be as safe as what will be under it.
    File::open(folder(database))?.sync_all()?;
    Ok(Segment { file, number, last_entry: 0 })
}

struct Found {
    records: Vec<Record>,
    needed: u64,
    end: u64,
}

fn read_segment(file: &File) -> io::Result<Found> {
    let mut bytes = vec![0; usize::try_from(SEGMENT_BYTES).unwrap_or_default()];
    file.read_exact_at(&mut bytes, 0)?;
    let mut found = Found { records: Vec::new(), needed: 0, end: MAGIC.len() as u64 };
    let mut rest = &bytes[MAGIC.len()..];
    while let Some((record, needed, length)) = take_record(rest) {
        if found.records.last().is_some_and(|before| before.entry + 1 != record.entry) {
            break;
        }
        found.records.push(record);
        found.needed = needed;
        found.end += length as u64;
        rest = &rest[length..];
    }
    Ok(found)
}

fn put_head(buffer: &mut [u8], entry: u64, needed: u64) {
    let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
    buffer[..4].copy_from_slice(&length.to_le_bytes());
    buffer[8..16].copy_from_slice(&entry.to_le_bytes());
    buffer[16..24].copy_from_slice(&needed.to_le_bytes());
    let sum = crc32fast::hash(&buffer[8..]);
    buffer[4..8].copy_from_slice(&sum.to_le_bytes());
}

fn take_record(bytes: &[u8]) -> Option<(Record, u64, usize)> {
    let mut head = bytes;
    let length = usize::try_from(u32::from_le_bytes(take(&mut head)?)).ok()?;
    let sum = u32::from_le_bytes(take(&mut head)?);
    let record = bytes.get(8..length)?;
    if crc32fast::hash(record) != sum {
        return None;
    }
    let mut rest = record;
    let entry = u64::from_le_bytes(take(&mut rest)?);
    let needed = u64::from_le_bytes(take(&mut rest)?);
    let mut marks = Vec::new();
    while !rest.is_empty() {
        marks.push(take_mark(&mut rest)?);
    }
    Some((Record { entry, marks }, needed, length))
}

fn put_mark(buffer: &mut Vec<u8>, mark: &Mark) {
    let nanoseconds = i64::try_from(mark.at.as_nanosecond()).unwrap_or(i64::MAX);
    buffer.extend_from_slice(&mark.mailbox.0.to_le_bytes());
    buffer.extend_from_slice(&nanoseconds.to_le_bytes());
    let version = mark.hint.as_ref().and_then(|hint| hint.version).map(ItemVersion::bits);
    let flags = if mark.hint.is_some() { HAS_ITEM } else { 0 }
        | version.map_or(0, |_| HAS_VERSION)
        | mark.watch.map_or(0, |_| HAS_WATCH);
    buffer.extend_from_slice(&[mark.reason.into(), flags]);
    if let Some(version) = version {
        buffer.extend_from_slice(&version.to_le_bytes());
    }
    if let Some(watch) = mark.watch {
        buffer.extend_from_slice(&watch.to_le_bytes());
    }
    if let Some(hint) = &mark.hint {
        let item = hint.item.as_str().as_bytes();
        // An id has at most 1,024 bytes.
        buffer.extend_from_slice(&u16::try_from(item.len()).unwrap_or(u16::MAX).to_le_bytes());
        buffer.extend_from_slice(item);
    }
}

fn take_mark(rest: &mut &[u8]) -> Option<Mark> {
    let mailbox = MailboxId(u64::from_le_bytes(take(rest)?));
    let nanoseconds = i64::from_le_bytes(take(rest)?);
    let [reason, flags] = take(rest)?;
    let version = if flags & HAS_VERSION == 0 { None } else { Some(u64::from_le_bytes(take(rest)?)) };
    let watch = if flags & HAS_WATCH == 0 { None } else { Some(u32::from_le_bytes(take(rest)?)) };
    let hint = if flags & HAS_ITEM == 0 {
        None
    } else {
        let length = usize::from(u16::from_le_bytes(take(rest)?));
        let (item, after) = rest.split_at_checked(length)?;
        *rest = after;
        Some(Hint {
            item: std::str::from_utf8(item).ok()?.parse().ok()?,
            version: version.map(ItemVersion::from_bits),
        })
    };
    let at = Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    Some(Mark { mailbox, at, reason: Reason::from(u64::from(reason)), watch, hint })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mark(mailbox: u64, item: Option<&str>, version: Option<u64>) -> Mark {
        Mark {
            mailbox: MailboxId(mailbox),
            at: "2026-11-23T08:00:00.123456789Z".parse().unwrap(),
            reason: Reason::Notification,
            watch: None,
            hint: item.map(|item| Hint {
                item: item.parse().unwrap(),
                version: version.map(ItemVersion::from_bits),
            }),
        }
    }

    fn database() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("narvaro.db");
        (folder, path)
    }

    fn read_back(database: &Path) -> Vec<(u64, Vec<Mark>)> {
        let (_, records) = MarkLog::open(database).unwrap();
        records.into_iter().map(|record| (record.entry, record.marks)).collect()
    }

    fn first_segment(database: &Path) -> File {
        File::options().write(true).open(segment_path(database, 1)).unwrap()
    }

    #[test]
    fn i1_what_was_appended_is_read_back_with_all_that_it_says() {
        let (_folder, database) = database();
        let (mut log, none) = MarkLog::open(&database).unwrap();
        assert!(none.is_empty());
        let marks = [
            Mark { watch: Some(u32::MAX), ..mark(1, Some("möte="), Some(u64::MAX)) },
            mark(2, Some("AAk="), None),
            Mark { watch: Some(7), reason: Reason::Removed, ..mark(3, None, None) },
        ];
        assert_eq!(log.append(&marks, None).unwrap(), 1);
        assert_eq!(log.append(&[mark(4, None, None)], Some(1)).unwrap(), 2);
        drop(log);
        assert_eq!(read_back(&database), [(1, marks.to_vec()), (2, vec![mark(4, None, None)])]);
    }

    #[test]
    fn what_was_worked_off_is_not_read_back() {
        let (_folder, database) = database();
        let (mut log, _) = MarkLog::open(&database).unwrap();
        for mailbox in 1..=3 {
            log.append(&[mark(mailbox, None, None)], Some(mailbox.min(2))).unwrap();
        }
        drop(log);
        assert_eq!(read_back(&database).iter().map(|(entry, _)| *entry).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn a_record_that_a_crash_has_cut_ends_the_log_and_is_written_over() {
        let (_folder, database) = database();
        let (mut log, _) = MarkLog::open(&database).unwrap();
        log.append(&[mark(1, None, None)], None).unwrap();
        let cut_from = log.offset;
        log.append(&[mark(2, Some("a long id, so that the cut lies within it"), None)], Some(1)).unwrap();
        drop(log);
        first_segment(&database).write_all_at(&[0xff; 8], cut_from + 40).unwrap();
        let (mut log, records) = MarkLog::open(&database).unwrap();
        assert_eq!(records.len(), 1);
        assert_eq!(log.append(&[mark(5, None, None)], Some(1)).unwrap(), 2);
        drop(log);
        assert_eq!(read_back(&database), [(1, vec![mark(1, None, None)]), (2, vec![mark(5, None, None)])]);
    }

    #[test]
    fn segments_are_used_again_once_their_marks_are_worked_off_and_kept_until_then() {
        let (_folder, database) = database();
        let (mut log, _) = MarkLog::open(&database).unwrap();
        let item = "x".repeat(1_000);
        let many: Vec<Mark> = (0..500).map(|n| mark(n, Some(&item), Some(n))).collect();
        let files = || numbers(&database).unwrap().len();
        let mut first_kept = None;
        for round in 0..10 {
            let entry = log.append(&many, first_kept.or(Some(1))).unwrap();
            if round == 7 {
                first_kept = Some(entry);
            }
        }
        assert!(files() >= 4, "nothing was worked off for a while: {}", files());
        let kept_from = first_kept.unwrap();
        let expected = log.next_entry - kept_from;
        drop(log);
        let (mut log, records) = MarkLog::open(&database).unwrap();
        assert_eq!(records.first().unwrap().entry, kept_from);
        assert_eq!(records.len() as u64, expected);
        assert!(records.iter().map(|record| record.entry).is_sorted());
        for _ in 0..20 {
            log.append(&many, None).unwrap();
        }
        assert!(files() <= 2 + SPARE_SEGMENTS, "{} segments", files());
        let last = log.append(&[mark(9, None, None)], None).unwrap();
        drop(log);
        assert_eq!(read_back(&database), [(last, vec![mark(9, None, None)])]);
    }

    #[test]
    fn a_segment_of_another_version_is_refused_and_one_that_was_cut_while_it_was_made_is_made_anew() {
        let (_folder, database) = database();
        drop(MarkLog::open(&database).unwrap());
        first_segment(&database).set_len(100).unwrap();
        assert!(read_back(&database).is_empty());
        first_segment(&database).write_all_at(&[0; 8], 0).unwrap();
        assert!(read_back(&database).is_empty());
        first_segment(&database).write_all_at(b"NVRMARK9", 0).unwrap();
        let refused = MarkLog::open(&database).err().unwrap();
        assert!(refused.to_string().contains("no log of marks that this version knows"), "{refused}");
    }

    proptest! {
        #[test]
        fn damage_anywhere_never_makes_up_a_mark(position in 8_usize..400, byte: u8) {
            let (_folder, database) = database();
            let (mut log, _) = MarkLog::open(&database).unwrap();
            let marks: Vec<Mark> = (0..6).map(|n| mark(n, Some("item"), Some(n))).collect();
            for mark in &marks {
                log.append(std::slice::from_ref(mark), Some(1)).unwrap();
            }
            drop(log);
            first_segment(&database).write_all_at(&[byte], position as u64).unwrap();
            let read: Vec<Mark> = read_back(&database).into_iter().flat_map(|(_, marks)| marks).collect();
            prop_assert!(marks.starts_with(&read));
        }

        #[test]
        fn no_bytes_at_all_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = take_record(&bytes);
            let _ = take_mark(&mut bytes.as_slice());
        }
    }
}
