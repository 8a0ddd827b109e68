//! *Covers*: saving a simulation, several futures of one moment, random numbers drawn anew, commands.
//!
//! *Scenario*: a shop with a counter and a queue. The morning is simulated once and saved at noon.
//! From there the afternoon is simulated several times, side by side: with other random numbers,
//! and once more each with a second clerk. A line for each future shows how long the queue was.
//!
//! ```sh
//! cargo run --release --example what_if -- --futures 10
//! ```

use clap::Parser;
use maslite_mp::prelude::*;
use serde::{Deserialize, Serialize};

/// Simulates a shop until noon, and several afternoons from there.
#[derive(Debug, Parser)]
#[command(name = "what_if")]
struct Options {
    /// How many afternoons.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    futures: u64,
    /// The seed of the morning.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Serialize, Deserialize, Message)]
enum Msg {
    /// The next customer comes to the street.
    Comes,
    /// A customer comes in.
    Customer,
    /// A clerk has served a customer.
    Served,
    /// From now on this number of clerks works. The answer is the number before.
    Clerks(u32),
    /// An hour is over.
    Hour,
}

/// Where customers come from, one every two minutes on average.
#[derive(Serialize, Deserialize)]
struct Street;

impl Agent<Msg> for Street {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.alarm_in(SimDuration::from_secs(60), Msg::Comes);
    }

    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        ctx.send("shop", Msg::Customer);
        let wait = ctx.rng().random_range(20..220_u64);
        ctx.alarm_in(SimDuration::from_secs(wait), Msg::Comes);
    }
}

#[derive(Serialize, Deserialize)]
struct Shop {
    clerks: u32,
    busy: u32,
    queue: u32,
    /// How long the queue was at each full hour.
    hours: Vec<u32>,
    served: u64,
}

impl Shop {
    fn serve(&mut self, ctx: &mut Context<'_, Msg>) {
        while self.busy < self.clerks && self.queue > 0 {
            self.queue -= 1;
            self.busy += 1;
            let takes = ctx.rng().random_range(60..200_u64);
            ctx.alarm_in(SimDuration::from_secs(takes), Msg::Served);
        }
    }
}

impl Agent<Msg> for Shop {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.set_alarm(Alarm::every(SimDuration::from_secs(3_600)), Msg::Hour);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Customer => self.queue += 1,
            Msg::Served => {
                self.busy -= 1;
                self.served += 1;
            }
            Msg::Hour => self.hours.push(self.queue),
            Msg::Comes | Msg::Clerks(_) => {}
        }
        self.serve(ctx);
    }

    fn command(&mut self, request: Msg) -> Result<Msg, Refusal> {
        match request {
            Msg::Clerks(clerks) => Ok(Msg::Clerks(std::mem::replace(&mut self.clerks, clerks))),
            _ => Err(Refusal::new("the shop hears of clerks alone")),
        }
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NOON: SimTime = SimTime::from_secs(4 * 3_600);
const EVENING: SimTime = SimTime::from_secs(10 * 3_600);

fn main() -> Result<(), Failure> {
    let agents = Registry::new().with::<Street>().with::<Shop>().enter();
    let options = Options::parse();
    let folder = std::env::temp_dir().join(format!("maslite-what-if-{}", std::process::id()));

    let mut morning = MpMain::builder(agents.clone()).seed(options.seed).build()?;
    let street = morning.new_cluster_named("street")?;
    morning.add_to(street, "street", Street)?;
    let shop = Shop {
        clerks: 1,
        busy: 0,
        queue: 0,
        hours: Vec::new(),
        served: 0,
    };
    let counter = morning.new_cluster_named("counter")?;
    morning.add_to(counter, "shop", shop)?;
    morning.run_until(NOON)?;
    let saved = morning.save(&folder)?;
    println!(
        "at noon {} agents were saved, in state {}",
        saved.agents, saved.state_digest
    );
    drop(morning);

    let futures = (1..=options.futures).flat_map(|seed| [(seed, 1), (seed, 2)]);
    let futures: Vec<(u64, u32)> = futures.collect();
    let lines: Vec<Result<String, Failure>> = std::thread::scope(|scope| {
        let started = futures.iter().map(|(seed, clerks)| {
            let (folder, agents) = (&folder, agents.clone());
            scope.spawn(move || afternoon(folder, agents, *seed, *clerks))
        });
        let started: Vec<_> = started.collect();
        let ended = started
            .into_iter()
            .map(|it| it.join().expect("it does not panic"));
        ended.collect()
    });
    println!("afternoon  clerks  queue at each hour");
    for line in lines {
        println!("{}", line?);
    }
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// One future of the shop from noon on, as a line.
fn afternoon(
    folder: &std::path::Path,
    agents: Entered<Msg>,
    seed: u64,
    clerks: u32,
) -> Result<String, Failure> {
    let settings = MpMain::builder(agents).placement(Placement::Inline);
    let mut main = Restore::open(folder)?.reseeded(seed).start(settings)?;
    main.command("shop", Msg::Clerks(clerks))?;
    main.run_until(EVENING)?;
    let shop: Shop = main.inspect("shop")?;
    let bars = shop.hours.iter().map(|queue| bar(*queue));
    let bars: String = bars.collect();
    let (hours, served) = (&shop.hours, shop.served);
    Ok(format!(
        "{seed:>9}  {clerks:>6}  {bars}  {hours:?}, {served} served"
    ))
}

/// A length as a bar: the longest stands for 16 and more.
fn bar(length: u32) -> char {
    let bars = ['_', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    bars[(length as usize).div_ceil(2).min(bars.len() - 1)]
}
