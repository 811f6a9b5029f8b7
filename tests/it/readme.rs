//! The README is held to what is there: its commands are run, its files are read, its names exist.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use narvaro::{
    cli,
    company::Company,
    config::{Config, DEFAULTS, Environment},
};

use crate::{
    support::redis::{PLAIN, RedisServer},
    world::{CLIENT_ID, Pbx, World},
};

const README: &str = include_str!("../../README.md");

/// What stands in fences of one language.
fn blocks(language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside: Option<(bool, String)> = None;
    for line in README.lines() {
        match (&mut inside, line.strip_prefix("```")) {
            (None, Some(opened)) => inside = Some((opened == language, String::new())),
            (Some((wanted, text)), Some(_)) => {
                if *wanted {
                    found.push(std::mem::take(text));
                }
                inside = None;
            }
            (Some((_, text)), None) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    assert!(inside.is_none(), "a fence is not closed");
    assert!(!found.is_empty(), "there is no block of `{language}`");
    found
}

/// The command lines for `narvaro`, as words; a redirection is left out.
fn commands() -> Vec<Vec<String>> {
    let blocks = blocks("sh");
    let lines = blocks.iter().flat_map(|block| block.lines());
    let commands = lines.filter(|line| line.starts_with("narvaro "));
    commands.map(|line| words(line.split(" > ").next().unwrap())).collect()
}

/// Words as a shell sees them, with `"` as the only quote.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(ToOwned::to_owned));
        }
    }
    words
}

async fn run(words: &[String], configuration: &Path) -> (u8, String) {
    let environment = Environment::of([("NARVARO_CONFIG", configuration.to_str().unwrap())]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = cli::run(words.iter().map(OsString::from), environment, &mut out, &mut err).await;
    let said = [out, err].concat();
    (code, String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn every_command_in_the_readme_is_understood() {
    let commands = commands();
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        // Nothing can be done without a configuration, so that only the wording counts.
        let (code, said) = run(&command, Path::new("/nowhere/narvaro.toml")).await;
        assert!(code < 2, "{}: {said}", command.join(" "));
    }
}

#[tokio::test]
async fn every_command_in_the_readme_does_its_work_against_a_running_service() {
    let world = World::new().await;
    let folder = tempfile::tempdir().unwrap();
    let company = folder.path().join("company.toml");
    fs::write(&company, world.company(Pbx::Http, "")).unwrap();
    let configuration = folder.path().join("narvaro.toml");
    fs::write(&configuration, configuration_of(&world)).unwrap();
    for command in commands() {
        // It runs already; and what is about a store without a service has its turn below.
        if ["serve", "store"].contains(&command[1].as_str()) {
            continue;
        }
        let given = command.iter().map(|word| match word.as_str() {
            "company.toml" => company.display().to_string(),
            "narvaro-backup.json" => folder.path().join(word).display().to_string(),
            _ => word.clone(),
        });
        let given: Vec<_> = given.collect();
        let (code, said) = run(&given, &configuration).await;
        assert_eq!(code, 0, "{}: {said}", command.join(" "));
    }
    world.end().await;
}

#[tokio::test]
async fn every_command_in_the_readme_about_stores_does_its_work_while_the_service_is_stopped() {
    let mut world = World::new().await;
    let configuration = world.folder.path().join("narvaro.toml");
    fs::write(&configuration, configuration_of(&world)).unwrap();
    let new = tempfile::tempdir().unwrap();
    let redis = RedisServer::start(PLAIN);
    world.stop().await;
    let commands = commands().into_iter().filter(|command| command[1] == "store");
    let commands: Vec<_> = commands.collect();
    assert!(commands.len() >= 2, "{commands:?}");
    for command in commands {
        let placed = |word: &String| {
            word.replace("/var/lib/narvaro", &world.folder.path().display().to_string())
                .replace("/srv/narvaro", &new.path().display().to_string())
                .replace("redis://redis.example.org:6379", &redis.url())
        };
        let given: Vec<_> = command.iter().map(placed).collect();
        let (code, said) = run(&given, &configuration).await;
        assert_eq!(code, 0, "{}: {said}", command.join(" "));
    }
    world.start().await;
    world.until_fine("acme").await;
    world.end().await;
}

fn configuration_of(world: &World) -> String {
    let store = world.folder.path().join("narvaro.db");
    let secret = world.folder.path().join("client-secret");
    fs::write(&secret, "a secret").unwrap();
    format!(
        "[listen]\nprivate = \"{}\"\n[webhook]\npublic_url = \"https://presence.example.org\"\n\
         [store]\nurl = \"embedded:{}\"\n[graph]\nclient_id = \"{CLIENT_ID}\"\nclient_secret_file = \"{}\"\n",
        world.app().private(),
        store.display(),
        secret.display()
    )
}

#[test]
fn every_file_shown_in_the_readme_holds() {
    let rest = "[integration]\nkind = \"microsoft365\"\n[[users]]\nextension = \"201\"\nalias = \"anna@acme.example\"\n";
    for block in blocks("toml") {
        if block.starts_with("# narvaro.toml") {
            Config::parse("narvaro.toml", &block, &Environment::of([("", "")])).unwrap();
        } else {
            assert!(block.starts_with("# company.toml"), "whose file is this?\n{block}");
            let file = format!("id = \"acme\"\nname = \"Acme AB\"\n{block}{rest}");
            let parsed =
                Company::parse("company.toml", &file).unwrap_or_else(|error| panic!("{block}\n{error}"));
            assert!(parsed.warnings.is_empty(), "{block}\n{:?}", parsed.warnings);
        }
    }
}

#[test]
fn every_key_of_the_configuration_that_the_readme_names_exists() {
    let defaults: toml::Table = DEFAULTS.parse().unwrap();
    let quoted = README.split('`').skip(1).step_by(2);
    let mut seen = 0;
    for word in quoted {
        let Some((section, key)) = word.split_once('.') else { continue };
        let Some(section) = defaults.get(section).and_then(toml::Value::as_table) else { continue };
        // `[pbx]` is a section of company files too, and `admin.token` a file.
        if key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            && word != "admin.token"
            && !word.starts_with("pbx.")
        {
            assert!(section.contains_key(key), "`{word}` is no key of the configuration");
            seen += 1;
        }
    }
    assert!(seen > 10, "{seen}");
}

/// The names of all states, from the source.
pub(crate) fn states() -> BTreeSet<String> {
    let source = fs::read_to_string(here("src/health/mod.rs")).unwrap();
    let body = source.split_once("pub enum Health {").unwrap().1.split_once("\n}").unwrap().0;
    let names = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = names.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    let states: BTreeSet<_> = names.map(|line| snake(line.split([' ', ',']).next().unwrap())).collect();
    assert!(states.contains("no_consent"), "{states:?}");
    states
}

#[test]
fn the_readme_tells_every_state_and_no_other() {
    let table = README.split_once("### States").unwrap().1.split_once("### Health").unwrap().0;
    let cells =
        table.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('|').nth(1).unwrap());
    let told: BTreeSet<_> =
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(ToOwned::to_owned).collect();
    assert_eq!(told, states());
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[test]
fn readme_alerts_and_dashboard_name_the_metrics_that_there_are() {
    let mut counted = BTreeSet::new();
    sources(&here("src"), &mut counted);
    assert!(counted.len() > 20, "{counted:?}");
    assert_eq!(metrics(README), counted, "README and source differ");
    for file in ["infra/prometheus/alerts.yml", "infra/grafana/dashboard.json"] {
        let named = metrics(&fs::read_to_string(here(file)).unwrap());
        let unknown: Vec<_> = named.difference(&counted).collect();
        assert!(unknown.is_empty() && !named.is_empty(), "{file} names {unknown:?}");
    }
}

/// Names in a text that end as metrics do.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    let names = words.map(|word| word.strip_suffix("_bucket").unwrap_or(word));
    let names = names.filter(|name| name.starts_with("narvaro_"));
    names
        .filter(|name| name.ends_with("_total") || name.ends_with("_seconds"))
        .map(ToOwned::to_owned)
        .collect()
}

fn sources(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(metrics(&fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn every_link_of_the_readme_leads_to_something() {
    let links = README.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    for link in links.filter(|link| !link.starts_with("https://")) {
        match link.strip_prefix('#') {
            Some(anchor) => {
                let heads = README.lines().filter(|line| line.starts_with('#'));
                let mut anchors = heads.map(|head| {
                    head.trim_start_matches('#').trim().to_lowercase().replace(' ', "-").replace(',', "")
                });
                assert!(anchors.any(|head| head == anchor), "no heading for `#{anchor}`");
            }
            None => assert!(here(link).exists(), "`{link}` does not exist"),
        }
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
