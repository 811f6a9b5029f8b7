use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::{
    super::{
        request::RequestTemplate,
        template::{Kind, RenderError, Template},
        values::{Names, Scope, Value, Values},
    },
    *,
};
use crate::pbx::http::answer::Success;

fn with_scope<T>(use_it: impl FnOnce(&Scope<'_>) -> T) -> T {
    let (fields, found) = (["state".to_owned()], ["id".to_owned()]);
    use_it(&Scope {
        extension: true,
        profile: true,
        change: true,
        shown: false,
        now: true,
        fields: &fields,
        found: &found,
    })
}

fn with_values<T>(wanted: &Wanted, use_it: impl FnOnce(&Values<'_>) -> T) -> T {
    let (extension, company) = ("1001".parse().unwrap(), "acme".parse().unwrap());
    let previous = Shown::of([("state", "before")]);
    let found = Names::from([("id".to_owned(), Value::Number(60))]);
    use_it(&Values {
        company: &company,
        zone: &TimeZone::get("Europe/Stockholm").unwrap(),
        text_chars: 128,
        now: NOW.parse().unwrap(),
        extension: Some(&extension),
        wanted: Some(wanted),
        previous: Some(&previous),
        found: &found,
        transition: "t-1",
        generation: Generation(9),
    })
}

fn parse(source: &str, kind: Kind) -> Result<Template, String> {
    with_scope(|scope| Template::parse(source, kind, scope)).map_err(|error| error.to_string())
}

fn text(source: &str, kind: Kind, wanted: &Wanted) -> String {
    let template = parse(source, kind).unwrap();
    with_values(wanted, |values| template.render(values)).unwrap()
}

fn request(toml: &str) -> Result<RequestTemplate, String> {
    let success = Success::new("success", &Default::default()).unwrap();
    let template =
        with_scope(|scope| RequestTemplate::new("set", &toml::from_str(toml).unwrap(), &success, scope));
    template.map_err(|error| error.to_string())
}

fn prepared(toml: &str, wanted: &Wanted) -> Result<crate::pbx::http::request::Prepared, RenderError> {
    let template = request(toml).unwrap();
    with_values(wanted, |values| template.prepare("https://pbx.example/api", values))
}

fn labelled(label: &str) -> Wanted {
    Wanted::Profile(outward(label))
}

#[test]
fn every_name_stands_for_its_value() {
    let Wanted::Profile(mut outward) = until_three() else { unreachable!() };
    outward.available_at = Some("2026-11-23T15:30:00Z".parse().unwrap());
    let wanted = Wanted::Profile(outward);
    for (source, expected) in [
        ("{company} {extension}", "acme 1001"),
        ("{profile.id} {profile.label} {profile.pbx.state}", "meeting Möte away"),
        ("{text} / {note?}", "Möte till 15:00 / till 15:00"),
        (
            "{until?} {until.local?} {until.unix?}",
            "2026-11-23T14:00:00Z 2026-11-23T15:00:00+01:00 1795442400",
        ),
        ("{available_at.local?}", "2026-11-23T16:30:00+01:00"),
        ("{now} {now.unix}", "2026-11-23T08:00:00Z 1795420800"),
        ("{transition} {generation} {previous.state?} {found.id}", "t-1 9 before 60"),
        ("{{{extension}}}", "{1001}"),
    ] {
        assert_eq!(text(source, Kind::Plain, &wanted), expected, "{source}");
    }
}

#[test]
fn an_absent_value_becomes_what_the_template_says() {
    for (source, with, without) in [
        ("a{until?}b", "a2026-11-23T14:00:00Zb", "ab"),
        ("{until.unix?none}", "1795442400", "none"),
        ("{?until}until {until.local}{/?}", "until 2026-11-23T15:00:00+01:00", ""),
        ("{!until}for good{/!}", "", "for good"),
        ("{profile.pbx.colour?grey}", "grey", "grey"),
    ] {
        assert_eq!(text(source, Kind::Plain, &until_three()), with, "{source}");
        assert_eq!(text(source, Kind::Plain, &meeting()), without, "{source}");
    }
}

#[test]
fn a_wrong_template_is_told_where_it_is_wrong_and_how_to_mend_it() {
    for (source, kind, place, part) in [
        ("ab{nobody}", Kind::Plain, "at character 3", "`nobody` is not known here; write one of `company`"),
        ("{until}", Kind::Plain, "at character 1", "write `{until?TEXT}`"),
        ("{!until}{until}{/!}", Kind::Plain, "at character 9", "may be absent"),
        ("{?until}x", Kind::Plain, "at character 10", "write `{/?}`"),
        ("{?until}{?note}{/?}{/?}", Kind::Plain, "at character 9", "within a section"),
        ("x{/?}", Kind::Plain, "at character 2", "closes nothing"),
        ("{extension", Kind::Plain, "at character 1", "`{{`"),
        ("a}b", Kind::Plain, "at character 2", "`}}`"),
        ("x {until|json}", Kind::Plain, "at character 3", "whole JSON leaf"),
        ("{extension}", Kind::Target, "at character 1", "host cannot be a placeholder"),
        ("path", Kind::Target, "at character 1", "begins with `/`"),
        ("/a b", Kind::Target, "at character 3", "`%20`"),
        ("/a#b", Kind::Target, "at character 3", "`%23`"),
        ("/a{?until}?u={until}{/?}", Kind::Target, "at character 25", "must end in the place"),
        ("a\nb", Kind::Header, "at character 2", "control character"),
        ("<{extension}/>", Kind::Xml, "at character 2", "not in a tag"),
        ("<a b={extension}/>", Kind::Xml, "at character 6", "not in a tag"),
        ("<a><![CDATA[{extension}]]></a>", Kind::Xml, "at character 13", "CDATA"),
        ("<a b='x", Kind::Xml, "at character 8", "ends within a tag"),
    ] {
        let error = parse(source, kind).unwrap_err();
        assert!(error.starts_with(place) && error.contains(part), "{source}: {error}");
    }
}

#[test]
fn names_that_belong_to_another_request_are_not_known() {
    let read = "[set]\nmethod=\"PUT\"\npath=\"/\"\n[read]\nfields = { s = { pointer = \"/s\", shows = \"x\" } }\n\
                [read.request]\nmethod = \"GET\"\npath = \"/{profile.id}\"\n";
    let config = config(read, "https://pbx.example.com");
    let error = HttpPbx::new(&config, ProcessLimits::default(), "acme".parse().unwrap(), ManualClock::new());
    let error = error.unwrap_err();
    assert_eq!(error.key(), "read.request.path");
    assert!(error.to_string().contains("`profile.id` is not known here"), "{error}");
}

#[test]
fn a_request_is_told_which_key_is_wrong() {
    for (toml, key) in [
        ("method='PUT'\npath='/'\njson={ a=[1,{b='{x}'}] }", "`set.json.a[1].b`"),
        ("method='PUT'\npath='/'\njson={ a='{until|xml}' }", "`set.json.a`"),
        ("method='PUT'\npath='/'\nform={ a='{until|json}' }", "`set.form.a`"),
        ("method='PUT'\npath='/'\njson={ a=2026-11-23 }", "`set.json.a`"),
        ("method='PUT'\npath='/'\nxml='<{x}>'", "`set.xml`"),
        ("method='PUT'\npath='/'\nheaders={ Authorization='x' }", "`set.headers.Authorization`"),
        ("method='PUT'\npath='/'\nheaders={ Host='x' }", "`set.headers.Host`"),
        ("method='PUT'\npath='/'\nheaders={ 'a b'='x' }", "`set.headers.a b`"),
        ("method='PUT'\npath='/a/../b'", "`set.path`"),
        ("method='PUT'\npath='/a/%2e%2E/b'", "`set.path`"),
        ("method='PUT'\npath='//evil.example'", "`set.path`"),
        ("method='PUT'\npath='/'\nxml=''\nform={}", "`set`"),
    ] {
        let error = request(toml).unwrap_err();
        assert!(error.starts_with(key), "{toml}: {error}");
    }
}

#[test]
fn json_leaves_have_types_and_may_be_left_out() {
    let toml = "method='POST'\npath='/'\n[json]\nuntil='{until.unix|json}'\nend='{until|omit}'\n\
                generation='{generation|json}'\nid='{found.id|json}'\nlist=['{note|omit}', 1, true]\n";
    let body =
        |wanted: &Wanted| -> Json { serde_json::from_slice(&prepared(toml, wanted).unwrap().body).unwrap() };
    assert_eq!(
        body(&meeting()),
        serde_json::json!({"until": null, "generation": 9, "id": 60, "list": [1, true]})
    );
    assert_eq!(
        body(&until_three()),
        serde_json::json!({
            "until": 1_795_442_400, "end": "2026-11-23T14:00:00Z", "generation": 9, "id": 60,
            "list": ["till 15:00", 1, true]
        })
    );
}

#[test]
fn a_line_break_in_a_value_never_becomes_a_header() {
    let toml = "method='POST'\npath='/'\nheaders={ X-Label='{profile.label}' }";
    assert_eq!(prepared(toml, &meeting()).unwrap().headers["x-label"].as_bytes(), "Möte".as_bytes());
    for label in ["Möte\r\nX-Admin: 1", "Möte\nX-Admin: 1", "a\0b"] {
        assert_eq!(
            prepared(toml, &labelled(label)).unwrap_err(),
            RenderError::Control("`profile.label`".to_owned())
        );
    }
}

#[test]
fn a_value_never_leaves_its_path_segment() {
    let toml = "method='POST'\npath='/users/{profile.label}/presence?to={profile.label}'";
    let url = |label| prepared(toml, &labelled(label)).map(|request| request.url.to_string());
    assert_eq!(
        url("a/b?c#d&e=å").unwrap(),
        "https://pbx.example/api/users/a%2Fb%3Fc%23d%26e%3D%C3%A5/presence?to=a%2Fb%3Fc%23d%26e%3D%C3%A5"
    );
    for label in ["", ".", ".."] {
        assert_eq!(url(label).unwrap_err(), RenderError::Segment, "{label:?}");
    }
    // Written out, the dots would be decoded once, into a text of percent signs.
    assert_eq!(url("%2e%2e").unwrap(), "https://pbx.example/api/users/%252e%252e/presence?to=%252e%252e");
}

#[test]
fn a_term_that_a_profile_lacks_is_named_with_the_remedy() {
    let error = prepared("method='POST'\npath='/{profile.pbx.colour}'", &meeting()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "profile `meeting` has no `colour` among its terms for HTTP: add it under `pbx.http` of the profile"
    );
    let bench = config(&SET.replace("profile.id", "profile.pbx.colour"), "https://pbx.example.com");
    let pbx =
        HttpPbx::new(&bench, ProcessLimits::default(), "acme".parse().unwrap(), ManualClock::new()).unwrap();
    let missing = pbx.missing_terms(&[profile("lunch", &[]), profile("meeting", &[("colour", "red")])]);
    assert_eq!(missing.len(), 1);
    assert!(missing[0].contains("`lunch` has no `colour`"), "{missing:?}");
}

#[test]
fn the_text_is_cut_to_what_the_pbx_shows() {
    let template = parse("{text}", Kind::Plain).unwrap();
    let wanted = labelled("Möte på ön");
    let cut = |text_chars| {
        with_values(&wanted, |values| template.render(&Values { text_chars, ..*values })).unwrap()
    };
    assert_eq!((cut(4), cut(5), cut(0)), ("Möte".to_owned(), "Möte".to_owned(), String::new()));
}

proptest! {
    #[test]
    fn any_text_in_a_json_body_is_read_back_as_it_was(label in any::<String>()) {
        let toml = "method='POST'\npath='/'\njson={ label='{profile.label}', typed='{profile.label|json}', mixed='<{profile.label}>' }";
        let body: Json = serde_json::from_slice(&prepared(toml, &labelled(&label)).unwrap().body).unwrap();
        prop_assert_eq!(body, serde_json::json!({"label": label, "typed": label, "mixed": format!("<{label}>")}));
    }

    #[test]
    fn any_text_in_a_form_is_read_back_as_it_was(label in any::<String>()) {
        let toml = "method='POST'\npath='/'\nform={ a='{profile.label}', b='{until|omit}', c='x' }";
        let request = prepared(toml, &labelled(&label)).unwrap();
        let pairs: Vec<_> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        prop_assert_eq!(pairs, [("a".to_owned(), label), ("c".to_owned(), "x".to_owned())]);
    }

    #[test]
    fn no_value_changes_the_target_of_a_request(label in any::<String>()) {
        let toml = "method='POST'\npath='/users/{profile.label}/presence?a={profile.label}&b=1'";
        if let Ok(request) = prepared(toml, &labelled(&label)) {
            prop_assert_eq!(request.url.host_str(), Some("pbx.example"));
            let segments: Vec<_> = request.url.path_segments().unwrap().collect();
            prop_assert_eq!((segments.len(), segments[1], segments[3]), (4, "users", "presence"));
            let query: Vec<_> = request.url.query_pairs().into_owned().collect();
            prop_assert_eq!(query, [("a".to_owned(), label), ("b".to_owned(), "1".to_owned())]);
        } else {
            prop_assert!(matches!(label.as_str(), "" | "." | ".."));
        }
    }

    #[test]
    fn parsing_any_text_never_panics(source in "[{}?!/|<>a-z.\"'=&# ]{0,40}") {
        for kind in [Kind::Plain, Kind::Target, Kind::Header, Kind::Xml] {
            let parsed = parse(&source, kind);
            prop_assert!(parsed.is_ok() || parsed.unwrap_err().starts_with("at character "));
        }
    }
}
