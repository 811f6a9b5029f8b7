//! Counts in sentences: of one thing they speak in the singular.

use std::fmt::Display;

/// `1 mailbox`, `2 mailboxes`; what follows may be more than the noun, as `1 user goes`.
pub fn counted<N: Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let noun = if count == N::from(1) { one } else { many };
    format!("{count} {noun}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let said = [0_u64, 1, 2].map(|count| counted(count, "user goes", "users go"));
        assert_eq!(said, ["0 users go", "1 user goes", "2 users go"]);
    }
}
