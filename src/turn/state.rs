//! What a mailbox's turns remember: the document that the store keeps for each mailbox.
//!
//! It holds no subject, body, attendee or location (I5). Members that this version does not know are kept
//! as they are, so that an older and a newer version can work on the same store side by side: a newer one adds members and
//! names of what stands in the way, and changes nothing that there is. A member that cannot be read is left out, and
//! everything is read anew.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::{DeltaLink, MailboxRef, PushRecord},
    decide::Layers,
    health::Health,
    model::{Disposition, Interval, MailboxId, Others, ProfileId, Shown, SubscriptionId, Wanted},
    queue::{Gathered, Reason},
    timetable::Timetable,
};

use super::retry::{RetryPlan, retry_at};

/// The layout this version writes: grows with each member that is added inside of another, as those are looked for in
/// newer documents only.
pub const SCHEMA: u32 = 1;

/// Everything a mailbox's turns remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MailboxState {
    /// Layout of this document.
    pub schema: u32,
    /// The alias that all of this was read under; another alias is another calendar.
    pub alias: String,
    /// Who the alias is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Found>,
    /// The user who had the alias and has it no more, and whom nobody has followed in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_lost_by: Option<MailboxRef>,
    /// Whether others have the alias too by now; whoever had it first is followed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alias_shared: bool,
    /// The mailbox's zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<ZoneRead>,
    /// What the calendar says; `None` before the first round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timetable: Option<Timetable>,
    /// Where the next round of reading goes on. It is stored with the timetable of the same moment, never before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bookmark: Option<Bookmark>,
    /// What is known of push.
    pub push: PushRecord,
    /// What people set by hand.
    pub layers: Layers,
    /// The live subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch: Option<WatchKept>,
    /// Counts subscriptions made.
    pub watch_generation: u32,
    /// Counts subscriptions made and renewed.
    pub watches_kept: u64,
    /// What the PBX is known to show: what it last acknowledged, or what was found there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<Shown>,
    /// When `acknowledged` was last made sure of, by an answer or by reading back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sure_at: Option<Timestamp>,
    /// What showed before the last change that the PBX acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Replaced>,
    /// Changes that failed, each as it would show: nobody knows how much of them was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsettled: Vec<Shown>,
    /// What it was last told, or found to show; `None` where that is uncertain and it is to be told anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub told: Option<Wanted>,
    /// What that means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shows: Option<Shows>,
    /// When the last turn began that tried a renewal that a person asked for, whatever came of it: what was asked for
    /// before then has been tried. One that is still to be made is among what is owed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renewal_tried_at: Option<Timestamp>,
    /// What marks asked for and no turn has managed yet.
    pub owed: Gathered,
    /// When the next span edge comes: lateness is measured from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_edge: Option<Timestamp>,
    /// The newest moment at which the timetable was proven equal to the calendar: when the last round began that
    /// was complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_until: Option<Timestamp>,
    /// When the PBX is read back next, where it does not report by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_back_at: Option<Timestamp>,
    /// What stands in the way of reading the calendar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calendar_trouble: Option<Trouble>,
    /// Since when the calendar has been kept from us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shut_out_since: Option<Timestamp>,
    /// What stands in the way of the subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watch_trouble: Option<Trouble>,
    /// What stands in the way of the PBX.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pbx_trouble: Option<Trouble>,
    /// Members of other versions.
    #[serde(flatten)]
    pub others: serde_json::Map<String, serde_json::Value>,
    /// The same inside of members.
    #[serde(skip)]
    pub(crate) newer: Others,
    /// Members that could not be read.
    #[serde(skip)]
    pub(crate) unread: Vec<String>,
}

/// Who an alias is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The mailbox.
    pub mailbox: MailboxRef,
    /// The primary address, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary_smtp: Option<String>,
}

/// A mailbox's zone as the server spells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneRead {
    /// Its name; `None` where the mailbox has none.
    pub name: Option<String>,
    /// When it was read.
    pub at: Timestamp,
}

/// Where the next round of reading goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bookmark {
    /// The server's own words.
    pub link: DeltaLink,
    /// The window that is frozen in it. Where the timetable has another, somebody else has read since.
    pub window: Interval,
    /// When the round from the start of that window began.
    pub since: Timestamp,
    /// By which rules its events were judged ([`Ruleset::digest`](super::roster::Ruleset::digest)).
    pub rules: u64,
}

/// A live subscription.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchKept {
    /// Its name at the server.
    pub id: SubscriptionId,
    /// When it ends.
    pub expires: Timestamp,
    /// When it is to be renewed.
    pub renew_at: Timestamp,
    /// When it was made or renewed last; `None` where an earlier version did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_at: Option<Timestamp>,
    /// Whether the server wants it confirmed, and may hold notifications back until then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unconfirmed: bool,
    /// Which of our subscriptions for this mailbox it is.
    pub generation: u32,
    /// Name of the key that signed its `clientState`.
    #[serde(default)]
    pub key: String,
    /// Whether events are sent along with its notifications.
    #[serde(default)]
    pub rich: bool,
}

/// What the PBX shows, in our words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shows {
    /// The profile; `None` where something shows that is none of ours.
    pub profile: Option<ProfileId>,
    /// What others read.
    pub label: String,
    /// When it changes.
    pub until: Option<Timestamp>,
    /// Since when.
    pub since: Timestamp,
}

/// What showed before a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replaced {
    /// What showed.
    pub shown: Shown,
    /// When the change was acknowledged.
    pub at: Timestamp,
}

/// Something that stands in the way, and when it is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its name, cause and cure.
    pub health: Health,
    /// Since when.
    pub since: Timestamp,
    /// Failures in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_at: Timestamp,
}

impl Trouble {
    /// The trouble after one more failure.
    pub(super) fn again(
        plan: &RetryPlan,
        before: Option<&Self>,
        health: Health,
        disposition: Disposition,
        mailbox: MailboxId,
        now: Timestamp,
    ) -> Self {
        let attempts = before.map_or(0, |trouble| trouble.attempts).saturating_add(1);
        let since = before.map_or(now, |trouble| trouble.since);
        Self { health, since, attempts, retry_at: retry_at(plan, disposition, attempts, mailbox, now) }
    }

    /// Whether the server said until when it wants to be left alone.
    pub(super) fn was_told_to_wait(&self) -> bool {
        matches!(self.health, Health::Throttled { .. })
    }

    /// Whether it is to be left alone at `now`.
    pub(super) fn rests(trouble: Option<&Self>, now: Timestamp) -> bool {
        trouble.is_some_and(|trouble| trouble.retry_at > now)
    }
}

impl MailboxState {
    /// Reads a stored document; an empty one is a mailbox that never had a turn.
    ///
    /// # Errors
    /// The place in the document.
    pub fn read(document: &[u8]) -> Result<Self, serde_path_to_error::Error<serde_json::Error>> {
        if document.is_empty() {
            return Ok(Self { schema: SCHEMA, ..Self::default() });
        }
        let read = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(document));
        let mut state: Self = read.or_else(|error| read_in_part(document).ok_or(error))?;
        if state.schema > SCHEMA {
            let known = serde_json::to_value(&state).unwrap_or_default();
            state.newer = Others::of(serde_json::from_slice(document).unwrap_or_default(), &known);
        }
        state.schema = state.schema.max(SCHEMA);
        Ok(state)
    }

    /// The document to be stored.
    pub(super) fn write(&self) -> Vec<u8> {
        const PROOF: &str = "keys are texts and no value can refuse";
        #[expect(clippy::expect_used, reason = "proven")]
        if self.newer.is_empty() {
            return serde_json::to_vec(self).expect(PROOF);
        }
        #[expect(clippy::expect_used, reason = "proven")]
        let mut document = serde_json::to_value(self).expect(PROOF);
        self.newer.put_back(&mut document);
        document.to_string().into_bytes()
    }

    /// How the mailbox stands: the gravest of what stands in the way.
    pub fn health(&self) -> Health {
        let troubles = [&self.calendar_trouble, &self.watch_trouble, &self.pbx_trouble];
        let gravest = troubles.into_iter().flatten().max_by_key(|trouble| trouble.health.severity());
        if let Some(trouble) = gravest {
            return trouble.health.clone();
        }
        if self.timetable.is_none() {
            return Health::Starting;
        }
        self.alias_trouble().unwrap_or(Health::Fine)
    }

    /// Whether the alias leads elsewhere or to others too by now, or works and is not the primary address.
    pub fn alias_trouble(&self) -> Option<Health> {
        let followed = self.resolved.as_ref()?;
        if self.alias_lost_by.as_ref() == Some(&followed.mailbox) {
            return Some(Health::AliasChanged { alias: self.alias.clone() });
        }
        if self.alias_shared {
            return Some(Health::AmbiguousAlias { alias: self.alias.clone() });
        }
        let primary = followed.primary_smtp.clone()?;
        Some(Health::AliasNotPrimary { alias: self.alias.clone(), primary })
    }

    /// Takes the calendar's hand off the phone; `false` where it never was on it. What was let go comes back by a round
    /// from the start of a window only, not by what has changed since the last.
    pub(super) fn let_go(&mut self) -> bool {
        let Some(timetable) = &mut self.timetable else { return false };
        timetable.entries.clear();
        self.bookmark = None;
        true
    }

    /// Forgets everything that was read under another alias; what people set by hand stays.
    pub(super) fn move_to_alias(&mut self, alias: &str) {
        *self = Self {
            schema: self.schema,
            alias: alias.to_owned(),
            layers: std::mem::take(&mut self.layers),
            watch_generation: self.watch_generation,
            watches_kept: self.watches_kept,
            acknowledged: self.acknowledged.take(),
            sure_at: self.sure_at,
            replaced: self.replaced.take(),
            unsettled: std::mem::take(&mut self.unsettled),
            told: self.told.take(),
            shows: self.shows.take(),
            owed: std::mem::take(&mut self.owed),
            others: std::mem::take(&mut self.others),
            newer: std::mem::take(&mut self.newer),
            ..Self::default()
        };
    }
}

/// What can be read of a document of which some members cannot; `None` where nothing can.
fn read_in_part(document: &[u8]) -> Option<MailboxState> {
    let mut members: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(document).ok()?;
    let mut unread = Vec::new();
    loop {
        let value = serde_json::Value::Object(members.clone());
        let error = match serde_path_to_error::deserialize::<_, MailboxState>(value) {
            Ok(mut state) => {
                state.owed.reasons.insert(Reason::Unknown);
                return Some(MailboxState { unread, ..state });
            }
            Err(error) => error,
        };
        let Some(serde_path_to_error::Segment::Map { key }) = error.path().iter().next() else { return None };
        members.remove(key)?;
        unread.push(key.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn document() -> Value {
        json!({
            "schema": SCHEMA + 1,
            "alias": "anna@acme.example",
            "mood": "new",
            "owed": { "reasons": 1, "hints": [], "overflow": false, "tint": 7 },
            "watch": {
                "id": "a", "expires": "2026-11-30T08:00:00Z", "renew_at": "2026-11-26T08:00:00Z", "generation": 1,
                "key": "k", "rich": false, "flavour": { "of": "newer" },
            },
            "watch_generation": 1,
            "calendar_trouble": {
                "health": { "state": "moonstruck", "phase": 3 },
                "since": "2026-11-23T08:00:00Z", "attempts": 1, "retry_at": "2026-11-23T08:05:00Z",
            },
        })
    }

    fn written(state: &MailboxState) -> Value {
        serde_json::from_slice(&state.write()).unwrap()
    }

    #[test]
    fn what_a_newer_version_wrote_is_read_and_lost_by_no_turn() {
        let mut state = MailboxState::read(document().to_string().as_bytes()).unwrap();
        assert_eq!(state.alias, "anna@acme.example");
        assert_eq!(state.watch.as_ref().unwrap().id.as_str(), "a");
        state.watch.as_mut().unwrap().unconfirmed = true;
        state.owed.reasons.insert(Reason::Asked);
        let document = written(&state);
        assert_eq!((&document["mood"], &document["schema"]), (&json!("new"), &json!(SCHEMA + 1)));
        assert_eq!(document["owed"]["tint"], json!(7));
        assert_eq!(document["watch"]["flavour"], json!({ "of": "newer" }));
        assert_eq!(document["watch"]["unconfirmed"], json!(true));
        // What they stood in has gone: so have they.
        state.watch = None;
        assert_eq!(written(&state).get("watch"), None);
        state.move_to_alias("bo@acme.example");
        let document = written(&state);
        assert_eq!((&document["mood"], &document["schema"]), (&json!("new"), &json!(SCHEMA + 1)));
    }

    #[test]
    fn a_member_that_cannot_be_read_is_left_out_and_everything_read_anew() {
        let state = MailboxState::read(document().to_string().as_bytes()).unwrap();
        assert_eq!(state.unread, ["calendar_trouble"]);
        assert_eq!(state.calendar_trouble, None);
        assert!(
            state.owed.reasons.contains(Reason::Unknown) && state.owed.reasons.contains(Reason::Notification)
        );
        let mut broken = document();
        broken["timetable"] = json!("not a timetable");
        broken["owed"] = json!([1, 2]);
        let state = MailboxState::read(broken.to_string().as_bytes()).unwrap();
        assert_eq!(state.unread.len(), 3);
        assert!(state.watch.is_some() && state.owed.reasons.contains(Reason::Unknown));
        assert!(MailboxState::read(b"[]").is_err() && MailboxState::read(b"{").is_err());
    }

    #[test]
    fn a_document_of_this_version_is_written_as_it_is_read() {
        let state = MailboxState { schema: SCHEMA, alias: "anna@acme.example".into(), ..Default::default() };
        assert_eq!(MailboxState::read(&state.write()).unwrap(), state);
        assert!(state.unread.is_empty());
    }
}
