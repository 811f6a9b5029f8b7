//! What may be among the dependencies: `.deny.toml` held against what cargo resolved.
//!
//! The same rules as `cargo deny check bans licenses sources`, for machines without that tool: building it takes
//! longer than everything else that is checked. Advisories are not held: they need the network.

use std::{collections::BTreeSet, path::Path, process::Command};

use serde_json::Value;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// Every package that cargo resolved for this workspace, for all targets.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(HERE)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn rules() -> toml::Table {
    std::fs::read_to_string(Path::new(HERE).join(".deny.toml")).unwrap().parse().unwrap()
}

fn texts(list: &toml::Value) -> BTreeSet<String> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn name(package: &Value) -> &str {
    package["name"].as_str().unwrap()
}

#[test]
fn no_banned_crate_is_among_the_dependencies() {
    let rules = rules();
    let banned = rules["bans"]["deny"].as_array().unwrap();
    let banned: BTreeSet<_> = banned.iter().map(|ban| ban["crate"].as_str().unwrap()).collect();
    assert!(banned.contains("openssl-sys"), "the list is read");
    let packages = packages();
    let found: Vec<_> = packages.iter().map(name).filter(|name| banned.contains(name)).collect();
    assert!(found.is_empty(), "banned by `.deny.toml`: {found:?}");
}

#[test]
fn every_dependency_has_a_licence_that_is_allowed() {
    let rules = rules();
    let allowed = texts(&rules["licenses"]["allow"]);
    let wrong: Vec<_> = packages()
        .iter()
        .filter(|package| !package["source"].is_null())
        .filter(|package| {
            // A licence in a file of its own would have to be read by a person.
            !package["license"].as_str().is_some_and(|licence| licence_is_allowed(licence, &allowed))
        })
        .map(|package| format!("{}: {}", name(package), package["license"]))
        .collect();
    assert!(wrong.is_empty(), "not allowed by `.deny.toml`: {wrong:#?}");
}

#[test]
fn every_dependency_comes_from_the_default_registry() {
    let rules = rules();
    let allowed: BTreeSet<_> =
        texts(&rules["sources"]["allow-registry"]).iter().map(|url| format!("registry+{url}")).collect();
    let wrong: Vec<_> = packages()
        .iter()
        .filter(|package| package["source"].as_str().is_some_and(|source| !allowed.contains(source)))
        .map(|package| format!("{} from {}", name(package), package["source"]))
        .collect();
    assert!(wrong.is_empty(), "not allowed by `.deny.toml`: {wrong:#?}");
}

/// Whether an SPDX expression can be fulfilled with what is allowed. Of the older form, `MIT/Apache-2.0` is "or".
fn licence_is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<_> = spaced.split_whitespace().collect();
    let mut rest = tokens.as_slice();
    let holds = any_of(&mut rest, allowed);
    assert!(rest.is_empty(), "`{expression}` is no licence expression");
    holds
}

fn any_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = all_of(rest, allowed);
    while let ["OR", after @ ..] = *rest {
        *rest = after;
        holds |= all_of(rest, allowed);
    }
    holds
}

fn all_of(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut holds = one(rest, allowed);
    while let ["AND", after @ ..] = *rest {
        *rest = after;
        holds &= one(rest, allowed);
    }
    holds
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    match *rest {
        ["(", after @ ..] => {
            *rest = after;
            let holds = any_of(rest, allowed);
            assert_eq!(rest.first(), Some(&")"), "a bracket is not closed");
            *rest = &rest[1..];
            holds
        }
        [licence, "WITH", exception, after @ ..] => {
            *rest = after;
            allowed.contains(&format!("{licence} WITH {exception}"))
        }
        [licence, after @ ..] => {
            *rest = after;
            allowed.contains(*licence)
        }
        [] => panic!("a licence is missing"),
    }
}

#[test]
fn licence_expressions_are_read_as_they_are_meant() {
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned(), "A WITH B".to_owned()]);
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("GPL-3.0 AND MIT OR ISC", true),
        ("A WITH B", true),
        ("A WITH C", false),
    ] {
        assert_eq!(licence_is_allowed(expression, &allowed), holds, "{expression}");
    }
}
