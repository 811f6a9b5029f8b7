//! The driver against a real Asterisk, and a telephone that watches it.
#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use std::{sync::Arc, time::Duration};

use narvaro::{
    chain::Chain,
    clock::SystemClock,
    model::{
        AsteriskState, AsteriskTerms, Extension, Generation, Outward, PbxTerms, Readback, Shown, Wanted,
    },
    pbx::asterisk_ami::{AsteriskAmi, AsteriskConfig, Flavour, Login, TlsConfig},
    presence::{LinkState, PbxDriver, PbxError, PbxSignal, Stands, Write},
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::support::{asterisk::RealAsterisk, sip::Watcher};

/// Far longer than anything here takes; reached only by a failing test.
const LIMIT: Duration = Duration::from_secs(30);

/// A driver that runs until the test ends.
struct Running {
    driver: Arc<AsteriskAmi>,
    signals: broadcast::Receiver<PbxSignal>,
    shutdown: CancellationToken,
}

impl Running {
    async fn start(config: AsteriskConfig) -> Self {
        let driver = AsteriskAmi::new(config, Arc::new(SystemClock));
        let signals = driver.signals();
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(Arc::clone(&driver).run(shutdown.clone()));
        let mut running = Self { driver, signals, shutdown };
        running.until(&PbxSignal::LinkUp).await;
        running
    }

    async fn until(&mut self, wished: &PbxSignal) {
        let waiting = async { while self.signals.recv().await.unwrap() != *wished {} };
        tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("{wished:?} did not come"));
    }

    /// Once the PBX is gone for sure: that the link is too, and no signal is left unheard.
    async fn until_down(&mut self) {
        while !self.signals.is_empty() || !matches!(self.driver.link(), LinkState::Down { .. }) {
            let signal = tokio::time::timeout(LIMIT, self.signals.recv()).await;
            signal.unwrap_or_else(|_| panic!("the loss was not noticed")).unwrap();
        }
    }

    async fn set(&self, extension: &str, wanted: &Wanted) -> Result<Shown, PbxError> {
        let write = Write {
            extension: &parsed(extension),
            wanted,
            previous: None,
            generation: Generation(1),
            transition: "t",
            within: LIMIT,
            stands: Stands::new(&|_| true),
        };
        self.driver.set(write).await
    }

    async fn read(&self, extension: &str) -> Readback {
        self.driver.read_back(&parsed(extension), &[]).await.unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn parsed(extension: &str) -> Extension {
    extension.parse().unwrap()
}

fn wanted(label: &str, note: &str, state: AsteriskState, dnd: bool) -> Wanted {
    Wanted::Profile(Outward {
        profile: "any".parse().unwrap(),
        label: label.to_owned(),
        note: note.to_owned(),
        until: None,
        available_at: None,
        terms: PbxTerms { asterisk: AsteriskTerms { state, dnd }, http: Default::default() },
    })
}

fn meeting() -> Wanted {
    wanted("Möte", "till 15:00", AsteriskState::Dnd, true)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_is_read_back_whatever_the_text() {
    let asterisk = RealAsterisk::start();
    let running = Running::start(asterisk.config()).await;
    assert!(running.read("1001").await.is_default);
    let longest = "å".repeat(240);
    let beyond = "😀 ü".repeat(400);
    let notes = [
        "",
        "till 15:00",
        "å, ä, ö; \"citat\", 'enkla' \\ ${EXTEN} $[1+1] | & : x: y <b> )",
        "till 3 dec, åter 4 dec 日本語 😀",
        &longest,
        &beyond,
        "x\r\nState: dnd\r\n\r\nEvent: Shutdown\r\n\r\n",
    ];
    for note in notes {
        for label in ["Möte, \"viktigt\"", "Ute på arbete"] {
            let wanted = wanted(label, note, AsteriskState::Away, false);
            let shown = running.set("1001", &wanted).await.unwrap();
            assert_eq!(shown, running.driver.render(&wanted));
            assert_eq!(running.read("1001").await.shown, shown, "{note:?}");
        }
    }
    assert_eq!(running.read("1001").await.shown.field("message"), "x  State: dnd    Event: Shutdown");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_is_read_back_and_can_be_put_back_as_found() {
    use AsteriskState::{Available, Away, Chat, Dnd, NotSet, Unavailable, Xa};
    let asterisk = RealAsterisk::start();
    let running = Running::start(asterisk.config()).await;
    for state in [NotSet, Unavailable, Available, Away, Xa, Chat, Dnd] {
        let shown = running.set("1001", &wanted("Namn", "text", state, state == Dnd)).await.unwrap();
        assert_eq!(running.read("1001").await.shown, shown);
        running.set("1002", &Wanted::AsFound(shown.clone())).await.unwrap();
        assert_eq!(running.read("1002").await.shown, shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watching_telephone_sees_lamp_and_text() {
    let asterisk = RealAsterisk::start();
    let running = Running::start(asterisk.config()).await;
    let mut watcher = Watcher::subscribe(asterisk.sip_port, "1001").await;
    running.set("1001", &meeting()).await.unwrap();
    watcher
        .until(|body| {
            body.contains("<note>On the phone</note>")
                && body.contains(r#"<digium_presence type="dnd" subtype="Möte">till 15:00</digium_presence>"#)
        })
        .await;
    running.set("1001", &wanted("Tillgänglig", "", AsteriskState::Available, false)).await.unwrap();
    watcher
        .until(|body| {
            body.contains("<note>Ready</note>")
                && body.contains(r#"<digium_presence type="available" subtype="Tillgänglig" />"#)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_company_is_set_and_read_back_over_the_one_connection() {
    let asterisk = RealAsterisk::start();
    let running = Running::start(asterisk.config()).await;
    let extensions: Vec<_> = (1000..1500).map(|number| number.to_string()).collect();
    let wanted = meeting();
    let sets = extensions.iter().map(|extension| running.set(extension, &wanted));
    for outcome in futures_util::future::join_all(sets).await {
        outcome.unwrap();
    }
    let reads = extensions.iter().map(|extension| running.read(extension));
    for read in futures_util::future::join_all(reads).await {
        assert_eq!(read.shown, running.driver.render(&wanted));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_writes_are_not_told_back_as_changes() {
    let asterisk = RealAsterisk::start();
    let mut running = Running::start(asterisk.config()).await;
    // A hint that somebody watches has events of its own.
    let mut watcher = Watcher::subscribe(asterisk.sip_port, "1001").await;
    let extensions: Vec<_> = (1000..2000).map(|number| number.to_string()).collect();
    let wanted = meeting();
    let sets = extensions.iter().map(|extension| running.set(extension, &wanted));
    for outcome in futures_util::future::join_all(sets).await {
        outcome.unwrap();
    }
    watcher.until(|body| body.contains("till 15:00")).await;
    // Events keep their order: after this one there is none left of the thousand.
    asterisk.set_by_hand("PRESENCE_STATE(CustomPresence:2001)", "away,Lunch,").await;
    // A busy Asterisk may say late that it is fully booted: that is a link that is up, and no change.
    let first = loop {
        let signal = tokio::time::timeout(LIMIT, running.signals.recv()).await.unwrap().unwrap();
        if signal != PbxSignal::LinkUp {
            break signal;
        }
    };
    assert_eq!(first, PbxSignal::Changed(parsed("2001")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_is_told_and_read() {
    let asterisk = RealAsterisk::start();
    let mut running = Running::start(asterisk.config()).await;
    asterisk.console("dialplan set global PRESENCE_STATE(CustomPresence:1003) away,Lunch,snart");
    running.until(&PbxSignal::Changed(parsed("1003"))).await;
    let read = running.read("1003").await;
    assert_eq!((read.shown.field("state"), read.shown.field("subtype")), ("away", "Lunch"));
    assert_eq!(read.shown.field("message"), "snart");
    asterisk.console("devstate change Custom:DND1004 BUSY");
    running.until(&PbxSignal::Changed(parsed("1004"))).await;
    assert_eq!(running.read("1004").await.shown.field("device_state"), "BUSY");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_told_and_afterwards_the_truth_is_read() {
    let asterisk = RealAsterisk::start();
    let mut running = Running::start(asterisk.config()).await;
    let shown = running.set("1001", &meeting()).await.unwrap();
    asterisk.stop();
    running.until_down().await;
    let error = running.set("1001", &meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    asterisk.restart();
    running.until(&PbxSignal::LinkUp).await;
    assert_eq!(running.read("1001").await.shown, shown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_is_noticed_without_a_goodbye() {
    let asterisk = RealAsterisk::start();
    let mut running = Running::start(asterisk.config()).await;
    asterisk.kill();
    running.until(&PbxSignal::LinkDown).await;
    asterisk.restart();
    running.until(&PbxSignal::LinkUp).await;
    assert!(running.read("1001").await.is_default);
}

#[tokio::test(flavor = "multi_thread")]
async fn dnd_of_ours_comes_and_goes_and_that_of_a_person_stays() {
    let asterisk = RealAsterisk::start();
    let running = Running::start(asterisk.config()).await;
    let lunch = wanted("Lunch", "", AsteriskState::Away, false);
    running.set("1001", &meeting()).await.unwrap();
    assert!(asterisk.console("database get DND 1001").contains("YES"));
    running.set("1001", &lunch).await.unwrap();
    assert!(!asterisk.console("database get DND 1001").contains("YES"));
    asterisk.console("database put DND 1001 YES");
    let shown = running.set("1001", &lunch).await.unwrap();
    assert_eq!(shown.field("dnd"), "YES");
    assert_eq!(running.read("1001").await.shown, shown);
    assert!(asterisk.console("database get DND 1001").contains("YES"));
}

#[tokio::test(flavor = "multi_thread")]
async fn freepbx_gets_the_name_in_the_message() {
    let asterisk = RealAsterisk::start();
    let config = AsteriskConfig { flavour: Flavour::Freepbx, ..asterisk.config() };
    let running = Running::start(config).await;
    asterisk.console("database put AMPUSER 1001/device 1001&2001");
    let shown = running.set("1001", &meeting()).await.unwrap();
    assert_eq!((shown.field("subtype"), shown.field("message")), ("", "Möte"));
    assert_eq!(running.read("1001").await.shown, shown);
    let lamps = asterisk.console("devstate list");
    assert!(lamps.contains("Custom:DEVDND1001") && lamps.contains("Custom:DEVDND2001"), "{lamps}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_a_plain_login_work_and_a_foreign_certificate_does_not() {
    let asterisk = RealAsterisk::start();
    let config = AsteriskConfig { login: Login::Plain, ..asterisk.tls_config() };
    let running = Running::start(config.clone()).await;
    let shown = running.set("1001", &meeting()).await.unwrap();
    assert_eq!(running.read("1001").await.shown, shown);
    let stranger = RealAsterisk::start();
    let foreign = AsteriskConfig { port: stranger.ami_tls_port, ..config.clone() };
    let unknown_to_the_machine =
        AsteriskConfig { tls: config.tls.clone().map(|tls| TlsConfig { ca_file: None, ..tls }), ..config };
    for config in [foreign, unknown_to_the_machine] {
        let error = AsteriskAmi::new(config, Arc::new(SystemClock)).check().await.unwrap_err();
        assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
        assert!(Chain(&error).to_string().contains("invalid peer certificate"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_says_what_it_found_and_what_is_missing() {
    let asterisk = RealAsterisk::start();
    let found = AsteriskAmi::new(asterisk.config(), Arc::new(SystemClock)).check().await.unwrap();
    assert!(found.starts_with("Asterisk 22."), "{found}");
    assert!(
        found.ends_with("account `narvaro`: presence can be set, read and watched; AstDB can be written")
    );
    let onlooker = AsteriskAmi::new(asterisk.config_of("onlooker", "onlooker-test"), Arc::new(SystemClock));
    let error = onlooker.check().await.unwrap_err();
    assert!(error.to_string().contains("write class `call`"), "{error}");
    let stranger = AsteriskAmi::new(asterisk.config_of("narvaro", "wrong"), Arc::new(SystemClock));
    assert!(matches!(stranger.check().await, Err(PbxError::Denied { .. })));
}
