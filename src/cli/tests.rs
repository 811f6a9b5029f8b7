//! The command line as its users see it: words on both streams and the exit code, against a fake service.

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Client, Streams, remove::Remove, run};
use crate::{
    admin::fake::{Fake, Running, TOKEN},
    company::Company,
    config::Environment,
    store::embedded::Files,
};

/// What a command line said and how it ended.
struct Said {
    out: String,
    err: String,
    code: u8,
}

/// A command line beside a fake service, with the token in its file.
struct Desk {
    running: Running,
    folder: TempDir,
}

impl Desk {
    async fn new() -> Self {
        Self::with(Fake::default()).await
    }

    async fn with(fake: Fake) -> Self {
        let desk = Self { running: Running::start(fake).await, folder: tempfile::tempdir().unwrap() };
        desk.write("admin.token", TOKEN);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file, and its path as an argument.
    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// A store with a company that has one user, as in `store.url`.
    fn store(&self, name: &str) -> String {
        let path = self.path(name);
        drop(Files::create(&path).unwrap());
        let text = "id = 'acme'\nname = 'Acme AB'\n[[users]]\nextension = '201'\nalias = 'a@b.se'\n";
        let applied = Company::parse("acme.toml", text).unwrap().company.to_json();
        let file = rusqlite::Connection::open(&path).unwrap();
        let company = "INSERT INTO company (id, applied) VALUES ('acme', CAST(?1 AS BLOB))";
        file.execute(company, [applied]).unwrap();
        file.execute("INSERT INTO mailbox (company, extension) VALUES ('acme', '201')", []).unwrap();
        format!("embedded:{}", path.display())
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let token_file = self.path("admin.token").display().to_string();
        let options = ["narvaro", "--url", &self.running.url, "--token-file", &token_file];
        let said = raw(&[&options[..], arguments].concat()).await;
        // Where things lie differs from run to run.
        let tidy = |text: String| {
            text.replace(&self.running.url, "URL").replace(&self.folder.path().display().to_string(), "DIR")
        };
        Said { out: tidy(said.out), err: tidy(said.err), code: said.code }
    }

    /// `remove acme` beside a person who answers, if there is one: data, talk, and the failure in words.
    async fn remove(&self, answer: Option<&str>) -> (String, String, String) {
        let client = Client::at(&self.running.url, &self.path("admin.token")).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut person = answer.map(str::as_bytes);
        let person = person.as_mut().map(|person| person as &mut dyn std::io::BufRead);
        let mut streams = Streams::new(&mut out, &mut err);
        let remove = Remove::of("acme".parse().unwrap());
        let failure = remove.run_with(person, &client, false, &mut streams).await.err();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(out), text(err), failure.map(|failure| failure.to_string()).unwrap_or_default())
    }

    /// What a command that succeeds puts out, with nothing said besides.
    async fn data(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!((said.err.as_str(), said.code), ("", 0), "{arguments:?}: {}", said.out);
        said.out
    }
}

async fn raw(arguments: &[&str]) -> Said {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let arguments = arguments.iter().map(std::ffi::OsString::from);
    let code = run(arguments, Environment::default(), &mut out, &mut err).await;
    Said { out: String::from_utf8(out).unwrap(), err: String::from_utf8(err).unwrap(), code }
}

const STATUS: &str = "\
Acme AB (acme), times in Europe/Stockholm
  Consent  given by tenant 01234567-89ab-cdef-0123-456789abcdef at 2026-11-01 10:00
  Push     last notification 2026-11-23 13:41
  PBX      DOWN: connection refused
  TROUBLE: Company: pbx unreachable
    cause: The PBX does not answer: connection refused.
    cure:  Check address, port and firewall of the PBX, and that it runs. Presence is written as soon as it answers.

  EXT  NAME        ALIAS              SHOWS  UNTIL             NEXT CHANGE       SUBSCRIBED UNTIL  READ              HEALTH
  201  Anna Ström  anna@acme.example  Möte   2026-11-23 15:00  2026-11-23 15:00  2026-11-29 09:00  2026-11-23 14:00  fine
  202  -           bo@acme.example    -      -                 -                 -                 -                 no mailbox

  TROUBLE: 202 bo@acme.example: no mailbox
    cause: The user has no mailbox in Microsoft 365 (MailboxNotEnabledForRESTAPI).
    cure:  Let the company's administrator give the user an Exchange Online licence, or remove the user from the company file.
";

#[tokio::test]
async fn status_shows_mailboxes_in_columns_and_trouble_with_cause_and_cure() {
    let desk = Desk::new().await;
    assert_eq!(desk.data(&["status"]).await, STATUS);
    assert_eq!(desk.data(&["status", "acme"]).await, STATUS);
}

#[tokio::test]
async fn status_without_companies_says_how_to_begin() {
    let said = Desk::with(Fake { empty: true, ..Fake::default() }).await.run(&["status"]).await;
    assert_eq!(
        (said.out.as_str(), said.err.as_str(), said.code),
        (
            "",
            "There is no company yet. `narvaro company new` prints a file to start from; `narvaro apply` makes it live.\n",
            0
        )
    );
}

#[tokio::test]
async fn apply_says_what_changes_and_whether_it_was_done() {
    let desk = Desk::new().await;
    let file = desk.write(
        "acme.toml",
        "id = 'acme'\nname = 'Acme AB'\n[[users]]\nextension = '201'\nalias = 'a@b.se'\n",
    );
    let warnings = "\
warning: DIR/acme.toml: `integration` is not there: no calendar is read
  hint: add `[integration]` with `kind = \"microsoft365\"`
warning: DIR/acme.toml: `pbx` is not there: nothing is shown anywhere
  hint: add `[pbx]` with its `kind` and settings
";
    let changes = "  company acme: new, `Acme AB`\n  user 201: new, alias a@b.se\n";
    let said = desk.run(&["apply", &file, "--dry-run"]).await;
    assert_eq!(
        (said.out, said.err.as_str(), said.code),
        (format!("acme: 2 changes, dry run, nothing applied\n{changes}"), warnings, 0)
    );
    let said = desk.run(&["apply", &file]).await;
    assert_eq!((said.out, said.code), (format!("acme: 2 changes, applied as revision 8\n{changes}"), 0));
}

#[tokio::test]
async fn apply_of_a_wrong_file_names_file_line_key_and_remedy() {
    let desk = Desk::new().await;
    let users = "[[users]]\nextension = '201'\nalias = 'a@b.se'\n";
    let file =
        desk.write("acme.toml", &format!("id = 'acme'\nname = 'Acme'\nphone_region = 'x'\n{users}{users}"));
    let said = desk.run(&["apply", &file]).await;
    let expected = "\
error: the company file does not hold
  caused by: DIR/acme.toml, line 3: `phone_region` cannot be `x`
  caused by: DIR/acme.toml, line 8: `users[1].extension` is `201`, which user `201` in line 5 has
  caused by: DIR/acme.toml, line 9: `users[1].alias` is `a@b.se`, which user `201` in line 6 has

hint: line 3: write the country's two capital letters, as `SE`
hint: line 8: give each user an extension of their own
hint: line 9: give each user the primary SMTP address of their own mailbox
hint: nothing was changed: correct the file and apply it again
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("", expected, 1));
}

#[tokio::test]
async fn apply_of_a_file_that_is_not_there_says_so() {
    let said = Desk::new().await.run(&["apply", "/nowhere/acme.toml"]).await;
    let expected = "\
error: the company file `/nowhere/acme.toml` cannot be read
  caused by: No such file or directory (os error 2)

hint: check the path; `narvaro company new` prints a file to start from
";
    assert_eq!((said.err.as_str(), said.code), (expected, 1));
}

#[tokio::test]
async fn export_puts_out_the_file_and_nothing_else() {
    assert_eq!(Desk::new().await.data(&["export", "acme"]).await, "id = \"acme\"\n");
}

#[tokio::test]
async fn the_consent_address_is_data_and_its_use_is_talk() {
    let said = Desk::new().await.run(&["consent-url", "acme"]).await;
    assert_eq!(said.out, "https://login.example/adminconsent?state=abc\n");
    assert_eq!(
        said.err,
        "To be opened once, by an administrator of the company's Microsoft 365; good until 2026-11-23 14:30 UTC.\n"
    );
}

#[tokio::test]
async fn explain_takes_times_as_people_write_them_in_the_companys_zone() {
    let desk = Desk::new().await;
    for (arguments, at) in [
        (&["explain", "201"][..], "2026-11-23T13:30:00Z"),
        (&["explain", "201", "--at", "15:00"], "2026-11-23T14:00:00Z"),
        (&["explain", "ANNA@acme.example", "--at", "2026-07-01 15:00"], "2026-07-01T13:00:00Z"),
        (&["explain", "201", "--at", "2026-11-23T15:00:00+02:00"], "2026-11-23T13:00:00Z"),
    ] {
        let expected = format!("At {at} `Möte` shows, by the word `MÖT`.\n");
        assert_eq!(desk.data(arguments).await, expected, "{arguments:?}");
    }
}

#[tokio::test]
async fn explain_of_a_user_that_is_not_there_says_where_to_look() {
    let desk = Desk::new().await;
    let said = desk.run(&["explain", "299"]).await;
    let expected = "\
error: company `acme` has no user with extension or alias `299`

hint: `narvaro status acme` lists the users
";
    assert_eq!((said.err.as_str(), said.code), (expected, 1));
    let said = desk.run(&["explain", "299", "--at", "15:00"]).await;
    assert_eq!(
        said.err,
        "error: no company has a user with extension or alias `299`\n\nhint: `narvaro status` lists the users\n"
    );
}

#[tokio::test]
async fn try_answers_for_a_subject() {
    let out = Desk::new().await.data(&["try", "MÖT: budget", "--company", "acme"]).await;
    assert_eq!(out, "`MÖT: budget` sets `Möte`.\n");
}

#[tokio::test]
async fn subscriptions_are_listed_with_their_ends() {
    let out = Desk::new().await.data(&["subscriptions", "list"]).await;
    let expected = "\
COMPANY  EXT  ALIAS              EXPIRES            TO BE RENEWED      ID     HEALTH
acme     201  anna@acme.example  2026-11-29 08:00Z  2026-11-26 08:00Z  sub-1  fine
";
    assert_eq!(out, expected);
    let json = Desk::new().await.data(&["--json", "subscriptions", "list"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json[0]["renew_at"], "2026-11-26T08:00:00Z", "a time to come");
}

const STATUS_IN_SWEDISH: &str = "\
Acme AB (acme), tider i Europe/Stockholm
  Medgivande  gett av klientorganisation 01234567-89ab-cdef-0123-456789abcdef 2026-11-01 10:00
  Push        senaste aviseringen 2026-11-23 13:41
  Växel       SVARAR INTE: connection refused
  FEL: Företaget: växeln svarar inte
    orsak:  Växeln svarar inte: connection refused.
    åtgärd: Kontrollera växelns adress, port och brandvägg, och att den är igång. Närvaron skrivs så snart den svarar.

  ANKN  NAMN        ALIAS              VISAR  TILL              NÄSTA ÄNDRING     PRENUMERATION TILL  LÄST              TILLSTÅND
  201   Anna Ström  anna@acme.example  Möte   2026-11-23 15:00  2026-11-23 15:00  2026-11-29 09:00    2026-11-23 14:00  bra
  202   -           bo@acme.example    -      -                 -                 -                   -                 ingen postlåda

  FEL: 202 bo@acme.example: ingen postlåda
    orsak:  Användaren har ingen postlåda i Microsoft 365 (MailboxNotEnabledForRESTAPI).
    åtgärd: Låt företagets administratör ge användaren en licens för Exchange Online, eller ta bort användaren ur företagsfilen.
";

#[tokio::test]
async fn an_answer_is_in_one_language() {
    let desk = Desk::new().await;
    assert_eq!(desk.data(&["status", "--lang", "sv"]).await, STATUS_IN_SWEDISH);
    let list = desk.data(&["subscriptions", "list", "--lang", "sv"]).await;
    let first = list.lines().next().unwrap();
    assert_eq!(
        first,
        "FÖRETAG  ANKN  ALIAS              LÖPER UT           FÖRNYAS            ID     TILLSTÅND"
    );
    assert!(list.contains("  bra\n"), "{list}");
    let renewed = desk.data(&["subscriptions", "renew", "--user", "201", "--lang", "sv"]).await;
    assert_eq!(renewed, "1 av 1 prenumeration förnyades.\n");
    let checked = desk.run(&["check", "--lang", "sv"]).await.out;
    assert!(checked.contains("FEL   acme: PBX: Växeln svarar inte"), "{checked}");
    assert!(checked.contains("      nästa steg: Kontrollera växelns adress"), "{checked}");
    assert!(checked.contains("ok    tjänsten: svarar på URL"), "{checked}");
    let wrong = desk.run(&["status", "--lang", "no"]).await;
    assert!(wrong.code == 2 && wrong.err.contains("write `sv` or `en`"), "{}", wrong.err);
}

#[tokio::test]
async fn removing_says_what_goes_and_needs_a_yes() {
    let desk = Desk::new().await;
    let goes = "Acme AB (acme)\n  company acme: `Acme AB`\n  user 201: anna@acme.example\n";
    let dry = desk.data(&["remove", "acme", "--dry-run"]).await;
    assert_eq!(dry, format!("{goes}Dry run, nothing removed.\n"));
    let done = "It is being removed; `narvaro status acme` shows how far that is, and knows it no more once it is gone.\n";
    assert_eq!(desk.data(&["remove", "acme", "--yes"]).await, format!("{goes}{done}"));
    for (answer, expected) in [
        (
            None,
            "error: nobody can be asked whether `acme` is to go\n\nhint: look at it with `--dry-run`, then add `--yes`\n",
        ),
        (Some("yes\n"), "error: not confirmed: nothing was removed\n"),
        (Some(""), "error: not confirmed: nothing was removed\n"),
        (Some("acme\n"), ""),
    ] {
        let (out, asked, failure) = desk.remove(answer).await;
        assert_eq!(failure, expected, "{answer:?}");
        assert_eq!(out.is_empty(), !expected.is_empty(), "{answer:?}: {out}");
        if answer.is_some() {
            assert_eq!(asked, format!("{goes}To remove it, type its id (acme):\n"));
        }
    }
}

#[tokio::test]
async fn renewing_tells_how_many_and_fails_if_one_failed() {
    let desk = Desk::new().await;
    assert_eq!(
        desk.data(&["subscriptions", "renew", "--user", "201"]).await,
        "Renewed 1 of 1 subscription.\n"
    );
    let said = desk.run(&["subscriptions", "renew", "--all"]).await;
    let expected = "\
failed: 202 bo@acme.example: no mailbox
1 failed with `no_mailbox`

hint: `narvaro status` tells cause and cure; each is tried again by itself
";
    assert_eq!(
        (said.out.as_str(), said.err.as_str(), said.code),
        ("Renewed 1 of 2 subscriptions.\n", expected, 1)
    );
}

#[tokio::test]
async fn a_job_is_followed_again_listed_and_ended_early() {
    let desk = Desk::new().await;
    let said = desk.run(&["subscriptions", "renew", "--job", "renew-2"]).await;
    assert_eq!((said.out.as_str(), said.code), ("Renewed 1 of 2 subscriptions.\n", 1));
    let out = desk.data(&["subscriptions", "jobs", "--company", "acme"]).await;
    let expected = "\
JOB      STARTED            BY     COMPANY  USER  DONE    FAILED  STATE
renew-2  2026-11-23 13:00Z  admin  acme     -     2 of 2  1       done
";
    assert_eq!(out, expected);
    assert_eq!(desk.data(&["subscriptions", "cancel", "renew-2"]).await, "Ended early, 1 of 2 done.\n");
    let said = desk.run(&["subscriptions", "renew", "--job", "none"]).await;
    assert!(said.err.starts_with("error: there is no job `none`\n"), "{}", said.err);
}

#[tokio::test]
async fn how_many_were_renewed_is_right_however_many_failed() {
    let desk = Desk::new().await;
    let said = desk.run(&["subscriptions", "renew", "--job", "renew-70"]).await;
    assert_eq!(said.out, "Renewed 9 of 70 subscriptions, 1 of them made anew.\n");
    let counted = "failed: 11 more\n1 failed with `late`\n60 failed with `no_mailbox`\n";
    assert!(said.code == 1 && said.err.contains(counted), "{}", said.err);
    let said = desk.run(&["subscriptions", "renew", "--job", "renew-70", "--lang", "sv"]).await;
    assert_eq!(said.out, "9 av 70 prenumerationer förnyades, 1 av dem på nytt.\n");
    assert!(said.err.contains("\nmisslyckades: 11 till\n1 misslyckades med `late`\n"), "{}", said.err);
}

#[tokio::test]
async fn a_job_that_was_cancelled_elsewhere_is_told_as_such_and_is_no_success() {
    let desk = Desk::new().await;
    for (language, told) in [
        ("en", "Renewed 1 of 2 subscriptions; the job was cancelled, the rest is as it was.\n"),
        ("sv", "1 av 2 prenumerationer förnyades; jobbet avbröts, resten är som det var.\n"),
    ] {
        let said =
            desk.run(&["subscriptions", "renew", "--job", "renew-cancelled", "--lang", language]).await;
        assert_eq!((said.out.as_str(), said.code), (told, 1));
    }
    let said = desk.run(&["--json", "subscriptions", "renew", "--job", "renew-cancelled"]).await;
    assert!(said.code == 1 && said.out.contains("\"cancelled\": true"), "{}", said.out);
}

#[tokio::test]
async fn a_long_job_says_that_it_may_be_left() {
    let desk = Desk::with(Fake { many: true, ..Fake::default() }).await;
    for (language, leave) in [("en", "leave it with Ctrl-C"), ("sv", "lämna det med Ctrl-C")] {
        let said = desk.run(&["subscriptions", "renew", "--all", "--lang", language]).await;
        let first = said.err.lines().next().unwrap_or_default();
        assert!(first.contains(leave), "{first}");
        assert!(first.contains("`narvaro subscriptions renew --job renew-70`"), "{first}");
    }
}

#[tokio::test]
async fn a_renewal_that_is_under_way_already_is_joined() {
    let desk = Desk::with(Fake { under_way: true, ..Fake::default() }).await;
    let said = desk.run(&["subscriptions", "renew", "--user", "201"]).await;
    let told = "Job renew-1 is under way for these already; it goes on where it is.\n";
    assert_eq!((said.out.as_str(), said.err.as_str()), ("Renewed 1 of 1 subscription.\n", told));
}

#[tokio::test]
async fn the_audit_trail_reads_like_a_log() {
    let desk = Desk::new().await;
    let expected = "\
AT                    WHO       WHAT   COMPANY  OUTCOME
2026-11-23 13:00:00Z  helpdesk  renew  acme     job renew-2: 2 mailboxes
2026-11-23 13:20:00Z  admin     sync   -        2 mailboxes are read anew
";
    assert_eq!(desk.data(&["audit"]).await, expected);
    let newest = desk.data(&["audit", "--company", "acme", "--since", "2026-11-23", "--most", "1"]).await;
    assert_eq!(newest.lines().count(), 2);
    assert!(newest.contains("sync"), "{newest}");
}

#[tokio::test]
async fn what_concerns_all_companies_stands_before_them() {
    let desk = Desk::with(Fake { credential_ends: true, ..Fake::default() }).await;
    let out = desk.data(&["status"]).await;
    let told = "\
warning: Service: credential expires
  cause: The application's secret or certificate stops working on 2026-12-01; after that no calendar can be read.
  cure:  Add a new one to the app registration in Entra, name it in `[graph]`, restart, and remove the old one.
";
    assert_eq!(out, format!("{told}{STATUS}"));
}

#[tokio::test]
async fn the_processes_that_share_the_store_stand_before_the_companies() {
    let replica = |name: &str, answers| crate::admin::ReplicaInfo {
        name: name.into(),
        version: "1.2.3".into(),
        started: "2026-11-20T06:00:00Z".parse().unwrap(),
        seen: "2026-11-23T13:29:58Z".parse().unwrap(),
        answers,
    };
    let replicas = vec![replica("one-1f2e3d4c", false), replica("two-5b6a7988", true)];
    let desk = Desk::with(Fake { replicas, ..Fake::default() }).await;
    let told = "\
PROCESS       VERSION  SINCE              LAST HEARD
one-1f2e3d4c  1.2.3    2026-11-20 06:00Z  2026-11-23 13:29:58Z
two-5b6a7988  1.2.3    2026-11-20 06:00Z  2026-11-23 13:29:58Z  answered this

";
    assert_eq!(desk.data(&["status"]).await, format!("{told}{STATUS}"));
    let out = desk.data(&["status", "--lang", "sv"]).await;
    assert!(out.starts_with("PROCESS       VERSION  SEDAN              HÖRDES\n"), "{out}");
    assert!(out.contains("13:29:58Z  svarade på detta\n"), "{out}");
}

#[tokio::test]
async fn sync_tells_how_many() {
    let out = Desk::new().await.data(&["sync", "--company", "acme"]).await;
    assert_eq!(out, "2 calendars are being read anew; `narvaro status` shows when.\n");
    let out = Desk::new().await.data(&["sync", "--user", "201"]).await;
    assert_eq!(out, "1 calendar is being read anew; `narvaro status` shows when.\n");
    let out = Desk::new().await.data(&["sync", "--all"]).await;
    assert!(out.starts_with("2 calendars are "), "{out}");
}

#[tokio::test]
async fn check_says_the_next_step_for_each_thing_that_is_wrong() {
    let desk = Desk::new().await;
    let secret = desk.write("secret", "s3cret");
    let config = desk.write(
        "narvaro.toml",
        &format!(
            "[webhook]\npublic_url = 'https://x.example'\n\
             [graph]\nclient_id = '01234567-89ab-cdef-0123-456789abcdef'\nclient_secret_file = '{secret}'\n"
        ),
    );
    let company = desk.write("bad.toml", "id = 'acme'\nname = 'Acme'\ntime_zone = 'Mars'\n");
    let said = desk.run(&["check", "--config", &config, &company]).await;
    let expected = "\
ok    configuration: DIR/narvaro.toml holds
FAIL  company file: DIR/bad.toml, line 3: `time_zone` cannot be `Mars`: there is no such zone
      next: write an IANA name, as `Europe/Stockholm`
ok    service: answers at URL
ok    acme: login: a token was given
FAIL  acme: PBX: The PBX does not answer: connection refused.
      next: Check address, port and firewall of the PBX, and that it runs. Presence is written as soon as it answers.

2 things are wrong.
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), (expected, "", 1));
}

#[tokio::test]
async fn check_works_without_a_service() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("narvaro.toml");
    std::fs::write(&config, "[listen]\nprivate = '127.0.0.1:1'\n").unwrap();
    std::fs::write(folder.path().join("admin.token"), TOKEN).unwrap();
    let said = raw(&["narvaro", "check", "--config", &config.display().to_string()]).await;
    assert_eq!(said.code, 1);
    assert!(said.out.contains("`webhook.public_url` is not set"), "{}", said.out);
    assert!(
        said.out.contains("FAIL  service: the service does not answer at http://127.0.0.1:1: "),
        "{}",
        said.out
    );
    let next = "next: start it with `narvaro serve`, or name its address with `--url`";
    assert!(said.out.contains(next), "{}", said.out);
    assert!(said.out.ends_with("\n4 things are wrong.\n"), "{}", said.out);
}

#[tokio::test]
async fn an_order_whose_answer_is_lost_is_not_said_to_have_changed_nothing() {
    let desk = Desk::new().await;
    let [token, file] = [
        desk.path("admin.token").display().to_string(),
        desk.write("acme.toml", "id = 'acme'\nname = 'Acme AB'\n"),
    ];
    // Somebody who hangs up on each caller.
    let rude = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", rude.local_addr().unwrap());
    let hangs_up = async { while rude.accept().await.is_ok() {} };
    let of = async |url: &str, command: &[&str]| {
        let line = [&["narvaro", "--url", url, "--token-file", token.as_str()], command].concat();
        raw(&line).await.err
    };
    let asked = async {
        for (url, command, lost) in [
            (url.as_str(), &["apply", file.as_str()][..], true),
            (url.as_str(), &["status"], false),
            ("http://127.0.0.1:1", &["apply", file.as_str()], false),
        ] {
            let said = of(url, command).await;
            assert!(said.starts_with("error: the service does not answer at "), "{said}");
            assert_eq!(said.contains("hint: it may have been done or not: "), lost, "{command:?}: {said}");
        }
    };
    tokio::select! {
        () = hangs_up => panic!("nobody can call any more"),
        () = asked => {}
    }
}

#[tokio::test]
async fn a_service_that_does_not_answer_is_told_with_the_next_step() {
    let desk = Desk::new().await;
    let token = desk.path("admin.token").display().to_string();
    let said = raw(&["narvaro", "--url", "http://127.0.0.1:1", "--token-file", &token, "status"]).await;
    let mut lines = said.err.lines();
    assert_eq!(lines.next(), Some("error: the service does not answer at http://127.0.0.1:1"));
    assert!(lines.next().is_some_and(|line| line.starts_with("  caused by: ")), "{}", said.err);
    let hint = "\n\nhint: start it with `narvaro serve`, or name its address with `--url`\n";
    assert!(said.err.ends_with(hint), "{}", said.err);
    assert_eq!(said.code, 1);
}

#[tokio::test]
async fn a_token_that_is_missing_or_wrong_is_told_with_the_next_step() {
    let desk = Desk::new().await;
    desk.write("admin.token", "something else");
    let said = desk.run(&["status"]).await;
    let expected = "\
error: the service at URL does not accept the token

hint: name the file that this service made with `--token-file`; it is `admin.token_file` in its configuration
";
    assert_eq!((said.err.as_str(), said.code), (expected, 1));
    std::fs::remove_file(desk.path("admin.token")).unwrap();
    let said = desk.run(&["status"]).await;
    let expected = "\
error: the token of the admin API cannot be had
  caused by: cannot read `DIR/admin.token`
  caused by: No such file or directory (os error 2)

hint: the service makes it at its first start: start it with `narvaro serve`
hint: run this as an account that may read the file, or name another with `--token-file`
";
    assert_eq!((said.err.as_str(), said.code), (expected, 1));
}

#[tokio::test]
async fn a_backup_is_one_private_file_with_all_companies() {
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new().await;
    let file = desk.write("backup.json", "an older one");
    assert_eq!(desk.data(&["backup", &file]).await, "2 companies in `DIR/backup.json`.\n");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    let mut backup: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(text.lines().count() > 10, "a person can read it: {text}");
    assert_eq!((&backup["format"], &backup["version"]), (&"narvaro-backup".into(), &1.into()));
    assert_eq!(backup["companies"][0]["applied"]["company"]["name"], "Acme AB");
    assert_eq!(backup["companies"][1], serde_json::json!({ "id": "beta", "draft": "a draft" }));
    let mut streamed: serde_json::Value = serde_json::from_str(&desk.data(&["backup", "-"]).await).unwrap();
    streamed["made_at"] = backup["made_at"].take();
    backup["made_at"] = streamed["made_at"].clone();
    assert_eq!(streamed, backup);
    let nowhere = desk.run(&["backup", "/nowhere/backup.json"]).await;
    let told = "error: the backup `/nowhere/backup.json` cannot be written\n";
    assert!(nowhere.code == 1 && nowhere.err.starts_with(told), "{}", nowhere.err);
}

#[tokio::test]
async fn a_backup_that_is_not_whole_is_made_and_told_of() {
    let desk = Desk::with(Fake { damaged: true, ..Fake::default() }).await;
    let file = desk.path("backup.json").display().to_string();
    let said = desk.run(&["backup", &file]).await;
    let told = "\
left out: company `acme`: its draft is damaged: no text

hint: stop the service, and `narvaro store check` names each place with its remedy
";
    assert_eq!(
        (said.out.as_str(), said.err.as_str(), said.code),
        ("2 companies in `DIR/backup.json`.\n", told, 1)
    );
    assert!(desk.path("backup.json").exists());
}

#[tokio::test]
async fn restore_says_what_changes_and_whether_it_was_done() {
    let desk = Desk::new().await;
    let file = desk.path("backup.json").display().to_string();
    desk.data(&["backup", &file]).await;
    let change = "  settings: language: `\"en\"` -> `\"sv\"`\n";
    let would = "1 change, dry run, nothing applied\n";
    let dry = desk.data(&["restore", &file, "--dry-run"]).await;
    assert_eq!(dry, format!("acme: {would}{change}beta: {would}{change}"));
    let one = desk.data(&["restore", &file, "--company", "beta"]).await;
    assert_eq!(one, format!("beta: 1 change, applied as revision 8\n{change}"));
    let none = desk.run(&["restore", &file, "--company", "gamma"]).await;
    assert_eq!(none.err.lines().next(), Some("error: the backup `DIR/backup.json` has no company `gamma`"));
    let only_beta = r#"{"format":"narvaro-backup","version":1,"made_at":"2026-11-28T15:00:00Z","made_by":"x","companies":[{"id":"beta"}]}"#;
    let said = desk.run(&["restore", &desk.write("beta.json", only_beta)]).await;
    assert_eq!(said.err, "Not in the backup, and left as they are: `acme`.\n");
}

#[tokio::test]
async fn a_bad_backup_is_refused_with_the_place() {
    let desk = Desk::new().await;
    let file = |companies: &str| {
        format!(
            r#"{{"format":"narvaro-backup","version":1,"made_at":"2026-11-28T15:00:00Z","made_by":"x","companies":{companies}}}"#
        )
    };
    for (text, told) in [
        ("{".to_owned(), "it is no JSON: EOF while parsing an object at line 1 column 1"),
        ("[1]".to_owned(), "`format` does not say `narvaro-backup`"),
        (r#"{"format":"other"}"#.to_owned(), "`format` is `other`, not `narvaro-backup`"),
        (r#"{"format":"narvaro-backup"}"#.to_owned(), "`version` is no form that there is"),
        (file("5"), "`companies` does not hold: invalid type: integer `5`, expected a sequence"),
        (
            file(r#"[{"id":"a"},{"id":"b","draft":7}]"#),
            "`companies[1].draft` does not hold: invalid type: integer `7`, expected a string",
        ),
        (file(r#"[{"id":"a","applid":{}}]"#), "`companies[0].applid` does not hold: unknown field `applid`"),
        (file(r#"[{"id":"a"},{"id":"a"}]"#), "`companies[1].id` is `a`, which another one has"),
    ] {
        let said = desk.run(&["restore", &desk.write("bad.json", &text)]).await;
        let expected = format!("error: `DIR/bad.json` is no backup that can be restored: {told}");
        assert!(said.code == 1 && said.err.starts_with(&expected), "{text}: {}", said.err);
        assert!(said.err.contains("hint: nothing was changed"), "{}", said.err);
    }
    let newer = file("[]").replace("\"version\":1", "\"version\":2");
    let said = desk.run(&["restore", &desk.write("newer.json", &newer)]).await;
    assert!(
        said.err.starts_with("error: `DIR/newer.json` has form 2, and this version reads up to 1"),
        "{}",
        said.err
    );
    let companies = r#"[{"id":"a","applied":{"company":{}}},{"id":"b"},{"id":"c","applied":{}}]"#;
    let said = desk.run(&["restore", &desk.write("wrong.json", &file(companies))]).await;
    let expected = "\
error: the backup does not hold
  caused by: DIR/wrong.json, company `a`: `applied.company.name` is missing beside 1 others
  caused by: DIR/wrong.json, company `c`: `applied.company.name` is missing beside 0 others

hint: `applied.company.name`: add it
hint: nothing was changed: correct what is named, or take another backup, and restore again
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("", expected, 1));
}

#[tokio::test]
async fn a_store_is_copied_with_the_keys_beside_it_and_both_are_found_whole() {
    let desk = Desk::new().await;
    let from = desk.store("narvaro.db");
    desk.write("client-state.key", "a key");
    std::fs::create_dir(desk.path("new")).unwrap();
    desk.write("new/admin.token", "another one");
    let to = format!("embedded:{}", desk.path("new/narvaro.db").display());
    let out = desk.data(&["store", "copy", "--from", &from, "--to", &to]).await;
    let (first, rest) = out.split_once("\ndigest ").unwrap();
    assert_eq!(
        first,
        "Copied 1 company, 1 mailbox, 0 entries of the audit trail, 0 jobs into `embedded:DIR/new/narvaro.db`, read back and equal."
    );
    let (digest, rest) = rest.split_once('\n').unwrap();
    assert_eq!(
        rest,
        "`DIR/client-state.key` was copied to `DIR/new/client-state.key`.\n\
         `DIR/admin.token` was not copied, as there is another `DIR/new/admin.token`: without it another token is made, and programs that use this one are refused.\n\
         Set `store.url = \"embedded:DIR/new/narvaro.db\"` and start the service. Start none on `embedded:DIR/narvaro.db` again: both would steer the same phones.\n"
    );
    assert_eq!(std::fs::read_to_string(desk.path("new/client-state.key")).unwrap(), "a key");
    for (url, name) in [(&from, "DIR/narvaro.db"), (&to, "DIR/new/narvaro.db")] {
        let expected = format!(
            "`embedded:{name}` has 1 company, 1 mailbox, 0 entries of the audit trail, 0 jobs.\ndigest {digest}\nIt holds together.\n"
        );
        assert_eq!(desk.data(&["store", "check", url]).await, expected);
    }
}

#[tokio::test]
async fn a_copy_that_cannot_be_is_refused_with_the_next_step() {
    let desk = Desk::new().await;
    let [from, other] = [desk.store("a.db"), desk.store("b.db")];
    let fresh = format!("embedded:{}", desk.path("c.db").display());
    let none = format!("embedded:{}", desk.path("none.db").display());
    let held = Files::open(&desk.path("b.db")).unwrap();
    for (from, to, told, hint) in [
        (
            &from,
            &from,
            "error: `--from` and `--to` are the same store\n",
            "hint: name another file, or another server, with `--to`\n",
        ),
        (
            &none,
            &fresh,
            "error: the store cannot be opened\n  caused by: there is no store `DIR/none.db`\n",
            "hint: check the path after `embedded:`\n",
        ),
        (
            &other,
            &fresh,
            "error: the store cannot be opened\n  caused by: the store `DIR/b.db` is in use by another process\n",
            "hint: stop the service that uses it, and try again\n",
        ),
    ] {
        let said = desk.run(&["store", "copy", "--from", from, "--to", to]).await;
        assert_eq!((said.out.as_str(), said.err, said.code), ("", format!("{told}\n{hint}"), 1));
        assert!(!desk.path("c.db").exists(), "nothing is made for a copy that cannot be");
    }
    drop(held);
    let said = desk.run(&["store", "copy", "--from", &from, "--to", &other]).await;
    let told = "\
error: the store was not copied
  caused by: nothing is copied into `embedded:DIR/b.db`: it has 1 company, 1 mailbox already

hint: name a store with nothing in it; move this one away if it is not wanted
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("", told, 1));
}

#[tokio::test]
async fn a_store_that_does_not_hold_together_is_copied_only_where_that_is_asked_for() {
    let desk = Desk::new().await;
    let from = desk.store("a.db");
    let to = format!("embedded:{}", desk.path("b.db").display());
    let file = rusqlite::Connection::open(desk.path("a.db")).unwrap();
    file.execute_batch("UPDATE mailbox SET retired = 1; UPDATE company SET standing = x'00'").unwrap();
    drop(file);
    let said = desk.run(&["store", "copy", "--from", &from, "--to", &to]).await;
    let told = "\
error: the store was not copied
  caused by: `embedded:DIR/a.db` does not hold together: 2 things do not fit; nothing was written
  caused by: company acme: what is known of its consent cannot be read: expected value at line 1 column 1
  caused by: mailbox 1 (company acme, extension 201): it is being given up, and the company has the user

hint: `narvaro store check embedded:DIR/a.db` names each with its remedy; mend it, and copy then
hint: `--with-faults` copies all the same: of those, 2 copied with what is wrong
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("", told, 1));
    assert!(!desk.path("b.db").exists(), "nothing is written");
    let out = desk.data(&["store", "copy", "--with-faults", "--from", &from, "--to", &to]).await;
    assert!(out.starts_with("Copied 1 company, 1 mailbox, "), "{out}");
    let told = "\nOf 2 things that did not fit in `embedded:DIR/a.db`: 2 copied with what is wrong.\n";
    assert!(out.contains(told), "{out}");
}

#[tokio::test]
async fn a_store_with_nothing_in_it_is_not_copied_and_a_check_says_that_it_is_empty() {
    let desk = Desk::new().await;
    drop(Files::create(&desk.path("empty.db")).unwrap());
    let from = format!("embedded:{}", desk.path("empty.db").display());
    let to = format!("embedded:{}", desk.path("b.db").display());
    let said = desk.run(&["store", "copy", "--from", &from, "--to", &to]).await;
    let told = "\
error: the store was not copied
  caused by: there is nothing at `embedded:DIR/empty.db`

hint: see the path after `embedded:`
";
    assert_eq!((said.out.as_str(), said.err.as_str(), said.code), ("", told, 1));
    assert!(!desk.path("b.db").exists(), "nothing is made for it");
    let told = "There is nothing at `embedded:DIR/empty.db`. If that is not expected, see the path after `embedded:`.\n";
    assert!(desk.data(&["store", "check", &from]).await.ends_with(told));
}

#[tokio::test]
async fn store_check_names_what_does_not_fit_and_the_next_step_and_ends_with_1() {
    let desk = Desk::new().await;
    desk.store("narvaro.db");
    let file = rusqlite::Connection::open(desk.path("narvaro.db")).unwrap();
    file.execute_batch("UPDATE mailbox SET retired = 1; UPDATE company SET standing = x'00'").unwrap();
    let config = desk.write("narvaro.toml", "[store]\nurl = 'embedded:narvaro.db'\n");
    let said = desk.run(&["store", "check", "--config", &config]).await;
    let (found, rest) = said.out.split_once("\n\n").unwrap();
    let expected = "\
FAIL  company acme: what is known of its consent cannot be read: expected value at line 1 column 1
      next: let it consent again: `narvaro consent-url acme`
FAIL  mailbox 1 (company acme, extension 201): it is being given up, and the company has the user
      next: take the user out of the company file, `narvaro apply` it, and put the user in again";
    assert_eq!((found, said.err.as_str(), said.code), (expected, "", 1));
    assert!(rest.ends_with("\n2 things do not fit.\n"), "{rest}");
}

#[tokio::test]
async fn every_command_speaks_json_and_nothing_else_when_asked() {
    let desk = Desk::new().await;
    let file = desk.write("acme.toml", "id = 'acme'\nname = 'Acme AB'\n");
    let backup = desk.path("backup.json").display().to_string();
    let [from, to] = [desk.store("a.db"), format!("embedded:{}", desk.path("b.db").display())];
    for (arguments, code) in [
        (&["status"][..], 0),
        (&["apply", &file], 0),
        (&["export", "acme"], 0),
        (&["remove", "acme", "--yes"], 0),
        (&["consent-url", "acme"], 0),
        (&["explain", "201"], 0),
        (&["try", "MÖT", "--company", "acme"], 0),
        (&["subscriptions", "list"], 0),
        (&["subscriptions", "renew", "--user", "201"], 0),
        (&["subscriptions", "renew", "--job", "renew-1"], 0),
        (&["subscriptions", "jobs"], 0),
        (&["subscriptions", "cancel", "renew-2"], 0),
        (&["audit"], 0),
        (&["openapi"], 0),
        (&["sync", "--all"], 0),
        (&["check"], 1),
        (&["backup", &backup], 0),
        (&["backup", "-"], 0),
        (&["restore", &backup], 0),
        (&["store", "copy", "--from", &from, "--to", &to], 0),
        (&["store", "check", &to], 0),
        (&["company", "new"], 0),
        (&["config", "new"], 0),
    ] {
        let said = desk.run(&[&["--json"], arguments].concat()).await;
        assert_eq!((said.err.as_str(), said.code), ("", code), "{arguments:?}");
        let json: Result<serde_json::Value, _> = serde_json::from_str(&said.out);
        assert!(json.is_ok(), "{arguments:?}: {}", said.out);
    }
    let said = desk.run(&["--json", "export", "none"]).await;
    assert_eq!(said.out, "");
    let failure: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(failure["error"], "there is no company `none`");
    assert_eq!(failure["hints"][0], "`narvaro status` lists the companies");
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_help_with_0() {
    for arguments in [
        &["narvaro", "statsu"][..],
        &["narvaro", "subscriptions", "renew"],
        &["narvaro", "subscriptions", "renew", "--user", "201", "--all"],
        &["narvaro", "subscriptions", "renew", "--job", "x", "--all"],
        &["narvaro", "audit", "--since", "soon"],
        &["narvaro", "backup"],
        &["narvaro", "restore"],
        &["narvaro", "store"],
        &["narvaro", "store", "copy", "--from", "embedded:a.db"],
        &["narvaro", "store", "copy", "--from", "a.db", "--to", "embedded:b.db"],
        &["narvaro", "store", "check", "elsewhere:a.db"],
        &["narvaro", "try", "x"],
        &["narvaro", "explain", "201", "--at", "soon"],
        &["narvaro", "export", "Not A Company"],
        &["narvaro"],
    ] {
        let said = raw(arguments).await;
        assert_eq!((said.out.as_str(), said.code), ("", 2), "{arguments:?}");
        assert!(!said.err.is_empty(), "{arguments:?}");
    }
    let said = raw(&["narvaro", "--help"]).await;
    assert_eq!((said.err.as_str(), said.code), ("", 0));
    assert!(said.out.contains("Run the service"));
}

#[tokio::test]
async fn serve_refuses_an_incomplete_configuration_before_it_starts() {
    let desk = Desk::new().await;
    let config = desk.write("narvaro.toml", "");
    let said = desk.run(&["serve", "--config", &config]).await;
    assert_eq!((said.out.as_str(), said.code), ("", 1));
    assert!(said.err.starts_with("error: `DIR/narvaro.toml` does not hold\n  caused by: "), "{}", said.err);
    assert!(
        said.err.contains("hint: `webhook.public_url`: set `public_url` under `[webhook]`"),
        "{}",
        said.err
    );
}

#[tokio::test]
async fn the_templates_are_the_files_that_the_service_reads() {
    let desk = Desk::new().await;
    assert_eq!(desk.data(&["company", "new"]).await, crate::company::TEMPLATE);
    assert_eq!(desk.data(&["config", "new"]).await, crate::config::DEFAULTS);
}
