//! Secrets: named by a reference, read when needed, never printed.

use std::{
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::environment::Environment;

/// Where a secret is to be found: `{ env = "NAME" }` or `{ file = "PATH" }`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretRef {
    /// In an environment variable of the service.
    Env(String),
    /// In a file; white space around it does not count.
    File(PathBuf),
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The environment variable is not set.
    #[error("environment variable `{name}` is not set or empty")]
    NoVariable {
        /// The key that names it.
        key: String,
        /// Its name.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Unreadable {
        /// The key that names it.
        key: String,
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is empty, or so large that it cannot be what is meant.
    #[error("`{path}` is empty, or larger than a secret can be")]
    NotASecret {
        /// The key that names it.
        key: String,
        /// Its path.
        path: PathBuf,
    },
    /// The file could not be made.
    #[error("cannot create `{path}`")]
    NotCreated {
        /// The key that names it.
        key: String,
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl SecretError {
    /// The key in the file that names the secret.
    pub fn key(&self) -> &str {
        match self {
            Self::NoVariable { key, .. }
            | Self::Unreadable { key, .. }
            | Self::NotASecret { key, .. }
            | Self::NotCreated { key, .. } => key,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::NoVariable { name, .. } => {
                format!("set `{name}` where the service is started, and restart it")
            }
            Self::Unreadable { path, .. } => {
                format!("create `{}` and let the service's account read it", path.display())
            }
            Self::NotASecret { path, .. } => {
                format!("write the secret, and nothing else, into `{}`", path.display())
            }
            Self::NotCreated { path, .. } => {
                format!("let the service's account write to the folder of `{}`", path.display())
            }
        }
    }
}

/// Certificates with their chains are the largest thing that is kept as a secret.
const MAX_BYTES: u64 = 256 * 1024;

impl SecretRef {
    /// The secret itself; `key` names it in the error.
    ///
    /// # Errors
    /// Where the variable or the file is not there.
    pub fn resolve(&self, key: &str, environment: &Environment) -> Result<SecretString, SecretError> {
        match self {
            Self::Env(name) => match environment.get(name) {
                Some(value) if !value.trim().is_empty() => Ok(value.trim().into()),
                _ => Err(SecretError::NoVariable { key: key.to_owned(), name: name.clone() }),
            },
            Self::File(path) => read_secret(key, path),
        }
    }
}

/// The content of a secret's file without white space around it; `key` names it in the error.
///
/// # Errors
/// Where the file cannot be read, is empty, or has more than 256 KiB.
pub fn read_secret(key: &str, path: &Path) -> Result<SecretString, SecretError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|source| SecretError::Unreadable { key: key.to_owned(), path: path.to_owned(), source })?;
    let text = SecretString::from(text);
    let secret = text.expose_secret().trim();
    if secret.is_empty() || text.expose_secret().len() as u64 > MAX_BYTES {
        return Err(SecretError::NotASecret { key: key.to_owned(), path: path.to_owned() });
    }
    Ok(secret.into())
}

/// Reads a secret, or makes one: 256 random bits in a file that only the service's account can read.
///
/// Two processes that start at once agree: only one can create the file, the other reads it.
///
/// # Errors
/// Where the file can be neither read nor made.
pub fn read_or_create_secret(key: &str, path: &Path) -> Result<SecretString, SecretError> {
    match read_secret(key, path) {
        Err(SecretError::Unreadable { source, .. }) if source.kind() == ErrorKind::NotFound => {}
        read => return read,
    }
    match create(path) {
        Ok(secret) => Ok(secret),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => read_secret(key, path),
        Err(source) => Err(SecretError::NotCreated { key: key.to_owned(), path: path.to_owned(), source }),
    }
}

/// Writes under another name first, so that nobody ever reads half a secret.
fn create(path: &Path) -> std::io::Result<SecretString> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| std::io::Error::other("the system gives no randomness"))?;
    let secret = SecretString::from(BASE64_URL_SAFE_NO_PAD.encode(bytes));
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)?;
    }
    // Unlike a rename, a link does not replace what another process has put there meanwhile.
    drafted(path, &secret, |draft| std::fs::hard_link(draft, path))?;
    Ok(secret)
}

/// Puts a secret into the place of the one before it, in a file that only the service's account can read.
///
/// # Errors
/// Where the file cannot be made; the one before is still there then.
pub fn replace_secret(key: &str, path: &Path, secret: &SecretString) -> Result<(), SecretError> {
    drafted(path, secret, |draft| std::fs::rename(draft, path)).map_err(|source| SecretError::NotCreated {
        key: key.to_owned(),
        path: path.to_owned(),
        source,
    })
}

fn drafted(
    path: &Path,
    secret: &SecretString,
    put: impl FnOnce(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.new", std::process::id()));
    let draft = PathBuf::from(draft);
    let written = private_file(&draft).and_then(|mut file| {
        writeln!(file, "{}", secret.expose_secret())?;
        file.sync_all()?;
        put(&draft)
    });
    let _ = std::fs::remove_file(&draft);
    written
}

fn private_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)
}
