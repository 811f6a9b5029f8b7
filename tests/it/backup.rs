//! The configuration is taken out of a running service and put back into an empty or another one.

use std::{ffi::OsString, path::PathBuf};

use narvaro::{admin::Consent, cli, config::Environment};
use serde_json::Value;

use crate::world::{Pbx, SECRET, World, scope};

impl World {
    fn path_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exit code and words of a command line against the running service.
    /// What a command line says to this service, both streams together, and its exit code.
    pub(crate) async fn narvaro(&self, arguments: &[&str]) -> (u8, String) {
        let url = format!("http://{}", self.app().private());
        let token = self.path_of("admin.token").display().to_string();
        let line = [&["narvaro", "--url", &url, "--token-file", &token], arguments].concat();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let line = line.into_iter().map(OsString::from);
        let code = cli::run(line, Environment::default(), &mut out, &mut err).await;
        (code, String::from_utf8([out, err].concat()).unwrap())
    }

    /// Everything that is stored is lost; what lies beside is not.
    async fn lose_the_store(&mut self) {
        self.stop().await;
        for entry in std::fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with("narvaro.db") {
                std::fs::remove_file(path).unwrap();
            }
        }
        self.empty_redis();
        self.start().await;
    }
}

#[tokio::test]
async fn what_was_backed_up_works_again_in_an_empty_service() {
    let mut world = World::new().await;
    let file = world.path_of("backup.json").display().to_string();
    let (code, said) = world.narvaro(&["backup", &file]).await;
    assert_eq!((code, said), (0, format!("1 company in `{file}`.\n")));
    let text = std::fs::read_to_string(&file).unwrap();
    for kept_out in ["timetable", "watch", SECRET, "acknowledged"] {
        assert!(!text.contains(kept_out), "{kept_out} is in {text}");
    }
    world.lose_the_store().await;
    assert!(world.app().operations().companies().await.unwrap().is_empty());
    let (code, said) = world.narvaro(&["restore", &file, "--dry-run"]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("company acme: new") && said.contains("consent: of tenant"), "{said}");
    assert!(world.app().operations().companies().await.unwrap().is_empty(), "a dry run changes nothing");
    let (code, said) = world.narvaro(&["restore", &file]).await;
    assert_eq!(code, 0, "{said}");
    world.until_fine("acme").await;
    let status = world.app().operations().status(scope("acme")).await.unwrap();
    assert!(matches!(&status.companies[0].consent, Consent::Given { tenant, .. } if *tenant == world.tenant));
    let (code, said) = world.narvaro(&["restore", &file]).await;
    assert_eq!(
        (code, said.contains("acme: nothing changes, ") && said.contains("revision 1")),
        (0, true),
        "{said}"
    );
    let (_, trail) = world.narvaro(&["audit", "--company", "acme"]).await;
    assert!(trail.contains("restore") && trail.contains("revision 1"), "{trail}");
    world.end().await;
}

#[tokio::test]
async fn a_change_since_the_backup_is_taken_back_and_other_companies_stay() {
    let world = World::new().await;
    let file = world.path_of("backup.json").display().to_string();
    assert_eq!(world.narvaro(&["backup", &file]).await.0, 0);
    let changed = world.company(Pbx::Http, "").replace("\"acme AB\"", "\"Changed AB\"");
    assert!(changed.contains("Changed"), "{changed}");
    world.apply(&changed).await;
    world.apply("id = 'beta'\nname = 'Beta'\n").await;
    let (code, said) = world.narvaro(&["restore", &file]).await;
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("acme: 1 change, applied as revision 3\n  company: name"), "{said}");
    assert!(said.contains("Not in the backup, and left as they are: `beta`."), "{said}");
    world.end().await;
}

#[tokio::test]
async fn i13_a_backup_with_a_mistake_changes_nothing_and_names_every_place() {
    let world = World::new().await;
    let file = world.path_of("backup.json");
    assert_eq!(world.narvaro(&["backup", file.to_str().unwrap()]).await.0, 0);
    let whole: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    for (place, wrong, expected) in [
        (
            "/companies/0/applied/company/users/1/extension",
            Value::from("201"),
            "company `acme`: `applied.company.users[1].extension` is `201`",
        ),
        (
            "/companies/0/applied/company/time_zone",
            "Mars".into(),
            "company `acme`: `applied.company.time_zone` cannot be `Mars`",
        ),
        (
            "/companies/0/applied/company/users",
            5.into(),
            "company `acme`: `applied.company.users` does not hold",
        ),
        ("/companies/0/applied/schema", 99.into(), "company `acme`: `applied.schema` is too new"),
        ("/companies/0/applied/company/id", "beta".into(), "company `acme`: `applied.company.id` is `beta`"),
        ("/companies/0/standing/tenant", 5.into(), "company `acme`: `standing.tenant` does not hold"),
        ("/companies/0/id", "No Id".into(), "`companies[0].id` does not hold"),
    ] {
        let mut backup = whole.clone();
        *backup.pointer_mut("/companies/0/applied/company/name").unwrap() = "Another name".into();
        *backup.pointer_mut(place).unwrap() = wrong;
        std::fs::write(&file, backup.to_string()).unwrap();
        let (code, said) = world.narvaro(&["restore", file.to_str().unwrap()]).await;
        assert!(code == 1 && said.contains(expected), "{place}: {said}");
        assert!(said.contains("nothing was changed"), "{place}: {said}");
        let companies = world.app().operations().companies().await.unwrap();
        assert_eq!((companies[0].revision, companies[0].name.contains("Another")), (1, false), "{place}");
    }
    world.end().await;
}

#[tokio::test]
async fn i14_a_consent_is_not_restored_for_a_tenant_that_another_company_has() {
    let world = World::new().await;
    let file = world.path_of("backup.json");
    assert_eq!(world.narvaro(&["backup", file.to_str().unwrap()]).await.0, 0);
    let mut backup: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    *backup.pointer_mut("/companies/0/id").unwrap() = "thief".into();
    *backup.pointer_mut("/companies/0/applied/company/id").unwrap() = "thief".into();
    std::fs::write(&file, backup.to_string()).unwrap();
    let (code, said) = world.narvaro(&["restore", file.to_str().unwrap()]).await;
    let told = "the tenant that has consented for company `thief` belongs to company `acme` here";
    assert!(code == 1 && said.contains(told), "{said}");
    assert_eq!(world.app().operations().companies().await.unwrap().len(), 1);
    world.end().await;
}
