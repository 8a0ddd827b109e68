//! *Covers*: an algorithm that is known from the literature, told as agents; subscriptions across
//! clusters; mail that takes time of itself, so that a lookahead fits; an outcome that chance does
//! not change.
//!
//! *Scenario*: persons compete for objects, and every person is to get one. To each person each
//! object has a value of its own, and each object has an auctioneer. A person without an object
//! thinks for a while and bids for the one that promises most: its value less its price. It bids so
//! much that the next best would be as good, and a little more. Who is outbid thinks again. Prices
//! go out to all who are interested, and like all mail take a while, so a bid may come too late.
//! When no person bids any more, the assignment has the highest total value there is. For that "a
//! little" must be less than the smallest difference between two totals, divided by the number of
//! persons: values are whole cents times one more than there are persons, and a little is 1.
//!
//! The known problem is in `data/auction.json`: sellers (the persons) and buyers (the objects),
//! where a seller cannot serve every buyer, and the value is the price of the contract, or what is
//! saved. One assignment alone has the lowest total; several share the highest, and the seed picks
//! one of them. Whatever the problem, the total is held against that of the Hungarian method.
//!
//! Source: Bertsekas, "The auction algorithm: a distributed relaxation method for the assignment
//! problem", 1988; that all prices begin at 0 makes it right where objects are left over.
//!
//! ```sh
//! cargo run --release --example auction -- --persons 100
//! ```

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use maslite_mp::prelude::*;
use maslite_testkit::story::{self, Failure, Host, Hosted, Outcome, Setting, Story, ended};
use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Sellers find buyers by an auction, and the assignment is optimal.
#[derive(Debug, Parser)]
#[command(name = "auction")]
struct Options {
    /// Look for the contracts with the lowest or the highest total.
    #[arg(long, value_enum, default_value_t = Goal::Lowest)]
    total: Goal,
    /// Use this many persons and objects, with values drawn from the seed, instead of the known
    /// problem.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    persons: Option<u64>,
    /// Print every bid and every price when it arrives.
    #[arg(long)]
    story: bool,
    #[command(flatten)]
    setting: Setting,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Goal {
    Lowest,
    Highest,
}

/// How long mail takes.
const TRANSIT: SimDuration = SimDuration::from_millis(10);
/// How long a person thinks before it bids, at most [ns].
const THOUGHT_NS: u64 = 200_000_000;
/// The greatest value that is drawn [cents].
const DEAREST: u64 = 100_000;
/// The ids of the known buyers are theirs; these are added to those of the sellers.
const SELLERS: u64 = 10_000;

/// The problem as its file has it.
#[derive(Deserialize)]
struct Problem {
    buyers: Vec<Buyer>,
    sellers: Vec<Seller>,
    known: Known,
}

#[derive(Deserialize)]
struct Buyer {
    id: u64,
    budget: f64,
}

#[derive(Deserialize)]
struct Seller {
    id: u64,
    prices: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Known {
    most_contracts: usize,
    lowest_total_price: f64,
    highest_total_price: f64,
}

/// What a contract between a person and an object costs [cents], for those that can make one.
struct Market {
    persons: Vec<AgentId>,
    objects: Vec<AgentId>,
    costs: BTreeMap<(AgentId, AgentId), i64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
enum Msg {
    /// To oneself: thought about it.
    Decide,
    /// To an object: so much for it.
    Bid { amount: i64 },
    /// To who bid the most: it is yours.
    Yours,
    /// To who had it before.
    Outbid,
    /// To who bid too little.
    TooLate,
    /// To all who are interested, and main: the new price, and who pays it.
    Price { price: i64, holder: AgentId },
}

/// Mail that takes its time.
fn post(ctx: &mut Context<'_, Msg>, to: impl Into<Receiver>, body: Msg) {
    ctx.set_alarm(Alarm::after(TRANSIT).to(to), body);
}

/// A person: bids whenever it has nothing, and knows prices as they were a while ago.
#[derive(Debug, Serialize, Deserialize)]
struct Person {
    offers: Vec<Offer>,
    /// The value of having nothing: less than what any chain of contracts can make up for.
    nothing: i64,
}

/// An object as a person sees it.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    object: AgentId,
    value: i64,
    price: i64,
}

impl Person {
    fn think(ctx: &mut Context<'_, Msg>) {
        let thought = ctx.rng().random_range(1..=THOUGHT_NS);
        ctx.alarm_in(SimDuration::from_nanos(thought), Msg::Decide);
    }

    /// Bids for the best object as much as makes it equal to the next best, and 1 more. Prices may
    /// have risen since; then the bid is lower than it could be, and still right if it is accepted.
    fn decide(&self, ctx: &mut Context<'_, Msg>) {
        let gains = || self.offers.iter().map(|offer| offer.value - offer.price);
        let Some((place, best)) = gains()
            .enumerate()
            .max_by_key(|(place, gain)| (*gain, !*place))
        else {
            return;
        };
        if best < self.nothing {
            // Others need all objects more.
            return;
        }
        let others = gains().enumerate().filter(|(other, _)| *other != place);
        let next = others.map(|(_, gain)| gain).fold(self.nothing, i64::max);
        let best = &self.offers[place];
        let amount = best.value - next + 1;
        post(ctx, best.object, Msg::Bid { amount });
    }
}

impl Agent<Msg> for Person {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for offer in &self.offers {
            ctx.subscribe(Pattern::sender(offer.object).about("Price"));
        }
        Self::think(ctx);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        match mail.body {
            Msg::Decide => self.decide(ctx),
            Msg::Outbid | Msg::TooLate => Self::think(ctx),
            Msg::Price { price, .. } => {
                let known = self.offers.iter_mut();
                for offer in known.filter(|offer| offer.object == mail.sender) {
                    offer.price = price;
                }
            }
            Msg::Bid { .. } | Msg::Yours => {}
        }
    }
}

/// An object's auctioneer.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Auctioneer {
    price: i64,
    holder: Option<AgentId>,
}

impl Agent<Msg> for Auctioneer {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let Msg::Bid { amount } = mail.body else {
            return;
        };
        let holder = mail.sender;
        if amount <= self.price {
            post(ctx, holder, Msg::TooLate);
            return;
        }
        self.price = amount;
        // The price first: a person that was outbid should know it before the next bid.
        post(
            ctx,
            AgentId::MAIN,
            Msg::Price {
                price: amount,
                holder,
            },
        );
        post(ctx, holder, Msg::Yours);
        if let Some(before) = self.holder.replace(holder) {
            post(ctx, before, Msg::Outbid);
        }
    }
}

/// One line of the story, told where the mail arrives.
fn tell(delivery: &Delivery<'_, Msg>, line: &mut String) {
    let (time, from, to) = (
        delivery.time,
        name(delivery.mail.sender),
        name(delivery.agent),
    );
    let words = match &delivery.mail.body {
        Msg::Decide => "has thought about it".to_owned(),
        Msg::Bid { amount } => format!("is bid {amount} by {from}"),
        Msg::Yours => format!("has {from} now"),
        Msg::Outbid => format!("has lost {from}"),
        Msg::TooLate => format!("was too late for {from}"),
        Msg::Price { price, holder } => {
            format!("hears that {} has {from} for {price}", name(*holder))
        }
    };
    *line = format!("{time}: {to} {words}");
}

fn main() -> ExitCode {
    let agents = Registry::new()
        .with::<Person>()
        .with::<Auctioneer>()
        .with_trace_format(tell)
        .enter();
    ended(execute(agents, &Options::parse()))
}

fn execute(agents: Entered<Msg>, options: &Options) -> Result<(), Failure> {
    let problem: Problem = serde_json::from_str(include_str!("data/auction.json"))?;
    let market = match options.persons {
        Some(persons) => Market::drawn(persons, options.setting.seed),
        None => Market::given(&problem)?,
    };
    let (assigned, rises, outcome) = auction(agents, &market, options)?;
    let total = assigned.iter().map(|contract| market.costs[contract]).sum();
    check(&market, &assigned, total, options.total)?;
    if options.persons.is_none() {
        compare(&problem.known, assigned.len(), total, options.total)?;
    }
    if options.setting.json {
        let contracts: BTreeMap<String, String> = assigned
            .iter()
            .map(|(person, object)| (name(*person), name(*object)))
            .collect();
        let more = json!({
            "persons": market.persons.len(),
            "objects": market.objects.len(),
            "contracts": contracts,
            "total": money(total),
            "rises": rises,
        });
        println!("{}", outcome.as_json(&options.setting, more));
    } else {
        for contract in &assigned {
            let (person, object) = (name(contract.0), name(contract.1));
            println!(
                "{person:>9} -> {object} {:>8}",
                money(market.costs[contract])
            );
        }
        let wanted = format!("{:?}", options.total).to_lowercase();
        println!(
            "{} contracts for {}, the {wanted} total there is",
            assigned.len(),
            money(total)
        );
        println!("prices rose {rises} times in {}", outcome.report.now);
    }
    Ok(())
}

/// Who got what, by person.
type Assigned = Vec<(AgentId, AgentId)>;

/// Runs the auction. Tells also how often a price rose.
fn auction(
    agents: Entered<Msg>,
    market: &Market,
    options: &Options,
) -> Result<(Assigned, u64, Outcome), Failure> {
    let story = options.story && !options.setting.json;
    let goal = options.total;
    let sale = Sale { market, goal };
    story::play(
        agents,
        &options.setting,
        TRANSIT,
        story.then_some(tell),
        &sale,
    )
}

/// What is sold to whom.
struct Sale<'a> {
    market: &'a Market,
    goal: Goal,
}

impl Story<Msg> for Sale<'_> {
    type Told = (Assigned, u64, Outcome);

    fn play<S: Host<Msg>>(&self, mut hosted: Hosted<Msg, S>) -> Result<Self::Told, Failure> {
        let Self { market, goal } = *self;
        let persons = market.persons.len();
        let agents = persons + market.objects.len();
        for (number, id) in market.persons.iter().enumerate() {
            let person = market.person(*id, goal);
            hosted.add_to((number, agents), *id, person)?;
        }
        for (number, id) in market.objects.iter().enumerate() {
            hosted.add_to((persons + number, agents), *id, Auctioneer::default())?;
        }
        let (mut holders, mut rises) = (BTreeMap::new(), 0);
        let outcome = hosted.run(Run::until_idle(), |mail, _| {
            if let Msg::Price { holder, .. } = mail.body {
                rises += 1;
                holders.insert(mail.sender, holder);
            }
        })?;
        hosted.end()?;
        let assigned = holders.into_iter().map(|(object, person)| (person, object));
        let mut assigned: Assigned = assigned.collect();
        assigned.sort_unstable();
        Ok((assigned, rises, outcome))
    }
}

impl Market {
    fn given(problem: &Problem) -> Result<Self, Failure> {
        let budgets = problem
            .buyers
            .iter()
            .map(|buyer| (buyer.id, cents(buyer.budget)));
        let budgets: BTreeMap<u64, i64> = budgets.collect();
        let mut costs = BTreeMap::new();
        for seller in &problem.sellers {
            for (buyer, price) in &seller.prices {
                let (buyer, price) = (buyer.parse()?, cents(*price));
                let budget = budgets.get(&buyer);
                let budget = budget.ok_or_else(|| format!("no buyer {buyer} is known"))?;
                if price <= *budget {
                    costs.insert((person(seller.id), buyer.into()), price);
                }
            }
        }
        Ok(Self {
            persons: problem
                .sellers
                .iter()
                .map(|seller| person(seller.id))
                .collect(),
            objects: budgets.into_keys().map(AgentId::from).collect(),
            costs,
        })
    }

    fn drawn(persons: u64, seed: u64) -> Self {
        let mut rng = AgentRng::new(seed, AgentId::MAIN);
        let objects: Vec<AgentId> = (1..=persons).map(AgentId::from).collect();
        let persons: Vec<AgentId> = (1..=persons).map(person).collect();
        let mut costs = BTreeMap::new();
        for person in &persons {
            for object in &objects {
                let cost = rng.random_range(1..=DEAREST);
                costs.insert((*person, *object), i64::try_from(cost).unwrap_or(i64::MAX));
            }
        }
        Self {
            persons,
            objects,
            costs,
        }
    }

    /// What a contract is worth [cents].
    fn value(cost: i64, goal: Goal) -> i64 {
        match goal {
            Goal::Lowest => -cost,
            Goal::Highest => cost,
        }
    }

    /// The value of no contract: one contract more is worth whatever it changes in all others
    /// [cents].
    fn nothing(&self) -> i64 {
        let dearest = self.costs.values().copied().max().unwrap_or(0);
        let agents = self.persons.len() + self.objects.len();
        -(dearest + 1) * i64::try_from(agents).unwrap_or(i64::MAX)
    }

    fn person(&self, person: AgentId, goal: Goal) -> Person {
        // The scale is so large that all persons' last steps of 1 are less than a cent together.
        let scale = i64::try_from(self.persons.len() + 1).unwrap_or(i64::MAX);
        let offers = self.objects.iter().filter_map(|object| {
            let cost = self.costs.get(&(person, *object))?;
            Some(Offer {
                object: *object,
                value: Self::value(*cost, goal) * scale,
                price: 0,
            })
        });
        Person {
            offers: offers.collect(),
            nothing: self.nothing() * scale,
        }
    }
}

/// Holds the assignment against that of an independent method.
fn check(market: &Market, assigned: &Assigned, total: i64, goal: Goal) -> Result<(), Failure> {
    // A column for each person's having nothing.
    let columns = market.objects.len() + market.persons.len();
    let mut values = Matrix::new(market.persons.len(), columns, market.nothing());
    for (row, person) in market.persons.iter().enumerate() {
        for (column, object) in market.objects.iter().enumerate() {
            if let Some(cost) = market.costs.get(&(*person, *object)) {
                values[(row, column)] = Market::value(*cost, goal);
            }
        }
    }
    let (_, columns) = kuhn_munkres(&values);
    let best = market
        .persons
        .iter()
        .zip(columns)
        .filter_map(|(person, column)| {
            let object = market.objects.get(column)?;
            market.costs.get(&(*person, *object))
        });
    let best: Vec<i64> = best.copied().collect();
    if (assigned.len(), total) == (best.len(), best.iter().sum()) {
        return Ok(());
    }
    Err(format!(
        "{} contracts for {}, where the Hungarian method finds {} for {}",
        assigned.len(),
        money(total),
        best.len(),
        money(best.iter().sum()),
    )
    .into())
}

fn compare(known: &Known, contracts: usize, total: i64, goal: Goal) -> Result<(), Failure> {
    let known_total = cents(match goal {
        Goal::Lowest => known.lowest_total_price,
        Goal::Highest => known.highest_total_price,
    });
    if (contracts, total) == (known.most_contracts, known_total) {
        return Ok(());
    }
    let (known, known_total) = (known.most_contracts, money(known_total));
    let total = money(total);
    Err(
        format!("{contracts} contracts for {total}, but known are {known} for {known_total}")
            .into(),
    )
}

fn person(number: u64) -> AgentId {
    AgentId::from(SELLERS + number)
}

/// An agent as people call it.
fn name(id: AgentId) -> String {
    match id.as_u64().checked_sub(SELLERS) {
        _ if id == AgentId::MAIN => id.to_string(),
        Some(number) => format!("seller {number}"),
        None => format!("buyer {id}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "prices in the file have two decimals"
)]
fn cents(price: f64) -> i64 {
    (price * 100.0).round() as i64
}

fn money(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}
