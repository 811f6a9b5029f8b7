//! The standing link to one Asterisk: many questions in flight over one connection, events on the side, a new
//! connection when it is lost.
//!
//! It promises: what is asked is sent at most once, and not at all after the asker gave up; an answer is
//! matched by an id that nobody outside can foresee (a presence text can forge a whole message in some of
//! Asterisk's answers, seen 2026-11 on Asterisk 22); a lost link fails every open question at once.
//!
//! It does not retry a question: that is the queue's work.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BytesMut};
use jiff::Timestamp;
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{Mutex, broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    codec::{Action, Decoder, Message},
    config::AsteriskConfig,
    connection::{Connection, LinkError, error_text, unforeseeable, within},
    echo::Echoes,
};
use crate::{
    clock::{SharedClock, Sleep},
    presence::{LinkState, PbxSignal},
};

/// Often enough to see a dead peer before a minute is over, and below the idle time-outs of firewalls.
const PING_EVERY: Duration = Duration::from_secs(30);

const SHORTEST_PAUSE: Duration = Duration::from_secs(1);

/// An Asterisk that comes back, after however long, is to show the right state within seconds; one attempt in
/// a few seconds costs neither side anything.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// After a refused login: Asterisk's host may ban those who try often.
const DENIED_PAUSE: Duration = Duration::from_secs(60);

/// Bytes written ahead of what the peer takes, before more questions have to wait.
const WRITTEN_AHEAD: usize = 64 * 1024;

/// Signals kept for a slow listener; one that lags reads everything back.
const SIGNALS: usize = 1024;

/// What came back for one action: its response, and the events that belong to it where it is a list.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) response: Message,
    pub(super) events: Vec<Message>,
}

/// Actions sent together and answered together.
struct Batch {
    number: u64,
    bytes: Vec<u8>,
    size: usize,
    reply: oneshot::Sender<Vec<Answer>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Unknown,
    Up,
    Down { cause: String, denied: Option<String> },
}

/// See the module.
pub(super) struct Link {
    config: Arc<AsteriskConfig>,
    clock: SharedClock,
    standing: watch::Sender<Standing>,
    signals: broadcast::Sender<PbxSignal>,
    /// First part of every action id.
    nonce: String,
    batches: AtomicU64,
    outbox: mpsc::Sender<Batch>,
    /// Held by whoever runs the link.
    inbox: Mutex<mpsc::Receiver<Batch>>,
    lost_at: std::sync::Mutex<Option<Timestamp>>,
    echoes: Arc<Echoes>,
    changed: Changed,
}

/// Turns an AMI event into the extension that somebody else may have changed.
type Changed = fn(&AsteriskConfig, &Echoes, &Message) -> Option<PbxSignal>;

impl Link {
    pub(super) fn new(
        config: Arc<AsteriskConfig>,
        clock: SharedClock,
        echoes: Arc<Echoes>,
        changed: Changed,
    ) -> Self {
        let (outbox, inbox) = mpsc::channel(config.concurrency.max(1).into());
        Self {
            config,
            clock,
            standing: watch::Sender::new(Standing::Unknown),
            signals: broadcast::Sender::new(SIGNALS),
            nonce: format!("{:016x}", unforeseeable()),
            batches: AtomicU64::new(0),
            outbox,
            inbox: Mutex::new(inbox),
            lost_at: std::sync::Mutex::default(),
            echoes,
            changed,
        }
    }

    pub(super) fn signals(&self) -> broadcast::Receiver<PbxSignal> {
        self.signals.subscribe()
    }

    pub(super) fn state(&self) -> LinkState {
        match &*self.standing.borrow() {
            Standing::Unknown => LinkState::Unknown,
            Standing::Up => LinkState::Up,
            Standing::Down { denied: Some(reason), .. } => LinkState::Denied { reason: reason.clone() },
            Standing::Down { cause, denied: None } => LinkState::Down { cause: cause.clone() },
        }
    }

    /// When a link that was up was lost, the last time.
    pub(super) fn lost_at(&self) -> Option<Timestamp> {
        *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the actions in one go and gives their answers in the same order.
    ///
    /// While the first connection is being made, it is waited for; a link that is down fails at once.
    ///
    /// # Errors
    /// If one of the actions cannot be sent, none is. After any other error it is not known what was done.
    pub(super) async fn ask(&self, actions: &[Action]) -> Result<Vec<Answer>, LinkError> {
        let limit = self.config.timeout();
        let number = self.batches.fetch_add(1, Ordering::Relaxed);
        let mut bytes = Vec::new();
        for (slot, action) in actions.iter().enumerate() {
            bytes.extend(action.encode(&format!("{}-{number}-{slot}", self.nonce))?);
        }
        within(limit, async {
            self.await_link().await?;
            let (reply, answers) = oneshot::channel();
            let batch = Batch { number, bytes, size: actions.len(), reply };
            self.outbox.send(batch).await.map_err(|_| LinkError::Closed)?;
            answers.await.map_err(|_| LinkError::Closed)
        })
        .await
    }

    async fn await_link(&self) -> Result<(), LinkError> {
        let mut standing = self.standing.subscribe();
        let known = standing.wait_for(|standing| *standing != Standing::Unknown).await;
        match known.as_deref() {
            Ok(Standing::Down { denied: Some(reason), .. }) => Err(LinkError::Denied(reason.clone())),
            Ok(Standing::Down { cause, .. }) => Err(LinkError::Down(cause.clone())),
            Ok(_) => Ok(()),
            Err(_) => Err(LinkError::Closed),
        }
    }

    /// Holds the link until `shutdown`.
    pub(super) async fn run(&self, shutdown: CancellationToken) {
        let mut inbox = self.inbox.lock().await;
        let mut losses = 0_u32;
        loop {
            let lost = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                lost = self.hold(&mut inbox, &mut losses) => lost,
            };
            let pause = pause_after(losses, matches!(lost, LinkError::Denied(_)), unforeseeable());
            losses = losses.saturating_add(1);
            self.went_down(&lost, pause);
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = self.after(pause) => {}
            }
        }
        self.mark_down("the service is stopping".to_owned(), None);
    }

    fn after(&self, pause: Duration) -> Sleep {
        let now = self.clock.now();
        let pause = jiff::SignedDuration::try_from(pause).unwrap_or(jiff::SignedDuration::MAX);
        self.clock.sleep_until(now.checked_add(pause).unwrap_or(Timestamp::MAX))
    }

    fn went_down(&self, lost: &LinkError, pause: Duration) {
        let cause = error_text(lost);
        let denied = if let LinkError::Denied(reason) = lost { Some(reason.clone()) } else { None };
        let (host, retry_in_s) = (&self.config.host, pause.as_secs_f32());
        // Said once, not at each of the attempts that follow.
        if self.mark_down(cause.clone(), denied) {
            warn!(pbx.host = %host, error = %cause, retry_in_s, "No link to Asterisk, will connect again");
        } else {
            debug!(pbx.host = %host, error = %cause, retry_in_s, "Still no link to Asterisk");
        }
    }

    /// Whether that is news.
    fn mark_down(&self, cause: String, denied: Option<String>) -> bool {
        let now = Standing::Down { cause, denied };
        let was = self.standing.send_replace(now.clone());
        if was == Standing::Up {
            *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.now());
            self.tell(PbxSignal::LinkDown);
        }
        was != now
    }

    fn tell(&self, signal: PbxSignal) {
        // Nobody listening is no error.
        drop(self.signals.send(signal));
    }

    /// One connection from its start to its end.
    async fn hold(&self, inbox: &mut mpsc::Receiver<Batch>, losses: &mut u32) -> LinkError {
        let connection = match Connection::open(&self.config).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        // Left from the last connection: their askers were told that the link is gone.
        while inbox.try_recv().is_ok() {}
        self.echoes.forget_all();
        let (host, version) = (&self.config.host, &connection.ami_version);
        info!(pbx.host = %host, ami.version = %version, "The link to Asterisk is up");
        self.standing.send_replace(Standing::Up);
        self.tell(PbxSignal::LinkUp);
        let mut conversation = Conversation::new(self, connection.decoder);
        match conversation.go(connection.wire, inbox, losses).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

/// Doubles from the shortest to the longest, of which a half is left to chance so that many links do not knock as one.
fn pause_after(losses: u32, denied: bool, roll: u64) -> Duration {
    if denied {
        return DENIED_PAUSE;
    }
    let full = SHORTEST_PAUSE.saturating_mul(1 << losses.min(3)).min(LONGEST_PAUSE);
    let chance = u32::try_from(roll % 1000).unwrap_or(0);
    full / 2 + full * chance / 2000
}

/// A batch that is not answered in full yet.
struct Open {
    answers: Vec<Answer>,
    missing: usize,
    reply: oneshot::Sender<Vec<Answer>>,
}

/// The state of one connection.
struct Conversation<'a> {
    link: &'a Link,
    decoder: Decoder,
    open: HashMap<u64, Open>,
    out: BytesMut,
    ping_due: Sleep,
    pong_due: Option<Instant>,
}

impl<'a> Conversation<'a> {
    fn new(link: &'a Link, decoder: Decoder) -> Self {
        Self {
            link,
            decoder,
            open: HashMap::new(),
            out: BytesMut::new(),
            ping_due: link.after(PING_EVERY),
            pong_due: None,
        }
    }

    /// Reads, writes and pings until something ends the connection.
    async fn go(
        &mut self,
        wire: impl super::connection::Wire,
        inbox: &mut mpsc::Receiver<Batch>,
        losses: &mut u32,
    ) -> Result<std::convert::Infallible, LinkError> {
        let (mut reader, mut writer) = tokio::io::split(wire);
        let mut piece = vec![0; 16 * 1024];
        let mut unflushed = false;
        // What came along with the answer to the login.
        self.take_messages(losses)?;
        loop {
            let silent = self.pong_due.unwrap_or_else(Instant::now);
            // Each branch may be dropped half-way without losing a byte.
            tokio::select! {
                length = reader.read(&mut piece) => {
                    match length.map_err(LinkError::Broken)? {
                        0 => return Err(LinkError::Closed),
                        length => self.decoder.feed(&piece[..length]),
                    }
                    self.take_messages(losses)?;
                }
                length = push(&mut writer, &self.out), if unflushed || !self.out.is_empty() => {
                    let length = length.map_err(LinkError::Broken)?;
                    unflushed = length > 0;
                    self.out.advance(length);
                }
                Some(batch) = inbox.recv(), if self.out.len() < WRITTEN_AHEAD => self.begin(batch),
                () = &mut self.ping_due, if self.pong_due.is_none() => self.ping()?,
                () = tokio::time::sleep_until(silent), if self.pong_due.is_some() => {
                    return Err(LinkError::Silent(self.link.config.timeout()));
                }
            }
        }
    }

    fn begin(&mut self, batch: Batch) {
        // Whoever asked has given up: doing it now would be doing it late.
        if batch.reply.is_closed() {
            return;
        }
        self.out.extend_from_slice(&batch.bytes);
        let answers = vec![Answer::default(); batch.size];
        self.open.insert(batch.number, Open { answers, missing: batch.size, reply: batch.reply });
    }

    fn ping(&mut self) -> Result<(), LinkError> {
        let id = format!("{}-ping", self.link.nonce);
        self.out.extend_from_slice(&Action::new("Ping").encode(&id)?);
        self.pong_due = Some(Instant::now() + self.link.config.timeout());
        Ok(())
    }

    fn take_messages(&mut self, losses: &mut u32) -> Result<(), LinkError> {
        while let Some(message) = self.decoder.next()? {
            if let Some(rest) = message.get("ActionID").and_then(|id| id.strip_prefix(&self.link.nonce)) {
                if rest == "-ping" {
                    self.pong_due = None;
                    self.ping_due = self.link.after(PING_EVERY);
                    *losses = 0;
                } else if let Some((number, slot)) = parse_slot(rest) {
                    self.answer(number, slot, message);
                }
            } else if message.is_event("Shutdown") {
                return Err(LinkError::Stopping);
            } else if message.is_event("FullyBooted") {
                // It had not finished its start when we logged in.
                self.link.tell(PbxSignal::LinkUp);
            } else if let Some(signal) = (self.link.changed)(&self.link.config, &self.link.echoes, &message) {
                self.link.tell(signal);
            } else if message.get("Response").is_some() {
                debug!("Asterisk answered something that was not asked");
            }
        }
        Ok(())
    }

    fn answer(&mut self, number: u64, slot: usize, message: Message) {
        let Some(open) = self.open.get_mut(&number) else { return };
        let Some(answer) = open.answers.get_mut(slot) else { return };
        let list_goes_on = if message.get("Event").is_some() {
            let ends = message.says("EventList", "Complete");
            answer.events.push(message);
            !ends
        } else {
            let starts = message.says("EventList", "start");
            answer.response = message;
            starts
        };
        if list_goes_on {
            return;
        }
        open.missing -= 1;
        if open.missing == 0
            && let Some(open) = self.open.remove(&number)
        {
            // An asker who has gone needs no answer.
            drop(open.reply.send(open.answers));
        }
    }
}

/// Writes as much as the peer takes now, or flushes where nothing is left; gives the bytes written.
async fn push(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        length => Ok(length),
    }
}

/// Number and slot out of `-12-3`.
fn parse_slot(rest: &str) -> Option<(u64, usize)> {
    let (number, slot) = rest.strip_prefix('-')?.split_once('-')?;
    Some((number.parse().ok()?, slot.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pbx::asterisk_ami::testing::{FakeAsterisk, StillClock, config_for};

    fn link_to(asterisk: &FakeAsterisk) -> Link {
        Link::new(Arc::new(config_for(asterisk)), StillClock::new(), Arc::default(), |_, _, _| None)
    }

    fn batch(action: &str, reply: oneshot::Sender<Vec<Answer>>) -> Batch {
        Batch { number: 7, bytes: Action::new(action).encode("stale").unwrap(), size: 1, reply }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_sent() {
        let link = link_to(&FakeAsterisk::start());
        let mut conversation = Conversation::new(&link, Decoder::default());
        let (reply, waiting) = oneshot::channel();
        conversation.begin(batch("Setvar", reply));
        assert!(!conversation.out.is_empty());
        conversation.out.clear();
        let (reply, given_up) = oneshot::channel();
        drop(given_up);
        conversation.begin(batch("Setvar", reply));
        assert!(conversation.out.is_empty());
        drop(waiting);
    }

    #[tokio::test]
    async fn what_was_left_unsent_by_a_lost_connection_is_not_sent_by_the_next() {
        let asterisk = FakeAsterisk::start();
        let link = link_to(&asterisk);
        let (reply, lost) = oneshot::channel();
        link.outbox.send(batch("Originate", reply)).await.unwrap();
        let shutdown = CancellationToken::new();
        let asking = async {
            assert!(lost.await.is_err());
            link.ask(&[Action::new("Ping")]).await.unwrap();
            shutdown.cancel();
        };
        tokio::join!(asking, link.run(shutdown.clone()));
        assert!(!asterisk.journal().contains("Originate"));
    }

    #[test]
    fn pauses_double_up_to_seconds_and_vary_by_half() {
        let (least, most) =
            (|losses| pause_after(losses, false, 0), |losses| pause_after(losses, false, 999));
        assert_eq!(least(0), Duration::from_millis(500));
        assert!(most(0) < SHORTEST_PAUSE && most(0) > Duration::from_millis(990));
        assert_eq!(least(1), Duration::from_secs(1));
        assert_eq!(least(40), LONGEST_PAUSE / 2);
        assert!(most(40) <= LONGEST_PAUSE);
    }

    #[test]
    fn a_refused_login_waits_a_whole_minute() {
        assert_eq!(pause_after(0, true, 0), DENIED_PAUSE);
    }

    #[test]
    fn an_action_id_of_ours_gives_its_batch_and_slot() {
        assert_eq!(parse_slot("-12-3"), Some((12, 3)));
        for foreign in ["", "-", "12-3", "-x-3", "-12-", "-12"] {
            assert_eq!(parse_slot(foreign), None, "{foreign}");
        }
    }
}
