//! `[store]`: where the service keeps things.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where the service keeps things.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Which store.
    pub url: StoreUrl,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StoreUrl {
    /// One file, one process, no server.
    Embedded(PathBuf),
}

impl TryFrom<String> for StoreUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("embedded", path)) if !path.is_empty() => Ok(Self::Embedded(PathBuf::from(path))),
            _ => Err(format!(
                "`{text}` is no store: write `embedded:` and the path of a file, as `embedded:/var/lib/narvaro/narvaro.db`"
            )),
        }
    }
}

impl Store {
    /// A file of that name in the folder of the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        let StoreUrl::Embedded(path) = &self.url;
        path.parent().unwrap_or_else(|| Path::new("")).join(name)
    }

    pub(super) fn anchor(&mut self, folder: &Path) {
        let StoreUrl::Embedded(path) = &mut self.url;
        *path = folder.join(&path);
    }
}
