//! Who may know whom, and what stays pure: read from the sources.
//!
//! The rules are those of `lib.rs`. Only what is compiled into the service counts: comments and test modules are
//! left out.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Modules that compute and do nothing else.
const PURE: [&str; 3] = ["model", "timetable", "decide"];

/// What a pure module may not mention.
const IMPURE_WORDS: [&str; 14] = [
    "tokio",
    "reqwest",
    "redis",
    "rusqlite",
    "axum",
    "tracing",
    "metrics::",
    "std::fs",
    "std::net",
    "std::env",
    "SystemTime",
    "Instant",
    "async fn",
    "Timestamp::now",
];

/// Stages of the flow; each declares the ports it needs.
const STAGES: [&str; 6] = ["webhook", "queue", "turn", "calendar", "presence", "subscription"];

/// Those who speak to the outside.
const ADAPTERS: [&str; 3] = ["graph", "pbx", "store"];

/// The edges.
const EDGES: [&str; 4] = ["app", "cli", "admin", "config"];

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Files below a module, with what is compiled of them into the service.
fn code_of(module: &str) -> Vec<(PathBuf, String)> {
    let folder = sources().join(module);
    let file = sources().join(format!("{module}.rs"));
    let mut files = Vec::new();
    if folder.is_dir() {
        collect(&folder, &mut files);
    } else {
        files.push(file);
    }
    assert!(!files.is_empty(), "module `{module}` has no sources");
    files
        .into_iter()
        .map(|path| {
            let text = code(&fs::read_to_string(&path).unwrap());
            (path, text)
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "tests" && name != "fixtures" {
                collect(&path, files);
            }
        } else if name.ends_with(".rs")
            && !["tests.rs", "testing.rs", "http_tests.rs"].contains(&name.as_str())
        {
            files.push(path);
        }
    }
}

/// A source without its comments and without the test module at its end.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    let lines = text[..end].lines().map(|line| line.split_once("//").map_or(line, |(before, _)| before));
    lines.collect::<Vec<_>>().join("\n")
}

/// Places in `module` that name one of `others`, as `crate::other`.
fn names(module: &str, others: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, code) in code_of(module) {
        for (at, used) in uses(&code) {
            if others.contains(&used.as_str()) {
                found.push(format!("{}:{at} names `{used}`", path.display()));
            }
        }
    }
    found
}

/// Top-level modules that a source names, with the line: `crate::a`, and each of `use crate::{a, b::c}`.
fn uses(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("crate::") {
        let line = code[..start].matches('\n').count() + 1;
        let rest = &code[start + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let (mut depth, mut name, mut take) = (0, String::new(), true);
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push((line, std::mem::take(&mut name)));
                        take = true;
                    }
                    ':' | ' ' | '\n' if !name.is_empty() && depth == 0 => take = false,
                    c if take && depth == 0 && (c.is_alphanumeric() || c == '_') => name.push(c),
                    _ => {}
                }
            }
            found.push((line, name));
        } else {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            found.push((line, name));
        }
    }
    found
}

#[test]
fn the_reader_of_sources_sees_every_form_of_use() {
    let code = "use crate::{\n    app::{Tasks, listener},\n    graph,\n    model::Rules,\n};\nlet x = crate::store::X;";
    let found: Vec<String> =
        uses(code).into_iter().map(|(_, name)| name).filter(|name| !name.is_empty()).collect();
    assert_eq!(found, ["app", "graph", "model", "store"]);
}

#[test]
fn pure_modules_mention_no_clock_no_network_and_no_files() {
    for module in PURE {
        for (path, code) in code_of(module) {
            for word in IMPURE_WORDS {
                assert!(!code.contains(word), "{} mentions `{word}`", path.display());
            }
        }
    }
}

#[test]
fn pure_modules_know_only_each_other() {
    let others: Vec<&str> =
        STAGES.into_iter().chain(ADAPTERS).chain(EDGES).chain(["company", "telemetry", "clock"]).collect();
    for module in PURE {
        assert_eq!(names(module, &others), Vec::<String>::new());
    }
    assert_eq!(names("model", &["timetable", "decide"]), Vec::<String>::new());
    assert_eq!(names("timetable", &["decide"]), Vec::<String>::new());
}

#[test]
fn stages_name_no_adapter_and_no_edge() {
    for stage in STAGES {
        let outside: Vec<&str> = ADAPTERS.into_iter().chain(EDGES).collect();
        assert_eq!(names(stage, &outside), Vec::<String>::new());
    }
}

#[test]
fn i2_the_webhook_knows_nobody_it_could_call() {
    let others = ["turn", "calendar", "presence", "company", "graph", "pbx", "store", "app", "admin", "cli"];
    assert_eq!(names("webhook", &others), Vec::<String>::new());
    for (path, code) in code_of("webhook") {
        for word in ["reqwest", "TcpStream", "lookup_host", "rusqlite"] {
            assert!(!code.contains(word), "{} mentions `{word}`", path.display());
        }
    }
}

#[test]
fn adapters_do_not_know_one_another() {
    for adapter in ADAPTERS {
        let others: Vec<&str> =
            ADAPTERS.into_iter().filter(|other| *other != adapter).chain(["app", "cli"]).collect();
        assert_eq!(names(adapter, &others), Vec::<String>::new());
    }
}

#[test]
fn the_calendar_sdk_stays_behind_one_module() {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut files = Vec::new();
    collect(&sources(), &mut files);
    for path in files {
        let text = code(&fs::read_to_string(&path).unwrap());
        for library in ["graph_rs_sdk", "azure_identity", "azure_core", "rusqlite"] {
            if text.contains(&format!("{library}::")) {
                let place = path.strip_prefix(sources()).unwrap().display().to_string();
                found.entry(library.to_owned()).or_default().push(place);
            }
        }
    }
    for (library, places) in &found {
        let home = if library == "rusqlite" { "store/" } else { "graph/" };
        assert!(places.iter().all(|place| place.starts_with(home)), "`{library}` is used in {places:?}");
    }
    assert_eq!(found.len(), 4, "each of them is used somewhere: {found:?}");
}

#[test]
fn no_forbidden_library_is_linked() {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for forbidden in ["openssl", "openssl-sys", "native-tls", "rsa"] {
        assert!(!lock.contains(&format!("name = \"{forbidden}\"\n")), "`{forbidden}` is in Cargo.lock");
    }
}

#[test]
fn a_reader_finds_every_module_of_the_map() {
    let map = fs::read_to_string(sources().join("lib.rs")).unwrap();
    for entry in fs::read_dir(sources()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if !["main", "lib"].contains(&name.as_str()) {
            assert!(map.contains(&format!("pub mod {name};")), "`{name}` is not in the map of lib.rs");
        }
        let root = if path.is_dir() { path.join("mod.rs") } else { path };
        let text = fs::read_to_string(&root).unwrap();
        assert!(text.starts_with("//!"), "{} does not say what it is for", root.display());
    }
}
