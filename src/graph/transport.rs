//! Decides when a request goes to Graph, and what its answer means for those that follow.
//!
//! ```text
//!  send ──▶ worth trying? ──▶ place ──────▶ slot ────────────▶ admitted? ──▶ sent ──▶ settled
//!           circuit, pause,   four of a     alone or joined,   the same      courier  circuit, pause
//!           budget            mailbox       pressing first     once more
//! ```
//!
//! Promises: nothing is retried but one 401, with a new token; a wait is returned, as [`ReadError::Throttled`] or
//! [`ReadError::LeftAlone`], and not slept. One thing waits here: the further pages of a list of subscriptions, which
//! are of no use without those before.
//!
//! A batch that fails as a whole is a failure of each of its parts and counts as one; and nothing is joined for a
//! while: whatever stands in the way of batches may let single requests pass.

use std::{sync::Arc, time::Duration};

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    auth::{Token, TokenKeeper},
    batch,
    budget::{Budget, Spent},
    builder::Call,
    circuit::Circuit,
    courier::{Courier, Outcome, Sent, new_chain, note},
    gates::{Cause, Gates, Scope},
    line::{Called, Company, Line, Priority, Slot},
    login::TokenFailure,
    refusal::{CallError, Refusal},
};
use crate::{calendar::ReadError, chain::Chain, clock::SharedClock};

/// How long requests go alone after a batch that failed as a whole.
const BATCHES_REST: Duration = Duration::from_secs(60);

/// Sends one tenant's requests.
pub(super) struct Transport {
    desk: Arc<Desk>,
    line: Arc<Line<Errand>>,
}

/// Where those go who have a slot; shared by those who go together.
pub(super) struct Desk {
    pub(super) courier: Courier,
    pub(super) tokens: Arc<TokenKeeper>,
    pub(super) circuit: Circuit,
    pub(super) gates: Gates,
    pub(super) budget: Budget,
    pub(super) clock: SharedClock,
}

/// A call on its way. Its place among the four of its mailbox is held until it is done, whoever gives up meanwhile.
struct Errand {
    call: Call,
    chain: String,
    answer: oneshot::Sender<Answer>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Errand {
    fn sent(&self) -> Sent<'_> {
        Sent { call: &self.call, chain: &self.chain }
    }

    fn end(self, answer: Answer) {
        // Whoever asked may have given up.
        drop(self.answer.send(answer));
    }

    fn refuse(self, error: impl Into<CallError>) {
        self.end(Answer { outcome: Err(error.into()), token_refused: None });
    }
}

/// What came of an errand.
struct Answer {
    outcome: Outcome,
    /// What Graph said to the token that it was first tried with.
    token_refused: Option<Refusal>,
}

/// What came of some who went together, or of one alone.
struct Tried {
    outcomes: Vec<Outcome>,
    /// Whether those who failed did so as one.
    as_one: bool,
}

/// A batch failed, and with it each of its parts.
#[derive(Debug, thiserror::Error)]
#[error("the batch it was a part of failed: {0}")]
struct BatchFailed(String);

/// The request was let go of before its end.
#[derive(Debug, thiserror::Error)]
#[error("the request was given up")]
struct GivenUp;

impl Transport {
    pub(super) fn new(desk: Desk) -> Self {
        Self { desk: Arc::new(desk), line: Line::new() }
    }

    /// Sends a request and returns the body of a successful answer.
    pub(super) async fn send(&self, call: &Call) -> Outcome {
        let desk = &self.desk;
        desk.worth_trying(call)?;
        desk.wait_for_page(call).await;
        let place = desk.gates.enter(&call.scope).await;
        let chain = new_chain();
        let (answer, answered) = oneshot::channel();
        let errand = Errand { call: call.clone(), chain: chain.clone(), answer, _place: place };
        let batches_rest = desk.gates.left(&Scope::Batch, desk.clock.now()).is_some();
        let company = if batch::may_join(call) && !batches_rest { Company::Any } else { Company::Alone };
        match self.line.stand(priority(call), company, errand).await {
            // On its own: whoever asked may give up, and a wait that Graph asks for holds all the same.
            Ok(Called::Alone(slot, errand)) => {
                on_its_own(Arc::clone(desk).exchange(slot, vec![errand]));
            }
            Ok(Called::Together(group)) => {
                let desk = Arc::clone(desk);
                on_its_own(async move {
                    group.go(|slot, errands| desk.exchange(slot, errands).boxed()).await;
                });
            }
            // The line lives as long as this; were it gone, so would be the errand, as is seen below.
            Err(_) => {}
        }
        let Ok(Answer { outcome, token_refused }) = answered.await else {
            return Err(ReadError::Unreachable(Box::new(GivenUp)).into());
        };
        // Logged here and not where it happened: that may have been in another mailbox's turn.
        let sent = Sent { call, chain: &chain };
        if let Some(refusal) = &token_refused {
            note(sent, refusal);
        }
        if let Err(CallError::Refused(refusal)) = &outcome {
            note(sent, refusal);
        }
        outcome
    }
}

impl Desk {
    /// Refuses at once what would be refused in the end, so that nobody stands in line for it.
    fn worth_trying(&self, call: &Call) -> Result<(), CallError> {
        let now = self.clock.now();
        self.check_failures(call, now)?;
        if !continues_list(call) {
            self.budget.check(call, now).map_err(spent)?;
        }
        Ok(())
    }

    fn check_failures(&self, call: &Call, now: Timestamp) -> Result<(), CallError> {
        self.circuit.check(&call.scope, now).map_err(|left_alone| withheld("circuit", left_alone))?;
        self.gates.check(&call.scope, now).map_err(|error| withheld("pause", error))
    }

    /// The pages before it have been paid for: whoever begins a list can come back, whoever is half-way cannot.
    async fn wait_for_page(&self, call: &Call) {
        while continues_list(call) {
            let now = self.clock.now();
            let Err(Spent { wait, .. }) = self.budget.check(call, now) else { return };
            self.clock.sleep_until(now.checked_add(wait).unwrap_or(Timestamp::MAX)).await;
        }
    }

    /// Sends what may be sent now, and tells each what came of it.
    async fn exchange(self: Arc<Self>, _slot: Slot<Errand>, errands: Vec<Errand>) {
        let now = self.clock.now();
        let going = self.admitted(errands, now);
        if going.is_empty() {
            return;
        }
        let scopes: Vec<&Scope> = going.iter().map(|errand| &errand.call.scope).collect();
        let pass = match self.circuit.admit(&scopes, now) {
            Ok(pass) => pass,
            Err(left_alone) => {
                return going
                    .into_iter()
                    .for_each(|errand| errand.refuse(withheld("circuit", left_alone.clone())));
            }
        };
        let sent: Vec<Sent<'_>> = going.iter().map(Errand::sent).collect();
        let (mut tried, token_refused) = match self.tried(&sent).await {
            Ok(tried) => tried,
            Err(failure) => {
                return going.into_iter().for_each(|errand| errand.refuse(ReadError::from(failure.clone())));
            }
        };
        let now = self.clock.now();
        let mut faults: Vec<(&Scope, String)> = Vec::new();
        for (errand, outcome) in going.iter().zip(&mut tried.outcomes) {
            let scope = &errand.call.scope;
            let fault = self.settle(scope, outcome, now);
            faults.extend(fault.map(|why| (if tried.as_one { &Scope::Batch } else { scope }, why)));
        }
        match faults.last() {
            Some((_, why)) if faults.len() == going.len() => {
                pass.failed(faults.iter().map(|(scope, _)| *scope), why, now);
            }
            _ => pass.answered(),
        }
        let answers = tried.outcomes.into_iter().zip(token_refused);
        for (errand, (outcome, token_refused)) in going.into_iter().zip(answers) {
            errand.end(Answer { outcome, token_refused });
        }
    }

    /// Those who may go now. Looked at with the slot at hand: one of the calls ahead may have been told to wait.
    fn admitted(&self, errands: Vec<Errand>, now: Timestamp) -> Vec<Errand> {
        let mut going = Vec::with_capacity(errands.len());
        for errand in errands {
            let call = &errand.call;
            let admitted = self.check_failures(call, now);
            match admitted.and_then(|()| self.budget.spend(call, now).map_err(spent)) {
                Ok(()) => going.push(errand),
                Err(error) => errand.refuse(error),
            }
        }
        going
    }

    /// Sends, and sends those once more whose token was refused; beside the outcomes stand these refusals.
    async fn tried(&self, sent: &[Sent<'_>]) -> Result<(Tried, Vec<Option<Refusal>>), TokenFailure> {
        let token = self.tokens.token().await?;
        let mut tried = self.attempt(sent, &token).await;
        let refused: Vec<Option<Refusal>> = tried.outcomes.iter().map(token_refusal).collect();
        if refused.iter().all(Option::is_none) || !self.tokens.renounce(&token) {
            return Ok((tried, vec![None; sent.len()]));
        }
        let places: Vec<usize> = (0..sent.len()).filter(|place| refused[*place].is_some()).collect();
        let outcomes = match self.tokens.token().await {
            Ok(token) => {
                let again: Vec<Sent<'_>> = places.iter().map(|place| sent[*place]).collect();
                let again = self.attempt(&again, &token).await;
                tried.as_one = again.as_one;
                again.outcomes
            }
            Err(failure) => places.iter().map(|_| Err(ReadError::from(failure.clone()).into())).collect(),
        };
        for (place, outcome) in places.into_iter().zip(outcomes) {
            tried.outcomes[place] = outcome;
        }
        Ok((tried, refused))
    }

    async fn attempt(&self, sent: &[Sent<'_>], token: &Token) -> Tried {
        if let [one] = sent {
            return Tried { outcomes: vec![self.courier.alone(*one, token).await], as_one: false };
        }
        match self.courier.together(sent, token).await {
            Ok(outcomes) => Tried { outcomes, as_one: false },
            Err(CallError::Refused(refusal)) if refusal.status == 401 => {
                let refused = || Err(CallError::Refused(refusal.clone()));
                Tried { outcomes: sent.iter().map(|_| refused()).collect(), as_one: false }
            }
            Err(error) => self.failed_as_one(error, sent.len()),
        }
    }

    /// A batch failed. What it was refused with says nothing of its parts, but that it was throttled concerns them.
    fn failed_as_one(&self, error: CallError, parts: usize) -> Tried {
        let error = ReadError::from(error);
        let (rest, retry_after) = match &error {
            ReadError::Throttled { retry_after: Some(wait) } => (*wait, Some(*wait)),
            _ => (BATCHES_REST, None),
        };
        self.gates.pause(&Scope::Batch, rest, Cause::Throttled, self.clock.now());
        let why = Chain(&error).to_string();
        let outcome = || -> CallError {
            match retry_after {
                Some(_) => ReadError::Throttled { retry_after }.into(),
                None => ReadError::Unreachable(Box::new(BatchFailed(why.clone()))).into(),
            }
        };
        Tried { outcomes: (0..parts).map(|_| Err(outcome())).collect(), as_one: true }
    }

    /// Notes what an outcome means for whom it concerns; tells what is wrong where the far side is at fault.
    fn settle(&self, scope: &Scope, outcome: &mut Outcome, now: Timestamp) -> Option<String> {
        let refusal = match outcome {
            Ok(_) => {
                self.gates.answered(scope, now);
                return None;
            }
            Err(CallError::Refused(refusal)) => refusal,
            Err(CallError::Read(ReadError::Unreachable(error))) => {
                return Some(Chain(error.as_ref()).to_string());
            }
            Err(CallError::Read(_)) => return None,
        };
        let fault = refusal.is_fault().then(|| refusal.to_string());
        match (refusal.status, refusal.retry_after) {
            (429 | 503 | 504 | 509, Some(wait)) => self.gates.pause(scope, wait, Cause::Throttled, now),
            (429, None) => {
                refusal.retry_after = Some(self.gates.pause_untimed(scope, Cause::Throttled, now));
            }
            (503 | 504 | 509, None) => {
                let cause = Cause::Fault(refusal.to_string());
                self.gates.pause_untimed(scope, cause, now);
            }
            _ if fault.is_none() => self.gates.answered(scope, now),
            _ => {}
        }
        fault
    }
}

/// Who goes first when slots are short.
fn priority(call: &Call) -> Priority {
    match (&call.scope, call.operation) {
        (Scope::Mailbox(_), "event" | "instances") => Priority::Change,
        (Scope::Mailbox(_), "time_zone") | (Scope::Subscriptions | Scope::Batch, _) => Priority::Upkeep,
        (Scope::Mailbox(_) | Scope::Directory, _) => Priority::Read,
    }
}

/// Whether a call fetches a further page of the list of subscriptions.
/// Lets an exchange come to its end, which its time-out bounds, whether or not anybody waits for it.
fn on_its_own(exchange: impl Future<Output = ()> + Send + 'static) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a stop need not wait for answers, and who waits for one sees a panic as no answer"
    )]
    drop(tokio::spawn(exchange));
}

fn continues_list(call: &Call) -> bool {
    call.scope == Scope::Subscriptions
        && call.url.query_pairs().any(|(name, _)| name.eq_ignore_ascii_case("$skiptoken"))
}

fn token_refusal(outcome: &Outcome) -> Option<Refusal> {
    match outcome {
        Err(CallError::Refused(refusal)) if refusal.status == 401 => Some(refusal.clone()),
        _ => None,
    }
}

fn withheld(reason: &'static str, error: impl Into<ReadError>) -> CallError {
    metrics::counter!("narvaro_graph_withheld_total", "reason" => reason).increment(1);
    CallError::Read(error.into())
}

fn spent(Spent { wait, reason }: Spent) -> CallError {
    withheld(reason, ReadError::Throttled { retry_after: Some(wait) })
}
