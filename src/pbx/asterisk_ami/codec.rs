//! The Asterisk Manager Interface on the wire: `Key: value` lines, a blank line after each message.
//!
//! [`Action`] writes. What would become a second header, or a second action, cannot be written: CR, LF and
//! NUL are refused in every key and value, and so is what Asterisk would discard (lines over 1,024 bytes,
//! more than 128 lines). [`Decoder`] reads, in pieces of any size, and holds at most [`MAX_BUFFERED`] bytes.
//!
//! It does not match answers to questions: that is the link's work.

use std::fmt;

/// Longest line that Asterisk takes, CR LF included. A longer one makes it discard the message.
pub(super) const MAX_LINE: usize = 1024;

/// Most headers that Asterisk takes in one message.
const MAX_LINES: usize = 128;

/// Most bytes held of a message that is not complete yet; Asterisk's own stay far below.
pub(super) const MAX_BUFFERED: usize = 256 * 1024;

/// How the first line starts on every version of Asterisk; the interface's version number follows.
const BANNER: &str = "Asterisk Call Manager/";

/// Bytes that cannot be AMI, or cannot be sent as AMI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    #[error("the header `{key}` would break out of its line")]
    Injection { key: String },
    #[error("the header `{key}` is {bytes} bytes long, more than the {MAX_LINE} that Asterisk takes")]
    LineTooLong { key: String, bytes: usize },
    #[error("{0} headers are more than the {MAX_LINES} that Asterisk takes")]
    TooManyLines(usize),
    #[error("the far side does not greet as an Asterisk manager interface does")]
    NotAsterisk,
    #[error("a message does not end within {MAX_BUFFERED} bytes")]
    MessageTooLong,
}

/// A request on its way to Asterisk.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Action {
    headers: Vec<(&'static str, String)>,
}

impl Action {
    /// The action of that name, without arguments.
    pub(super) fn new(name: &str) -> Self {
        Self { headers: vec![("Action", name.to_owned())] }
    }

    /// The same with one header more.
    #[must_use]
    pub(super) fn with(mut self, key: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((key, value.into()));
        self
    }

    /// The bytes of this action under that id.
    ///
    /// # Errors
    /// Where Asterisk would read something else than these headers, or discard them.
    pub(super) fn encode(&self, action_id: &str) -> Result<Vec<u8>, CodecError> {
        let lines = self.headers.len() + 1;
        if lines > MAX_LINES {
            return Err(CodecError::TooManyLines(lines));
        }
        let mut bytes = Vec::with_capacity(256);
        let headers = self.headers.iter().map(|(key, value)| (*key, value.as_str()));
        for (key, value) in headers.chain([("ActionID", action_id)]) {
            push_line(&mut bytes, key, value)?;
        }
        bytes.extend_from_slice(b"\r\n");
        Ok(bytes)
    }
}

/// Names only: a value may be a secret.
impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.headers.first().map_or("", |(_, name)| name.as_str());
        let keys: Vec<_> = self.headers.iter().skip(1).map(|(key, _)| key).collect();
        f.debug_tuple("Action").field(&name).field(&keys).finish()
    }
}

fn push_line(bytes: &mut Vec<u8>, key: &str, value: &str) -> Result<(), CodecError> {
    let breaks = |byte| matches!(byte, b'\r' | b'\n' | b'\0');
    if key.is_empty() || key.bytes().any(|byte| breaks(byte) || byte == b':') || value.bytes().any(breaks) {
        return Err(CodecError::Injection { key: key.escape_debug().to_string() });
    }
    let length = key.len() + 2 + value.len() + 2;
    if length > MAX_LINE {
        return Err(CodecError::LineTooLong { key: key.to_owned(), bytes: length });
    }
    for part in [key, ": ", value, "\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
    Ok(())
}

/// A message from Asterisk: an answer or an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Message {
    headers: Vec<(String, String)>,
}

impl Message {
    /// The first value of that key; upper and lower case are the same.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    /// Whether that key has that value; upper and lower case are the same in both.
    pub(super) fn says(&self, key: &str, value: &str) -> bool {
        self.get(key).is_some_and(|found| found.eq_ignore_ascii_case(value))
    }

    /// Whether it is an event of that name.
    pub(super) fn is_event(&self, name: &str) -> bool {
        self.says("Event", name)
    }

    fn parse(block: &[u8]) -> Self {
        let headers = String::from_utf8_lossy(block)
            .split("\r\n")
            .filter_map(|line| {
                let (key, value) = line.split_once(':')?;
                Some((key.to_owned(), value.strip_prefix(' ').unwrap_or(value).to_owned()))
            })
            .collect();
        Self { headers }
    }
}

/// Turns the bytes of one connection into messages, whatever pieces they come in.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that have been handed out already.
    taken: usize,
    /// Bytes from `taken` on that hold no end of a message.
    searched: usize,
    greeted: bool,
}

impl Decoder {
    /// Takes the bytes that have come.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The version in the greeting, once that line is complete.
    ///
    /// # Errors
    /// If the far side is no Asterisk manager interface.
    pub(super) fn greeting(&mut self) -> Result<Option<String>, CodecError> {
        let pending = &self.buffer[self.taken..];
        let known = pending.len().min(BANNER.len());
        if pending[..known] != BANNER.as_bytes()[..known] {
            return Err(CodecError::NotAsterisk);
        }
        let Some(end) = find(pending, b"\r\n") else {
            return if pending.len() > MAX_LINE { Err(CodecError::NotAsterisk) } else { Ok(None) };
        };
        let version = String::from_utf8_lossy(&pending[known..end]).trim().to_owned();
        self.taken += end + 2;
        self.greeted = true;
        Ok(Some(version))
    }

    /// The next complete message, after the greeting; `None`: more bytes are needed.
    ///
    /// # Errors
    /// If the far side never ends its message.
    pub(super) fn next(&mut self) -> Result<Option<Message>, CodecError> {
        debug_assert!(self.greeted, "the greeting comes first");
        loop {
            let pending = &self.buffer[self.taken..];
            let Some(end) = find(&pending[self.searched..], b"\r\n\r\n").map(|at| at + self.searched) else {
                if pending.len() > MAX_BUFFERED {
                    return Err(CodecError::MessageTooLong);
                }
                // An end may lie across the border to the next piece.
                self.searched = pending.len().saturating_sub(3);
                return Ok(None);
            };
            let message = Message::parse(&pending[..end]);
            self.taken += end + 4;
            self.searched = 0;
            // More blank lines than needed make no message.
            if !message.headers.is_empty() {
                return Ok(Some(message));
            }
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WIRE: &str = "Asterisk Call Manager/11.0.0\r\n\
        Response: Success\r\nActionID: 1\r\nMessage: Presence State\r\nMessage: back: at 3\r\n\r\n\
        Event: PresenceStateChange\r\npresentity: CustomPresence:1001\r\nSubtype: \r\n\r\n\
        Response: Error\r\nActionID: 2\r\nMessage: Permission denied\r\n\r\n";

    fn messages(decoder: &mut Decoder) -> Vec<Message> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    fn decoded(wire: &str) -> Vec<Message> {
        let mut decoder = Decoder::default();
        decoder.feed(wire.as_bytes());
        decoder.greeting().unwrap().unwrap();
        messages(&mut decoder)
    }

    #[test]
    fn an_action_is_lines_and_a_blank_line() {
        let action = Action::new("Setvar").with("Variable", "X").with("Value", "a: b");
        let wire = action.encode("7").unwrap();
        assert_eq!(wire, b"Action: Setvar\r\nVariable: X\r\nValue: a: b\r\nActionID: 7\r\n\r\n");
    }

    #[test]
    fn a_line_break_or_nul_in_a_value_is_refused() {
        for value in ["a\r\nAction: Originate", "a\nb", "a\rb", "a\0b"] {
            let refused = Action::new("Setvar").with("Value", value).encode("1");
            assert_eq!(refused, Err(CodecError::Injection { key: "Value".to_owned() }), "{value:?}");
        }
        assert!(Action::new("Ping").encode("1\r\nX: y").is_err());
        assert!(Action::new("Ping").with("a: b\r\nc", "d").encode("1").is_err());
    }

    #[test]
    fn a_line_of_1024_bytes_passes_and_one_more_is_refused() {
        let fits = MAX_LINE - "Value: \r\n".len();
        assert!(Action::new("Setvar").with("Value", "a".repeat(fits)).encode("1").is_ok());
        let refused = Action::new("Setvar").with("Value", "a".repeat(fits + 1)).encode("1");
        assert_eq!(refused, Err(CodecError::LineTooLong { key: "Value".to_owned(), bytes: MAX_LINE + 1 }));
    }

    #[test]
    fn more_than_128_lines_are_refused() {
        let many = |count| (0..count).fold(Action::new("Setvar"), |action, _| action.with("Variable", "x"));
        assert!(many(126).encode("1").is_ok());
        assert_eq!(many(127).encode("1"), Err(CodecError::TooManyLines(129)));
    }

    #[test]
    fn no_value_shows_in_the_debug_form_of_an_action() {
        let printed = format!("{:?}", Action::new("Login").with("Secret", "hunter2"));
        assert!(printed.contains("Login") && printed.contains("Secret") && !printed.contains("hunter2"));
    }

    #[test]
    fn keys_ignore_case_and_the_first_of_a_repeated_key_is_given() {
        let all = decoded(WIRE);
        assert_eq!(all.len(), 3);
        assert_eq!(all[0].get("message"), Some("Presence State"));
        assert!(all[1].is_event("presencestatechange"));
        assert_eq!(all[1].get("Presentity"), Some("CustomPresence:1001"));
        assert_eq!(all[1].get("Subtype"), Some(""));
        assert!(all[2].says("Response", "error"));
    }

    #[test]
    fn a_value_keeps_its_colons_and_its_bare_line_feeds() {
        let all = decoded("Asterisk Call Manager/5.0.1\r\nA: x: y:z\nB: c\r\n\r\n");
        assert_eq!(all[0].get("A"), Some("x: y:z\nB: c"));
        assert_eq!(all[0].get("B"), None);
    }

    #[test]
    fn something_else_than_asterisk_is_told_from_its_first_byte() {
        let mut decoder = Decoder::default();
        assert_eq!(decoder.greeting(), Ok(None));
        decoder.feed(b"HTTP/1.1 400 Bad Request\r\n");
        assert_eq!(decoder.greeting(), Err(CodecError::NotAsterisk));
    }

    #[test]
    fn a_message_without_an_end_is_given_up() {
        let mut decoder = Decoder::default();
        decoder.feed(b"Asterisk Call Manager/11.0.0\r\n");
        decoder.greeting().unwrap().unwrap();
        let mut outcome = Ok(None);
        for _ in 0..=MAX_BUFFERED / 1024 {
            decoder.feed(&[b'x'; 1024]);
            outcome = decoder.next();
        }
        assert_eq!(outcome, Err(CodecError::MessageTooLong));
    }

    proptest! {
        #[test]
        fn the_pieces_that_bytes_come_in_do_not_matter(cuts in prop::collection::vec(1_usize..40, 1..80)) {
            let mut decoder = Decoder::default();
            let (mut rest, mut seen, mut version) = (WIRE.as_bytes(), Vec::new(), None);
            for length in cuts.into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at(length.min(rest.len()));
                decoder.feed(piece);
                rest = after;
                if version.is_none() {
                    version = decoder.greeting().unwrap();
                }
                if version.is_some() {
                    seen.extend(messages(&mut decoder));
                }
            }
            prop_assert_eq!(version.as_deref(), Some("11.0.0"));
            prop_assert_eq!(seen, decoded(WIRE));
        }

        #[test]
        fn what_is_encoded_never_holds_a_header_that_was_not_given(
            values in prop::collection::vec("(\\PC|[\r\n\0: ]){0,40}", 0..6),
            id in "(\\PC|[\r\n\0]){0,12}",
        ) {
            let with_value = |action: Action, value| action.with("Value", value);
            let action = values.iter().fold(Action::new("Setvar"), with_value);
            if let Ok(wire) = action.encode(&id) {
                let text = String::from_utf8(wire).unwrap();
                let body = text.strip_suffix("\r\n\r\n").unwrap();
                let lines: Vec<_> = body.split(['\r', '\n']).filter(|line| !line.is_empty()).collect();
                prop_assert_eq!(lines.len(), values.len() + 2);
                prop_assert_eq!(lines[0], "Action: Setvar");
                prop_assert!(lines[1..=values.len()].iter().all(|line| line.starts_with("Value: ")));
                prop_assert!(lines[values.len() + 1].starts_with("ActionID: "));
            }
        }

        #[test]
        fn no_bytes_from_outside_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let mut decoder = Decoder::default();
            decoder.feed(b"Asterisk Call Manager/1\r\n");
            decoder.greeting().unwrap().unwrap();
            decoder.feed(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
