//! The section `[pbx.asterisk]` of a company's file.

use std::{fmt, path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::model::Extension;

/// How one Asterisk is reached and what is set on it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AsteriskConfig {
    /// Name or address of the host.
    pub host: String,
    /// TCP port of the manager interface: 5038, with TLS usually 5039.
    #[serde(default = "default_port")]
    pub port: u16,
    /// TLS, if this table is there.
    #[serde(default)]
    pub tls: Option<TlsConfig>,
    /// Account in `manager.conf`.
    pub username: String,
    /// Its secret; whoever reads the file has put the real one in place.
    pub secret: SecretString,
    /// How the secret is proved.
    #[serde(default)]
    pub login: Login,
    /// Where texts go.
    #[serde(default)]
    pub flavour: Flavour,
    /// FreePBX flavour only: whether the return time follows the name in the message. The user control panel
    /// then shows no state as chosen, since it knows a state by its whole message.
    #[serde(default)]
    pub freepbx_note: bool,
    /// Presence provider of an extension.
    #[serde(default = "default_custom_presence")]
    pub custom_presence: ExtensionTemplate,
    /// Device that lamps follow while the extension is closed, as `Custom:DND{ext}`; none where absent.
    #[serde(default)]
    pub device_state: Option<ExtensionTemplate>,
    /// Whether closing an extension also sets `DND/<ext>` in AstDB, which FreePBX's dialplan obeys.
    #[serde(default)]
    pub astdb_dnd: bool,
    /// Seconds to wait for a connection or an answer.
    #[serde(default = "default_timeout_secs")]
    pub timeout_secs: u16,
    /// How many extensions are read or written at once over the one connection.
    #[serde(default = "default_concurrency")]
    pub concurrency: u16,
}

/// TLS towards the PBX.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the only certificates to trust; what the machine trusts, where absent.
    pub ca_file: Option<PathBuf>,
    /// Name in the PBX's certificate, where it is not `host`.
    pub server_name: Option<String>,
}

/// How the secret is proved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Login {
    /// By an MD5 digest over a challenge: the secret itself stays here.
    #[default]
    Challenge,
    /// By sending it: only over TLS or on the same machine.
    Plain,
}

/// Where the texts of a presence go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// Profile's name in the subtype, return time in the message.
    #[default]
    Plain,
    /// Subtype empty, profile's name in the message, as FreePBX's presence states have it.
    Freepbx,
}

impl AsteriskConfig {
    /// Longest wait for a connection or an answer.
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_secs.max(1).into())
    }
}

/// A name that belongs to an extension, written with `{ext}` in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtensionTemplate {
    before: String,
    after: String,
}

/// A text that cannot be an [`ExtensionTemplate`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write `{{ext}}` once and otherwise only A-Z, a-z, 0-9 and `: _ . - / @`")]
pub struct TemplateError;

impl ExtensionTemplate {
    /// The name for that extension.
    pub(super) fn fill(&self, extension: &Extension) -> String {
        format!("{}{extension}{}", self.before, self.after)
    }

    /// The extension whose name that is.
    pub(super) fn extension_in(&self, name: &str) -> Option<Extension> {
        name.strip_prefix(&self.before)?.strip_suffix(&self.after)?.parse().ok()
    }
}

impl TryFrom<String> for ExtensionTemplate {
    type Error = TemplateError;

    fn try_from(text: String) -> Result<Self, TemplateError> {
        let (before, after) = text.split_once("{ext}").ok_or(TemplateError)?;
        let harmless = |part: &str| {
            part.len() <= 80 && part.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.-/@".contains(&b))
        };
        if !harmless(before) || !harmless(after) {
            return Err(TemplateError);
        }
        Ok(Self { before: before.to_owned(), after: after.to_owned() })
    }
}

impl From<ExtensionTemplate> for String {
    fn from(template: ExtensionTemplate) -> Self {
        template.to_string()
    }
}

impl fmt::Display for ExtensionTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{{ext}}{}", self.before, self.after)
    }
}

fn default_port() -> u16 {
    5038
}

fn default_custom_presence() -> ExtensionTemplate {
    ExtensionTemplate { before: "CustomPresence:".to_owned(), after: String::new() }
}

/// Longer than a loaded Asterisk takes, well below the length of a lease.
fn default_timeout_secs() -> u16 {
    10
}

/// Asterisk serves one connection's actions one after the other: this only has to keep it busy.
fn default_concurrency() -> u16 {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_section_gets_the_defaults() {
        let config: AsteriskConfig =
            toml::from_str("host = 'pbx.example'\nusername = 'narvaro'\nsecret = 's3cret'").unwrap();
        assert_eq!((config.port, config.login, config.flavour), (5038, Login::Challenge, Flavour::Plain));
        assert_eq!(config.custom_presence.to_string(), "CustomPresence:{ext}");
        assert_eq!((config.tls, config.device_state, config.astdb_dnd), (None, None, false));
    }

    #[test]
    fn the_secret_does_not_show_in_the_debug_form() {
        let text = "host = 'pbx.example'\nusername = 'narvaro'\nsecret = 's3cret'";
        let config: AsteriskConfig = toml::from_str(text).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn a_misspelt_key_is_refused() {
        let text = "host = 'pbx.example'\nusername = 'n'\nsecret = 's'\n[tls]\nca = 'ca.pem'";
        assert!(toml::from_str::<AsteriskConfig>(text).unwrap_err().to_string().contains("`ca`"));
    }

    #[test]
    fn a_template_names_an_extension_and_finds_it_again() {
        let template = ExtensionTemplate::try_from("Custom:DND{ext}".to_owned()).unwrap();
        let extension: Extension = "1001".parse().unwrap();
        assert_eq!(template.fill(&extension), "Custom:DND1001");
        assert_eq!(template.extension_in("Custom:DND1001"), Some(extension));
        assert_eq!(template.extension_in("Custom:DEVDND1001"), None);
        assert_eq!(template.extension_in("Custom:DND"), None);
    }

    #[test]
    fn a_template_cannot_close_the_function_it_is_put_in() {
        for text in ["Custom:DND", "{ext}{ext}", "Custom:{ext})", "a,{ext}", "{ext}\r\n", "${ext}"] {
            assert_eq!(ExtensionTemplate::try_from(text.to_owned()), Err(TemplateError), "{text:?}");
        }
    }
}
