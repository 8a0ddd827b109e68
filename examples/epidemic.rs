//! *Covers*: a million agents, built inside their clusters; random times; a lookahead that the
//! model has by nature; progress while it runs; a picture of the outcome.
//!
//! *Scenario*: people live in towns, and each knows some others there: a few know many. Who catches
//! the disease is exposed for a while, then infectious for a while, then immune, and may infect
//! each acquaintance at a random moment of the infectious time. A few people also know a person in
//! another town, who visits them and travels home for a day before any harm is done there; so towns
//! can be a day ahead of each other. A health office in every town counts the cases and writes to
//! main each night.
//!
//! `--check` computes the same epidemic without agents: the moment at which a person is exposed is
//! the length of the shortest path from an index case, where the length of a step is how long it
//! takes to infect that acquaintance.
//!
//! Sources: Barabási and Albert, "Emergence of scaling in random networks", 1999; Dijkstra, "A note
//! on two problems in connexion with graphs", 1959, for the check.
//!
//! ```sh
//! cargo run --release --example epidemic -- --svg epidemic.svg
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use maslite_mp::clock::wall;
use maslite_mp::prelude::*;
use maslite_testkit::story::{self, Failure, Host, Hosted, Outcome, Setting, Story, ended};
use maslite_testkit::svg::{COLOURS, Picture, length, step};
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A disease spreads through towns of people who know each other.
#[derive(Debug, Parser)]
#[command(name = "epidemic")]
struct Options {
    /// How many people there are.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    agents: u64,
    /// How many towns they live in.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    towns: u64,
    /// How many people are infected at the start, all in the first town.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    index_cases: u64,
    /// The share of people who know a person in another town.
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    travellers: f64,
    /// Compute the same epidemic without agents, and compare day by day.
    #[arg(long)]
    check: bool,
    /// Draw the outcome into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write a line for every day to the standard error. On a terminal this is the default.
    #[arg(long)]
    progress: bool,
    #[command(flatten)]
    setting: Setting,
}

const DAY: SimDuration = SimDuration::from_secs(86_400);
/// How long it takes from one town to another; also how long offices' letters take.
const TRAVEL: SimDuration = DAY;
/// In the mean [days]: until a person who was exposed is infectious; then until recovery.
const INCUBATION: f64 = 3.0;
const ILLNESS: f64 = 5.0;
/// In the mean, until an infectious person infects one acquaintance [days].
const CONTACT: f64 = 12.0;
/// How many people a newcomer gets to know in the growing network of a town.
const ACQUAINTANCES: u32 = 3;
/// The story has a line for each period of this many days.
const TOLD: usize = 10;

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// From an infectious person.
    Contact,
    /// To oneself: infectious from now on.
    Onset,
    /// To oneself: immune from now on.
    Recovery,
    /// To the office of the town.
    Case(Stage),
    /// To oneself, the office: the day is over.
    Night,
    /// To main: what a day has brought in one town.
    Tally { day: u32, changes: [u32; 3] },
}

/// What has become of a person.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Stage {
    Exposed,
    Infectious,
    Recovered,
}

/// What all towns have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Country {
    people: u64,
    towns: u64,
    travellers: f64,
    seed: u64,
}

impl Country {
    /// The number of a town's first inhabitant, from 0, with all those before. Ids are one more.
    fn first_of(&self, town: u64) -> u64 {
        town * self.people / self.towns
    }

    /// Offices come after the people.
    fn office_of(&self, town: u64) -> AgentId {
        AgentId::from(self.people + town + 1)
    }

    /// The town with this office.
    fn town_of(&self, office: AgentId) -> u64 {
        office.as_u64() - self.people - 1
    }
}

/// Who knows whom in a town. People are numbered from 0 within it.
struct Town {
    first: u64,
    office: AgentId,
    /// Where in `known` the acquaintances of each person begin, and where those of the last end.
    starts: Vec<u32>,
    known: Vec<u32>,
    /// Who knows a person elsewhere, in ascending order.
    elsewhere: Vec<(u32, AgentId)>,
}

impl Town {
    /// Founded by people who all know each other. Each newcomer gets to know some who are there: in
    /// proportion to how many these know already, as drawn from the ends of all ties so far.
    fn new(country: &Country, number: u64) -> Self {
        let (first, next) = (country.first_of(number), country.first_of(number + 1));
        let people = u32::try_from(next - first).expect("fewer people than 2^32");
        let office = country.office_of(number);
        // An office never draws of itself.
        let mut rng = AgentRng::new(country.seed, office);
        let founders = people.min(ACQUAINTANCES + 1);
        let mut ends: Vec<u32> = Vec::with_capacity(2 * (ACQUAINTANCES * people) as usize);
        for one in 0..founders {
            for other in 0..one {
                ends.extend([one, other]);
            }
        }
        for newcomer in founders..people {
            let (there, mut met) = (ends.len(), 0);
            while met < ACQUAINTANCES {
                let drawn = ends[rng.random_range(0..there)];
                if !ends[there..].contains(&drawn) {
                    ends.extend([drawn, newcomer]);
                    met += 1;
                }
            }
        }
        let (starts, known) = by_person(&ends, people);
        let elsewhere = (0..people).filter(|_| rng.random::<f64>() < country.travellers);
        let elsewhere: Vec<u32> = elsewhere.collect();
        let others = country.people - u64::from(people);
        let elsewhere = elsewhere.into_iter().filter(|_| others > 0).map(|person| {
            // Of all people, without those of this town.
            let drawn = (next + rng.random_range(0..others)) % country.people;
            (person, AgentId::from(drawn + 1))
        });
        Self {
            elsewhere: elsewhere.collect(),
            first,
            office,
            starts,
            known,
        }
    }

    fn people(&self) -> u32 {
        u32::try_from(self.starts.len() - 1).expect("fewer people than 2^32")
    }

    fn id(&self, person: u32) -> AgentId {
        AgentId::from(self.first + u64::from(person) + 1)
    }

    /// Draws the course of an illness from its onset: whom it infects after what time. Returns when
    /// it is over.
    fn illness(
        &self,
        person: u32,
        rng: &mut AgentRng,
        mut infect: impl FnMut(SimDuration, AgentId),
    ) -> SimDuration {
        let illness = days(ILLNESS, rng);
        let place = person as usize;
        for index in self.starts[place]..self.starts[place + 1] {
            let contact = days(CONTACT, rng);
            if contact < illness {
                infect(contact, self.id(self.known[index as usize]));
            }
        }
        let elsewhere = self
            .elsewhere
            .binary_search_by_key(&person, |(who, _)| *who);
        if let Ok(found) = elsewhere {
            let contact = days(CONTACT, rng);
            if contact < illness {
                infect(contact.saturating_add(TRAVEL), self.elsewhere[found].1);
            }
        }
        illness
    }
}

/// Sorts ties, which are pairs of ends, by person.
fn by_person(ends: &[u32], people: u32) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0_u32; people as usize + 1];
    for person in ends {
        starts[*person as usize + 1] += 1;
    }
    for place in 1..starts.len() {
        starts[place] += starts[place - 1];
    }
    let mut free = starts.clone();
    let mut known = vec![0; ends.len()];
    for tie in ends.chunks_exact(2) {
        for (one, other) in [(tie[0], tie[1]), (tie[1], tie[0])] {
            known[free[one as usize] as usize] = other;
            free[one as usize] += 1;
        }
    }
    (starts, known)
}

/// A random time of exponential distribution.
///
/// The logarithm is one that gives the same result on every machine; the system's need not.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "53 bits are exact in a float, and a time is rounded down to its nanosecond"
)]
fn days(mean: f64, rng: &mut AgentRng) -> SimDuration {
    const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
    // Above 0, at most 1.
    let uniform = ((rng.random::<u64>() >> 11) + 1) as f64 * SCALE;
    let nanos = -libm::log(uniform) * mean * DAY.as_nanos() as f64;
    SimDuration::from_nanos(nanos as u64)
}

/// A person: who they know is in the town's book, and they remember only whether they had it.
struct Person {
    town: Arc<Town>,
    number: u32,
    susceptible: bool,
}

impl Agent<Msg> for Person {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let stage = match mail.body {
            Msg::Contact if self.susceptible => {
                self.susceptible = false;
                let incubation = days(INCUBATION, ctx.rng());
                ctx.alarm_in(incubation, Msg::Onset);
                Stage::Exposed
            }
            Msg::Onset => {
                // The draws come from a copy, as the alarms need the context.
                let mut rng = ctx.rng().clone();
                let illness = self.town.illness(self.number, &mut rng, |delay, whom| {
                    ctx.set_alarm(Alarm::after(delay).to(whom), Msg::Contact);
                });
                ctx.alarm_in(illness, Msg::Recovery);
                Stage::Infectious
            }
            Msg::Recovery => Stage::Recovered,
            Msg::Contact | Msg::Case(_) | Msg::Night | Msg::Tally { .. } => return,
        };
        ctx.send_direct(self.town.office, Msg::Case(stage));
    }
}

/// The health office of a town.
#[derive(Default)]
struct Office {
    /// How many became exposed, infectious and immune on a day on which anything happened.
    today: Option<[u32; 3]>,
}

impl Agent<Msg> for Office {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Case(stage) => {
                let today = self.today.get_or_insert_with(|| {
                    let tomorrow = (day_of(ctx.now()) + 1) * DAY.as_nanos();
                    ctx.alarm_at(SimTime::from_nanos(tomorrow), Msg::Night);
                    [0; 3]
                });
                today[stage as usize] += 1;
            }
            Msg::Night => {
                let day = u32::try_from(day_of(ctx.now()) - 1).unwrap_or(u32::MAX);
                if let Some(changes) = self.today.take() {
                    let letter = Alarm::after(TRAVEL).to(AgentId::MAIN);
                    ctx.set_alarm(letter, Msg::Tally { day, changes });
                }
            }
            Msg::Contact | Msg::Onset | Msg::Recovery | Msg::Tally { .. } => {}
        }
    }
}

fn day_of(time: SimTime) -> u64 {
    time.as_nanos() / DAY.as_nanos()
}

/// What the builder is told: which town to fill.
#[derive(Serialize, Deserialize)]
struct Plan {
    country: Country,
    town: u64,
}

/// The people of a town, and at last its office.
fn inhabitants(plan: &Plan) -> impl Iterator<Item = (AgentId, Person)> + use<> {
    let town = Arc::new(Town::new(&plan.country, plan.town));
    (0..town.people()).map(move |number| {
        let person = Person {
            town: Arc::clone(&town),
            number,
            susceptible: true,
        };
        (town.id(number), person)
    })
}

/// How many became exposed, infectious and immune: by town, then by day.
#[derive(Debug, PartialEq, Eq)]
struct Chronicle(Vec<Vec<[u64; 3]>>);

/// How many are susceptible, exposed, infectious and recovered.
type Curve = [u64; 4];

impl Chronicle {
    fn new(towns: u64) -> Self {
        Self((0..towns).map(|_| Vec::new()).collect())
    }

    fn add(&mut self, town: u64, day: u64, changes: [u32; 3]) {
        let town = &mut self.0[usize::try_from(town).expect("a town's number")];
        let day = usize::try_from(day).expect("a day's number");
        if town.len() <= day {
            town.resize(day + 1, [0; 3]);
        }
        for (sum, change) in town[day].iter_mut().zip(changes) {
            *sum += u64::from(change);
        }
    }

    fn days(&self) -> usize {
        self.0.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// The ends of all days, before them the beginning of the first, in some towns with `people`
    /// people together.
    fn curves(&self, people: u64, towns: std::ops::Range<usize>) -> Vec<Curve> {
        let mut now = [people, 0, 0, 0];
        let mut curves = vec![now];
        for day in 0..self.days() {
            for changes in self.0[towns.clone()]
                .iter()
                .filter_map(|town| town.get(day))
            {
                for (stage, change) in changes.iter().enumerate() {
                    now[stage + 1] += change;
                }
                for (stage, change) in changes.iter().enumerate() {
                    now[stage] -= change;
                }
            }
            curves.push(now);
        }
        curves
    }
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with_builder("town", |plan: Plan, agents| {
            for (id, person) in inhabitants(&plan) {
                agents.add(id, person);
            }
            agents.add(plan.country.office_of(plan.town), Office::default());
        })
        .enter();
    ended(execute(agents, &Options::parse()))
}

fn execute(agents: Entered<Msg>, options: &Options) -> Result<(), Failure> {
    if !(0.0..=1.0).contains(&options.travellers) {
        return Err("--travellers is a share, from 0 to 1".into());
    }
    let country = Country {
        people: options.agents,
        towns: options.towns,
        travellers: options.travellers,
        seed: options.setting.seed,
    };
    if options.index_cases > country.first_of(1) {
        return Err(format!("the first town has only {} people", country.first_of(1)).into());
    }
    let outbreak = Outbreak {
        country: &country,
        options,
    };
    let (chronicle, outcome) = story::play(agents, &options.setting, TRAVEL, None, &outbreak)?;
    if options.check && chronicle != without_agents(&country, options.index_cases) {
        return Err("without agents it is another epidemic".into());
    }
    if let Some(path) = &options.svg {
        draw(&chronicle, &country, path)?;
    }
    tell(&chronicle, &outcome, options);
    Ok(())
}

/// Who is infected at the start.
fn index_cases(country: &Country, count: u64) -> impl Iterator<Item = AgentId> {
    let people = country.first_of(1);
    (0..count).map(move |number| AgentId::from(number * people / count + 1))
}

/// An epidemic, from its first cases to its last.
struct Outbreak<'a> {
    country: &'a Country,
    options: &'a Options,
}

impl Story<Msg> for Outbreak<'_> {
    type Told = (Chronicle, Outcome);

    fn play<S: Host<Msg>>(&self, mut hosted: Hosted<Msg, S>) -> Result<Self::Told, Failure> {
        let (started, country, options) = (wall(), self.country, self.options);
        let towns = usize::try_from(country.towns)?;
        for (number, town) in (0..country.towns).enumerate() {
            let country = country.clone();
            let plan = Plan { country, town };
            hosted.build((number, towns), "town", plan, |scheduler, plan| {
                for (id, person) in inhabitants(&plan) {
                    scheduler.add(id, person)?;
                }
                scheduler.add(plan.country.office_of(town), Office::default())
            })?;
        }
        for person in index_cases(country, options.index_cases) {
            hosted.simulation.send(person, Msg::Contact);
        }

        let progress = options.progress || std::io::stderr().is_terminal();
        let (mut chronicle, mut cases, mut day) = (Chronicle::new(country.towns), 0, 0);
        // A day at a time is as good as all at once.
        let outcome = loop {
            day += 1;
            let until = SimTime::ZERO.saturating_add(DAY * day);
            let outcome = hosted.run(Run::until(until), |mail, _| {
                if let Msg::Tally { day, changes } = mail.body {
                    cases += u64::from(changes[Stage::Exposed as usize]);
                    chronicle.add(country.town_of(mail.sender), u64::from(day), changes);
                }
            })?;
            if progress {
                let (cases, events) = (grouped(cases), grouped(outcome.report.counters.delivered));
                let wall = wall().duration_since(started).as_secs_f64();
                eprintln!(
                    "day {day:>3}: {cases:>11} cases reported, {events:>13} events, {wall:.1} s"
                );
            }
            if outcome.report.stopped_by == StopReason::Idle {
                break outcome;
            }
        };
        hosted.end()?;
        Ok((chronicle, outcome))
    }
}

/// The same epidemic as shortest paths: people in the order of their exposure.
fn without_agents(country: &Country, count: u64) -> Chronicle {
    let towns: Vec<Town> = (0..country.towns)
        .map(|town| Town::new(country, town))
        .collect();
    let mut chronicle = Chronicle::new(country.towns);
    let mut exposed: Vec<Vec<bool>> = towns
        .iter()
        .map(|town| vec![false; town.people() as usize])
        .collect();
    let cases = index_cases(country, count).map(|person| Reverse((SimTime::ZERO, person)));
    let mut contacts: BinaryHeap<_> = cases.collect();
    while let Some(Reverse((time, id))) = contacts.pop() {
        let place = id.as_u64() - 1;
        let number = towns.partition_point(|town| town.first <= place) - 1;
        let town = &towns[number];
        let person = u32::try_from(place - town.first).expect("fewer people than 2^32");
        if std::mem::replace(&mut exposed[number][person as usize], true) {
            continue;
        }
        let mut rng = AgentRng::new(country.seed, id);
        let onset = time.saturating_add(days(INCUBATION, &mut rng));
        let illness = town.illness(person, &mut rng, |delay, whom| {
            contacts.push(Reverse((onset.saturating_add(delay), whom)));
        });
        let stages = [time, onset, onset.saturating_add(illness)];
        for (stage, time) in stages.into_iter().enumerate() {
            let mut changes = [0; 3];
            changes[stage] = 1;
            chronicle.add(number as u64, day_of(time), changes);
        }
    }
    chronicle
}

/// What came of it, on the standard output.
fn tell(chronicle: &Chronicle, outcome: &Outcome, options: &Options) {
    let curves = chronicle.curves(options.agents, 0..chronicle.0.len());
    let (peak_day, peak) = (0..)
        .zip(curves.iter().map(|curve| curve[2]))
        .max_by_key(|(day, infectious)| (*infectious, Reverse::<u64>(*day)))
        .unwrap_or((0, 0));
    let cases = curves.last().map_or(0, |curve| curve[3]);
    if options.setting.json {
        let more = json!({
            "agents": options.agents,
            "towns": options.towns,
            "days": chronicle.days(),
            "cases": cases,
            "peak_day": peak_day,
            "peak_infectious": peak,
            "checked": options.check,
        });
        println!("{}", outcome.as_json(&options.setting, more));
        return;
    }
    println!(
        "{} people in {} towns",
        grouped(options.agents),
        options.towns
    );
    println!("after day  susceptible      exposed   infectious    recovered");
    let last = curves.len() - 1;
    for (day, curve) in curves.iter().enumerate() {
        if day % TOLD == 0 || day == last {
            let [susceptible, exposed, infectious, recovered] = curve.map(grouped);
            println!("{day:>9}{susceptible:>13}{exposed:>13}{infectious:>13}{recovered:>13}");
        }
    }
    println!(
        "{} people had it, most at a time after day {peak_day}: {}",
        grouped(cases),
        grouped(peak)
    );
    if options.check {
        println!("the same as without agents, day by day");
    }
}

/// Two panels: all people by stage, and who is infectious in each town.
fn draw(chronicle: &Chronicle, country: &Country, path: &Path) -> Result<(), Failure> {
    let stages = ["susceptible", "exposed", "infectious", "recovered"];
    let all = chronicle.curves(country.people, 0..chronicle.0.len());
    let whole = stages
        .into_iter()
        .zip(0..)
        .map(|(name, stage): (_, usize)| {
            let line = all.iter().map(|curve| curve[stage]);
            (name.to_owned(), line.collect())
        });
    let shown = chronicle.0.len().min(COLOURS.len());
    let parts = (0..shown).map(|town| {
        let people = country.first_of(town as u64 + 1) - country.first_of(town as u64);
        let curves = chronicle.curves(people, town..town + 1);
        let line = curves.iter().map(|curve| curve[2]);
        (format!("town {}", town + 1), line.collect())
    });
    let mut picture = Picture::new(820.0, 700.0);
    let title = format!("An epidemic among {} people", grouped(country.people));
    panel(&mut picture, 0.0, &title, &whole.collect::<Vec<_>>());
    let parts: Vec<_> = parts.collect();
    let title = match chronicle.0.len() {
        towns if towns > shown => format!("Infectious in {shown} of {towns} towns"),
        _ => "Infectious in each town".to_owned(),
    };
    panel(&mut picture, 350.0, &title, &parts);
    picture.write(path)
}

/// Lines over the days, each with a name.
fn panel(picture: &mut Picture, top: f64, title: &str, lines: &[(String, Vec<u64>)]) {
    const LEFT: f64 = 100.0;
    const RIGHT: f64 = 660.0;
    const TALL: f64 = 240.0;
    let (top, bottom) = (top + 50.0, top + 50.0 + TALL);
    let values = || lines.iter().map(|(_, values)| values);
    let last = values().map(Vec::len).max().unwrap_or(1).max(2) as u64 - 1;
    let marks = values().flatten().copied().max().unwrap_or(1).max(1);
    let marks = (step(marks, 5), marks);
    let highest = marks.1.div_ceil(marks.0) * marks.0;
    let x = |day: u64| LEFT + (RIGHT - LEFT) * length(day) / length(last);
    let y = |value: u64| bottom - TALL * length(value) / length(highest);

    picture.title(LEFT, top - 22.0, title);
    for number in 0..=highest / marks.0 {
        let value = number * marks.0;
        picture.line((LEFT, y(value)), (RIGHT, y(value)), "#ddd");
        picture.text(LEFT - 8.0, y(value) + 4.0, "end", &grouped(value));
    }
    let across = step(last, 10);
    for number in 0..=last / across {
        let day = number * across;
        picture.line((x(day), bottom), (x(day), bottom + 5.0), "#222");
        picture.text(x(day), bottom + 20.0, "middle", &day.to_string());
    }
    picture.line((LEFT, bottom), (RIGHT, bottom), "#222");
    picture.line((LEFT, top), (LEFT, bottom), "#222");
    picture.text(
        f64::midpoint(LEFT, RIGHT),
        bottom + 40.0,
        "middle",
        "time [days]",
    );
    let middle = f64::midpoint(top, bottom);
    picture.draw(&format!(
        "<text transform=\"translate(20 {middle}) rotate(-90)\" text-anchor=\"middle\">people</text>"
    ));

    for (number, (name, values)) in (0..).zip(lines) {
        let colour = COLOURS[number % COLOURS.len()];
        let points = (0..)
            .zip(values)
            .map(|(day, value)| format!("{:.1},{:.1}", x(day), y(*value)));
        let points = points.collect::<Vec<_>>().join(" ");
        picture.draw(&format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
        ));
        let level = top + 10.0 + 22.0 * length(number as u64);
        picture.bar((RIGHT + 20.0, level - 7.0), (16.0, 14.0), colour, name);
        picture.text(RIGHT + 44.0, level + 4.0, "start", name);
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups = groups.map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}
