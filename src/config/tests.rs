//! What a person gets to read for each mistake, and what wins over what.

use super::*;

fn mistakes(text: &str) -> Vec<String> {
    match Config::parse("narvaro.toml", text, &Environment::default()) {
        Ok(_) => vec![],
        Err(findings) => {
            findings.findings.iter().map(|finding| format!("{finding}; {}", finding.remedy)).collect()
        }
    }
}

#[test]
fn probe() {
    for text in [
        "[listen]\npublic = 5\n",
        "[listen]\n\npubic = '1'\n",
        "[listen]\npublic = 'x'\n",
        "[queu]\n",
        "[queue]\nworkers = 0\nlease_secs = 4",
        "[queue\nworkers = 0",
        "[queue]\nworkers = -1",
        "[graph]\ncloud = 'globl'",
        "[[listen]]\npublic = 'x'",
        "[listen]\npublic = ",
    ] {
        println!("{:#?}", mistakes(text));
    }
    let d = Document::parse("x", "a = [1,\n 2]\n[[users]]\nname = 'x'\n\n# c\n[[users]]\n\n[users.t]\nx=1\n")
        .unwrap();
    println!(
        "{:?}",
        ["a[1]", "users", "users[0]", "users[1]", "users[1].t.x", "users[1].none"].map(|p| d.line(p))
    );
}
