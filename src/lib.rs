//! Närvaro keeps a telephone system in step with people's calendars.
//!
//! Somebody writes "MÖT: budget" in Outlook; their extension shows *Möte till 15:00* from the second the meeting
//! starts until it ends. Everything here serves that one path:
//!
//! ```text
//!  Graph ──POST──▶ webhook ──┐  mark(mailbox, at, reason, item)
//!  PBX signal ───────────────┤
//!  apply, person, restart ───┤
//!                            ▼
//!                  [ queue of due mailboxes ]  in the store; a mark is durable before it is acknowledged
//!                            │ lease: one worker per mailbox, generations only grow
//!                            ▼
//!                          turn ── read ──────▶ calendar (graph)      complete, or an error
//!                            │  ── timetable ─▶ spans, no subjects    pure
//!                            │  ── decide ────▶ presence, until, why, next edge    pure
//!                            │  ── present ───▶ presence (pbx)        announced in the store first
//!                            ▼
//!                   settle: state and next due time in one step; crash before it = the turn again
//! ```
//!
//! *Mailbox M is due at time T, because of R* is the only thing the queue knows. A notification, a span edge, a
//! renewal, a retry, a change by hand, an apply and a restart differ in nothing else. So bursts collapse, a lost
//! notification costs time and not truth, and a test drives the whole service by moving one clock.
//!
//! # Walks
//!
//! **A meeting is moved.** Graph posts a notification. [`webhook`] verifies its `clientState` (made from our key,
//! nothing is looked up), marks the mailbox with the item's id, answers 202 when the mark is on disk. The
//! [`queue`] hands the mailbox to a [`turn`]; it fetches what has changed, holds subjects against the trigger
//! words and forgets them, rebuilds the spans, [`decide`]s, and writes the PBX if something else should show.
//!
//! Where the company has its events sent along ([`webhook::sealed`]), the turn opens what came instead of asking; what
//! does not hold, it fetches.
//!
//! **A meeting starts.** Nobody announces that. The last turn left its next edge as the mailbox's due time; at
//! that second the turn decides from the stored timetable and writes, without asking the calendar anything.
//!
//! On Redis it decides up to `queue.ahead_secs` before, and only the write waits for the second, which at a full hour is the same one for
//! very many ([`queue::ahead`]). What is marked meanwhile takes the mailbox back at once.
//!
//! **A notification is lost.** Nobody knows, until the mailbox's next sweep asks Graph what has changed since the last
//! round. What it brings shows at once and is counted as unannounced; the next sweep comes soon.
//!
//! **The night comes.** A window is frozen in its link. At its own moment of the night each mailbox reads a new one from
//! its start, and a day more has come into sight. Had Graph forgotten a link by day, the same would happen at once.
//!
//! **Graph throttles us, or is away.** The read fails, is written down as a trouble with a time to try again, and
//! nothing that shows changes. Known spans still start and end on time. `status` tells cause and cure. Whom it concerns
//! is not asked about before that time; a company whose every call fails is left alone, one mailbox at a time finding
//! out whether it is back, and no other company waits for it ([`graph`]).
//!
//! **The calendars of twenty companies hang.** Each turn has shown what it knows before it reads. At most three quarters
//! of the workers read; a turn that finds no room ends, its reading is owed, and its mailbox waits without a worker. So
//! the edges of all others find one at once, and a read that takes too long is cut and tried again.
//!
//! **Somebody presses DND on the phone during a meeting.** The PBX signals, the turn reads back, sees what neither we
//! wrote nor announced, and keeps it as an override until that meeting ends, across restarts.
//!
//! **The PBX restarts.** Its link comes up; every extension is read back; what is empty there is told again, what
//! a person set stays.
//!
//! **The service is killed at 10:59:58 and restarts at 11:00:03.** Marks and due times are on disk. The edge of
//! 11:00 is due and is applied first; what may have been missed is read after it. A write that was announced
//! and not settled is recognised on the PBX as ours.
//!
//! **Another process applies a company.** The store makes its mailboxes due in the same step, and each lease says of which
//! revision the company is by then. Whoever gets one seats the company as it is stored before the turn begins, so that none goes by
//! older rules; the rest follows by being woken ([`app`]).
//!
//! **One of several processes is stopped, or dies.** Stopped, it closes its listeners, ends its turns, and hands back what it
//! holds: another goes on at once. Dead, its leases and duties run out, and what it had announced to write is known
//! as ours. Jobs, removals and the night's comparison go on where the store says they are.
//!
//! **The disk is full.** A mark cannot be made durable, the answer is 503, Graph delivers again for four hours.
//!
//! **The operator moves to another store.** The service is stopped. All that is in the one is read in pieces and written
//! into the other, which is marked as incomplete, read back and compared; then the mark goes ([`store::portable`]). Numbers
//! and generations go on where they were, and the first start makes every mailbox due, as any start does.
//!
//! # Who may know whom
//!
//! [`model`] ← [`timetable`], [`decide`] (pure) ← stages ([`webhook`], [`queue`], [`turn`], [`calendar`],
//! [`presence`], [`subscription`]) ← adapters ([`graph`], [`pbx`], [`store`]) ← [`app`] ← [`cli`]. A stage declares the
//! port it needs in its own words; an adapter implements it; only [`app`] names both. `tests/it/architecture.rs`
//! keeps it so.
//!
//! # Choices that differ from the obvious
//!
//! - The order of work is kept in memory and rebuilt at start ([`store::embedded`]): the store of one process
//!   needs only what must survive on disk.
//! - The truth comes by rounds of `calendarView/delta` ([`calendar`]): all of a window at the first and once a night, and
//!   in between what has changed, for one request where nothing has. A notification is answered by such a round too: that costs no more than the one event,
//!   and proves all of the calendar, so that a calendar in which somebody writes needs no sweeps. Since a round may lag behind its notification, the event is fetched where the round does not have the
//!   version that was announced. Of a series that a later round speaks of, all occurrences are read anew: nowhere is written which of them it holds.
//! - Silence proves nothing, and seldom means anything: the time between two sweeps of a silent mailbox grows with
//!   each that finds nothing, until the night's roll is enough, and is short again once one finds what was not announced.
//! - All PBX writes are announced in the store first. It costs one group commit; without it a crash between write and
//!   settling would make our own write look like a change by hand, and lock a person in.

// The flow, in its own order.
pub mod webhook;

pub mod queue;

pub mod turn;

pub mod calendar;

pub mod timetable;

pub mod decide;

pub mod presence;

pub mod subscription;

// The domain.
pub mod company;
pub mod health;
pub mod model;

// Outside systems.
pub mod graph;
pub mod pbx;
pub mod store;

// Edges and wiring.
pub mod admin;
pub mod app;
pub mod chain;
pub mod cli;
pub mod clock;
pub mod config;
pub mod counted;
pub mod telemetry;
