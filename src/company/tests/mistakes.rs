//! What a person gets to read for each mistake: file, line, key, what is wrong, what to do.

use super::{Company, GOOD};

/// Everything that a person reads about `GOOD` with one text put in the place of another.
fn refusal(from: &str, to: &str) -> Vec<String> {
    assert!(GOOD.contains(from), "`{from}` is not in the good file");
    match Company::parse("acme.toml", &GOOD.replacen(from, to, 1)) {
        Ok(_) => Vec::new(),
        Err(findings) => findings.findings.iter().map(|one| format!("{one} -- {}", one.remedy)).collect(),
    }
}

fn warnings(from: &str, to: &str) -> Vec<String> {
    let parsed = Company::parse("acme.toml", &GOOD.replacen(from, to, 1)).unwrap();
    parsed.warnings.iter().map(|one| format!("{one} -- {}", one.remedy)).collect()
}

/// Text in the good file, what is put in its place, what is then told.
const REFUSED: &[(&str, &str, &[&str])] = &[
    (
        "extension = \"202\"",
        "extension = \"201\"",
        &[
            "acme.toml, line 23: `users[1].extension` is `201`, which user `201 Anna` in line 18 has -- give each user an extension of their own",
        ],
    ),
    (
        "bo@acme.example",
        "ANNA@acme.example",
        &[
            "acme.toml, line 24: `users[1].alias` is `ANNA@acme.example`, which user `201 Anna` in line 19 has -- give each user the primary SMTP address of their own mailbox",
        ],
    ),
    (
        "bo@acme.example",
        "bo",
        &[
            "acme.toml, line 24: `users[1].alias` cannot be `bo` -- write the user's primary SMTP address, as `anna@example.org`",
        ],
    ),
    (
        "extension = \"202\"",
        "extention = \"202\"",
        &[
            "acme.toml, line 23: `users[1].extention` is no key that exists here -- did you mean `extension`? Possible are `extension`, `alias`, `name`, `enabled`, `disabled_words`, `triggers`",
        ],
    ),
    (
        "extension = \"202\"",
        "extension = 202",
        &["acme.toml, line 23: `users[1].extension` cannot be integer `202` -- write a text in quotes"],
    ),
    (
        "extension = \"202\"\n",
        "",
        &["acme.toml, line 22: `users[1].extension` is missing -- add `extension = ...`"],
    ),
    (
        "extension = \"202\"",
        "extension = \"20 2\"",
        &[
            "acme.toml, line 23: `users[1].extension` does not hold: `20 2` is not an extension -- use 1 to 40 of A-Z, a-z, 0-9 and `_ . + * # -`, not only dots",
        ],
    ),
    (
        "id = \"acme\"",
        "id = \"Acme AB\"",
        &[
            "acme.toml, line 2: `id` does not hold: `Acme AB` is not a company id -- use 1 to 63 of a-z, 0-9 and `-`, no `-` first or last",
        ],
    ),
    (
        "trigger_sets",
        "time_zone = \"Europa/Stockholm\"\ntrigger_sets",
        &[
            "acme.toml, line 4: `time_zone` cannot be `Europa/Stockholm`: there is no such zone -- write an IANA name, as `Europe/Stockholm`",
        ],
    ),
    (
        "trigger_sets",
        "phone_region = \"sweden\"\nbridge_secs = 900\ntrigger_sets",
        &[
            "acme.toml, line 4: `phone_region` cannot be `sweden` -- write the country's two capital letters, as `SE`",
            "acme.toml, line 5: `bridge_secs` cannot be 900 -- use 0 to 600: a longer gap is a gap",
        ],
    ),
    (
        "\"sv-default\"",
        "\"sv-defualt\"",
        &[
            "acme.toml, line 4: `trigger_sets[0]` cannot be `sv-defualt` -- possible are `sv-default`, `sv-words`, `no`, `en`",
        ],
    ),
    (
        "trigger_sets",
        "profile_order = [\"sick\", \"sick\"]\ntrigger_sets",
        &[
            "acme.toml, line 4: `profile_order[1]` is `sick`, which stands before already -- name each profile once",
        ],
    ),
    (
        "kind = \"asterisk\"",
        "kind = \"asterix\"",
        &[
            "acme.toml, line 10: `pbx.kind` cannot be `asterix` -- did you mean `asterisk`? Possible are `asterisk`, `http`",
        ],
    ),
    (
        "kind = \"asterisk\"",
        "kind = \"http\"",
        &[
            "acme.toml, line 9: `pbx.http.base_url` is missing -- add `base_url = ...`",
            "acme.toml, line 12: `pbx.asterisk` is there, and `pbx.kind` is `http` -- remove `[pbx.asterisk]`, or set `kind = \"asterisk\"`",
        ],
    ),
    (
        "{ env = \"ACME_PBX_SECRET\" }",
        "{ file = \"secret.txt\" }",
        &[
            "acme.toml, line 15: `pbx.asterisk.secret` names the file `secret.txt`, which counts from nowhere -- write the whole path as the service sees it, from `/`",
        ],
    ),
    (
        "host = \"pbx.acme.example\"\n",
        "",
        &["acme.toml, line 12: `pbx.asterisk.host` is missing -- add `host = ...`"],
    ),
    (
        "host = ",
        "prot = 5039\nhost = ",
        &[
            "acme.toml, line 13: `pbx.asterisk.prot` is no key that exists here -- did you mean `port`? Possible are `host`, `port`, `tls`, `username`, `secret`, `login`, `flavour`, `freepbx_note`, `custom_presence`, `device_state`, `astdb_dnd`, `timeout_secs`, `concurrency`",
        ],
    ),
    (
        "host = ",
        "custom_presence = \"x\"\nhost = ",
        &[
            "acme.toml, line 13: `pbx.asterisk.custom_presence` does not hold -- write `{ext}` once and otherwise only A-Z, a-z, 0-9 and `: _ . - / @`",
        ],
    ),
    (
        "name = \"Bo\"",
        "triggers = { meeting = \"x\", sick = \"X\" }",
        &[
            "acme.toml, line 25: `users[1].triggers.sick` gives `X` to profile `sick`; profile `meeting` has it in line 25 -- keep the word in one of the two",
        ],
    ),
    (
        "name = \"Bo\"",
        "triggers = { meeting = \"x; *\" }",
        &[
            "acme.toml, line 25: `users[1].triggers.meeting` does not hold: the trigger word `*` would match every event -- write letters before the `*`",
        ],
    ),
    (
        "name = \"Bo\"",
        "triggers = { meeting = 5 }",
        &[
            "acme.toml, line 25: `users[1].triggers.meeting` does not hold: value of the wrong kind -- write a text `\"A; B\"` or a list `[\"A\", \"B\"]`",
        ],
    ),
    (
        "[[users]]",
        "[[profiles]]\nid = \"sick\"\nadd_triggers = \"möt\"\nbefore_start_secs = 1000\n[[users]]",
        &[
            "acme.toml, line 19: `profiles[0].add_triggers` gives `möt` to profile `sick`; profile `meeting` has it in the set `sv-default` -- keep the word in one of the two",
            "acme.toml, line 20: `profiles[0].before_start_secs` cannot be 1000 -- use -900 to 900 (15 minutes)",
        ],
    ),
    (
        "[[users]]",
        "[[profiles]]\nid = \"sick\"\nadd_triggers = \"Kurs\"\n[[profiles]]\nid = \"meeting\"\nadd_triggers = \"kurs\"\n[[users]]",
        &[
            "acme.toml, line 22: `profiles[1].add_triggers` gives `kurs` to profile `meeting`; profile `sick` has it in line 19 -- keep the word in one of the two",
        ],
    ),
    (
        "[[users]]",
        "[[profiles]]\nid = \"sick\"\n[[profiles]]\nid = \"sick\"\n[[users]]",
        &[
            "acme.toml, line 20: `profiles[1].id` is `sick`, which stands in line 18 already -- put all that is said about a profile into one `[[profiles]]`",
        ],
    ),
    (
        "[integration]",
        "[matching]\nmode = \"words\"\n[integration]",
        &[
            "acme.toml, line 7: `matching.mode` cannot be `words` -- did you mean `word`? Possible are `word`, `prefix`, `contains`",
        ],
    ),
    (
        "[integration]",
        "[counting]\ninternal_domains = [\"@acme\"]\n[integration]",
        &[
            "acme.toml, line 7: `counting.internal_domains[0]` cannot be `@acme` -- write the part after the `@`, as `example.org`",
        ],
    ),
    (
        "[integration]",
        "[integration\n",
        &[
            "acme.toml, line 6: is no TOML: unclosed table, expected `]` -- correct the line: texts stand in quotes, each key once, `[table]` before its keys",
        ],
    ),
    (
        "name = \"Acme AB\"",
        "name = Acme",
        &[
            "acme.toml, line 3: is no TOML: string values must be quoted, expected literal string -- correct the line: texts stand in quotes, each key once, `[table]` before its keys",
        ],
    ),
    (
        "kind = \"microsoft365\"",
        "kind = \"microsoft365\"\ntenant = \"acme.onmicrosoft.com\"",
        &[
            "acme.toml, line 8: `integration.tenant` does not hold: `acme.onmicrosoft.com` is not a tenant id -- use the directory's GUID in lower case, as `00000000-0000-0000-0000-000000000000`",
        ],
    ),
];

#[test]
fn a_mistake_is_told_with_line_key_and_remedy() {
    for (from, to, told) in REFUSED {
        assert_eq!(refusal(from, to), *told, "{to}");
    }
}

/// Text in the good file, what is put in its place, what is then told.
const WARNED: &[(&str, &str, &[&str])] = &[
    (
        "name = \"Bo\"",
        "disabled_words = \"Mote\"",
        &[
            "acme.toml, line 25: `users[1].disabled_words` has `Mote`, which is no trigger word of the company -- remove it, or write it as the company's list does",
        ],
    ),
    (
        "[integration]\nkind = \"microsoft365\"",
        "[matching]\nmode = \"contains\"",
        &[
            "acme.toml, line 7: `matching.mode` is `contains`: `MÖT` then matches `Bemöta` too -- use it only while you migrate from a system that works so, and try subjects with `narvaro try`",
            "acme.toml: `integration` is not there: no calendar is read -- add `[integration]` with `kind = \"microsoft365\"`",
        ],
    ),
    (
        "{ env = \"ACME_PBX_SECRET\" }",
        "\"s3cret\"",
        &[
            "acme.toml, line 15: `pbx.asterisk.secret` is a secret, and this file is none -- write `{ env = \"NAME\" }` or `{ file = \"/path\" }`",
        ],
    ),
];

#[test]
fn what_holds_and_is_probably_not_meant_is_warned_of() {
    for (from, to, told) in WARNED {
        assert_eq!(warnings(from, to), *told, "{to}");
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_their_lines() {
    let told = refusal("id = \"acme\"", "id = \"acme\"\nphone_region = \"x\"\nprofile_order = [\"none\"]");
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[0].contains("line 3: `phone_region`") && told[1].contains("line 4: `profile_order[0]`"),
        "{told:?}"
    );
}

#[test]
fn an_unknown_profile_is_told_with_those_that_exist() {
    for (from, to, key) in [
        (
            "[integration]",
            "[counting.fallback]\nbusy = \"none\"\n[integration]",
            "line 7: `counting.fallback.busy`",
        ),
        ("name = \"Bo\"", "triggers = { none = \"x\" }", "line 25: `users[1].triggers.none`"),
        ("trigger_sets", "profile_order = [\"none\"]\ntrigger_sets", "line 4: `profile_order[0]`"),
    ] {
        let told = refusal(from, to);
        assert_eq!(told.len(), 1, "{told:?}");
        let begin =
            format!("acme.toml, {key} names the profile `none`, which does not exist -- use one of `sick`, ");
        assert!(told[0].starts_with(&begin), "{told:?}");
    }
}

#[test]
fn a_new_profile_needs_a_name() {
    let told = refusal("[[users]]", "[[profiles]]\nid = \"kurs\"\n[[users]]");
    assert_eq!(told.len(), 1);
    let begin = "acme.toml, line 18: `profiles[0].id` is `kurs`, which is no standard profile, and `name_sv` is missing -- add `name_sv`, or";
    assert!(told[0].starts_with(begin), "{told:?}");
}

#[test]
fn ten_thousand_users_are_read_within_a_breath() {
    let users: String = (10_000..20_000)
        .map(|n| format!("[[users]]\nextension = \"{n}\"\nalias = \"u{n}@acme.example\"\n"))
        .collect();
    let company = Company::parse("big.toml", &format!("{GOOD}{users}")).unwrap().company;
    assert_eq!(company.users().len(), 10_002);
}
