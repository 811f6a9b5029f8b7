//! The whole service with a real Asterisk, seen by a session and a telephone that the service knows nothing of.

use std::time::{Duration, Instant};

use jiff::SignedDuration;
use narvaro::{
    admin::PbxLink,
    clock::{Clock, SystemClock},
    health::Health,
};
use narvaro_sim::{AppSpec, EventSpec, Sim, SimOptions, TenantSpec, UserSpec};

use crate::{
    support::{
        asterisk::{RealAsterisk, Seen, free_port},
        sip::Watcher,
    },
    world::{CLIENT_ID, LIMIT, Pbx, SECRET, World, asterisk_pbx, at, scope},
};

const ANNA: &str = "anna@acme.example";
const EXTENSION: &str = "201";

fn seen(state: &str, subtype: &str, message: &str, lamp: &str) -> Seen {
    Seen {
        state: state.to_owned(),
        subtype: subtype.to_owned(),
        message: message.to_owned(),
        lamp: lamp.to_owned(),
    }
}

fn available() -> Seen {
    seen("available", "Tillgänglig", "", "NOT_INUSE")
}

fn meeting() -> Seen {
    seen("away", "Möte", "till 11:00", "NOT_INUSE")
}

fn closed(message: &str) -> Seen {
    seen("dnd", "Stör ej", message, "BUSY")
}

/// A service with an Asterisk of its own, on which everybody is available.
async fn company() -> (RealAsterisk, World) {
    let asterisk = RealAsterisk::start();
    let world = World::with(Pbx::RealAsterisk(asterisk.ami_port)).await;
    until_seen(&world, &asterisk, &available()).await;
    (asterisk, world)
}

async fn until_seen(world: &World, asterisk: &RealAsterisk, wanted: &Seen) {
    let what = format!("Asterisk shows {wanted:?}");
    world.until(&what, async || asterisk.seen(EXTENSION).await.as_ref() == Some(wanted)).await;
    world.settle().await;
}

/// Changes something at the Asterisk and waits until the service has taken note of it.
async fn by_hand(world: &World, asterisk: &RealAsterisk, variable: &str, value: &str, label: &str) {
    asterisk.set_by_hand(variable, value).await;
    let noted = async || {
        let shown = world.mailbox("acme", EXTENSION).await.shown;
        shown.is_some_and(|shown| shown.label == label)
    };
    world.until("the change by hand is noted", noted).await;
    world.settle().await;
}

async fn lunch_by_hand(world: &World, asterisk: &RealAsterisk) -> Seen {
    by_hand(world, asterisk, "PRESENCE_STATE(CustomPresence:201)", "away,Lunch,snart åter", "Lunch").await;
    seen("away", "Lunch", "snart åter", "NOT_INUSE")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_shows_on_asterisk_and_on_a_telephone_from_its_start_to_its_end() {
    let (asterisk, world) = company().await;
    let mut telephone = Watcher::subscribe(asterisk.sip_port, EXTENSION).await;
    telephone.until(|body| body.contains(r#"<digium_presence type="available""#)).await;
    world.event("DND: fokus", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 09:59").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(available()), "not before it starts");
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(closed("till 11:00")));
    let presence = r#"<digium_presence type="dnd" subtype="Stör ej">till 11:00</digium_presence>"#;
    telephone.until(|body| body.contains("<note>On the phone</note>") && body.contains(presence)).await;
    assert!(asterisk.console("devstate list").contains("Custom:DND201"));
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(available()));
    let presence = r#"<digium_presence type="available" subtype="Tillgänglig" />"#;
    telephone.until(|body| body.contains("<note>Ready</note>") && body.contains(presence)).await;
    assert_eq!(asterisk.seen("202").await, Some(available()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_lasts_until_its_event_ends_whatever_comes_between() {
    let (asterisk, mut world) = company().await;
    let event = world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    world.event("DND: fokus", "2026-11-23 10:30", "2026-11-23 12:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    // Until the next event, which has the higher rank, begins.
    assert_eq!(asterisk.seen(EXTENSION).await, Some(seen("away", "Möte", "till 10:30", "NOT_INUSE")));
    let lunch = lunch_by_hand(&world, &asterisk).await;
    let stays = async |world: &World, why: &str| {
        world.settle().await;
        assert_eq!(asterisk.seen(EXTENSION).await.as_ref(), Some(&lunch), "{why}");
    };
    stays(&world, "at once").await;
    let longer = EventSpec::default().at(at("2026-11-23 10:00"), at("2026-11-23 11:30"));
    world.sim.patch_event(ANNA, &event, longer).unwrap();
    stays(&world, "the event is extended").await;
    world.advance_to("2026-11-23 10:30").await;
    stays(&world, "another event has begun").await;
    world.restart().await;
    world.until("the link is up again", async || link(&world).await == PbxLink::Up).await;
    stays(&world, "the service was restarted").await;
    asterisk.restart();
    world.advance_until("the link is up again", async || link(&world).await == PbxLink::Up).await;
    stays(&world, "Asterisk was restarted").await;
    world.advance_to("2026-11-23 11:15").await;
    stays(&world, "the event goes on").await;
    world.advance_to("2026-11-23 11:30").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(closed("till 12:00")), "then the next event shows");
    world.advance_to("2026-11-23 12:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(available()));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_by_hand_outside_events_is_put_back_after_the_next() {
    let (asterisk, world) = company().await;
    world.event("MÖT: budget", "2026-11-23 10:00", "2026-11-23 11:00");
    let course = "xa,Kurs,\"hela dagen\"";
    by_hand(&world, &asterisk, "PRESENCE_STATE(CustomPresence:201)", course, "Kurs").await;
    asterisk.set_by_hand("DEVICE_STATE(Custom:DND201)", "BUSY").await;
    let base = asterisk.seen(EXTENSION).await.unwrap();
    assert_eq!((base.subtype.as_str(), base.lamp.as_str()), ("Kurs", "BUSY"));
    let lamp_noted =
        async || world.mailbox("acme", EXTENSION).await.shown.is_some_and(|it| it.label == "Kurs, upptagen");
    world.until("the lamp is noted", lamp_noted).await;
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(meeting()));
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(base));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asterisk_that_comes_back_during_an_event_shows_it_again() {
    let (asterisk, world) = company().await;
    world.event("DND: fokus", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    world.advance_to("2026-11-23 10:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(closed("till 11:00")));
    // The first crash comes at once: what was written in the last second is not on its disk yet.
    for (crashes, wiped) in [(true, false), (false, false), (true, true), (false, true)] {
        if crashes {
            asterisk.kill()
        } else {
            asterisk.stop()
        };
        world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
        if wiped {
            asterisk.wipe();
        }
        asterisk.restart();
        let right = async || {
            link(&world).await == PbxLink::Up && asterisk.seen(EXTENSION).await == Some(closed("till 11:00"))
        };
        let took = world.advance_until("the event shows again", right).await;
        println!("right {took:#} of the service's time after its return (crash: {crashes}, wiped: {wiped})");
        assert!(took.as_secs() < 60, "{took:#} after its return (crash: {crashes}, wiped: {wiped})");
    }
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(available()), "nothing was taken for a change by hand");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_starts_while_asterisk_is_down_shows_once_it_is_back() {
    let (asterisk, world) = company().await;
    world.event("DND: fokus", "2026-11-23 10:00", "2026-11-23 11:00");
    world.settle().await;
    asterisk.stop();
    world.until("the loss is noticed", async || link(&world).await != PbxLink::Up).await;
    world.advance_to("2026-11-23 10:00").await;
    let report = world.mailbox("acme", EXTENSION).await.health;
    assert!(matches!(report.health, Health::PbxUnreachable { .. }), "{report:?}");
    assert!(!report.cause.is_empty() && !report.cure.is_empty());
    asterisk.restart();
    let shows = async || asterisk.seen(EXTENSION).await == Some(closed("till 11:00"));
    world.advance_until("the event shows", shows).await;
    let fine = async || world.mailbox("acme", EXTENSION).await.health.health == Health::Fine;
    world.until("all is well again", fine).await;
    world.advance_to("2026-11-23 11:00").await;
    assert_eq!(asterisk.seen(EXTENSION).await, Some(available()));
    world.end().await;
}

async fn link(world: &World) -> PbxLink {
    let status = world.operations().status(scope("acme")).await.unwrap();
    status.companies.into_iter().next().unwrap().pbx
}

/// The service as it is installed: its binary, on the machine's own clock.
struct Installed {
    folder: tempfile::TempDir,
    process: std::process::Child,
}

impl Installed {
    /// A service for the simulator, listening at those two ports.
    fn start(sim: &Sim, public: u16, private: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let base = sim.base_url();
        let config = format!(
            r#"
            [listen]
            public = "127.0.0.1:{public}"
            private = "127.0.0.1:{private}"
            [webhook]
            public_url = "http://127.0.0.1:{public}"
            [store]
            url = "embedded:narvaro.db"
            [graph]
            client_id = "{CLIENT_ID}"
            cloud = "custom"
            graph_base = "{base}"
            login_authority = "{base}"
            allow_plain_http_loopback = true
            "#
        );
        std::fs::write(folder.path().join("narvaro.toml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = command(&folder, &["serve"]).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        Self { folder, process: process.unwrap() }
    }

    /// What one subcommand prints; waits while the service does not answer yet.
    fn run(&mut self, arguments: &[&str]) -> String {
        let end = Instant::now() + LIMIT;
        loop {
            let done = command(&self.folder, arguments).output().unwrap();
            if done.status.success() {
                return String::from_utf8(done.stdout).unwrap();
            }
            let said = String::from_utf8_lossy(&done.stderr);
            assert!(self.process.try_wait().unwrap().is_none(), "the service ended:\n{}", self.log());
            assert!(Instant::now() < end, "`{arguments:?}` failed:\n{said}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        // It may have ended already, which a test that fails because of it says by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn command(folder: &tempfile::TempDir, arguments: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_narvaro"));
    command.args(arguments).current_dir(folder.path());
    for (name, value) in [("NARVARO__GRAPH__CLIENT_SECRET", SECRET), ("ASTERISK_SECRET", "narvaro-test")] {
        command.env(name, value);
    }
    command
}

/// A simulator on the machine's own time, with Anna, and the app that the service says it is.
fn surroundings(sim: &Sim, public: u16) {
    let tenant = sim.add_tenant(TenantSpec::new("acme.example")).unwrap();
    let mut app = AppSpec::new(CLIENT_ID, SECRET);
    app.redirect_uris = vec![format!("http://127.0.0.1:{public}/consent/callback")];
    sim.add_app(app).unwrap();
    sim.add_user(&tenant, UserSpec::new(ANNA)).unwrap();
    sim.login(|knobs| knobs.signing_in_tenant = Some(tenant.clone()));
}

/// Seconds until Anna's extension is closed for her event.
async fn seconds_until_closed(asterisk: &RealAsterisk, service: &Installed) -> f64 {
    let start = Instant::now();
    loop {
        let seen = asterisk.seen(EXTENSION).await;
        if seen
            .as_ref()
            .is_some_and(|seen| seen.state == "dnd" && seen.lamp == "BUSY" && seen.subtype == "Stör ej")
        {
            return start.elapsed().as_secs_f64();
        }
        assert!(start.elapsed() < LIMIT, "Asterisk shows {seen:?}\n{}", service.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_the_clock_on_the_wall_an_asterisk_that_comes_back_is_right_within_seconds() {
    let asterisk = RealAsterisk::start();
    let [public, private] = [free_port(), free_port()];
    let sim = Sim::start(SimOptions::default()).await.unwrap();
    surroundings(&sim, public);
    let mut service = Installed::start(&sim, public, private);
    let file = format!(
        "id = \"acme\"\nname = \"Acme AB\"\nlanguage = \"sv\"\n[integration]\nkind = \"microsoft365\"\n{}\n\
         [[users]]\nextension = \"{EXTENSION}\"\nalias = \"{ANNA}\"\n",
        asterisk_pbx(asterisk.ami_port, "ASTERISK_SECRET")
    );
    std::fs::write(service.folder.path().join("acme.toml"), file).unwrap();
    service.run(&["apply", "acme.toml"]);
    let address = service.run(&["consent-url", "acme"]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = client.get(address.split_whitespace().last().unwrap()).send().await.unwrap();
    assert_eq!(page.status(), 200, "{}", page.url());
    let now = SystemClock.now();
    let hour = SignedDuration::from_hours(1);
    sim.add_event(ANNA, EventSpec::new("DND: fokus").at(now - hour, now + hour)).unwrap();
    seconds_until_closed(&asterisk, &service).await;
    for (kind, crashes, wiped) in
        [("stopped", false, false), ("crashed", true, false), ("crashed and wiped", true, true)]
    {
        if crashes {
            asterisk.kill()
        } else {
            asterisk.stop()
        };
        if wiped {
            asterisk.wipe();
        }
        asterisk.restart();
        let seconds = seconds_until_closed(&asterisk, &service).await;
        println!("Asterisk {kind}: right again {seconds:.2} s after its return");
        assert!(seconds < 10.0, "{seconds} s after it was {kind}\n{}", service.log());
    }
    let violations = sim.violations();
    assert!(violations.is_empty(), "{violations:#?}");
}
