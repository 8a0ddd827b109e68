//! What a story must tell, worked out once more without the kernel, as slowly and as plainly as can
//! be.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::mem;

use maslite_mp::prelude::Topic;

use super::Told;
use crate::scenario::file::{Action, Listen, OwnerAction, Scenario, Script, StartMail};
use crate::scenario::trace::quote;

#[derive(Clone, Debug)]
struct Letter {
    from: u64,
    to: Option<u64>,
    topic: Topic,
    ttl: u64,
    is_direct: bool,
}

impl Letter {
    fn of_the_owner(mail: &StartMail) -> Self {
        Self {
            from: mail.from,
            to: mail.to,
            topic: mail.topic,
            ttl: mail.ttl,
            is_direct: false,
        }
    }
}

/// One agent, also when it is gone: its place in the list is its insertion index.
#[derive(Default)]
struct Person<'a> {
    id: u64,
    script: Option<&'a Script>,
    /// Another agent, and when; none: the owner.
    adder: Option<(u64, u64)>,
    setup_to_come: bool,
    is_new: bool,
    is_leaving: bool,
    is_gone: bool,
    is_kept_awake: bool,
    inbox: VecDeque<Letter>,
    listens_to: Vec<Listen>,
    heard: BTreeSet<Topic>,
    spins: BTreeMap<Topic, u64>,
    children: u64,
}

impl<'a> Person<'a> {
    fn script(&self) -> &'a Script {
        self.script.expect("everybody has a script")
    }

    /// Whether mail with a topic is to be sent to itself again: at most `most` times for each topic,
    /// and only until the agent has heard `until`.
    fn spins_on(&mut self, topic: Topic, until: Topic, most: u64) -> bool {
        let spins = self.spins.entry(topic).or_default();
        let goes_on = *spins < most && !self.heard.contains(&until);
        *spins += u64::from(goes_on);
        goes_on
    }

    fn hears(&self, letter: &Letter) -> bool {
        let fits = |listen: &Listen| {
            listen.sender.is_none_or(|sender| sender == letter.from)
                && (listen.receiver.is_none() || listen.receiver == letter.to)
                && listen.topic.is_none_or(|topic| topic == letter.topic)
        };
        !letter.is_direct && self.listens_to.iter().any(fits)
    }

    fn is_awake(&self) -> bool {
        self.is_new || self.is_leaving || !self.inbox.is_empty()
    }
}

/// What sets actions off: the sender and topic of mail, none in setup and teardown, where `ttl` is
/// fixed.
#[derive(Clone, Copy)]
struct Cause {
    mail: Option<(u64, Topic)>,
    ttl: u64,
    phase: &'static str,
}

impl Cause {
    fn life(phase: &'static str) -> Self {
        let (mail, ttl) = (None, 2);
        Self { mail, ttl, phase }
    }
}

#[derive(Default)]
struct Counts {
    sent: u64,
    delivered: u64,
    undeliverable: u64,
    unheard: u64,
    supersteps: u64,
    alarms_set: u64,
    alarms_fired: u64,
    alarms_cleared: u64,
    pauses: u64,
}

/// Due, set at, insertion index of who set it, how manieth alarm.
type AlarmKey = (u64, u64, usize, u64);

#[derive(Default)]
struct World<'a> {
    now: u64,
    step: u64,
    people: Vec<Person<'a>>,
    places: BTreeMap<u64, usize>,
    /// Since the last run; their setup is the owner's business.
    added: Vec<usize>,
    outbox: Vec<Letter>,
    alarms: BTreeMap<AlarmKey, Letter>,
    births: Vec<(u64, usize)>,
    removals: Vec<(u64, u64)>,
    pauses: BTreeSet<usize>,
    counts: Counts,
    trace: String,
}

/// The end of the trace of a story that fails.
type Failure = String;

/// Tells a story; none if its trace has more lines than that.
pub fn tell(scenario: &Scenario, most_lines: usize) -> Option<Told> {
    let mut world = World::default();
    for script in &scenario.agents {
        world.add(script);
    }
    let start = scenario.start.iter().map(Letter::of_the_owner);
    world.outbox.extend(start);
    let ended = world.live(scenario, most_lines);
    let summary = match ended {
        Ok(None) => return None,
        Ok(Some(stopped_by)) => Some(world.summary(stopped_by)),
        Err(failure) => {
            world.trace += &failure;
            None
        }
    };
    let trace = world.trace;
    Some(Told { trace, summary })
}

impl<'a> World<'a> {
    /// How it ended; none if there is too much to tell.
    fn live(
        &mut self,
        scenario: &'a Scenario,
        most_lines: usize,
    ) -> Result<Option<&'static str>, Failure> {
        let run = &scenario.run;
        let is_over = |now: u64| run.until_ms.is_some_and(|until| now >= until);
        let mut between = scenario.between.iter();
        let mut stopped = self.begin(run.stop_on)?;
        loop {
            if self.trace.lines().count() > most_lines {
                return Ok(None);
            }
            let paused = self.pauses.first().map(|place| self.people[*place].id);
            if let Some(who) = paused.or(stopped.then_some(0)) {
                self.note("paused", who);
                self.pauses.clear();
                self.counts.pauses += 1;
                for action in between.next().into_iter().flatten() {
                    self.owner_does(action);
                }
                stopped = self.begin(run.stop_on)?;
                continue;
            }
            if self.people.iter().any(Person::is_awake) {
                if is_over(self.now) {
                    return Ok(Some("time limit"));
                }
                self.check_the_end(run.supersteps_per_instant)?;
                self.superstep()?;
                stopped = self.post(run.stop_on);
                continue;
            }
            let Some((&(due, ..), _)) = self.alarms.first_key_value() else {
                return Ok(Some("idle"));
            };
            if is_over(due) {
                self.now = run.until_ms.unwrap_or(due);
                return Ok(Some("time limit"));
            }
            if due > self.now {
                (self.now, self.step) = (due, 0);
            }
            let later = self.alarms.split_off(&(due + 1, 0, 0, 0));
            let due = mem::replace(&mut self.alarms, later);
            self.counts.alarms_fired += due.len() as u64;
            self.outbox.extend(due.into_values());
            stopped = self.post(run.stop_on);
        }
    }

    fn note(&mut self, what: &str, who: u64) {
        let (now, step) = (self.now, self.step);
        let _ = writeln!(
            self.trace,
            r#"{{"t_ms": {now}, "step": {step}, "{what}": {who}}}"#
        );
    }

    // ---- who there is

    fn seat(&mut self, person: Person<'a>) -> usize {
        let place = self.people.len();
        self.places.insert(person.id, place);
        self.people.push(person);
        place
    }

    fn add(&mut self, script: &'a Script) {
        let place = self.seat(Person {
            id: script.id,
            script: Some(script),
            is_new: true,
            ..Person::default()
        });
        self.added.push(place);
    }

    fn owner_does(&mut self, action: &'a OwnerAction) {
        match action {
            OwnerAction::Add(script) => self.add(script),
            OwnerAction::Send(mail) => self.outbox.push(Letter::of_the_owner(mail)),
            OwnerAction::Remove { id } => {
                if let Some(place) = self.places.get(id) {
                    let person = &mut self.people[*place];
                    person.is_leaving = !person.is_gone;
                }
            }
        }
    }

    /// A run begins: the owner's agents are set up, its mail and theirs is posted.
    fn begin(&mut self, stop_on: Option<Topic>) -> Result<bool, Failure> {
        for place in mem::take(&mut self.added) {
            let script = self.people[place].script();
            for listen in &script.subscribe {
                self.subscribe(place, *listen);
            }
            self.act(place, &script.setup, Cause::life("setup"))?;
        }
        self.settle()?;
        Ok(self.post(stop_on))
    }

    /// Births and removals of a superstep.
    fn settle(&mut self) -> Result<(), Failure> {
        let by = |adder: Option<(u64, u64)>| match adder {
            None => "null".to_owned(),
            Some((by, t_ms)) => format!(r#"{{"by": {by}, "t_ms": {t_ms}}}"#),
        };
        for (id, parent) in mem::take(&mut self.births) {
            let adder = Some((self.people[parent].id, self.now));
            if let Some(place) = self.places.get(&id) {
                let (first, second) = (by(self.people[*place].adder), by(adder));
                return Err(format!(
                    "{{\"error\": \"duplicate\", \"id\": {id}, \"first\": {first}, \"second\": {second}}}\n"
                ));
            }
            self.seat(Person {
                id,
                script: self.people[parent].script,
                adder,
                setup_to_come: true,
                is_new: true,
                ..Person::default()
            });
        }
        for (id, by) in mem::take(&mut self.removals) {
            let Some(place) = self.places.get(&id) else {
                let t_ms = self.now;
                return Err(format!(
                    "{{\"error\": \"removed unknown\", \"id\": {id}, \"by\": {by}, \"t_ms\": {t_ms}}}\n"
                ));
            };
            let person = &mut self.people[*place];
            person.is_leaving = !person.is_gone;
        }
        Ok(())
    }

    fn subscribe(&mut self, place: usize, listen: Listen) {
        let listens_to = &mut self.people[place].listens_to;
        if !listens_to.contains(&listen) {
            listens_to.push(listen);
        }
    }

    // ---- mail

    /// Brings all letters to their readers, and gives back those for main.
    fn bring(&mut self) -> Vec<Letter> {
        let mut for_main = Vec::new();
        for letter in mem::take(&mut self.outbox) {
            let addressee = letter.to.and_then(|id| self.places.get(&id).copied());
            let mut copies = 0;
            for (place, person) in self.people.iter_mut().enumerate() {
                if person.is_gone || (Some(place) != addressee && !person.hears(&letter)) {
                    continue;
                }
                copies += u64::from(Some(place) != addressee);
                person.inbox.push_back(letter.clone());
            }
            self.counts.sent += copies;
            match letter.to {
                None => self.counts.unheard += u64::from(copies == 0),
                Some(0) => for_main.push(letter),
                Some(_) => {
                    let is_nobody = addressee.is_none_or(|place| self.people[place].is_gone);
                    self.counts.sent += 1;
                    self.counts.undeliverable += u64::from(is_nobody);
                }
            }
        }
        for_main
    }

    /// Posts all letters, and has main handle its own. True if main stops the run.
    fn post(&mut self, stop_on: Option<Topic>) -> bool {
        let (mut stops, mut answers) = (false, Vec::new());
        for letter in self.bring() {
            let Letter {
                from, topic, ttl, ..
            } = letter;
            self.counts.sent += 1;
            self.counts.delivered += 1;
            let _ = write!(
                self.trace,
                r#"{{"t_ms": {}, "step": {}, "main": {from}, "topic": "#,
                self.now, self.step
            );
            quote(topic.as_str(), &mut self.trace);
            let _ = writeln!(self.trace, r#", "ttl": {ttl}}}"#);
            stops |= stop_on == Some(topic);
            if ttl > 0 {
                // A piece of the alphabet counts as its first letter.
                let topics = ["A", "B", "C", "D", "E", "F"];
                let place = topics.concat().find(topic.as_str());
                let next = place.map_or("A", |place| topics[(place + 1) % topics.len()]);
                answers.push(Letter {
                    from: 0,
                    to: Some(from),
                    topic: Topic::new(next),
                    ttl: ttl - 1,
                    is_direct: false,
                });
            }
        }
        self.outbox = answers;
        let to_itself = self.bring().len() as u64;
        self.counts.sent += to_itself;
        self.counts.undeliverable += to_itself;
        stops
    }

    // ---- a superstep

    fn taking_part(&self) -> Vec<usize> {
        let everybody = 0..self.people.len();
        let some = everybody.filter(|place| {
            let person = &self.people[*place];
            person.is_awake() || person.is_kept_awake
        });
        some.collect()
    }

    fn check_the_end(&self, limit: Option<u64>) -> Result<(), Failure> {
        if limit.is_none_or(|limit| self.step < limit) {
            return Ok(());
        }
        let awake = self.taking_part().into_iter().take(16);
        let awake: Vec<String> = awake
            .map(|place| self.people[place].id.to_string())
            .collect();
        let (t_ms, step, awake) = (self.now, self.step, awake.join(", "));
        Err(format!(
            "{{\"error\": \"endless\", \"t_ms\": {t_ms}, \"step\": {step}, \"agents\": [{awake}]}}\n"
        ))
    }

    fn superstep(&mut self) -> Result<(), Failure> {
        for place in self.taking_part() {
            self.turn(place)?;
        }
        self.settle()?;
        self.step += 1;
        self.counts.supersteps += 1;
        Ok(())
    }

    fn turn(&mut self, place: usize) -> Result<(), Failure> {
        let (id, script) = (self.people[place].id, self.people[place].script());
        self.people[place].is_new = false;
        if mem::take(&mut self.people[place].setup_to_come) {
            self.note("born", id);
            self.subscribe(
                place,
                Listen {
                    sender: None,
                    receiver: None,
                    topic: Some(Topic::new("A")),
                },
            );
            self.say(place, "B");
            self.act(place, &script.setup, Cause::life("setup"))?;
        }
        if self.people[place].is_leaving {
            self.note("gone", id);
            self.say(place, "C");
            self.act(place, &script.teardown, Cause::life("teardown"))?;
            let person = &mut self.people[place];
            self.counts.undeliverable += person.inbox.len() as u64;
            *person = Person {
                id,
                script: person.script,
                adder: person.adder,
                is_gone: true,
                ..Person::default()
            };
            return Ok(());
        }
        let unread = self.people[place].inbox.len();
        let reads = script.at_most.map_or(unread, |most| {
            unread.min(usize::try_from(most).unwrap_or(usize::MAX))
        });
        let mail: Vec<Letter> = self.people[place].inbox.drain(..reads).collect();
        for letter in &mail {
            self.read(place, letter)?;
        }
        if mail.is_empty() && self.people[place].is_kept_awake {
            self.note("awake", id);
        }
        Ok(())
    }

    /// Tells all listeners that it is there, or no longer.
    fn say(&mut self, place: usize, topic: &'static str) {
        self.outbox.push(Letter {
            from: self.people[place].id,
            to: None,
            topic: Topic::new(topic),
            ttl: 1,
            is_direct: false,
        });
    }

    fn read(&mut self, place: usize, letter: &Letter) -> Result<(), Failure> {
        let Letter {
            from,
            to,
            topic,
            ttl,
            ..
        } = *letter;
        let person = &mut self.people[place];
        self.counts.delivered += 1;
        let receiver = to.map_or("null".to_owned(), |to| to.to_string());
        let (now, step, id) = (self.now, self.step, person.id);
        let _ = write!(
            self.trace,
            r#"{{"t_ms": {now}, "step": {step}, "to": {id}, "from": {from}, "receiver": {receiver}, "topic": "#
        );
        quote(topic.as_str(), &mut self.trace);
        let _ = writeln!(self.trace, r#", "ttl": {ttl}}}"#);
        person.heard.insert(topic);
        let mut rules = person.script().rules.iter().rev();
        match rules.find(|rule| rule.on == topic) {
            Some(rule) if ttl > 0 => {
                let cause = Cause {
                    mail: Some((from, topic)),
                    ttl: ttl - 1,
                    phase: "update",
                };
                self.act(place, &rule.actions, cause)
            }
            _ => Ok(()),
        }
    }

    fn act(&mut self, place: usize, actions: &[Action], cause: Cause) -> Result<(), Failure> {
        let id = self.people[place].id;
        let letter = |to: Option<u64>, topic: Topic, is_direct: bool| Letter {
            from: id,
            to,
            topic,
            ttl: cause.ttl,
            is_direct,
        };
        for action in actions {
            let person = &mut self.people[place];
            match action {
                Action::Send { to, topic, direct } => {
                    self.outbox.push(letter(*to, *topic, *direct));
                }
                Action::Reply { topic } => {
                    let to = cause.mail.map(|(from, _)| Some(from));
                    self.outbox.extend(to.map(|to| letter(to, *topic, false)));
                }
                Action::Broadcast { topic } => self.outbox.push(letter(None, *topic, false)),
                Action::Alarm {
                    after_ms,
                    to,
                    topic,
                } => {
                    self.counts.alarms_set += 1;
                    let key = (self.now + after_ms, self.now, place, self.counts.alarms_set);
                    self.alarms.insert(key, letter(*to, *topic, false));
                }
                Action::Subscribe(listen) => self.subscribe(place, *listen),
                Action::Unsubscribe(listen) => person.listens_to.retain(|held| held != listen),
                Action::Spawn { id: Some(child) } => self.spawn(place, *child, cause),
                Action::Spawn { id: None } if person.children < 2 && id < 3_000 => {
                    let child = 100 + 20 * id + person.children;
                    person.children += 1;
                    self.spawn(place, child, cause);
                }
                Action::Spawn { id: None } => {}
                Action::Remove { id: 0 } => self.removals.push((id, id)),
                Action::Remove { id: other } => self.removals.push((*other, id)),
                Action::Clear { topic, to } => self.clear(place, *topic, *to),
                Action::Pause {} => drop(self.pauses.insert(place)),
                Action::Panic { unless } if person.heard.contains(unless) => {}
                Action::Panic { .. } => return Err(self.panicked(id, cause)),
                Action::Spin { until, most } => {
                    if let Some((_, topic)) = cause.mail
                        && person.spins_on(topic, *until, *most)
                    {
                        let again = letter(Some(id), topic, true);
                        let ttl = cause.ttl + 1;
                        self.outbox.push(Letter { ttl, ..again });
                    }
                }
                Action::Keep { awake } => person.is_kept_awake = *awake,
            }
        }
        Ok(())
    }

    fn panicked(&self, id: u64, cause: Cause) -> Failure {
        let (phase, now, step) = (cause.phase, self.now, self.step);
        format!(
            "{{\"error\": \"panic\", \"agent\": {id}, \"phase\": \"{phase}\", \"t_ms\": {now}, \"step\": {step}}}\n"
        )
    }

    /// Clears the alarms of an agent, or those with a topic or a receiver.
    fn clear(&mut self, place: usize, topic: Option<Topic>, to: Option<Option<u64>>) {
        let before = self.alarms.len();
        self.alarms.retain(|key, letter| {
            key.2 != place
                || topic.is_some_and(|topic| topic != letter.topic)
                || to.is_some_and(|to| to != letter.to)
        });
        self.counts.alarms_cleared += (before - self.alarms.len()) as u64;
    }

    fn spawn(&mut self, parent: usize, child: u64, cause: Cause) {
        self.births.push((child, parent));
        self.outbox.push(Letter {
            from: self.people[parent].id,
            to: Some(child),
            topic: Topic::new("C"),
            ttl: cause.ttl,
            is_direct: false,
        });
    }

    /// As the example prints it, but for the digest.
    fn summary(&self, stopped_by: &str) -> String {
        let Counts {
            sent,
            delivered,
            undeliverable,
            unheard,
            supersteps,
            alarms_set,
            alarms_fired,
            alarms_cleared,
            pauses,
        } = self.counts;
        let queued: usize = self.people.iter().map(|person| person.inbox.len()).sum();
        let agents = self.people.iter().filter(|person| !person.is_gone).count();
        let (pending, now) = (self.alarms.len(), self.now);
        let mail = format!(
            r#""sent": {sent}, "delivered": {delivered}, "undeliverable": {undeliverable}, "queued": {queued}, "unheard": {unheard}"#
        );
        let alarms = format!(
            r#""alarms_set": {alarms_set}, "alarms_fired": {alarms_fired}, "alarms_cleared": {alarms_cleared}, "alarms_pending": {pending}"#
        );
        let end = format!(
            r#""agents": {agents}, "sim_ms": {now}, "stopped_by": "{stopped_by}", "digest": "?", "pauses": {pauses}"#
        );
        format!(r#"{{{mail}, "supersteps": {supersteps}, {alarms}, {end}}}"#)
    }
}
