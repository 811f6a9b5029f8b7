//! What a person gets to read for each mistake; that nothing is lost; what an apply says.

use serde_json::json;

use super::*;
use crate::config::Environment;

/// A file that holds, for tests to break.
const GOOD: &str = r#"
id = "acme"
name = "Acme AB"
trigger_sets = ["sv-default"]

[integration]
kind = "microsoft365"

[pbx]
kind = "asterisk"

[pbx.asterisk]
host = "pbx.acme.example"
username = "narvaro"
secret = { env = "ACME_PBX_SECRET" }

[[users]]
extension = "201"
alias = "anna@acme.example"
name = "Anna"

[[users]]
extension = "202"
alias = "bo@acme.example"
name = "Bo"
"#;

fn company(text: &str) -> Company {
    match Company::parse("acme.toml", text) {
        Ok(parsed) => parsed.company.with_revision(7),
        Err(findings) => panic!("{findings:#?}"),
    }
}

/// `GOOD` with one text put in the place of another.
fn changed(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "`{from}` is not in the good file");
    GOOD.replacen(from, to, 1)
}

/// Everything that a person reads about a file that does not hold.
fn refusal(text: &str) -> Vec<String> {
    match Company::parse("acme.toml", text) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.findings.iter().map(|one| format!("{one} -- {}", one.remedy)).collect(),
    }
}

#[test]
fn probe() {
    for (from, to) in [
        ("extension = \"202\"", "extension = \"201\""),
        ("bo@acme.example", "ANNA@acme.example"),
        ("bo@acme.example", "bo"),
        ("extension = \"202\"", "extention = \"202\""),
        ("extension = \"202\"", "extension = 202"),
        ("extension = \"202\"\n", ""),
        ("extension = \"202\"", "extension = \"20 2\""),
        ("id = \"acme\"", "id = \"Acme AB\""),
        ("name = \"Acme AB\"\n", "name = \"Acme AB\"\ntime_zone = \"Europa/Stockholm\"\n"),
        ("[\"sv-default\"]", "[\"sv-defualt\"]"),
        ("[\"sv-default\"]", "[\"sv-default\"]\nprofile_order = [\"meting\", \"sick\", \"sick\"]"),
        ("kind = \"asterisk\"", "kind = \"asterix\""),
        ("kind = \"asterisk\"", "kind = \"http\""),
        ("secret = { env = \"ACME_PBX_SECRET\" }", "secret = { file = \"secret.txt\" }"),
        ("host = \"pbx.acme.example\"\n", ""),
        ("name = \"Bo\"", "name = \"Bo\"\ntriggers = { meting = \"x\" }"),
        ("name = \"Bo\"", "name = \"Bo\"\ntriggers = { meeting = \"x\", sick = \"X\" }"),
        ("name = \"Bo\"", "name = \"Bo\"\ntriggers = { meeting = \"x; *\" }"),
        ("name = \"Bo\"", "name = \"Bo\"\ntriggers = { meeting = 5 }"),
        (
            "[[users]]\nextension = \"201\"",
            "[[profiles]]\nid = \"sick\"\nadd_triggers = \"möt\"\nbefore_start_secs = 1000\n[[profiles]]\nid = \"kurs\"\n\n[[users]]\nextension = \"201\"",
        ),
        ("[integration]", "[counting.fallback]\nbusy = \"x\"\n[integration]"),
        ("[integration]", "[matching]\nmode = \"words\"\n[integration]"),
        ("[integration]", "[integration\n"),
        ("kind = \"microsoft365\"", "kind = \"microsoft365\"\ntenant = \"acme.onmicrosoft.com\""),
    ] {
        println!("{to:?}\n{:#?}", refusal(&changed(from, to)));
    }
    println!("{}", export(&company(TEMPLATE)));
    println!("{}", company(TEMPLATE).to_json());
}
