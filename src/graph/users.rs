//! Finds the one user that an address belongs to.
//!
//! The directory is asked for both the primary address and the others, and its answer is checked here: whether
//! its comparison minds case is not written anywhere. A user name is not an address and is not looked at.
//! Facts: <https://learn.microsoft.com/graph/api/user-list>.

use serde::Deserialize;

use crate::calendar::{MailboxRef, ReadError, Resolved};

/// <https://learn.microsoft.com/graph/api/resources/user>
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WireUser {
    id: String,
    mail: Option<String>,
    proxy_addresses: Option<Vec<String>>,
    user_type: Option<String>,
}

impl WireUser {
    fn has(&self, alias: &str) -> bool {
        let proxies = self.proxy_addresses.iter().flatten().filter_map(|proxy| smtp(proxy));
        proxies.chain(self.mail.as_deref()).any(|address| same(address, alias))
    }

    /// The address that is written `SMTP:` in capitals, else `mail`.
    fn primary(&self) -> Option<&str> {
        let proxies = self.proxy_addresses.iter().flatten();
        proxies.filter_map(|proxy| proxy.strip_prefix("SMTP:")).next().or(self.mail.as_deref())
    }

    fn is_guest(&self) -> bool {
        self.user_type.as_deref().is_some_and(|kind| kind.eq_ignore_ascii_case("guest"))
    }
}

/// Picks the user with this address from what the directory found.
///
/// # Errors
/// [`ReadError::UnknownAlias`], [`ReadError::AmbiguousAlias`]; [`ReadError::NoMailbox`] for a guest, whose
/// mailbox is another company's.
pub(super) fn pick(alias: &str, found: Vec<WireUser>) -> Result<Resolved, ReadError> {
    let mut having = found.into_iter().filter(|user| user.has(alias));
    let Some(user) = having.next() else {
        return Err(ReadError::UnknownAlias { alias: alias.to_owned() });
    };
    if having.any(|other| other.id != user.id) {
        return Err(ReadError::AmbiguousAlias { alias: alias.to_owned() });
    }
    if user.is_guest() {
        return Err(ReadError::NoMailbox { reason: "the user is a guest".to_owned() });
    }
    let primary_smtp = user.primary().filter(|primary| !same(primary, alias)).map(str::to_owned);
    Ok(Resolved { mailbox: MailboxRef { object: user.id }, primary_smtp })
}

fn smtp(proxy: &str) -> Option<&str> {
    let (kind, address) = proxy.split_once(':')?;
    kind.eq_ignore_ascii_case("smtp").then_some(address)
}

fn same(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{
        super::{testing::fixture, wire::Page},
        *,
    };

    fn users(body: Value) -> Vec<WireUser> {
        serde_json::from_value::<Page<WireUser>>(body).unwrap().value
    }

    fn known() -> Vec<WireUser> {
        users(fixture("users-lookup.json")["body"].clone())
    }

    #[test]
    fn a_user_is_found_by_any_of_its_addresses_and_its_primary_one_is_shown() {
        let found = pick("Ines.Halvorsen@Contoso.example", known()).unwrap();
        assert_eq!(found.mailbox.object, "7b0a9f1c-3d52-4e86-8c17-2f6e5d4c3b21");
        assert_eq!(found.primary_smtp, None);
        let found = pick("ines@contoso.example", known()).unwrap();
        assert_eq!(found.primary_smtp.as_deref(), Some("ines.halvorsen@contoso.example"));
    }

    #[test]
    fn an_answer_that_does_not_have_the_address_finds_nobody() {
        assert!(matches!(pick("ines@contoso.exampl", known()), Err(ReadError::UnknownAlias { .. })));
        assert!(matches!(
            pick("ihalvorsen@corp.contoso.example", known()),
            Err(ReadError::UnknownAlias { .. })
        ));
        assert!(matches!(pick("a@b.example", Vec::new()), Err(ReadError::UnknownAlias { .. })));
    }

    #[test]
    fn two_users_with_one_address_are_not_guessed_between() {
        let two = users(json!({"value": [
            {"id": "1", "mail": "a@b.example"},
            {"id": "2", "mail": null, "proxyAddresses": ["smtp:A@b.example"]},
        ]}));
        assert!(matches!(pick("a@b.example", two), Err(ReadError::AmbiguousAlias { .. })));
    }

    #[test]
    fn a_guest_has_no_mailbox_here_and_a_disabled_account_may_be_a_room() {
        let one =
            |kind: &str| users(json!({"value": [{"id": "1", "mail": "a@b.example", "userType": kind}]}));
        assert!(matches!(pick("a@b.example", one("Guest")), Err(ReadError::NoMailbox { .. })));
        let room = json!({"value": [{"id": "1", "mail": "a@b.example", "accountEnabled": false}]});
        assert!(pick("a@b.example", users(room)).is_ok());
    }
}
