//! A real Asterisk of the test's own, by `scripts/asterisk.sh`; gone when the test ends.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failing helper is a failing test")]

use std::{
    net::{TcpListener, UdpSocket},
    process::Command,
    sync::atomic::{AtomicU16, Ordering},
};

use narvaro::pbx::asterisk_ami::{AsteriskConfig, TlsConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/asterisk.sh");

/// What an extension shows, by an account of somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub state: String,
    pub subtype: String,
    pub message: String,
    /// State of `Custom:DND<extension>`.
    pub lamp: String,
}

/// An Asterisk with the settings in `infra/asterisk`: hints for the extensions 100 to 299 and 1000 to 2999.
pub(crate) struct RealAsterisk {
    /// Manager interface, TCP.
    pub ami_port: u16,
    /// Manager interface, TLS.
    pub ami_tls_port: u16,
    /// SIP, UDP.
    pub sip_port: u16,
    directory: TempDir,
}

impl RealAsterisk {
    /// A fresh one that nothing was ever set on, up and answering.
    ///
    /// # Panics
    /// With what to do about it, where none is installed on this machine.
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("narvaro-asterisk-").tempdir().unwrap();
        certify(&directory);
        let [ami_port, sip_port, ami_tls_port] = [free_port(), free_port(), free_port()];
        let asterisk = Self { ami_port, ami_tls_port, sip_port, directory };
        let ports = [ami_port, sip_port, ami_tls_port].map(|port| port.to_string());
        asterisk.script("start", &ports.each_ref().map(String::as_str));
        asterisk
    }

    /// Stops it and starts it again, with the same ports and database.
    pub(crate) fn restart(&self) {
        self.script("restart", &[]);
    }

    /// Stops it; `restart` starts it again.
    pub(crate) fn stop(&self) {
        self.script("stop", &[]);
    }

    /// Ends it at once, as a crash would; `restart` starts it again.
    pub(crate) fn kill(&self) {
        self.script("kill", &[]);
    }

    /// While it is stopped: forgets everything it kept.
    pub(crate) fn wipe(&self) {
        for file in std::fs::read_dir(self.directory.path().join("db")).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }

    /// What an extension shows; `None` while it cannot be asked.
    pub(crate) async fn seen(&self, extension: &str) -> Option<Seen> {
        let part = |part| format!("PRESENCE_STATE(CustomPresence:{extension},{part})");
        let names =
            [part("value"), part("subtype"), part("message"), format!("DEVICE_STATE(Custom:DND{extension})")];
        let questions = names.map(|name| format!("Action: Getvar\r\nVariable: {name}\r\n\r\n"));
        let [state, subtype, message, lamp] =
            self.technician(questions).await.ok()?.map(|answer| header(&answer, "Value"));
        Some(Seen { state, subtype, message, lamp })
    }

    /// Sets a function as a technician would.
    pub(crate) async fn set_by_hand(&self, variable: &str, value: &str) {
        let action = format!("Action: Setvar\r\nVariable: {variable}\r\nValue: {value}\r\n\r\n");
        let [answer] = self.technician([action]).await.unwrap();
        assert!(answer.contains("Response: Success"), "{answer}");
    }

    /// Asks over a manager session of its own, without events; each answer ends with an empty line.
    async fn technician<const N: usize>(&self, actions: [String; N]) -> std::io::Result<[String; N]> {
        let wire = TcpStream::connect(("127.0.0.1", self.ami_port)).await?;
        let mut wire = BufReader::new(wire);
        wire.read_line(&mut String::new()).await?;
        let login = "Action: Login\r\nUsername: technician\r\nSecret: technician-test\r\nEvents: off\r\n\r\n";
        wire.write_all(login.as_bytes()).await?;
        answer(&mut wire).await?;
        let mut answers = [const { String::new() }; N];
        for (action, place) in actions.iter().zip(&mut answers) {
            wire.write_all(action.as_bytes()).await?;
            *place = answer(&mut wire).await?;
        }
        Ok(answers)
    }

    /// What its console says to that command.
    pub(crate) fn console(&self, command: &str) -> String {
        self.script("cli", &[command])
    }

    /// How the service is set up for it: lamp and AstDB's DND included.
    pub(crate) fn config(&self) -> AsteriskConfig {
        self.config_of("narvaro", "narvaro-test")
    }

    /// The same with another of its accounts.
    pub(crate) fn config_of(&self, username: &str, secret: &str) -> AsteriskConfig {
        toml::from_str(&format!(
            "host = '127.0.0.1'\nport = {}\nusername = '{username}'\nsecret = '{secret}'\n\
             device_state = 'Custom:DND{{ext}}'\nastdb_dnd = true",
            self.ami_port
        ))
        .unwrap()
    }

    /// The same over TLS, trusting its certificate only.
    pub(crate) fn tls_config(&self) -> AsteriskConfig {
        let tls = TlsConfig {
            ca_file: Some(self.directory.path().join("tls/cert.pem")),
            server_name: Some("pbx.example".to_owned()),
        };
        AsteriskConfig { port: self.ami_tls_port, tls: Some(tls), ..self.config() }
    }

    fn script(&self, verb: &str, arguments: &[&str]) -> String {
        let done =
            Command::new(SCRIPT).arg(verb).arg(self.directory.path()).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "`scripts/asterisk.sh {verb}` failed:\n{said}{}", self.log());
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log/messages")).unwrap_or_default()
    }
}

async fn answer(wire: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut lines = String::new();
    while !lines.ends_with("\r\n\r\n") {
        if wire.read_line(&mut lines).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(lines)
}

fn header(answer: &str, name: &str) -> String {
    let of = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(": ")?.to_owned());
    answer.lines().find_map(of).unwrap_or_default()
}

impl Drop for RealAsterisk {
    fn drop(&mut self) {
        let done = Command::new(SCRIPT).arg("kill").arg(self.directory.path()).output();
        // While a failed test unwinds, a second panic would hide its reason.
        if !std::thread::panicking() {
            assert!(done.unwrap().status.success(), "an Asterisk was left behind");
        }
    }
}

fn certify(directory: &TempDir) {
    let made = rcgen::generate_simple_self_signed(["pbx.example".to_owned()]).unwrap();
    let tls = directory.path().join("tls");
    std::fs::create_dir(&tls).unwrap();
    std::fs::write(tls.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(tls.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

/// A port that nobody uses, below those the system gives to outgoing connections, different at each call.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 20_000 + u16::try_from(std::process::id() % 600).expect("less than 600") * 20;
    (0..600)
        .map(|_| start + NEXT.fetch_add(1, Ordering::Relaxed))
        .find(|port| {
            TcpListener::bind(("127.0.0.1", *port)).is_ok() && UdpSocket::bind(("127.0.0.1", *port)).is_ok()
        })
        .expect("some port is free")
}
