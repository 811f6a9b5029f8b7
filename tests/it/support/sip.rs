//! A telephone that only watches: it subscribes to an extension's presence over SIP and reads what it is
//! told.
//!
//! UDP on this machine only, one subscription each, no authentication, no retransmissions of its own: enough
//! to see what a colleague's telephone would see, and no SIP stack.
#![expect(clippy::unwrap_used, reason = "a failing helper is a failing test")]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::net::UdpSocket;

/// Far longer than a notification takes on one machine; reached only by a failing test.
const LIMIT: Duration = Duration::from_secs(20);

static DIALOGS: AtomicU64 = AtomicU64::new(1);

/// One subscription to one extension's presence (RFC 3856).
pub(crate) struct Watcher {
    socket: UdpSocket,
    /// Body of the last notification.
    last: String,
}

impl Watcher {
    /// Subscribes at the server on that port of this machine and waits for its consent.
    pub(crate) async fn subscribe(sip_port: u16, extension: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(("127.0.0.1", sip_port)).await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let dialog = DIALOGS.fetch_add(1, Ordering::Relaxed);
        let request = [
            &format!("SUBSCRIBE sip:{extension}@127.0.0.1:{sip_port} SIP/2.0"),
            &format!("Via: SIP/2.0/UDP 127.0.0.1:{port};branch=z9hG4bK-{port}-{dialog};rport"),
            "Max-Forwards: 70",
            &format!("From: <sip:watcher@127.0.0.1>;tag=w{dialog}"),
            &format!("To: <sip:{extension}@127.0.0.1>"),
            &format!("Call-ID: {dialog}.{port}@127.0.0.1"),
            "CSeq: 1 SUBSCRIBE",
            &format!("Contact: <sip:watcher@127.0.0.1:{port}>"),
            // Asterisk adds the presence of the person for Digium's telephones only.
            "User-Agent: Digium D60",
            "Event: presence",
            "Accept: application/pidf+xml",
            "Expires: 600",
            "Content-Length: 0",
            "\r\n",
        ]
        .join("\r\n");
        socket.send(request.as_bytes()).await.unwrap();
        let mut watcher = Self { socket, last: String::new() };
        let mut consent = String::new();
        while !consent.starts_with("SIP/2.0 2") {
            consent = watcher.receive().await;
            let refused = consent.starts_with("SIP/2.0") && !consent.starts_with("SIP/2.0 1");
            assert!(!refused || consent.starts_with("SIP/2.0 2"), "the subscription was refused:\n{consent}");
        }
        watcher
    }

    /// Waits until a notification's body is as wished, and gives it; fails the test with the last one
    /// otherwise.
    pub(crate) async fn until(&mut self, wished: impl Fn(&str) -> bool) -> &str {
        let waiting = async {
            while !wished(&self.last) {
                self.receive().await;
            }
        };
        let seen = tokio::time::timeout(LIMIT, waiting).await;
        assert!(seen.is_ok(), "not seen within {LIMIT:?}; the last notification was:\n{}", self.last);
        &self.last
    }

    /// One message; a notification is acknowledged and its body kept.
    async fn receive(&mut self) -> String {
        let mut datagram = vec![0; 65_536];
        let length = tokio::time::timeout(LIMIT, self.socket.recv(&mut datagram)).await;
        let length = length.unwrap_or_else(|_| panic!("the server says nothing")).unwrap();
        let message = String::from_utf8_lossy(&datagram[..length]).into_owned();
        if message.starts_with("NOTIFY ") {
            self.socket.send(acknowledgement(&message).as_bytes()).await.unwrap();
            let (_, body) = message.split_once("\r\n\r\n").unwrap();
            self.last = body.to_owned();
        }
        message
    }
}

/// `200 OK` with the headers that RFC 3261 wants back.
fn acknowledgement(request: &str) -> String {
    let wanted = ["via:", "v:", "from:", "f:", "to:", "t:", "call-id:", "i:", "cseq:"];
    let headers = request.lines().skip(1).take_while(|line| !line.is_empty());
    let kept = headers.filter(|line| wanted.iter().any(|name| line.to_ascii_lowercase().starts_with(name)));
    let kept: String = kept.map(|line| format!("{line}\r\n")).collect();
    format!("SIP/2.0 200 OK\r\n{kept}Content-Length: 0\r\n\r\n")
}
