//! Identifiers, each a type of its own so that two cannot be swapped. Parsed at the edge, trusted inside.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A text that cannot be the identifier it was offered as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not {what}: {rule}")]
pub struct IdError {
    given: String,
    what: &'static str,
    rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let given: String = text.chars().take(80).flat_map(char::escape_debug).collect();
                    Err(IdError { given, what: $what, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_slug(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        // To the end in any case: without a way out it is done for many bytes at a time.
        text.bytes().fold(false, |found, byte| found | byte.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// An id that is about to be one segment of a URL path: never a dot segment, never a control character.
fn is_opaque(text: &str) -> bool {
    !text.is_empty() && text.len() <= 1024 && text != "." && text != ".." && !has_control(text)
}

text_id!(
    /// One customer company, chosen by the operator: `acme`.
    CompanyId, "a company id", "use 1 to 63 of a-z, 0-9 and `-`, no `-` first or last", is_slug
);
text_id!(
    /// A profile within a company: `meeting`.
    ProfileId, "a profile id", "use 1 to 63 of a-z, 0-9 and `-`, no `-` first or last", is_slug
);
text_id!(
    /// A PBX extension; the character set is what an AMI header or a URL segment takes unharmed.
    Extension,
    "an extension",
    "use 1 to 40 of A-Z, a-z, 0-9 and `_ . + * # -`, not only dots",
    |text| (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+*#-".contains(&b))
        && text.bytes().any(|b| b != b'.')
);
text_id!(
    /// A calendar item's id; immutable ids everywhere. Case matters.
    EventId, "an event id", "1 to 1,024 bytes without control characters", is_opaque
);
text_id!(
    /// Graph's name of a watch on a mailbox.
    SubscriptionId, "a subscription id", "1 to 1,024 bytes without control characters", is_opaque
);
text_id!(
    /// A Microsoft Entra tenant: its GUID in lower case.
    TenantId,
    "a tenant id",
    "use the directory's GUID in lower case, as `00000000-0000-0000-0000-000000000000`",
    |text| text.len() == 36
        && text.bytes().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
        })
);

/// A mailbox as the service knows it: one user's calendar, for one company. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MailboxId(pub u64);

impl fmt::Display for MailboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which lease a piece of work was done under; only grows, so that a late worker can be told from the present one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
