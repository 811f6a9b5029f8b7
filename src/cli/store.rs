//! `narvaro store`: move a store, and look whether it holds together. The service that uses it is stopped meanwhile.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{Ended, Failure, Options, Streams};
use crate::{
    app::{
        AtRestError, Checked, Place, check_at_rest, copy_at_rest, create_at_rest, open_at_rest,
        survey_at_rest,
    },
    config::{Config, Environment, StoreUrl},
    counted::counted,
    store::{
        CopyError, Stage,
        embedded::OpenError,
        portable::{Fault, InCopy, Portable, Summary},
    },
};

/// How often a line tells how far it is, where no progress can be drawn.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What to do about a service that uses the store.
const STOP: &str =
    "stop every service that uses it, and try again; one that was killed is taken for gone after 15 s";

/// Faults that a refused copy names.
const NAMED: usize = 3;

/// What lies beside an embedded store and is not in it: its name, and what is lost without it.
const BESIDE: [(&str, &str); 3] = [
    (
        "client-state.key",
        "without it every subscription is made anew, and notifications are refused until then",
    ),
    ("encryption.keys", "without it events that are sent along are fetched until subscriptions are renewed"),
    ("admin.token", "without it another token is made, and programs that use this one are refused"),
];

#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Copy everything into an empty store and compare; the service is stopped meanwhile.
    ///
    /// The store that is copied from is only read. A copy that was interrupted is begun anew by the same command;
    /// until one has come to its end, no service starts on it. A store in which something does not fit together is not
    /// copied, unless that is asked for.
    Copy(Copy),
    /// Read everything and name what does not fit together; the service is stopped meanwhile.
    Check {
        /// Which store; without it that of the configuration.
        #[arg(value_name = "STORE", value_parser = named)]
        store: Option<Named>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Copy {
    /// The store to read, as in `store.url`.
    ///
    /// A Redis that is the one of the configuration is reached with the keys under `[store]`. The address of another one that
    /// wants a password is given in an environment variable: `env:NAME`.
    #[arg(long, value_name = "STORE", value_parser = named)]
    from: Named,
    /// The store to fill, likewise: nothing may be in it.
    #[arg(long, value_name = "STORE", value_parser = named)]
    to: Named,
    /// Copy a store in which something does not fit together too: what is whole of it.
    ///
    /// `narvaro store check` names what does not fit. Some of it is made anew in the copy, and some left behind.
    #[arg(long)]
    with_faults: bool,
}

/// A store, or the environment variable in which it stands.
#[derive(Debug, Clone)]
pub(super) enum Named {
    Here(StoreUrl),
    Variable(String),
}

fn named(text: &str) -> Result<Named, String> {
    match text.strip_prefix("env:") {
        Some(name) if !name.is_empty() => Ok(Named::Variable(name.to_owned())),
        _ => StoreUrl::try_from(text.to_owned()).map(Named::Here),
    }
}

impl Named {
    fn url(self, environment: &Environment) -> Result<StoreUrl, Failure> {
        match self {
            Self::Here(StoreUrl::Redis(url)) if url.password().is_some() => Err(Failure::new(format!(
                "the password in `{url}` can be read by everybody on this machine while the command runs"
            ))
            .hint("leave it out where the address is that of the configuration, or set an environment variable to the address and write `env:` and its name")),
            Self::Here(url) => Ok(url),
            Self::Variable(name) => {
                let value = environment.get(&name).ok_or_else(|| {
                    Failure::new(format!("the environment variable `{name}` is not set"))
                        .hint("set it to the address of the store")
                })?;
                StoreUrl::try_from(value.to_owned()).map_err(|wrong| {
                    Failure::new(format!("the environment variable `{name}` names no store: {wrong}"))
                })
            }
        }
    }
}

/// Where a store is, with all that is needed to reach it.
fn place_of(url: &StoreUrl, options: &Options, environment: &Environment) -> Result<Place, Failure> {
    let name = match url {
        StoreUrl::Embedded(path) => return Ok(Place::Files(path.clone())),
        StoreUrl::Redis(url) => url.to_string(),
    };
    let config = Config::load(options.config.as_deref(), environment)?;
    let store = config.store.naming(url.clone());
    let link = store.link_settings().map_err(|error| Failure::of("the password cannot be read", &error))?;
    let link = link.ok_or_else(|| Failure::new(format!("`{name}` is no Redis")))?;
    Ok(Place::Redis { link: Box::new(link), prefix: store.prefix, name })
}

impl Store {
    pub(super) async fn run(
        self,
        options: &Options,
        environment: &Environment,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        match self {
            Self::Copy(copy) => copy.run(options, environment, streams).await,
            Self::Check { store } => {
                let url = match store {
                    Some(store) => store.url(environment)?,
                    None => Config::load(options.config.as_deref(), environment)?.store.url,
                };
                check(&place_of(&url, options, environment)?, &url, options.json, streams).await
            }
        }
    }
}

impl Copy {
    async fn run(
        self,
        options: &Options,
        environment: &Environment,
        streams: &mut Streams<'_>,
    ) -> Result<Ended, Failure> {
        let (from_url, to_url) = (self.from.url(environment)?, self.to.url(environment)?);
        if is_same(&from_url, &to_url) {
            return Err(Failure::new("`--from` and `--to` are the same store")
                .hint("name another file, or another server, with `--to`"));
        }
        let from = place_of(&from_url, options, environment)?;
        let to = place_of(&to_url, options, environment)?;
        let from = open_at_rest(&from).await.map_err(|error| not_opened(&error))?;
        // Before the other one is opened, which may make it.
        let faults = survey(&*from, &from_url, streams).await?;
        let is_barred = faults.iter().any(|fault| fault.in_copy == InCopy::InTheWay);
        if is_barred || !faults.is_empty() && !self.with_faults {
            return Err(faulty(&from.name(), &faults, is_barred));
        }
        let to = create_at_rest(&to).await.map_err(|error| not_opened(&error))?;
        let json = options.json;
        if !json && to.is_incomplete().await.unwrap_or_default() {
            streams.note(&format!("A copy into `{}` was not finished; it is begun anew.", to.name()));
        }
        let mut progress = Progress::new();
        let copied = copy_at_rest(&*from, &*to, &mut |stage| progress.tell(&say(stage), streams)).await;
        progress.end();
        let summary = copied.map_err(|error| not_copied(&error, &from_url))?;
        let tally = Tally::of(&faults);
        let keys = take_along(&from_url, &to_url);
        if json {
            streams.json(&json!({
                "from": from.name(),
                "to": to.name(),
                "counts": summary.counts,
                "digest": summary.digest.to_string(),
                "left_behind": tally.left_behind,
                "made_anew": tally.made_anew,
                "copied_with_faults": tally.as_it_is,
                "keys": keys.iter().map(Key::json).collect::<Vec<_>>(),
            }))?;
        } else {
            streams.data(&told(&*from, &*to, &summary, &tally, &keys));
        }
        let all_there = keys.iter().all(|key| !matches!(key.fate, Fate::Failed(_)));
        Ok(if all_there { Ended::Done } else { Ended::FoundTrouble })
    }
}

fn is_same(from: &StoreUrl, to: &StoreUrl) -> bool {
    if let (StoreUrl::Redis(from), StoreUrl::Redis(to)) = (from, to) {
        return (&from.form, from.database) == (&to.form, to.database);
    }
    let place = |url: &StoreUrl| match url {
        StoreUrl::Embedded(path) => path.canonicalize().ok(),
        StoreUrl::Redis(_) => None,
    };
    from == to || place(from).is_some_and(|path| place(to) == Some(path))
}

fn say(stage: Stage) -> String {
    match stage {
        Stage::Copied(mailboxes) => format!("{} copied", counted(mailboxes, "mailbox", "mailboxes")),
        Stage::ReadBack(mailboxes) => format!("{} read back", counted(mailboxes, "mailbox", "mailboxes")),
    }
}

/// What a copy does about what does not fit: how many things.
#[derive(Default)]
struct Tally {
    left_behind: u64,
    made_anew: u64,
    as_it_is: u64,
}

impl Tally {
    fn of(faults: &[Fault]) -> Self {
        let mut tally = Self::default();
        for fault in faults {
            *match fault.in_copy {
                InCopy::LeftBehind => &mut tally.left_behind,
                InCopy::MadeAnew => &mut tally.made_anew,
                InCopy::AsItIs | InCopy::InTheWay => &mut tally.as_it_is,
            } += fault.things;
        }
        tally
    }

    fn all(&self) -> u64 {
        self.left_behind + self.made_anew + self.as_it_is
    }

    /// `2 left behind, 1 copied with what is wrong`
    fn sentence(&self) -> String {
        let parts = [
            (self.left_behind, "left behind"),
            (self.made_anew, "made anew"),
            (self.as_it_is, "copied with what is wrong"),
        ];
        let parts = parts.into_iter().filter(|(count, _)| *count > 0);
        parts.map(|(count, what)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    }
}

/// Finds what does not fit in a store that is to be copied.
async fn survey(
    from: &dyn Portable,
    url: &StoreUrl,
    streams: &mut Streams<'_>,
) -> Result<Vec<Fault>, Failure> {
    let mut progress = Progress::new();
    let surveyed = survey_at_rest(from, &mut |mailboxes| {
        progress.tell(&format!("{} looked at", counted(mailboxes, "mailbox", "mailboxes")), streams);
    })
    .await;
    progress.end();
    surveyed.map_err(|error| not_copied(&error, url))
}

fn faulty(name: &str, faults: &[Fault], is_barred: bool) -> Failure {
    let tally = Tally::of(faults);
    let told = faults.iter().take(NAMED);
    let more = tally.all() - told.clone().map(|fault| fault.things).sum::<u64>();
    let things = counted(tally.all(), "thing does not fit", "things do not fit");
    let mut failure = Failure::new("the store was not copied")
        .because(format!("`{name}` does not hold together: {things}; nothing was written"));
    for fault in told {
        failure = failure.because(format!("{}: {}", fault.place, fault.said));
    }
    if more > 0 {
        failure = failure.because(format!("{more} more"));
    }
    failure = failure
        .hint(format!("`narvaro store check {name}` names each with its remedy; mend it, and copy then"));
    if is_barred {
        return failure;
    }
    failure.hint(format!("`--with-faults` copies all the same: of those, {}", tally.sentence()))
}

fn told(from: &dyn Portable, to: &dyn Portable, summary: &Summary, tally: &Tally, keys: &[Key]) -> String {
    let (from, to) = (from.name(), to.name());
    let mut lines = vec![
        format!("Copied {} into `{to}`, read back and equal.", summary.counts),
        format!("digest {}", summary.digest),
    ];
    if tally.all() > 0 {
        let things = counted(tally.all(), "thing that did", "things that did");
        lines.push(format!("Of {things} not fit in `{from}`: {}.", tally.sentence()));
    }
    lines.extend(keys.iter().map(Key::line));
    lines.push(format!(
        "Set `store.url = \"{to}\"` and start the service. Start none on `{from}` again: both would steer the same phones."
    ));
    lines.join("\n")
}

/// A file beside the store that was copied from.
struct Key {
    path: PathBuf,
    why: &'static str,
    fate: Fate,
}

enum Fate {
    /// Both stores are in one folder.
    Shared,
    Copied(PathBuf),
    /// One of the same name is there, and it is another.
    Another(PathBuf),
    Failed(String),
    /// It belongs on a disk, and the other store is none: where to.
    Elsewhere(&'static str),
}

impl Key {
    fn line(&self) -> String {
        let (path, why) = (self.path.display(), self.why);
        match &self.fate {
            Fate::Shared => format!("`{path}` stays where it is."),
            Fate::Copied(to) => format!("`{path}` was copied to `{}`.", to.display()),
            Fate::Another(to) => {
                format!("`{path}` was not copied, as there is another `{}`: {why}.", to.display())
            }
            Fate::Elsewhere(belongs) => format!("Copy `{path}` {belongs}: {why}."),
            Fate::Failed(said) => format!("`{path}` could not be copied ({said}); take it along: {why}."),
        }
    }

    fn json(&self) -> serde_json::Value {
        let fate = match &self.fate {
            Fate::Shared => "shared",
            Fate::Copied(_) => "copied",
            Fate::Another(_) => "another_is_there",
            Fate::Failed(_) => "failed",
            Fate::Elsewhere(_) => "to_be_copied",
        };
        json!({ "file": self.path, "fate": fate })
    }
}

/// Copies what lies beside the store that was copied from, where the other is a file too, and else says where it belongs.
fn take_along(from: &StoreUrl, to: &StoreUrl) -> Vec<Key> {
    let StoreUrl::Embedded(from) = from else { return Vec::new() };
    let there = BESIDE.into_iter().map(|(name, why)| (from.with_file_name(name), name, why));
    let there = there.filter(|(path, ..)| path.exists());
    let fate = |path: &Path, name: &str| match to {
        StoreUrl::Embedded(to) => copy_key(path, to.with_file_name(name)),
        StoreUrl::Redis(_) if name == BESIDE[0].0 => {
            Fate::Elsewhere("to where each process reads it, and name that as `keys.client_state_file`")
        }
        StoreUrl::Redis(_) => Fate::Elsewhere(
            "into `store.data_dir` of each process, without that the folder of its configuration",
        ),
    };
    there.map(|(path, name, why)| Key { fate: fate(&path, name), path, why }).collect()
}

fn copy_key(from: &Path, to: PathBuf) -> Fate {
    if to.canonicalize().is_ok_and(|to| from.canonicalize().is_ok_and(|from| from == to)) {
        return Fate::Shared;
    }
    match copy_private(from, &to) {
        Ok(()) => Fate::Copied(to),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let same =
                std::fs::read(from).is_ok_and(|ours| std::fs::read(&to).is_ok_and(|theirs| ours == theirs));
            if same { Fate::Copied(to) } else { Fate::Another(to) }
        }
        Err(error) => Fate::Failed(error.to_string()),
    }
}

/// For the service's account only, as the file that it is copied from.
fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut from = File::open(from)?;
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut from, &mut copy)?;
    copy.sync_all()
}

fn not_opened(error: &AtRestError) -> Failure {
    let failure = Failure::of("the store cannot be opened", error);
    match error {
        AtRestError::Files(OpenError::InUse { .. }) => {
            failure.hint("stop the service that uses it, and try again")
        }
        AtRestError::Files(OpenError::Absent { .. }) => failure.hint("check the path after `embedded:`"),
        AtRestError::Redis(error) => failure.hint(error.remedy()),
        AtRestError::Files(_) => {
            failure.hint("check the path, the rights on the file and its folder, and the free space")
        }
    }
}

/// Where to look that has named an empty store.
fn pointer(url: &StoreUrl) -> &'static str {
    match url {
        StoreUrl::Embedded(_) => "see the path after `embedded:`",
        StoreUrl::Redis(_) => "see the database number in the URL, and `store.prefix`",
    }
}

fn not_copied(error: &CopyError, from: &StoreUrl) -> Failure {
    let failure = Failure::of("the store was not copied", error);
    match error {
        CopyError::InUse { .. } => failure.hint(STOP),
        CopyError::SourceIncomplete { .. } => failure.hint("copy from the store that it was copied from"),
        CopyError::Nothing { .. } => failure.hint(pointer(from)),
        CopyError::TargetNotEmpty { .. } => {
            failure.hint("name a store with nothing in it; move this one away if it is not wanted")
        }
        CopyError::Store { .. } => {
            failure.hint("`narvaro store check` says whether the store holds together; then copy again")
        }
        CopyError::Differs { .. } => {
            failure.hint("copy again, while nothing else writes to either; report it if it stays")
        }
    }
}

async fn check(
    place: &Place,
    url: &StoreUrl,
    json: bool,
    streams: &mut Streams<'_>,
) -> Result<Ended, Failure> {
    let store = open_at_rest(place).await.map_err(|error| not_opened(&error))?;
    if let Some(by) = store.in_use().await.ok().flatten() {
        return Err(Failure::new(format!("`{}` is in use: {by}", store.name())).hint(STOP));
    }
    let mut progress = Progress::new();
    let checked = check_at_rest(&*store, &mut |mailboxes| {
        progress.tell(&format!("{} read", counted(mailboxes, "mailbox", "mailboxes")), streams);
    })
    .await;
    progress.end();
    if json {
        streams.json(&json!({
            "store": store.name(),
            "counts": checked.summary.map(|summary| summary.counts),
            "digest": checked.summary.map(|summary| summary.digest.to_string()),
            "faults": checked.faults,
            "empty": checked.is_empty,
        }))?;
    } else {
        streams.data(&found(&store.name(), &checked, url));
    }
    Ok(if checked.faults.is_empty() { Ended::Done } else { Ended::FoundTrouble })
}

fn found(name: &str, checked: &Checked, url: &StoreUrl) -> String {
    if checked.is_empty {
        return format!("There is nothing at `{name}`. If that is not expected, {}.", pointer(url));
    }
    let mut lines = Vec::new();
    for fault in &checked.faults {
        lines.push(format!("FAIL  {}: {}", fault.place, fault.said));
        lines.push(format!("      next: {}", fault.remedy));
    }
    if !checked.faults.is_empty() {
        lines.push(String::new());
    }
    if let Some(summary) = &checked.summary {
        lines.push(format!("`{name}` has {}.", summary.counts));
        lines.push(format!("digest {}", summary.digest));
    }
    lines.push(match checked.faults.len() {
        0 => "It holds together.".to_owned(),
        some => format!("{}.", counted(some, "thing does not fit", "things do not fit")),
    });
    lines.join("\n")
}

/// How far it is: drawn on a terminal, and in lines now and then where there is none.
struct Progress {
    bar: ProgressBar,
    told: Instant,
}

impl Progress {
    fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, told: Instant::now() }
    }

    fn tell(&mut self, line: &str, streams: &mut Streams<'_>) {
        self.bar.set_message(line.to_owned());
        self.bar.tick();
        if self.bar.is_hidden() && self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            streams.note(line);
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}
