//! Nothing is lost on the way out and back; an apply says what it changes; rules are the user's own.

mod mistakes;

use serde_json::json;

use super::*;
use crate::{config::Environment, model::ProfileId};

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

/// The lines that an apply of `to` over `from` shows.
fn lines(from: &str, to: &str) -> Vec<String> {
    diff(Some(&company(from)), &company(to)).iter().map(ToString::to_string).collect()
}

/// A file that uses everything.
const RICH: &str = r#"
id = "acme"
name = "Acme AB"
time_zone = "Europe/Helsinki"
language = "en"
phone_region = "FI"
trigger_sets = ["sv-default", "sv-words"]
profile_order = ["meeting", "kurs"]
bridge_secs = 60
end_to = "available"
override_rule = "calendar_wins"

[integration]
kind = "microsoft365"
tenant = "01234567-89ab-cdef-0123-456789abcdef"

[pbx]
kind = "http"

[pbx.http]
base_url = "https://pbx.acme.example"
[pbx.http.auth]
kind = "bearer"
token = { file = "/run/secrets/acme" }
[pbx.http.set]
method = "POST"
path = "/profile"
json = { file = "{profile.pbx.code}" }

[matching]
mode = "prefix"

[counting]
tentative = true
showas_for_trigger = ["busy", "oof"]
internal_domains = ["Acme.example"]
[counting.fallback]
oof = "kurs"

[[profiles]]
id = "meeting"
add_triggers = ["Styrelse*", "Workshop"]
label = "Upptagen"
before_start_secs = -60
pbx.asterisk = { state = "dnd", dnd = true }

[[profiles]]
id = "kurs"
name_sv = "Kurs"
triggers = "Kurs*; Utbildning"
sensitive = true
calendar_may_not_override = true
pbx.http = { code = "7" }

[[users]]
extension = "201"
alias = "Anna@mail.acme.example"
name = "Anna Ström"
disabled_words = "MÖT"
triggers = { kurs = "Studiecirkel; Kväll" }

[[users]]
extension = "202"
alias = "bo@acme.example"
enabled = false
"#;

#[test]
fn what_is_exported_parses_to_the_same_company() {
    for text in [GOOD, RICH, TEMPLATE, "id = 'a'\nname = 'A \"quoted\" \\ å'"] {
        let company = company(text);
        let exported = export(&company);
        let again = Company::parse("exported.toml", &exported).unwrap().company.with_revision(7);
        assert_eq!(again, company, "{exported}");
    }
}

#[test]
fn what_is_stored_is_read_back_equal() {
    for text in [GOOD, RICH, TEMPLATE] {
        let company = company(text);
        assert_eq!(Company::from_json(&company.to_json()).unwrap(), company);
    }
}

#[test]
fn what_a_newer_release_stored_survives_this_one() {
    let mut stored: serde_json::Value = serde_json::from_str(&company(RICH).to_json()).unwrap();
    stored["company"]["ldap"] = json!({ "port": 389 });
    stored["company"]["counting"]["ignore_series"] = json!(true);
    stored["company"]["users"][1]["mobile"] = json!("+46");
    let read = Company::from_json(&stored.to_string()).unwrap();
    assert_eq!(read.users().len(), 2);
    let written: serde_json::Value = serde_json::from_str(&read.to_json()).unwrap();
    assert_eq!(written, stored);
}

#[test]
fn what_is_stored_in_a_newer_form_or_damaged_is_refused() {
    let newer = r#"{"schema":2,"revision":1,"company":{}}"#;
    assert!(matches!(Company::from_json(newer), Err(StoredError::TooNew { found: 2 })));
    assert!(matches!(Company::from_json("{"), Err(StoredError::Damaged(_))));
    let misfit =
        r#"{"schema":1,"revision":1,"company":{"id":"a","name":"A","users":[{"extension":"","alias":"a"}]}}"#;
    let error = Company::from_json(misfit).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the stored company does not hold at `users[0].extension`: `` is not an extension: \
         use 1 to 40 of A-Z, a-z, 0-9 and `_ . + * # -`, not only dots"
    );
}

#[test]
fn the_template_explains_and_holds() {
    let parsed = Company::parse("template.toml", TEMPLATE).unwrap();
    assert_eq!(parsed.warnings, []);
    assert_eq!(parsed.company.users().len(), 2);
}

#[test]
fn every_key_that_the_template_shows_behind_a_hash_exists() {
    let shown: String = TEMPLATE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(key) if key.starts_with("[[") || key.split(' ').nth(1) == Some("=") => key,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let company = company(&shown);
    assert_eq!(company.file().override_rule, crate::model::OverrideRule::UntilEventEnd);
    assert_eq!(
        company.profiles().iter().find(|one| one.name_sv == "Möte").unwrap().triggers,
        ["Möte*", "MÖT", "Styrelse*", "Workshop"]
    );
}

#[test]
fn a_company_without_users_holds() {
    let company = company("id = 'a'\nname = 'A'");
    assert_eq!((company.users(), company.time_zone(), company.revision()), (&[][..], "Europe/Stockholm", 7));
}

#[test]
fn a_user_is_found_by_extension_and_by_alias_in_any_case() {
    let company = company(GOOD);
    for name in ["202", "bo@acme.example", "BO@ACME.example"] {
        assert_eq!(company.user(name).and_then(|user| user.name.as_deref()), Some("Bo"), "{name}");
    }
    assert_eq!(company.user("203"), None);
}

#[test]
fn rules_have_the_users_own_words_and_lack_those_switched_off() {
    let company = company(RICH);
    let (anna, bo) = (company.rules_for(&company.users()[0]), company.rules_for(&company.users()[1]));
    let words = |rules: &Rules, id: &str| {
        let profile = rules.profile(&id.parse().unwrap()).unwrap().clone();
        (profile.triggers, profile.own_triggers)
    };
    assert!(!words(&anna, "meeting").0.contains(&"MÖT".to_owned()));
    assert!(words(&bo, "meeting").0.contains(&"MÖT".to_owned()));
    assert_eq!(words(&anna, "kurs").1, ["Studiecirkel", "Kväll"]);
    assert_eq!(words(&bo, "kurs"), (vec!["Kurs*".to_owned(), "Utbildning".to_owned()], vec![]));
    assert_eq!((anna.bridge_secs, anna.time_zone.as_str()), (60, "Europe/Helsinki"));
    assert_eq!(anna.counting.internal_domains, ["acme.example", "mail.acme.example"]);
}

/// Digest of the words that Anna's events are held against, with `from` replaced by `to` in the file.
fn annas_words(from: &str, to: &str) -> u64 {
    assert!(RICH.contains(from), "{from}");
    let company = company(&RICH.replace(from, to));
    crate::timetable::Matcher::new(&company.rules_for(&company.users()[0])).unwrap().digest()
}

#[test]
fn words_that_concern_a_user_are_told_from_all_else_that_is_applied() {
    let before = annas_words("", "");
    let another = "[[users]]\nextension = \"202\"";
    let user = "[[users]]\nextension = \"203\"\nalias = \"eva@elsewhere.example\"\n";
    for (from, to) in [
        (another, &*format!("{user}{another}")),
        ("enabled = false", "triggers = { kurs = \"Kväll\" }\ndisabled_words = \"LUN\""),
        ("Europe/Helsinki", "Europe/Stockholm"),
        ("language = \"en\"", "language = \"sv\""),
        ("bridge_secs = 60", "bridge_secs = 0"),
        ("tentative = true", "tentative = false\nexternal_subject_change = \"follow\""),
        ("oof = \"kurs\"", "oof = \"meeting\""),
        ("before_start_secs = -60", "before_start_secs = 60"),
        ("https://pbx.acme.example", "https://other.acme.example"),
        ("extension = \"201\"", "extension = \"211\""),
    ] {
        assert_eq!(annas_words(from, to), before, "{to}");
    }
    for (from, to) in [
        ("Kurs*; Utbildning", "Kurs*"),
        ("\"sv-default\", \"sv-words\"", "\"sv-default\""),
        ("Studiecirkel; Kväll", "Studiecirkel"),
        ("disabled_words = \"MÖT\"", "disabled_words = \"LUN\""),
        ("[\"meeting\", \"kurs\"]", "[\"kurs\", \"meeting\"]"),
        ("name_sv = \"Kurs\"", "name_sv = \"Lektion\""),
        ("mode = \"prefix\"", "mode = \"prefix\"\nopt_out_mark = true"),
        ("mode = \"prefix\"", "mode = \"word\""),
    ] {
        assert_ne!(annas_words(from, to), before, "{to}");
    }
}

#[test]
fn profiles_stand_in_the_order_asked_for_and_the_rest_keeps_its_own() {
    let company = company(RICH);
    let ids: Vec<&str> = company.profiles().iter().map(|profile| profile.id.as_str()).collect();
    assert_eq!(ids[..3], ["meeting", "kurs", "sick"]);
    assert_eq!(ids.last(), Some(&"available"));
    assert_eq!(company.profiles().iter().filter(|profile| profile.is_available).count(), 1);
}

#[test]
fn typed_words_go_before_those_of_added_sets_and_what_is_left_out_is_told() {
    let text = "id = 'a'\nname = 'A'\ntrigger_sets = ['sv-default', 'sv-words']\n\
                [[profiles]]\nid = 'sick'\nadd_triggers = 'Stör ej'\n\
                [[profiles]]\nid = 'meeting'\ntriggers = 'Sammanträde'";
    let parsed = Company::parse("a.toml", text).unwrap();
    let words = |id: &str| {
        let profiles = parsed.company.profiles();
        profiles.iter().find(|profile| profile.id.as_str() == id).unwrap().triggers.join("; ")
    };
    assert_eq!(words("meeting"), "Sammanträde");
    assert_eq!(words("do-not-disturb"), "Do not disturb; DND");
    assert!(words("sick").starts_with("Sick; Stör ej; Sjuk;"), "{}", words("sick"));
    let told: Vec<String> = parsed.warnings.iter().map(ToString::to_string).collect();
    let left_out = "a.toml, line 3: `trigger_sets` leaves out `Stör ej` for profile `do-not-disturb`: profile `sick` has it";
    assert!(told.iter().any(|line| line == left_out), "{told:#?}");
}

#[test]
fn without_the_default_set_only_typed_words_count() {
    let company =
        company("id = 'a'\nname = 'A'\ntrigger_sets = []\n[[profiles]]\nid = 'lunch'\ntriggers = 'Lunch'");
    let with_words = company.profiles().iter().filter(|profile| !profile.triggers.is_empty());
    assert_eq!(with_words.map(|profile| profile.id.as_str()).collect::<Vec<_>>(), ["lunch"]);
}

#[test]
fn words_that_become_one_by_the_way_of_matching_are_refused() {
    let text = "id = 'a'\nname = 'A'\n[matching]\nfold_diacritics = true\n[[profiles]]\nid = 'lunch'\nadd_triggers = 'Mot'";
    let told = Company::parse("a.toml", text).unwrap_err();
    assert_eq!(told.findings.len(), 1, "{told:?}");
    assert_eq!(told.findings[0].place(), "a.toml, line 3");
    assert!(told.findings[0].problem.contains("`lunch` and `meeting`"), "{told:?}");
}

#[test]
fn changed_profiles_keep_what_is_not_named() {
    let company = company(RICH);
    let profile = |id: &str| {
        let id: ProfileId = id.parse().unwrap();
        company.profiles().iter().find(|profile| profile.id == id).unwrap().clone()
    };
    let meeting = profile("meeting");
    assert_eq!((meeting.name_sv.as_str(), meeting.label.as_deref()), ("Möte", Some("Upptagen")));
    assert_eq!(meeting.before_start_secs, -60);
    assert!(
        meeting.triggers.contains(&"Styrelse*".to_owned()) && meeting.triggers.contains(&"MÖT".to_owned())
    );
    assert!(meeting.pbx.asterisk.dnd);
    let kurs = profile("kurs");
    assert_eq!((kurs.name_en.as_str(), kurs.sensitive, kurs.calendar_may_not_override), ("Kurs", true, true));
    assert_eq!(kurs.pbx.http.get("code").map(String::as_str), Some("7"));
}

#[test]
fn an_apply_says_line_by_line_what_it_changes() {
    for (from, to, said) in [
        ("", "", &[][..]),
        (
            "anna@acme.example",
            "anna.strom@acme.example",
            &["user 201 Anna: alias anna@acme.example → anna.strom@acme.example"],
        ),
        ("extension = \"202\"", "extension = \"203\"", &["user 203 Bo: extension 202 → 203"]),
        ("name = \"Bo\"", "name = \"Bo\"\nenabled = false", &["user 202 Bo: switched off"]),
        (
            "name = \"Bo\"",
            "disabled_words = \"UTE\"",
            &["user 202: name Bo → none", "user 202: switched-off words + `UTE`"],
        ),
        (
            "name = \"Bo\"",
            "name = \"Bo\"\ntriggers = { meeting = \"Avstämning\" }",
            &["user 202 Bo: own words for meeting + `Avstämning`"],
        ),
        (
            "\"sv-default\"]",
            "\"sv-default\"]\nbridge_secs = 60\nphone_region = \"NO\"",
            &["company: phone region SE → NO", "settings: bridge_secs 0 → 60"],
        ),
        (
            "[integration]",
            "[counting]\ntentative = true\nfallback.oof = \"sick\"\n[integration]",
            &["settings: counting.fallback.oof none → sick", "settings: counting.tentative false → true"],
        ),
        ("pbx.acme.example", "pbx2.acme.example", &["PBX: `host` changed"]),
        (
            "[[users]]",
            "[[profiles]]\nid = \"meeting\"\nadd_triggers = \"Möte*\"\nlabel = \"Upptagen\"\n[[users]]",
            &["profile Möte: trigger words + `Möte*`", "profile Möte: label none → Upptagen"],
        ),
        (
            "[[users]]",
            "[[profiles]]\nid = \"kurs\"\nname_sv = \"Kurs\"\ntriggers = \"Kurs*\"\n[[users]]",
            &["profile Kurs: new, trigger words `Kurs*`"],
        ),
    ] {
        assert_eq!(lines(GOOD, &GOOD.replacen(from, to, 1)), said, "{to}");
    }
}

#[test]
fn an_apply_names_users_that_come_and_go_and_a_new_company() {
    let without_bo = GOOD.split("[[users]]\nextension = \"202\"").next().unwrap();
    assert_eq!(lines(GOOD, without_bo), ["user 202 Bo: removed"]);
    assert_eq!(lines(without_bo, GOOD), ["user 202 Bo: new, alias bo@acme.example"]);
    let first: Vec<String> = diff(None, &company(without_bo)).iter().map(ToString::to_string).collect();
    assert_eq!(first, ["company acme: new, `Acme AB`", "user 201 Anna: new, alias anna@acme.example"]);
}

#[test]
fn a_new_rank_is_one_line() {
    let to = GOOD.replacen("\"sv-default\"]", "\"sv-default\"]\nprofile_order = [\"meeting\"]", 1);
    let said = lines(GOOD, &to);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("profiles: rank now Möte > Sjuk"), "{said:?}");
}

#[test]
fn a_pbx_secret_is_put_in_place_and_shown_nowhere() {
    #[derive(serde::Deserialize)]
    struct Settings {
        secret: String,
    }
    let bare = company(&GOOD.replacen("{ env = \"ACME_PBX_SECRET\" }", "\"s3cret\"", 1));
    let by_reference = company(GOOD);
    let environment = Environment::of([("ACME_PBX_SECRET", "s3cret\n")]);
    for company in [&bare, &by_reference] {
        let settings: Settings = company.pbx().unwrap().settings(&environment).unwrap();
        assert_eq!(settings.secret, "s3cret");
        assert!(!format!("{company:?}").contains("s3cret"));
    }
    let changes = diff(Some(&bare), &by_reference);
    assert_eq!(changes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["PBX: `secret` changed"]);
    assert!(!export(&by_reference).contains("s3cret"));
}

#[test]
fn a_secret_that_is_not_there_names_its_key_and_the_variable() {
    let pbx = company(GOOD).pbx().unwrap().clone();
    let error = pbx.settings::<toml::Table>(&Environment::default()).unwrap_err();
    assert_eq!(
        crate::chain::Chain(&error).to_string(),
        "a secret of the PBX cannot be had: environment variable `ACME_PBX_SECRET` is not set or empty"
    );
    let SettingsError::Secret(secret) = error else { panic!("{error}") };
    assert_eq!(secret.key(), "pbx.asterisk.secret");
}

#[test]
fn a_request_body_is_not_taken_for_a_secrets_reference() {
    let pbx = company(RICH).pbx().unwrap().clone();
    let mut keys = pbx.references();
    assert_eq!(keys.pop().map(|(key, _)| key).as_deref(), Some("pbx.http.auth.token"));
    assert_eq!(keys.len(), 0);
}
