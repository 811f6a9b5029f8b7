//! What a value must become before it may stand in a certain place of a request.
//!
//! Each place has one function here and each function has a property test: a reader of that place gets
//! back the very text that was put in. Nothing is ever pasted raw.

use std::fmt::Write as _;

/// Where in a request a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Text that is escaped later as a whole (a JSON string, a form value) or compared.
    Plain,
    /// Within one segment of the path.
    PathSegment,
    /// Within the query, after `?`.
    Query,
    /// Within a header's value.
    Header,
    /// XML character data.
    XmlText,
    /// A quoted XML attribute.
    XmlAttribute,
}

/// A value that cannot stand where the template wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("holds a control character, which a header cannot carry")]
pub(super) struct NotAllowed;

impl Place {
    /// `value` in this place's own writing, added to `out`.
    pub(super) fn escape(self, value: &str, out: &mut String) -> Result<(), NotAllowed> {
        match self {
            Self::Plain => out.push_str(value),
            Self::PathSegment | Self::Query => percent(value, out),
            Self::Header if value.chars().any(char::is_control) => return Err(NotAllowed),
            Self::Header => out.push_str(value),
            Self::XmlText => xml(value, false, out),
            Self::XmlAttribute => xml(value, true, out),
        }
        Ok(())
    }
}

/// Everything but RFC 3986's unreserved characters becomes `%XX` of its UTF-8 bytes.
fn percent(value: &str, out: &mut String) {
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

/// Characters that XML 1.0 cannot carry in any writing become U+FFFD.
fn xml(value: &str, attribute: bool, out: &mut String) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // A reader turns CR into LF, and in attributes all white space into spaces, unless it is written so.
            '\r' => out.push_str("&#xD;"),
            '\n' if attribute => out.push_str("&#xA;"),
            '\t' if attribute => out.push_str("&#x9;"),
            '\t' | '\n' => out.push(c),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(place: Place, value: &str) -> String {
        let mut out = String::new();
        place.escape(value, &mut out).unwrap();
        out
    }

    /// A reader of XML character data, written apart from the writer above.
    fn read_xml(text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('&') {
            let end = rest[at..].find(';').unwrap() + at;
            out.push_str(&rest[..at]);
            out.push(match &rest[at + 1..end] {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                code => char::from_u32(u32::from_str_radix(code.strip_prefix("#x").unwrap(), 16).unwrap())
                    .unwrap(),
            });
            rest = &rest[end + 1..];
        }
        out + rest
    }

    fn xml_can_carry(c: char) -> bool {
        !matches!(c, '\u{0}'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
    }

    proptest! {
        #[test]
        fn a_path_segment_is_read_back_as_it_was(value in "\\PC+") {
            prop_assume!(value != "." && value != "..");
            let url = url::Url::parse(&format!("https://pbx.example/a/{}/z", escaped(Place::PathSegment, &value))).unwrap();
            let segments: Vec<_> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            // `form_urlencoded` decodes `%XX` alike; a `+` never comes out of our writer.
            let read = url::form_urlencoded::parse(format!("v={}", segments[1]).as_bytes()).next().unwrap().1.into_owned();
            prop_assert_eq!(read, value);
        }

        #[test]
        fn a_query_value_is_read_back_as_it_was(value in any::<String>()) {
            let url = url::Url::parse(&format!("https://pbx.example/?v={}&w=1", escaped(Place::Query, &value))).unwrap();
            let read: Vec<_> = url.query_pairs().collect();
            prop_assert_eq!(read.len(), 2);
            prop_assert_eq!(&read[0].1, &value);
        }

        #[test]
        fn xml_text_and_attributes_are_read_back_as_they_were(value in any::<String>()) {
            let value: String = value.chars().filter(|c| xml_can_carry(*c)).collect();
            for place in [Place::XmlText, Place::XmlAttribute] {
                let written = escaped(place, &value);
                prop_assert!(!written.contains(['<', '>', '"', '\'', '\r']));
                prop_assert_eq!(read_xml(&written), value.clone());
            }
        }

        #[test]
        fn what_xml_cannot_carry_never_gets_into_it(value in any::<String>()) {
            prop_assert!(escaped(Place::XmlAttribute, &value).chars().all(xml_can_carry));
        }

        #[test]
        fn no_control_character_gets_into_a_header(before in "\\PC*", bad in "[\\x00-\\x1f\\x7f]", after in "\\PC*") {
            prop_assert_eq!(Place::Header.escape(&format!("{before}{bad}{after}"), &mut String::new()), Err(NotAllowed));
        }
    }
}
