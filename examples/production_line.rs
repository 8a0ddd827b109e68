//! *Covers*: agents that negotiate while time stands still, then work while it passes; hand-overs
//! between clusters; a chart of the outcome.
//!
//! *Scenario*: a line of two machines. Every item passes M1, then M2, and each machine knows only
//! how long it takes itself. They negotiate the sequence: each bids for the item that it can do
//! fastest, M1 to have it early, so that M2 is soon fed, M2 to have it late, so that little is left
//! to do at the end. The shorter time wins: M1's item goes to the first free place, M2's to the
//! last. Then M1 begins. The known answer is in `data/scheduling.json`: A E B D G F C, in 53
//! minutes.
//!
//! What they negotiate is Johnson's rule, and the makespan is the shortest there is. Source:
//! Johnson, "Optimal two- and three-stage production schedules with setup times included", 1954.
//!
//! ```sh
//! cargo run --release --example production_line -- --svg gantt.svg
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use maslite_mp::prelude::*;
use maslite_testkit::story::{self, Failure, Host, Hosted, Outcome, Setting, Story, Tell, ended};
use maslite_testkit::svg::{COLOURS, Picture, length, step};
use rand::RngExt;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Two machines negotiate in which sequence they make what was ordered, and make it.
#[derive(Debug, Parser)]
#[command(name = "production_line")]
struct Options {
    /// Make this many items, with times drawn from the seed, instead of the known problem.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=500))]
    items: Option<u64>,
    /// Draw the schedule into this file, as a Gantt chart.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print the outcome only.
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    setting: Setting,
}

/// The agents, in this order.
const OFFICE: u64 = 1;
const MACHINES: [u64; 2] = [2, 3];

const MINUTE: SimDuration = SimDuration::from_secs(60);
/// The longest time of an item whose times are drawn [min].
const LONGEST: u64 = 20;
/// All sequences of this number of items are tried, to be sure that none is shorter.
const TRIED: usize = 7;

/// How long an item takes on each machine [min].
type Times = BTreeMap<String, [u64; 2]>;

/// The problem as its file has it.
#[derive(Deserialize)]
struct Problem {
    items: Vec<String>,
    #[serde(rename = "M1")]
    first: BTreeMap<String, u64>,
    #[serde(rename = "M2")]
    second: BTreeMap<String, u64>,
    known: Known,
}

#[derive(Deserialize)]
struct Known {
    sequence: Vec<String>,
    /// From the beginning of the first to the end of the last item [min].
    makespan: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To both machines: make these.
    Order { items: Vec<String> },
    /// To the other machine: of what has no place yet, this is what the sender can do fastest.
    Bid { item: String, minutes: u64 },
    /// To the second machine: here is a part to go on with.
    Part { item: String },
    /// To oneself: an item is done.
    Done { item: String },
    /// To main: a machine was at work on an item [min].
    Made { item: String, from: u64, to: u64 },
}

/// Hands the order out, in whatever sequence it came.
#[derive(Debug, Serialize, Deserialize)]
struct Office {
    items: Vec<String>,
}

impl Agent<Msg> for Office {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        self.items.shuffle(ctx.rng());
        for machine in MACHINES {
            let items = self.items.clone();
            ctx.send(machine, Msg::Order { items });
        }
    }
}

/// A machine. It knows its own times, and of the other only what that one bids.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    /// Whether it is the first in the line.
    first: bool,
    /// How long each item takes here [min].
    minutes: BTreeMap<String, u64>,
    /// What has no place in the sequence yet.
    open: Vec<String>,
    /// What has a place, from the front and from the back.
    front: Vec<String>,
    back: VecDeque<String>,
    /// What lies before the machine, and when it began with what it is at work on.
    waiting: VecDeque<String>,
    began: Option<SimTime>,
}

impl Machine {
    fn new(number: usize, times: &Times) -> Self {
        let minutes = times.iter().map(|(item, of)| (item.clone(), of[number]));
        Self {
            first: number == 0,
            minutes: minutes.collect(),
            open: Vec::new(),
            front: Vec::new(),
            back: VecDeque::new(),
            waiting: VecDeque::new(),
            began: None,
        }
    }

    fn other(&self) -> u64 {
        MACHINES[usize::from(self.first)]
    }

    /// What is fastest here; of equal ones the first by name.
    fn fastest(&self) -> Option<(u64, String)> {
        let times = self.open.iter().map(|item| (self.minutes[item], item));
        times.min().map(|(minutes, item)| (minutes, item.clone()))
    }

    fn bid(&mut self, ctx: &mut Context<'_, Msg>) {
        if let Some((minutes, item)) = self.fastest() {
            ctx.send(self.other(), Msg::Bid { item, minutes });
        } else if self.first {
            self.waiting.extend(self.front.drain(..));
            self.waiting.extend(self.back.drain(..));
            self.begin(ctx);
        }
    }

    /// Both machines hear each other's bid in one superstep, and come to the same conclusion.
    fn conclude(&mut self, theirs: (u64, String)) {
        let Some(ours) = self.fastest() else { return };
        let (first, second) = if self.first {
            (ours, theirs)
        } else {
            (theirs, ours)
        };
        let item = if first.0 <= second.0 {
            self.front.push(first.1);
            self.front.last()
        } else {
            self.back.push_front(second.1);
            self.back.front()
        };
        self.open.retain(|other| Some(other) != item);
    }

    /// Takes up the next item, unless it is at work or there is none.
    fn begin(&mut self, ctx: &mut Context<'_, Msg>) {
        if self.began.is_none()
            && let Some(item) = self.waiting.pop_front()
        {
            self.began = Some(ctx.now());
            let busy = MINUTE * self.minutes[&item];
            ctx.alarm_in(busy, Msg::Done { item });
        }
    }

    fn done(&mut self, item: String, ctx: &mut Context<'_, Msg>) {
        if let Some(began) = self.began.take() {
            let (from, to) = (minute(began), minute(ctx.now()));
            let made = Msg::Made {
                item: item.clone(),
                from,
                to,
            };
            ctx.send(AgentId::MAIN, made);
        }
        if self.first {
            ctx.send(self.other(), Msg::Part { item });
        }
        self.begin(ctx);
    }
}

impl Agent<Msg> for Machine {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Order { items } => {
                self.open = items;
                self.bid(ctx);
            }
            Msg::Bid { item, minutes } => {
                self.conclude((minutes, item));
                self.bid(ctx);
            }
            Msg::Part { item } => {
                self.waiting.push_back(item);
                self.begin(ctx);
            }
            Msg::Done { item } => self.done(item, ctx),
            Msg::Made { .. } => {}
        }
    }
}

/// Whole minutes since the start.
fn minute(time: SimTime) -> u64 {
    time.as_nanos() / MINUTE.as_nanos()
}

/// One line of the story, told where the mail arrives.
fn tell(delivery: &Delivery<'_, Msg>, line: &mut String) {
    let name = |id: AgentId| match MACHINES.iter().position(|number| id == (*number).into()) {
        Some(place) => format!("M{}", place + 1),
        None => "the office".to_owned(),
    };
    let (from, to) = (name(delivery.mail.sender), name(delivery.agent));
    let what = match &delivery.mail.body {
        Msg::Order { items } => format!("{from} -> {to}: make {} items", items.len()),
        Msg::Bid { item, minutes } => format!("{from} -> {to}: {item} takes me {minutes} min"),
        Msg::Part { item } => format!("{from} -> {to}: go on with {item}"),
        Msg::Done { item } => format!("{to} is done with {item}"),
        Msg::Made {
            item, from: began, ..
        } => format!("{from} -> main: {item} is made, begun at {began} min"),
    };
    *line = format!("{:>3} min  {what}", minute(delivery.time));
}

/// A stay of an item on a machine [min].
struct Stay {
    machine: usize,
    item: String,
    from: u64,
    to: u64,
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Office>()
        .with::<Machine>()
        .with_trace_format(tell)
        .enter();
    ended(execute(agents, &Options::parse()))
}

fn execute(agents: Entered<Msg>, options: &Options) -> Result<(), Failure> {
    let setting = &options.setting;
    let problem: Problem = serde_json::from_str(include_str!("data/scheduling.json"))?;
    let times = match options.items {
        Some(items) => drawn(items, setting.seed),
        None => given(&problem)?,
    };
    let story = !options.quiet && !setting.json;
    let (tell, shift) = (story.then_some(tell as Tell<Msg>), Shift(&times));
    let (stays, outcome) = story::play(agents, setting, SimDuration::ZERO, tell, &shift)?;

    let on_first = stays.iter().filter(|stay| stay.machine == 0);
    let sequence: Vec<&str> = on_first.map(|stay| stay.item.as_str()).collect();
    let makespan = stays.iter().map(|stay| stay.to).max().unwrap_or(0);
    check(&times, &sequence, makespan)?;
    if options.items.is_none()
        && (sequence != problem.known.sequence || makespan != problem.known.makespan)
    {
        let known = problem.known.sequence.join(" ");
        return Err(format!(
            "{} in {makespan} min, but known is {known} in {} min",
            sequence.join(" "),
            problem.known.makespan
        )
        .into());
    }
    if let Some(path) = &options.svg {
        chart(&stays, &times, makespan, path)?;
    }
    if setting.json {
        let more = json!({ "items": times.len(), "sequence": sequence, "makespan_min": makespan });
        println!("{}", outcome.as_json(setting, more));
    } else {
        let as_listed: Vec<_> = times.keys().map(String::as_str).collect();
        println!("sequence: {}", sequence.join(" "));
        println!(
            "makespan: {makespan} min, the shortest there is; as listed it would be {} min",
            makespan_of(&times, &as_listed)
        );
    }
    Ok(())
}

fn given(problem: &Problem) -> Result<Times, Failure> {
    let time = |of: &BTreeMap<String, u64>, item| {
        let missing = || format!("item {item} has no time on one of the machines");
        of.get(item).copied().ok_or_else(missing)
    };
    let mut times = Times::new();
    for item in &problem.items {
        let both = [time(&problem.first, item)?, time(&problem.second, item)?];
        times.insert(item.clone(), both);
    }
    Ok(times)
}

/// Items with random times.
fn drawn(items: u64, seed: u64) -> Times {
    let mut rng = AgentRng::new(seed, AgentId::MAIN);
    let items = (1..=items).map(|number| {
        let times = [0; 2].map(|_: u64| rng.random_range(1..=LONGEST));
        (format!("i{number:03}"), times)
    });
    items.collect()
}

/// What is made, from the first item to the last.
struct Shift<'a>(&'a Times);

impl Story<Msg> for Shift<'_> {
    type Told = (Vec<Stay>, Outcome);

    fn play<S: Host<Msg>>(&self, mut hosted: Hosted<Msg, S>) -> Result<Self::Told, Failure> {
        let items = self.0.keys().cloned().collect();
        hosted.add_to((0, 3), OFFICE.into(), Office { items })?;
        for (number, id) in MACHINES.into_iter().enumerate() {
            hosted.add_to((number + 1, 3), id.into(), Machine::new(number, self.0))?;
        }
        let mut stays = Vec::new();
        let outcome = hosted.run(Run::until_idle(), |mail, _| {
            if let Msg::Made { item, from, to } = mail.body {
                let machine = usize::from(mail.sender == MACHINES[1].into());
                stays.push(Stay {
                    machine,
                    item,
                    from,
                    to,
                });
            }
        })?;
        hosted.end()?;
        Ok((stays, outcome))
    }
}

/// How long a sequence takes, without agents: an item begins on M2 when both are free [min].
fn makespan_of(times: &Times, sequence: &[&str]) -> u64 {
    let mut free = [0_u64; 2];
    for item in sequence {
        let [first, second] = times[*item];
        free[0] += first;
        free[1] = free[1].max(free[0]) + second;
    }
    free[1]
}

/// Holds the outcome against all sequences there are, or against Johnson's rule written down
/// plainly.
fn check(times: &Times, sequence: &[&str], makespan: u64) -> Result<(), Failure> {
    let mut items: Vec<&str> = times.keys().map(String::as_str).collect();
    let shortest = if items.len() <= TRIED {
        let all = items.len();
        shortest_of_all(times, &mut items, all)
    } else {
        items.sort_by_key(|item| match times[*item] {
            [first, second] if first <= second => (0, first),
            [_, second] => (1, LONGEST - second),
        });
        makespan_of(times, &items)
    };
    if makespan == shortest && makespan_of(times, sequence) == makespan {
        return Ok(());
    }
    Err(format!("made in {makespan} min, but {shortest} min is possible").into())
}

/// Tries every sequence of the first `open` items before the others.
fn shortest_of_all(times: &Times, items: &mut [&str], open: usize) -> u64 {
    if open == 0 {
        return makespan_of(times, items);
    }
    let tried = (0..open).map(|last| {
        items.swap(last, open - 1);
        let shortest = shortest_of_all(times, items, open - 1);
        items.swap(last, open - 1);
        shortest
    });
    tried.min().unwrap_or(0)
}

/// The left and the right end of a chart, and how many columns its legend has.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 830.0;
const COLUMNS: u64 = 6;
/// The colour of a machine that is idle.
const IDLE: &str = "#e8e8e8";

/// Draws a row for each machine, and a bar for each stay of an item on it.
fn chart(stays: &[Stay], times: &Times, makespan: u64, path: &Path) -> Result<(), Failure> {
    const TOP: f64 = 50.0;
    const ROW: f64 = 60.0;
    const BAR: f64 = 44.0;
    let bottom = TOP + 2.0 * ROW;
    let rows = length(times.len() as u64 / COLUMNS + 1);
    let mut picture = Picture::new(RIGHT + 30.0, bottom + 80.0 + 22.0 * rows);
    let x = |minute: u64| LEFT + (RIGHT - LEFT) * length(minute) / length(makespan.max(1));
    picture.title(
        LEFT,
        28.0,
        &format!("Two machines, {} items: {makespan} min", times.len()),
    );

    let marks = step(makespan, 12);
    for minute in (0..=makespan).step_by(usize::try_from(marks)?) {
        picture.line((x(minute), TOP), (x(minute), bottom + 5.0), "#ccc");
        picture.text(x(minute), bottom + 22.0, "middle", &minute.to_string());
    }
    picture.line((LEFT, bottom), (RIGHT, bottom), "#222");
    picture.text(
        f64::midpoint(LEFT, RIGHT),
        bottom + 44.0,
        "middle",
        "time [min]",
    );

    for machine in [0, 1] {
        let top = TOP + ROW * length(machine as u64) + (ROW - BAR) / 2.0;
        let name = format!("M{}", machine + 1);
        picture.text(LEFT - 12.0, top + BAR / 2.0 + 5.0, "end", &name);
        picture.bar(
            (LEFT, top),
            (RIGHT - LEFT, BAR),
            IDLE,
            &format!("{name} is idle"),
        );
        for stay in stays.iter().filter(|stay| stay.machine == machine) {
            let (left, width) = (x(stay.from), x(stay.to) - x(stay.from));
            let words = format!("{} on {name}: {} to {} min", stay.item, stay.from, stay.to);
            picture.bar((left, top), (width, BAR), colour(times, &stay.item), &words);
            if width > 9.0 * length(stay.item.len() as u64) {
                let middle = left + width / 2.0;
                picture.text(middle, top + BAR / 2.0 + 5.0, "middle", &stay.item);
            }
        }
    }

    legend(&mut picture, times, bottom + 64.0);
    picture.write(path)
}

/// Draws what the colours mean, from `top` on.
fn legend(picture: &mut Picture, times: &Times, top: f64) {
    let mut entries: Vec<(&str, String)> = vec![(IDLE, "idle".to_owned())];
    entries.extend(times.iter().map(|(item, [first, second])| {
        let words = format!("{item}: {first} + {second} min");
        (colour(times, item), words)
    }));
    for (number, (colour, words)) in (0..).zip(entries) {
        let column = (RIGHT - LEFT) / length(COLUMNS);
        let left = LEFT + column * length(number % COLUMNS);
        let y = top + 22.0 * length(number / COLUMNS);
        picture.bar((left, y), (16.0, 14.0), colour, &words);
        picture.text(left + 22.0, y + 12.0, "start", &words);
    }
}

fn colour(times: &Times, item: &str) -> &'static str {
    let place = times.keys().position(|other| other == item);
    COLOURS[place.unwrap_or(0) % COLOURS.len()]
}
