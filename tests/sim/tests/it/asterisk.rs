//! The manager interface.

use md5::{Digest, Md5};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use crate::world::{LIMIT, World};

struct Manager {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Manager {
    async fn connect(world: &World) -> Self {
        let (reader, writer) = TcpStream::connect(world.sim.ami_addr()).await.unwrap().into_split();
        let mut manager = Self { reader: BufReader::new(reader), writer };
        assert_eq!(manager.line().await, "Asterisk Call Manager/11.0.0\r\n");
        manager
    }

    async fn logged_in(world: &World) -> Self {
        let mut manager = Self::connect(world).await;
        manager
            .send("Action: Login\r\nActionID: 1\r\nUsername: narvaro\r\nSecret: secret\r\nEvents: on\r\n\r\n")
            .await;
        assert!(manager.packet().await.contains("Response: Success\r\nActionID: 1\r\n"));
        assert!(manager.packet().await.starts_with("Event: FullyBooted"));
        manager
    }

    async fn line(&mut self) -> String {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        tokio::time::timeout(LIMIT, read).await.unwrap().unwrap();
        String::from_utf8(line).unwrap()
    }

    async fn packet(&mut self) -> String {
        let mut packet = String::new();
        loop {
            let line = self.line().await;
            if line == "\r\n" || line.is_empty() {
                return packet;
            }
            packet.push_str(&line);
        }
    }

    async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
    }

    async fn ask(&mut self, text: &str) -> String {
        self.send(&format!("{}\r\n\r\n", text.replace('\n', "\r\n"))).await;
        self.packet().await
    }
}

#[tokio::test]
async fn a_presence_is_set_in_base64_seen_as_events_and_read_back() {
    let world = World::new().await;
    let mut manager = Manager::logged_in(&world).await;
    // "Möte, rum 4" and "åter 10:00"
    let value = "away,TcO2dGUsIHJ1bSA0,w6V0ZXIgMTA6MDA=,e";
    manager.send(&format!("action: setvar\r\nactionid: 2\r\nvariable: PRESENCE_STATE(CustomPresence:201)\r\nvalue: {value}\r\n\r\n")).await;
    let mut packets = Vec::new();
    for _ in 0..3 {
        packets.push(manager.packet().await);
    }
    assert!(
        packets
            .iter()
            .any(|packet| packet == "Response: Success\r\nActionID: 2\r\nMessage: Variable Set\r\n"),
        "{packets:?}"
    );
    let event = packets.iter().find(|packet| packet.starts_with("Event: PresenceStateChange")).unwrap();
    assert!(event.contains(
        "Presentity: CustomPresence:201\r\nStatus: away\r\nSubtype: Möte, rum 4\r\nMessage: åter 10:00\r\n"
    ));
    assert_eq!(world.sim.ami().presence("201").subtype, "Möte, rum 4");
    let answer = manager.ask("Action: PresenceState\nActionID: 3\nProvider: CustomPresence:201").await;
    assert_eq!(answer.matches("Message: ").count(), 2);
    let answer = manager.ask("Action: Getvar\nVariable: PRESENCE_STATE(CustomPresence:201,subtype,e)").await;
    assert!(answer.contains("Value: TcO2dGUsIHJ1bSA0"));
    world.sim.ami().set_by_hand("201", "available", "", "");
    assert!(manager.packet().await.contains("Status: available"));
    assert!(world.rules_broken().is_empty());
}

#[tokio::test]
async fn a_raw_comma_or_an_unknown_state_is_refused() {
    let world = World::new().await;
    let mut manager = Manager::logged_in(&world).await;
    for value in ["away,Möte, rum 4,åter", "away,a,b,c,d", "busy,Möte,", "away,%%%,,e"] {
        let answer = manager
            .ask(&format!(
                "Action: Setvar\nActionID: 9\nVariable: PRESENCE_STATE(CustomPresence:201)\nValue: {value}"
            ))
            .await;
        assert!(answer.starts_with("Response: Error"), "{value}: {answer}");
    }
    assert_eq!(world.sim.ami().presence("201").state, "not_set");
    let answer = manager.ask("Action: Setvar\nVariable: DEVICE_STATE(Custom:DND201)\nValue: UNKNOWN").await;
    assert!(answer.starts_with("Response: Error"));
    let answer = manager.ask("Action: Setvar\nVariable: DB(DND/201)\nValue: YES").await;
    assert!(answer.starts_with("Response: Error"));
}

#[tokio::test]
async fn a_line_break_in_a_value_starts_a_new_header() {
    let world = World::new().await;
    let mut manager = Manager::logged_in(&world).await;
    manager
        .send(
            "Action: DBPut\r\nFamily: DND\r\nKey: 201\r\nVal: YES\nMood: bad\r\n\r\nAction: Originat\r\n\r\n",
        )
        .await;
    assert!(manager.packet().await.starts_with("Response: Success"));
    assert!(manager.packet().await.starts_with("Response: Error"));
    assert_eq!(world.sim.ami().db("DND", "201").as_deref(), Some("YES"));
    assert_eq!(world.rules_broken(), ["ami-unknown-header", "ami-unknown-action"]);
}

#[tokio::test]
async fn long_lines_and_long_messages_are_refused_and_the_session_goes_on() {
    let world = World::new().await;
    let mut manager = Manager::logged_in(&world).await;
    manager
        .send(&format!("Action: DBPut\r\nFamily: X\r\nKey: k\r\nVal: {}\r\n\r\n", "x".repeat(1_100)))
        .await;
    assert!(manager.packet().await.starts_with("Response: Error"));
    manager.send(&format!("Action: Setvar\r\n{}\r\n", "Variable: a=1\r\n".repeat(130))).await;
    assert!(manager.packet().await.starts_with("Response: Error"));
    assert!(manager.ask("Action: Ping\nActionID: p").await.contains("Ping: Pong"));
    assert_eq!(world.sim.ami().db("X", "k"), None);
}

#[tokio::test]
async fn the_challenge_and_the_database() {
    let world = World::new().await;
    let mut manager = Manager::connect(&world).await;
    let answer = manager.ask("Action: DBGet\nFamily: DND\nKey: 201").await;
    assert!(answer.contains("Permission denied"));
    let answer = manager.ask("Action: Challenge\nAuthType: MD5").await;
    let challenge = answer.split("Challenge: ").nth(1).unwrap().trim();
    let digest = Md5::digest(format!("{challenge}secret"));
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let answer = manager
        .ask(&format!("Action: Login\nAuthType: MD5\nUsername: narvaro\nKey: {hex}\nEvents: off"))
        .await;
    assert!(answer.contains("Authentication accepted"));
    assert!(manager.ask("Action: DBGet\nFamily: DND\nKey: 201").await.contains("not found"));
    assert!(manager.ask("Action: DBPut\nFamily: DND\nKey: 201\nVal: YES").await.contains("Success"));
    assert!(
        manager.ask("Action: DBGet\nActionID: g\nFamily: DND\nKey: 201").await.contains("EventList: start")
    );
    assert!(manager.packet().await.contains("Val: YES"));
    assert!(manager.packet().await.contains("DBGetComplete"));
    assert!(manager.ask("Action: DBDel\nFamily: DND\nKey: 201").await.contains("Success"));
    assert!(manager.ask("Action: Logoff").await.contains("Goodbye"));
    assert_eq!(manager.packet().await, "");
}

#[tokio::test]
async fn a_wrong_secret_closes_and_a_restart_says_shutdown() {
    let world = World::new().await;
    let mut wrong = Manager::connect(&world).await;
    world.sim.ami().turn(|knobs| knobs.login_failure_ms = Some(10));
    let answer = wrong.ask("Action: Login\nUsername: narvaro\nSecret: no").await;
    assert!(answer.contains("Authentication failed"));
    assert_eq!(wrong.packet().await, "");
    let mut manager = Manager::logged_in(&world).await;
    world.sim.ami().set_by_hand("201", "dnd", "", "");
    manager.packet().await;
    manager.packet().await;
    world.sim.ami().restart(true);
    assert!(manager.packet().await.starts_with("Event: Shutdown"));
    assert_eq!(manager.packet().await, "");
    assert_eq!(world.sim.ami().presence("201").state, "not_set");
    Manager::logged_in(&world).await;
    assert!(world.sim.ami().until_sessions(0, LIMIT).await);
}
