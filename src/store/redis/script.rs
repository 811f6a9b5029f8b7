//! A Lua script and its name towards the server.

use aws_lc_rs::digest;

/// A Lua script; the server knows it by the SHA-1 of its source once it has run there.
#[derive(Debug)]
pub struct Script {
    /// What it is called in messages.
    pub name: &'static str,
    /// The source.
    pub source: String,
    /// SHA-1 of the source, hexadecimal.
    pub sha: String,
}

impl Script {
    /// The script whose source is `parts` one after the other.
    pub fn new(name: &'static str, parts: &[&str]) -> Self {
        let source = parts.concat();
        // Not for secrecy: it is how Redis names scripts.
        let sum = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, source.as_bytes());
        let sha = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name, source, sha }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_named_by_the_sha1_of_all_its_parts() {
        // `printf 'return 1' | sha1sum`
        let script = Script::new("one", &["return ", "1"]);
        assert_eq!(script.sha, "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        assert_eq!(script.source, "return 1");
    }
}
