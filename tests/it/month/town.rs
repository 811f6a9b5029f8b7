//! The month itself: moves the one clock of service and simulator from event to event, and compares.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use narvaro::queue::Depth;
use narvaro_sim::{
    Fault as SimFault, FaultFilter, FaultKind, LifecycleKind, Record, SimOptions, SubscriptionInfo,
    TenantSpec, UserSpec,
};

use super::{
    bound::{Bounds, Concerns, LetGo, Troubles, What},
    dice::Dice,
    figures::{Figures, kind},
    oracle::{Calendar, Showing, calendar, expected, explained},
    people::{COMPANIES, Person},
    plan::{Act, Fault, Form, Plan},
};
use crate::world::{CLIENT_ID, World};

/// How long coming to rest may take, in real time; the first reading of all mailboxes takes longest.
const REST: Duration = Duration::from_secs(120);

/// Looks at the state before the first pause between two looks.
const LOOKS: u32 = 500;

/// Entries that may gather in the journal before they are counted.
const GATHER: u64 = 50_000;

/// Entries of the journal that are told with a violation or a difference.
const TRAIL: usize = 60;

/// Differences that are told before the rest is not looked for any more.
const TOLD: usize = 5;

/// In memory where the machine has such a folder: waiting for a disk is most of what the month costs otherwise.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_no_such_folder| tempfile::tempdir()).unwrap()
}

pub(super) struct Town {
    form: Form,
    world: World,
    dice: Dice,
    people: Vec<Person>,
    tenants: Vec<String>,
    plan: Plan,
    bounds: Bounds,
    troubles: Troubles,
    figures: Figures,
    /// Who shows something else than the calendar says, and since when.
    stale: BTreeMap<usize, Timestamp>,
    outage: bool,
    /// Companies whose file changed while the service was down.
    unapplied: BTreeSet<usize>,
    /// Who is not watched, and the first sample that showed it.
    unwatched: BTreeMap<usize, Timestamp>,
    differences: Vec<String>,
}

impl Town {
    /// Companies with people and filled calendars, all read and watched.
    pub(super) async fn settle(form: Form) -> Self {
        let mut dice = Dice::new(form.seed);
        let options = SimOptions { rng_seed: form.seed, paced: true, ..SimOptions::default() };
        let world = World::bare_at(form.from, options, folder()).await;
        let mut people: Vec<Person> =
            (0..form.mailboxes).map(|number| Person::new(number, form.from)).collect();
        let mut tenants = Vec::new();
        for (number, company) in COMPANIES.iter().enumerate() {
            let tenant = match number {
                0 => world.tenant.clone(),
                _ => world.sim.add_tenant(TenantSpec::new(company.domain)).unwrap(),
            };
            for person in people.iter().filter(|person| person.company == number) {
                let zone = Some(company.windows_zone.to_owned());
                let user = UserSpec { time_zone: zone, ..UserSpec::new(&person.alias) };
                world.sim.add_user(&tenant, user).unwrap();
            }
            tenants.push(tenant);
        }
        for person in &mut people {
            for _ in 0..dice.within(2, 6) {
                person.edit(&world.sim, &mut dice, form.from, |_| false);
            }
            person.young.clear();
        }
        let plan = Plan::draw(&form, &people, &mut dice);
        let bounds = Bounds::of(&form);
        let figures = Figures::new(&form, bounds, world.sim.journal());
        let mut town = Self {
            form,
            world,
            dice,
            people,
            tenants,
            plan,
            bounds,
            troubles: Troubles::new(bounds),
            figures,
            stale: BTreeMap::new(),
            outage: false,
            unapplied: BTreeSet::new(),
            unwatched: BTreeMap::new(),
            differences: Vec::new(),
        };
        for (number, company) in COMPANIES.iter().enumerate() {
            town.apply(number).await;
            let (status, page) = town.world.consent_as(company.id, &town.tenants[number]).await;
            assert_eq!(status, 200, "{page}");
            town.rest().await;
        }
        town.figures = Figures::new(&form, bounds, town.world.sim.journal());
        town.sample();
        assert!(town.stale.is_empty(), "{:?}", town.differences);
        if form.faults {
            town.world.sim.delivery(|knobs| {
                knobs.drop = 0.05;
                knobs.duplicate = 0.05;
                knobs.delay_max_ms = 2_000;
                knobs.reorder = 0.05;
                knobs.reorder_by_ms = 5 * 60_000;
            });
        }
        town
    }

    /// Lives through all that is planned, and then, where there were faults, through a quiet end in which everything
    /// has to become whole again.
    pub(super) async fn live(mut self) -> Figures {
        while let Some(planned) = self.plan.next() {
            self.move_on(planned).await;
            self.do_what_is_planned().await;
            self.judge(TOLD);
        }
        if self.form.faults {
            self.become_whole().await;
        }
        self.sample();
        self.judge(1);
        assert!(self.stale.is_empty(), "{:?}", self.stale);
        self.count();
        self.expect_one_subscription_each();
        self.world.end().await;
        self.figures
    }

    /// Fails where there are so many differences, or a rule was broken.
    fn judge(&mut self, differences: usize) {
        let violations = self.world.sim.violations();
        if self.differences.len() < differences && violations.is_empty() {
            return;
        }
        self.count();
        let trail: Vec<_> = violations
            .first()
            .into_iter()
            .flat_map(|first| {
                let before = self.world.sim.journal().since(first.seq.saturating_sub(TRAIL as u64));
                before.into_iter().take_while(|entry| entry.seq <= first.seq)
            })
            .collect();
        panic!(
            "{}\n{}\n{} violations; before the first: {trail:#?}",
            self.figures,
            self.differences.join("\n"),
            violations.len()
        );
    }

    fn count(&mut self) {
        self.figures.count(self.world.sim.journal());
        self.figures.counted_days = self.now().duration_since(self.form.from).as_secs_f64() / 86_400.0;
    }

    fn now(&self) -> Timestamp {
        self.world.now()
    }

    /// Without faults, until a night has missed the last subscription that was removed silently, and all is read once
    /// more.
    async fn become_whole(&mut self) {
        self.world.sim.clear_faults();
        self.world.sim.delivery(|knobs| {
            (knobs.drop, knobs.duplicate, knobs.reorder) = (0.0, 0.0, 0.0);
            knobs.delay_max_ms = 0;
        });
        let end =
            self.now() + self.bounds.watched_again.max(self.bounds.change + self.bounds.after(What::Consent));
        for at in self.dice.moments(self.now(), end, SignedDuration::from_hours(6)) {
            self.move_on(at).await;
            self.sample();
        }
        self.move_on(end).await;
    }

    /// Moves the clock to `to`, and stops wherever something is due before.
    async fn move_on(&mut self, to: Timestamp) {
        while self.now() < to {
            let due = self.next_due().await.map_or(to, |due| due.max(self.now() + self.form.stride));
            let stop = due.min(to);
            assert!(stop > self.now(), "the clock has to move");
            self.world.sim.set_time(stop);
            self.world.clock.advance_to(stop);
            self.rest().await;
            self.look_at_the_stale();
            if self.figures.uncounted(self.world.sim.journal()) > GATHER {
                self.figures.count(self.world.sim.journal());
            }
        }
    }

    /// When the service's queue or the simulator's delivery wants the time to be.
    async fn next_due(&self) -> Option<Timestamp> {
        let queue = if self.world.is_up() { self.world.app().depth().await.unwrap().next } else { None };
        queue.into_iter().chain(self.world.sim.next_delivery()).min()
    }

    /// Waits until nothing is due and nothing under way.
    async fn rest(&self) {
        let end = Instant::now() + REST;
        for look in 0_u32.. {
            // In this order: a notification counts until its mark can be seen in the queue.
            let delivering = self.world.sim.delivering();
            let depth =
                if self.world.is_up() { self.world.app().depth().await.unwrap() } else { Depth::default() };
            if delivering == 0 && depth.due == 0 && depth.leased == 0 {
                return;
            }
            assert!(
                Instant::now() < end,
                "at {} not at rest: {delivering} to deliver, {depth:?}",
                self.now()
            );
            if look < LOOKS {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// All that is planned for now; edits between which nothing else happens are made together.
    async fn do_what_is_planned(&mut self) {
        let mut edited = Vec::new();
        while let Some(act) = self.plan.take(self.now()) {
            if let Act::Edit(person) = act {
                self.edit(person);
                edited.push(person);
                continue;
            }
            self.look_at_edited(&mut edited).await;
            match act {
                Act::Edit(_) => {}
                Act::Sample => self.sample(),
                Act::Fault(fault) => {
                    *self.figures.faults.entry(fault.name()).or_default() += 1;
                    self.fault(fault).await;
                    self.rest().await;
                }
            }
        }
        self.look_at_edited(&mut edited).await;
    }

    async fn look_at_edited(&mut self, edited: &mut Vec<usize>) {
        if !edited.is_empty() {
            self.rest().await;
            edited.drain(..).for_each(|number| self.compare(number));
        }
    }

    fn edit(&mut self, number: usize) {
        let now = self.now();
        let (troubles, company) = (&self.troubles, self.people[number].company);
        let within = self.bounds.change;
        let seen = |at| troubles.deadline(number, company, at, within).is_some_and(|deadline| deadline < now);
        let edited = self.people[number].edit(&self.world.sim, &mut self.dice, now, seen);
        if let Some(what) = edited {
            self.figures.edited(what);
        }
    }

    /// Whether what happened to a person's calendar at `at` has to show by now.
    fn is_due(&self, number: usize, at: Timestamp, within: SignedDuration) -> bool {
        let deadline = self.troubles.deadline(number, self.people[number].company, at, within);
        deadline.is_some_and(|deadline| deadline <= self.now())
    }

    async fn fault(&mut self, fault: Fault) {
        let now = self.now();
        let sim = &self.world.sim;
        match fault {
            Fault::Slow(slow) => {
                sim.delivery(|knobs| knobs.delay_max_ms = if slow { 20 * 60_000 } else { 2_000 });
            }
            Fault::Storm { company, mailbox, lasting, retry_after } => {
                let (filter, concerns) = match mailbox {
                    Some(person) => (FaultFilter::mailbox(&self.user(person)), Concerns::Person(person)),
                    None => (FaultFilter::tenant(&self.tenants[company]), Concerns::Company(company)),
                };
                sim.throttle_for(filter, lasting, Duration::from_secs(retry_after));
                self.troubles.spell(concerns, What::Graph, now, now + lasting);
            }
            Fault::Hiccup { times, kind } => sim.fault(SimFault::next(times, kind)),
            Fault::RemovedSilently(person) => {
                for subscription in self.subscriptions(person) {
                    sim.expire_subscription(&subscription.id);
                }
            }
            Fault::RemovedWithNotice(person) => self.lifecycle(person, LifecycleKind::SubscriptionRemoved),
            Fault::Missed(person) => self.lifecycle(person, LifecycleKind::Missed),
            Fault::Reauthorize(person) => self.lifecycle(person, LifecycleKind::ReauthorizationRequired),
            Fault::DeltaExpired(person) => sim.expire_delta_links(&self.people[person].alias).unwrap(),
            Fault::Outage => {
                let kind = FaultKind::Status { status: 503, code: None, retry_after: None };
                sim.fault(SimFault { for_secs: Some(2 * 3_600), ..SimFault::lasting(kind) });
                self.outage = true;
                self.cut();
                self.troubles.begin(Concerns::All, What::Graph, now);
            }
            Fault::OutageOver => {
                self.outage = false;
                self.cut();
                self.troubles.end(Concerns::All, What::Graph, now);
            }
            Fault::TokensDown => {
                sim.login(|knobs| knobs.fail_next = u32::MAX);
                self.troubles.begin(Concerns::All, What::Login, now);
            }
            Fault::TokensBack => {
                sim.login(|knobs| knobs.fail_next = 0);
                self.troubles.end(Concerns::All, What::Login, now);
            }
            Fault::ConsentRevoked(company) => {
                sim.revoke_consent(&self.tenants[company], CLIENT_ID, true).unwrap();
                self.troubles.begin(Concerns::Company(company), What::Consent, now);
            }
            Fault::ConsentRestored { company, by_page } => {
                if by_page && self.world.is_up() {
                    self.world.consent_as(COMPANIES[company].id, &self.tenants[company]).await;
                } else {
                    sim.consent(&self.tenants[company], CLIENT_ID).unwrap();
                }
                self.troubles.end(Concerns::Company(company), What::Consent, now);
            }
            // Two spells may overlap.
            Fault::ServiceDown if !self.world.is_up() => {}
            Fault::ServiceUp if self.world.is_up() => {}
            Fault::ServiceDown => {
                self.world.stop().await;
                self.cut();
                self.troubles.begin(Concerns::All, What::Service, now);
            }
            Fault::ServiceUp => {
                self.world.start().await;
                self.cut();
                self.troubles.end(Concerns::All, What::Service, now);
                for company in std::mem::take(&mut self.unapplied) {
                    self.apply(company).await;
                }
            }
            Fault::SwitchedOff(person) => self.switch(person, false).await,
            Fault::SwitchedOn(person) => self.switch(person, true).await,
        }
    }

    /// Nothing reaches us while Graph is away or we are.
    fn cut(&self) {
        let cut = self.outage || !self.world.is_up();
        self.world.sim.delivery(|knobs| knobs.cut = cut);
    }

    fn user(&self, person: usize) -> String {
        self.world.sim.user_id(&self.people[person].alias).unwrap()
    }

    fn subscriptions(&self, person: usize) -> Vec<SubscriptionInfo> {
        self.world.subscriptions(&self.people[person].alias)
    }

    fn lifecycle(&self, person: usize, kind: LifecycleKind) {
        for subscription in self.subscriptions(person) {
            self.world.sim.lifecycle(&subscription.id, kind).unwrap();
        }
    }

    async fn switch(&mut self, number: usize, on: bool) {
        let now = self.now();
        let person = &mut self.people[number];
        person.enabled = on;
        person.switched = now;
        if on {
            person.see_anew(&self.world.sim, now);
        }
        let company = person.company;
        if self.world.is_up() {
            self.apply(company).await;
        } else {
            self.unapplied.insert(company);
        }
    }

    async fn apply(&self, number: usize) {
        let company = &COMPANIES[number];
        let disabled = |person: &Person| if person.enabled { "" } else { "enabled = false" };
        let people = self.people.iter().filter(|person| person.company == number);
        let users: Vec<_> = people
            .map(|person| (person.extension.as_str(), person.alias.as_str(), disabled(person)))
            .collect();
        let more = format!("time_zone = \"{}\"", company.zone);
        // Without reading back, which this PBX would need every minute.
        let pbx = format!(
            r#"
            [pbx]
            kind = "http"
            [pbx.http]
            base_url = "{}"
            allow_plain_http = true
            [pbx.http.set]
            method = "PUT"
            path = "/extensions/{{extension}}/presence"
            json = {{ profile = "{{profile.id}}", text = "{{text}}", until = "{{until|json}}" }}
            "#,
            self.world.sim.pbx_url(company.id)
        );
        self.world.apply(&self.world.file(company.id, &more, "", &pbx, &users)).await;
    }

    /// Compares all extensions with their calendars, and looks over the subscriptions.
    fn sample(&mut self) {
        if !self.world.is_up() {
            return;
        }
        self.figures.samples += 1;
        for number in 0..self.people.len() {
            self.compare(number);
        }
        self.look_at_subscriptions();
    }

    fn look_at_the_stale(&mut self) {
        if self.world.is_up() {
            let stale: Vec<usize> = self.stale.keys().copied().collect();
            stale.into_iter().for_each(|number| self.compare(number));
        }
    }

    fn compare(&mut self, number: usize) {
        if !self.world.is_up() {
            return;
        }
        self.figures.comparisons += 1;
        let now = self.now();
        let mut young = std::mem::take(&mut self.people[number].young);
        young.retain(|edit| !self.is_due(number, edit.at, self.bounds.change));
        self.people[number].young = young;
        let person = &self.people[number];
        let calendar =
            if person.enabled { calendar(&self.world.sim, &person.alias, now) } else { Calendar::new() };
        let let_go = self.troubles.let_go(number, person.company, now);
        let should = match let_go {
            LetGo::Surely => Showing::base(),
            LetGo::No | LetGo::Perhaps => expected(calendar.values().flatten(), &person.held, now),
        };
        let shows = self.shows(person);
        if shows == should {
            if let Some(since) = self.stale.remove(&number) {
                self.figures.spells += 1;
                self.figures.worst = self.figures.worst.max(now.duration_since(since));
            }
            return;
        }
        self.figures.differing += 1;
        let edits: Vec<&Calendar> = person.young.iter().map(|edit| &edit.before).collect();
        let switched = !self.is_due(number, person.switched, self.bounds.change);
        let allowed = match let_go {
            LetGo::Surely => false,
            LetGo::Perhaps if shows == Showing::base() => true,
            _ if switched => true,
            _ => explained(&shows, &calendar, &edits, &person.held, now).unwrap_or_else(|| {
                self.figures.unjudged += 1;
                true
            }),
        };
        let since = person.young.first().map_or(person.switched, |edit| edit.at);
        self.stale.entry(number).or_insert(since);
        if allowed {
            return;
        }
        self.figures.beyond += 1;
        if self.differences.len() < TOLD {
            let young: Vec<_> = person.young.iter().map(|edit| (edit.at, edit.what)).collect();
            let running: Vec<_> =
                calendar.values().flatten().filter(|row| row.start <= now && now < row.end).collect();
            self.differences.push(format!(
                "at {now} {} shows {shows:?} and should show {should:?}; young edits: {young:?}; running: {running:#?}; before: {:#?}",
                person.alias,
                self.trail(number)
            ));
        }
    }

    /// What was last asked and said of a mailbox.
    fn trail(&self, number: usize) -> Vec<String> {
        let user = self.user(number);
        let is_of_user = |record: &Record| match record {
            Record::Graph(call) => call.mailbox.as_ref() == Some(&user),
            Record::Notified { mailbox, .. } => *mailbox == user,
            _ => false,
        };
        let entries = self.world.sim.journal().entries();
        let mut last: Vec<_> = entries
            .iter()
            .rev()
            .filter(|entry| is_of_user(&entry.record))
            .take(TRAIL)
            .map(|entry| match &entry.record {
                Record::Graph(call) => {
                    let what = kind(call);
                    format!("{}: {what} {} {}, answered {}", entry.at, call.method, call.path, call.status)
                }
                other => format!("{}: {other:?}", entry.at),
            })
            .collect();
        last.reverse();
        last
    }

    fn shows(&self, person: &Person) -> Showing {
        let shown = self.world.sim.pbx().presence(COMPANIES[person.company].id, &person.extension);
        let base = Showing::base();
        if shown.profile == base.profile {
            return base;
        }
        Showing { profile: shown.profile, until: shown.until.map(|until| until.parse().unwrap()) }
    }

    /// Never two subscriptions on a mailbox, and none on one that is not followed any more.
    fn look_at_subscriptions(&mut self) {
        let mut live: HashMap<String, usize> = HashMap::new();
        for subscription in self.world.sim.subscriptions() {
            *live.entry(subscription.user).or_default() += 1;
        }
        let now = self.now();
        for (number, person) in self.people.iter().enumerate() {
            let count = live.get(&self.user(number)).copied().unwrap_or_default();
            let left_behind =
                !person.enabled && count > 0 && self.is_due(number, person.switched, self.bounds.change);
            if count > 1 || left_behind {
                self.differences.push(format!("at {now} {} has {count} subscriptions", person.alias));
            }
            if person.enabled && count == 0 {
                let since = *self.unwatched.entry(number).or_insert(now);
                self.figures.unwatched = self.figures.unwatched.max(now.duration_since(since));
            } else {
                self.unwatched.remove(&number);
            }
        }
    }

    fn expect_one_subscription_each(&self) {
        for (number, person) in self.people.iter().enumerate() {
            let live = self.subscriptions(number).len();
            assert_eq!(
                live,
                usize::from(person.enabled),
                "subscriptions of {} at {}",
                person.alias,
                self.now()
            );
        }
        assert_eq!(self.figures.lapsed, 0, "subscriptions lapsed");
    }
}
