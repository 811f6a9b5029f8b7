//! The driver against a small Asterisk on a real socket.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures_util::FutureExt;

use super::{
    testing::{FakeAsterisk, StillClock, config_for, outward, profile},
    *,
};
use crate::{
    model::{AsteriskState, Generation},
    presence::Stands,
};

/// Far longer than anything here takes; reached only by a failing test.
const LIMIT: Duration = Duration::from_secs(20);

struct Running {
    asterisk: FakeAsterisk,
    clock: Arc<StillClock>,
    driver: Arc<AsteriskAmi>,
    signals: broadcast::Receiver<PbxSignal>,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(adjust: impl FnOnce(&mut AsteriskConfig)) -> Self {
        let asterisk = FakeAsterisk::start();
        let mut config = config_for(&asterisk);
        adjust(&mut config);
        let clock = StillClock::new();
        let driver = AsteriskAmi::new(config, clock.clone());
        let signals = driver.signals();
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test holds the task itself")]
        let task = tokio::spawn(Arc::clone(&driver).run(shutdown.clone()));
        let mut running = Self { asterisk, clock, driver, signals, shutdown, task };
        assert_eq!(running.signal().await, PbxSignal::LinkUp);
        running
    }

    async fn signal(&mut self) -> PbxSignal {
        tokio::time::timeout(LIMIT, self.signals.recv()).await.unwrap().unwrap()
    }

    /// The next signal, time passing as long as it takes.
    async fn signal_in_time(&mut self) -> PbxSignal {
        let clock = Arc::clone(&self.clock);
        let passing = async {
            loop {
                clock.advance(1);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            signal = self.signal() => signal,
            () = passing => unreachable!("time passes for ever"),
        }
    }

    async fn set(&self, extension: &str, wanted: &Wanted) -> Result<Shown, PbxError> {
        self.set_while(extension, wanted, &|_| true).await
    }

    /// Under a lease that lasts as `lasts` says.
    async fn set_while(
        &self,
        extension: &str,
        wanted: &Wanted,
        lasts: &(dyn Fn(Duration) -> bool + Sync),
    ) -> Result<Shown, PbxError> {
        let write = Write {
            extension: &extension.parse().unwrap(),
            wanted,
            previous: None,
            generation: Generation(1),
            transition: "t",
            within: LIMIT,
            stands: Stands::new(lasts),
        };
        self.driver.set(write).await
    }

    async fn read(&self, extension: &str) -> Result<Readback, PbxError> {
        self.driver
            .read_back(&extension.parse().unwrap(), &[profile("meeting", "Möte", AsteriskState::Away)])
            .await
    }
}

fn meeting() -> Wanted {
    outward("Möte", "till 15:00, \"styrgrupp\"; å, ä", AsteriskState::Away, true)
}

fn everything(config: &mut AsteriskConfig) {
    config.device_state = Some("Custom:DND{ext}".to_owned().try_into().unwrap());
    config.astdb_dnd = true;
}

fn changed(extension: &str) -> PbxSignal {
    PbxSignal::Changed(extension.parse().unwrap())
}

#[tokio::test]
async fn what_is_set_is_what_was_rendered_and_what_is_read_back() {
    let running = Running::start(everything).await;
    let shown = running.set("1001", &meeting()).await.unwrap();
    assert_eq!(shown, running.driver.render(&meeting()));
    let read = running.read("1001").await.unwrap();
    assert_eq!(read.shown, shown);
    assert_eq!((read.is_default, read.profile.map(String::from)), (false, Some("meeting".to_owned())));
    assert_eq!(running.asterisk.device("Custom:DND1001"), "BUSY");
    assert_eq!(running.asterisk.stored("DND/1001").as_deref(), Some("YES"));
}

#[tokio::test]
async fn an_extension_that_was_never_set_is_default() {
    let running = Running::start(everything).await;
    let read = running.read("1001").await.unwrap();
    assert!(read.is_default);
    assert_eq!(read.profile, None);
}

#[tokio::test]
async fn dnd_of_a_person_outlives_a_profile_without_it() {
    let running = Running::start(everything).await;
    running.asterisk.store("DND/1001", "YES");
    let shown = running.set("1001", &outward("Lunch", "", AsteriskState::Away, false)).await.unwrap();
    assert_eq!((shown.field("dnd"), shown.field("device_state")), ("YES", "BUSY"));
    assert_eq!(running.read("1001").await.unwrap().shown, shown);
    running.set("1001", &meeting()).await.unwrap();
    running.set("1001", &outward("Lunch", "", AsteriskState::Away, false)).await.unwrap();
    assert_eq!(running.asterisk.stored("DND/1001").as_deref(), Some("YES"));
}

#[tokio::test]
async fn dnd_of_ours_goes_with_the_profile_and_takes_its_mark_along() {
    let running = Running::start(everything).await;
    running.set("1001", &meeting()).await.unwrap();
    let shown = running.set("1001", &outward("Lunch", "", AsteriskState::Away, false)).await.unwrap();
    assert_eq!((shown.field("dnd"), shown.field("device_state")), ("", "NOT_INUSE"));
    assert_eq!(running.asterisk.stored("DND/1001"), None);
    assert_eq!(running.asterisk.stored("narvaro/dnd/1001"), None);
}

#[tokio::test]
async fn freepbx_lights_the_lamp_of_each_device_of_the_user() {
    let running = Running::start(|config| {
        everything(config);
        config.flavour = Flavour::Freepbx;
    })
    .await;
    running.asterisk.store("AMPUSER/1001/device", "1001&99.1001");
    running.set("1001", &meeting()).await.unwrap();
    assert_eq!(running.asterisk.device("Custom:DEVDND1001"), "BUSY");
    assert_eq!(running.asterisk.device("Custom:DEVDND99.1001"), "BUSY");
    assert_eq!(running.asterisk.presence("CustomPresence:1001").2, "Möte");
}

#[tokio::test]
async fn a_presence_text_with_line_breaks_forges_nothing() {
    let running = Running::start(|_| {}).await;
    let evil = "x\r\nState: dnd\r\n\r\nResponse: Success\r\nActionID: 1\r\n\r\n";
    running.set("1001", &outward(evil, evil, AsteriskState::Away, false)).await.unwrap();
    let (_, subtype, message) = running.asterisk.presence("CustomPresence:1001");
    assert!(!subtype.contains(char::is_control) && !message.contains(char::is_control));
    running.asterisk.set_presence("CustomPresence:1001", "away", evil, evil);
    assert_eq!(running.read("1001").await.unwrap().shown.field("state"), "away");
}

#[tokio::test]
async fn events_become_hints_about_the_extension_they_name() {
    let mut running = Running::start(everything).await;
    running
        .asterisk
        .say("Event: PresenceStateChange\r\nPresentity: CustomPresence:1001\r\nStatus: dnd\r\n\r\n");
    running.asterisk.say("Event: PeerStatus\r\nPeer: PJSIP/1001\r\n\r\n");
    running.asterisk.say("Event: DeviceStateChange\r\nDevice: PJSIP/1002\r\nState: INUSE\r\n\r\n");
    running.asterisk.say("Event: DeviceStateChange\r\nDevice: Custom:DND1003\r\nState: BUSY\r\n\r\n");
    running.asterisk.say("Event: PresenceStatus\r\nExten: 1004\r\nContext: hints\r\nStatus: away\r\n\r\n");
    for extension in ["1001", "1003", "1004"] {
        assert_eq!(running.signal().await, changed(extension));
    }
}

#[tokio::test]
async fn our_own_writes_coming_back_are_not_told_and_a_change_after_them_is() {
    let mut running = Running::start(everything).await;
    let lamp =
        |state| format!("Event: DeviceStateChange\r\nDevice: Custom:DND1001\r\nState: {state}\r\n\r\n");
    let fence = "Event: DeviceStateChange\r\nDevice: Custom:DND1009\r\nState: BUSY\r\n\r\n";
    running.set("1001", &meeting()).await.unwrap();
    let texts = "Subtype: Möte\r\nMessage: till 15:00, \"styrgrupp\"; å, ä\r\n\r\n";
    let status = format!("Event: PresenceStatus\r\nExten: 1001\r\nStatus: away\r\n{texts}");
    running.asterisk.say(&(status.clone() + fence));
    assert_eq!(running.signal().await, changed("1009"), "no signal for 1001 before it");
    running.asterisk.say(&(lamp("NOT_INUSE") + &lamp("BUSY") + fence));
    for extension in ["1001", "1001", "1009"] {
        assert_eq!(running.signal().await, changed(extension), "there and back again is told");
    }
    running.asterisk.refuse("Setvar", "Variable not set");
    running.set("1001", &meeting()).await.unwrap_err();
    running.asterisk.say(&status);
    assert_eq!(running.signal().await, changed("1001"), "after a failed write nothing is taken for ours");
}

#[tokio::test]
async fn a_cut_link_is_told_and_made_again() {
    let mut running = Running::start(|_| {}).await;
    running.asterisk.cut();
    assert_eq!(running.signal().await, PbxSignal::LinkDown);
    assert!(matches!(running.driver.link(), LinkState::Down { .. }));
    let refused = running.set("1001", &meeting()).await.unwrap_err();
    assert!(matches!(refused, PbxError::Unreachable(_)), "{refused:?}");
    assert_eq!(running.signal_in_time().await, PbxSignal::LinkUp);
    running.set("1001", &meeting()).await.unwrap();
}

#[tokio::test]
async fn a_shutdown_event_ends_the_link_before_the_connection_does() {
    let mut running = Running::start(|_| {}).await;
    running.asterisk.say("Event: Shutdown\r\nPrivilege: system,all\r\nShutdown: Cleanly\r\n\r\n");
    assert_eq!(running.signal().await, PbxSignal::LinkDown);
    assert_eq!(running.driver.link(), LinkState::Down { cause: "Asterisk is stopping".to_owned() });
}

#[tokio::test]
async fn a_start_that_ends_after_the_login_asks_for_reading_back_once_more() {
    let mut running = Running::start(|_| {}).await;
    running.asterisk.say("Event: FullyBooted\r\nStatus: Fully Booted\r\n\r\n");
    assert_eq!(running.signal().await, PbxSignal::LinkUp);
}

#[tokio::test]
async fn pings_that_are_answered_keep_the_link_and_one_that_is_not_ends_it() {
    let mut running = Running::start(|config| config.timeout_secs = 1).await;
    running.clock.advance(30);
    tokio::time::timeout(LIMIT, async {
        while !running.asterisk.journal().contains("Action: Ping") {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    running.read("1001").await.unwrap();
    running.asterisk.mute("Ping");
    assert_eq!(running.signal_in_time().await, PbxSignal::LinkDown);
    assert_eq!(running.driver.link(), LinkState::Down { cause: "no answer within 1s".to_owned() });
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unreachable_and_the_link_goes_on() {
    let running = Running::start(|config| config.timeout_secs = 1).await;
    running.asterisk.mute("Setvar");
    let error = running.set("1001", &meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    running.read("1001").await.unwrap();
}

#[tokio::test]
async fn a_missing_right_a_refusal_and_a_stop_are_told_apart() {
    let running = Running::start(|_| {}).await;
    running.asterisk.refuse("Setvar", "Permission denied");
    assert!(matches!(running.set("1001", &meeting()).await, Err(PbxError::Denied { .. })));
    running.asterisk.refuse("Setvar", "Variable not set");
    let error = running.set("1001", &meeting()).await.unwrap_err();
    assert!(matches!(&error, PbxError::Refused { reason } if reason == "Variable not set"), "{error:?}");
    running.asterisk.refuse("Setvar", "Asterisk is shutting down");
    let error = running.set("1001", &meeting()).await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn a_function_that_is_not_loaded_is_not_taken_for_an_empty_presence() {
    let running = Running::start(|_| {}).await;
    running.asterisk.set_presence("CustomPresence:1001", "", "", "");
    let error = running.read("1001").await.unwrap_err();
    assert!(matches!(&error, PbxError::Refused { reason } if reason.contains("PRESENCE_STATE")), "{error:?}");
}

#[tokio::test]
async fn a_wrong_secret_is_denied_and_never_shown() {
    let asterisk = FakeAsterisk::start();
    let mut config = config_for(&asterisk);
    config.secret = "wrong-secret".into();
    let driver = AsteriskAmi::new(config, StillClock::new());
    let shutdown = CancellationToken::new();
    let asking = async {
        let error = driver.read_back(&"1001".parse().unwrap(), &[]).await.unwrap_err();
        shutdown.cancel();
        error
    };
    let (error, ()) = tokio::join!(asking, Arc::clone(&driver).run(shutdown.clone()));
    assert!(matches!(&error, PbxError::Denied { reason } if reason == "Authentication failed"), "{error:?}");
    assert!(!format!("{:?}", driver.link()).contains("wrong-secret"));
}

#[test]
fn the_longest_presence_fits_in_a_line() {
    for text in ["å", "😀", "x"] {
        let text = text.repeat(1000);
        let face = Face::read(AsteriskState::Unavailable, &text, &text, "", false);
        set_presence(&"x".repeat(200), &face).encode(&"9".repeat(60)).unwrap();
    }
}

#[tokio::test]
async fn many_extensions_share_the_one_connection() {
    let running = Running::start(everything).await;
    let all: Vec<String> = (1000..1200).map(|extension| extension.to_string()).collect();
    let wanted = meeting();
    let sets = all.iter().map(|extension| running.set(extension, &wanted));
    for outcome in futures_util::future::join_all(sets).await {
        outcome.unwrap();
    }
    let reads = all.iter().map(|extension| running.read(extension));
    for outcome in futures_util::future::join_all(reads).await {
        assert_eq!(outcome.unwrap().shown, running.driver.render(&wanted));
    }
    assert_eq!(running.asterisk.journal().matches("Action: Login").count(), 1);
}

#[tokio::test]
async fn i3_a_change_that_waited_for_its_turn_until_its_lease_lasts_no_more_sends_nothing() {
    let running = Running::start(|config| config.concurrency = 1).await;
    let wanted = meeting();
    let others_turn = running.driver.turns.acquire().await.unwrap();
    let lasts = AtomicBool::new(true);
    let is_asked = |long| {
        assert_eq!(long, LIMIT);
        lasts.load(Ordering::SeqCst)
    };
    let mut waits = Box::pin(running.set_while("1001", &wanted, &is_asked));
    assert!(waits.as_mut().now_or_never().is_none());
    lasts.store(false, Ordering::SeqCst);
    drop(others_turn);
    let error = waits.await.unwrap_err();
    assert!(matches!(error, PbxError::Unreachable(_)), "{error:?}");
    running.set("1002", &wanted).await.unwrap();
    let journal = running.asterisk.journal();
    assert!(journal.contains("1002") && !journal.contains("1001"), "{journal}");
}

#[tokio::test]
async fn a_presence_that_changes_while_it_is_read_is_read_again() {
    let running = Running::start(|_| {}).await;
    running.asterisk.set_presence("CustomPresence:1001", "away", "", "");
    running.asterisk.change_while_reading(1);
    assert_eq!(running.read("1001").await.unwrap().shown.field("message"), "!");
    running.asterisk.change_while_reading(1000);
    let error = running.read("1001").await.unwrap_err();
    assert!(matches!(error, PbxError::Unexpected { .. }), "{error:?}");
}

#[tokio::test]
async fn shutting_down_ends_the_link() {
    let running = Running::start(|_| {}).await;
    running.shutdown.cancel();
    tokio::time::timeout(LIMIT, running.task).await.unwrap().unwrap();
    assert!(matches!(running.driver.link(), LinkState::Down { .. }));
}

#[tokio::test]
async fn a_check_says_version_account_and_what_can_be_done() {
    let asterisk = FakeAsterisk::start();
    let mut config = config_for(&asterisk);
    everything(&mut config);
    let found = AsteriskAmi::new(config, StillClock::new()).check().await.unwrap();
    assert_eq!(
        found,
        "Asterisk 22.10.1 (AMI 11.0.0), account `narvaro`: presence can be set, read and watched; AstDB can be written"
    );
    assert_eq!(asterisk.presence("CustomPresence:narvaro-check").0, "not_set");
}

#[tokio::test]
async fn a_check_names_the_class_that_is_missing() {
    let asterisk = FakeAsterisk::start();
    let mut config = config_for(&asterisk);
    everything(&mut config);
    asterisk.refuse("DBPut", "Permission denied");
    let error = AsteriskAmi::new(config, StillClock::new()).check().await.unwrap_err();
    assert!(error.to_string().contains("write class `system`"), "{error}");
}
