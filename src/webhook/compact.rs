//! Deliveries in the form in which Graph writes them: without white space, and of texts and objects alone.
//!
//! Of what a notification costs here, reading it is the largest part, and the general reader looks at each character of what nobody wants to
//! know. This one leaps from quote to quote, and needs two thirds of the time. What has another form in anything it leaves to the general reader,
//! and what it does read it reads as that does.

use memchr::memchr2;
use serde::{
    Deserialize,
    de::value::{BorrowedStrDeserializer, Error},
};

use super::notification::{Item, ResourceData};

/// About as long as a notification of Outlook's is, in bytes.
const NOTIFICATION_BYTES: usize = 900;

/// All notifications of a body; `None` where it has another form, or is none.
pub(super) fn items(body: &str) -> Option<Vec<Item<'_>>> {
    // No text may have a control character. To the end in any case: without a way out it is done for many bytes at a time.
    if body.bytes().fold(false, |found, byte| found | (byte < b' ')) {
        return None;
    }
    let mut reader = Reader { rest: body.strip_prefix(r#"{"value":["#)? };
    let mut items = Vec::with_capacity(body.len() / NOTIFICATION_BYTES + 1);
    loop {
        items.push(reader.item()?);
        if !reader.goes_on(b']')? {
            break;
        }
    }
    (reader.rest == "}").then_some(items)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn item(&mut self) -> Option<Item<'a>> {
        let mut item = Item::default();
        self.members(|reader, name| match name {
            "clientState" => reader.fill(&mut item.client_state),
            "tenantId" => reader.fill(&mut item.tenant_id),
            "changeType" => reader.fill(&mut item.change_type),
            "lifecycleEvent" => reader.fill(&mut item.lifecycle_event),
            "resourceData" if item.resource_data.is_none() => {
                item.resource_data = Some(reader.resource_data()?);
                Some(())
            }
            "resourceData" | "encryptedContent" => None,
            _ => reader.plain().map(drop),
        })?;
        Some(item)
    }

    fn resource_data(&mut self) -> Option<ResourceData<'a>> {
        let mut data = ResourceData::default();
        self.members(|reader, name| match name {
            "id" => reader.fill(&mut data.id),
            "@odata.etag" => reader.fill(&mut data.etag),
            _ => reader.plain().map(drop),
        })?;
        Some(data)
    }

    /// An object, each of its members read by `read`.
    fn members(&mut self, mut read: impl FnMut(&mut Self, &'a str) -> Option<()>) -> Option<()> {
        self.take('{')?;
        loop {
            let name = self.plain()?;
            self.take(':')?;
            read(self, name)?;
            if !self.goes_on(b'}')? {
                return Some(());
            }
        }
    }

    /// A text for a member that is not there yet.
    fn fill<T: Deserialize<'a>>(&mut self, member: &mut Option<T>) -> Option<()> {
        if member.is_some() {
            return None;
        }
        *member = match self.text()? {
            Text::Plain(text) => T::deserialize(BorrowedStrDeserializer::<Error>::new(text)).ok(),
            Text::Escaped(quoted) => serde_json::from_str(quoted).ok(),
        };
        member.is_some().then_some(())
    }

    /// A text that is as it is written.
    fn plain(&mut self) -> Option<&'a str> {
        match self.text()? {
            Text::Plain(text) => Some(text),
            Text::Escaped(_) => None,
        }
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let written = self.rest;
        self.take('"')?;
        let (mut end, mut escapes) = (1, false);
        loop {
            end += memchr2(b'"', b'\\', written.as_bytes().get(end..)?)?;
            if written.as_bytes()[end] == b'"' {
                break;
            }
            escapes = true;
            end += 2;
        }
        self.rest = &written[end + 1..];
        Some(if escapes { Text::Escaped(&written[..=end]) } else { Text::Plain(&written[1..end]) })
    }

    /// Whether another one follows, or this was the last.
    fn goes_on(&mut self, end: u8) -> Option<bool> {
        let goes_on = match self.rest.as_bytes().first()? {
            b',' => true,
            byte if *byte == end => false,
            _ => return None,
        };
        self.rest = &self.rest[1..];
        Some(goes_on)
    }

    fn take(&mut self, expected: char) -> Option<()> {
        self.rest = self.rest.strip_prefix(expected)?;
        Some(())
    }
}

/// A text.
enum Text<'a> {
    Plain(&'a str),
    /// With its quotes.
    Escaped(&'a str),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// What the general reader makes of a body.
    fn general(body: &str) -> Option<String> {
        let delivery: super::super::notification::Delivery<'_> = serde_json::from_str(body).ok()?;
        Some(format!("{:?}", delivery.value))
    }

    fn read(body: &str) -> Option<String> {
        items(body).map(|items| format!("{items:?}"))
    }

    fn notification() -> Value {
        json!({
            "subscriptionId": "a4c2e0f8", "clientState": "1.a.acme.AAA.BBB", "changeType": "updated",
            "resource": "Users/7b0a9f1c/Events/AAk=", "tenantId": "3f6c1a52",
            "resourceData": {
                "@odata.type": "#Microsoft.Graph.Event", "@odata.id": "Users/7b0a9f1c/Events/AAk=",
                "@odata.etag": "W/\"huDVPMoS==\"", "id": "AAk=",
            },
        })
    }

    fn delivery(items: &[Value]) -> String {
        json!({ "value": items }).to_string()
    }

    #[test]
    fn what_graph_sends_is_read_and_as_the_general_reader_reads_it() {
        let lifecycle = json!({ "clientState": "ö", "lifecycleEvent": "missed", "tenantId": "" });
        let body = delivery(&[notification(), lifecycle, notification()]);
        assert!(read(&body).is_some());
        assert_eq!(read(&body), general(&body));
    }

    #[test]
    fn what_has_another_form_is_left_to_the_general_reader() {
        let one = notification().to_string();
        for body in [
            String::new(),
            r#"{"value":[]}"#.to_owned(),
            format!(r#"{{"value":[{one}]}} "#),
            format!(r#"{{"value": [{one}]}}"#),
            format!(r#"{{"value":[{one}],"validationTokens":["a"]}}"#),
            format!(r#"{{"value":[{one},]}}"#),
            format!(r#"{{"value":[{}]}}"#, one.replace("\"AAk=\"", "\"A\tAk=\"")),
            format!(r#"{{"value":[{}]}}"#, one.replace("\"AAk=\"", "null")),
            format!(r#"{{"value":[{}]}}"#, one.replace("\"AAk=\"", "\"\\q\"")),
            format!(r#"{{"value":[{}]}}"#, one.replace("subscriptionId", "clientState")),
            format!(r#"{{"value":[{}]}}"#, one.replace("subscriptionId", "encryptedContent")),
            format!(r#"{{"value":[{}]}}"#, one.replace("\"a4c2e0f8\"", "\"\\q\"")),
            format!(r#"{{"value":[{}]}}"#, one.replace("\"a4c2e0f8\"", "7")),
        ] {
            assert_eq!(read(&body), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn a_body_with_anything_in_its_texts_is_read_as_by_the_general_reader(
            texts in prop::collection::vec("\\PC{0,12}|[\"\\\\/bnu0-9{}:,]{0,8}", 6),
        ) {
            let mut item = notification();
            for (name, text) in ["clientState", "tenantId", "changeType", "subscriptionId"].iter().zip(&texts) {
                item[name] = json!(text);
            }
            item["resourceData"]["id"] = json!(texts[4]);
            item["resourceData"]["@odata.etag"] = json!(texts[5]);
            let body = delivery(&[item, notification()]);
            if let Some(read) = read(&body) {
                prop_assert_eq!(Some(read), general(&body));
            }
        }

        #[test]
        fn no_changed_byte_makes_it_read_what_the_general_reader_does_not(
            changes in prop::collection::vec((0_usize..600, 0_u8..0x80), 1..4),
        ) {
            let mut body = delivery(&[notification(), notification()]).into_bytes();
            for (place, byte) in changes {
                let place = place % body.len();
                body[place] = byte;
            }
            let body = String::from_utf8(body).unwrap();
            if let Some(read) = read(&body) {
                prop_assert_eq!(Some(read), general(&body));
            }
        }

        #[test]
        fn no_cut_or_doubled_part_makes_it_read_what_the_general_reader_does_not(from in 0_usize..600, to in 0_usize..600, twice: bool) {
            let body = delivery(&[notification(), notification()]);
            let (from, to) = (from.min(to) % body.len(), from.max(to) % body.len());
            let (from, to) = (from.min(to), from.max(to));
            let body = if twice { format!("{}{}", &body[..to], &body[from..]) } else { format!("{}{}", &body[..from], &body[to..]) };
            if let Some(read) = read(&body) {
                prop_assert_eq!(Some(read), general(&body));
            }
        }
    }
}
