//! The models that are measured, as a user of the kernel writes them.

use maslite_core::{
    Agent, AgentId, Alarm, AlarmId, Context, Error, Mail, Pattern, Run, Scheduler, SimDuration,
};

/// What all models say; small, as messages are.
#[derive(Clone, Copy, Debug, maslite_core::Message)]
pub(crate) enum Msg {
    Ball(u64),
    Token(u64),
    News(u64),
    Again,
    Due(u64),
}

/// SplitMix64, for model and bare loop alike. Source: Steele, Lea, Flood, OOPSLA 2014.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of 0 … `count` - 1; `count` is below 2³².
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        ((self.bits() >> 32) * count) >> 32
    }

    /// A delay for the hold model: 1 ns … 2 s, each as likely [ns].
    pub(crate) fn ahead(&mut self) -> u64 {
        1 + (self.bits() >> 33)
    }

    /// From an exponential distribution with this mean [ns], cut off at 32 means.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 32 means, rounded to nanoseconds"
    )]
    pub(crate) fn exponential(&mut self, mean: u64) -> u64 {
        let unit = ((self.bits() >> 32) as f64 + 1.0) / 4_294_967_296.0;
        (-unit.ln() * mean as f64) as u64
    }
}

/// Mean delay between two events of the same token [ns].
pub(crate) const PHOLD_MEAN: u64 = 1_000_000_000;
/// The part of it that is never undercut [ns].
pub(crate) const PHOLD_LOOKAHEAD: u64 = 100_000_000;
/// Events that go to an agent drawn from all [%].
pub(crate) const PHOLD_REMOTE: u64 = 10;
/// Events under way per agent.
pub(crate) const PHOLD_EVENTS: u64 = 16;

/// A model in its steady state.
pub(crate) struct Model {
    pub(crate) scheduler: Scheduler<Msg>,
}

impl Model {
    /// Runs this number of supersteps and tells how much mail was delivered in them.
    pub(crate) fn run(&mut self, supersteps: u64) -> Result<u64, Error> {
        // Most of these models exchange mail at one instant without end, and mean to.
        let run = Run::until_idle()
            .supersteps(supersteps)
            .supersteps_per_instant(u64::MAX);
        Ok(self.scheduler.run(run)?.counters.delivered)
    }

    /// Runs until at least `events` mails were delivered, and tells how many.
    pub(crate) fn run_events(&mut self, events: u64) -> Result<u64, Error> {
        let (mut delivered, mut supersteps) = (0, 1);
        while delivered < events {
            let more = self.run(supersteps)?;
            delivered += more;
            let left = events.saturating_sub(delivered);
            supersteps = (left * supersteps / more.max(1)).clamp(1, 2 * supersteps);
        }
        Ok(delivered)
    }
}

/// Sends back what it gets.
struct Player {
    hits: u64,
}

impl Agent<Msg> for Player {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Ball(count) = mail.body {
            self.hits += 1;
            ctx.send(mail.sender, Msg::Ball(count + 1));
        }
    }
}

/// Two agents and one ball.
pub(crate) fn ping_pong() -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..2 {
        scheduler.add(id, Player { hits: 0 })?;
    }
    scheduler.send_mail(Mail::new(0, AgentId::from(1), Msg::Ball(0)));
    Ok(Model { scheduler })
}

/// Hands on what it gets, to one agent or to one of many.
struct Hand {
    count: u64,
    next: Next,
}

#[derive(Clone, Copy)]
enum Next {
    Is(AgentId),
    AnyBelow(u64, Chance),
}

impl Agent<Msg> for Hand {
    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Token(count) = mail.body {
            self.count += 1;
            let next = match &mut self.next {
                Next::Is(next) => *next,
                Next::AnyBelow(count, chance) => AgentId::from(chance.below(*count)),
            };
            ctx.send(next, Msg::Token(count + 1));
        }
    }
}

/// Agents in a ring, each of which starts with a token and hands on what it gets.
pub(crate) fn ring(agents: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..agents {
        let next = Next::Is(AgentId::from((id + 1) % agents));
        scheduler.add(id, Hand { count: 0, next })?;
        scheduler.send_mail(Mail::new(id, AgentId::from(id), Msg::Token(0)));
    }
    Ok(Model { scheduler })
}

/// Many agents, of which ten, spread evenly, hand a token round: the others sleep for ever.
pub(crate) fn same_ten_awake(agents: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    let place = |which: u64| which % 10 * (agents / 10);
    for id in 0..agents {
        let next = Next::Is(AgentId::from(place(id / (agents / 10) + 1)));
        scheduler.add(id, Hand { count: 0, next })?;
    }
    for which in 0..10 {
        let id = AgentId::from(place(which));
        scheduler.send_mail(Mail::new(id, id, Msg::Token(0)));
    }
    Ok(Model { scheduler })
}

/// Many agents and ten tokens; each is handed on to an agent drawn from all.
pub(crate) fn random_ten_awake(agents: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..agents {
        let next = Next::AnyBelow(agents, Chance(id));
        scheduler.add(id, Hand { count: 0, next })?;
    }
    for which in 0..10 {
        let id = AgentId::from(which);
        scheduler.send_mail(Mail::new(id, id, Msg::Token(0)));
    }
    Ok(Model { scheduler })
}

/// Sends news to all who listen, in every superstep.
struct Speaker;

impl Agent<Msg> for Speaker {
    fn receive(&mut self, _: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        ctx.broadcast(Msg::News(1));
        ctx.send(ctx.id(), Msg::Again);
    }
}

struct Listener {
    heard: u64,
}

impl Agent<Msg> for Listener {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        ctx.subscribe(Pattern::topic("News"));
    }

    fn receive(&mut self, mail: Mail<Msg>, _: &mut Context<'_, Msg>) {
        if let Msg::News(count) = mail.body {
            self.heard += count;
        }
    }
}

/// One agent whose news go to all others by their topic.
pub(crate) fn fan_out(listeners: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    scheduler.add(0, Speaker)?;
    for id in 1..=listeners {
        scheduler.add(id, Listener { heard: 0 })?;
    }
    scheduler.send_mail(Mail::new(0, AgentId::from(0), Msg::Again));
    Ok(Model { scheduler })
}

/// Sets an alarm for each one that fires.
struct Holder {
    pending: u64,
    fired: u64,
    chance: Chance,
}

impl Agent<Msg> for Holder {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..self.pending {
            let ahead = SimDuration::from_nanos(self.chance.ahead());
            ctx.alarm_in(ahead, Msg::Due(0));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Due(count) = mail.body {
            self.fired += 1;
            let ahead = SimDuration::from_nanos(self.chance.ahead());
            ctx.alarm_in(ahead, Msg::Due(count + 1));
        }
    }
}

/// How far ahead alarms are set: distributions that are hard on queues which divide time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Skew {
    /// All at the same distance, so that all are due at one instant.
    OneInstant,
    /// Many thousand means ahead, spread over 2 s.
    Far,
    /// Within a microsecond, while one alarm waits at the end of time.
    OneBucket,
    /// Exponential with a mean of 1 s.
    Exponential,
    /// Nine of ten within 2 ms, the others 100 s ahead.
    Bimodal,
    /// Powers of two from 1 ns to 2 s, each as likely.
    PowersOfTwo,
    /// 1 s ahead, within a microsecond.
    Clumps,
    /// Whole milliseconds, 1 to 1,024.
    Ticks,
    /// Within 2 ms, and one of a thousand at the end of time.
    Outliers,
}

impl Skew {
    /// A delay [ns].
    pub(crate) fn delay(self, chance: &mut Chance) -> u64 {
        let bits = chance.bits();
        match self {
            Self::OneInstant => 1_000_000_000,
            Self::Far => 1_000_000_000_000 + (bits >> 33),
            Self::OneBucket => 1 + (bits >> 54),
            Self::Exponential => 1 + chance.exponential(1_000_000_000),
            Self::Bimodal if bits.is_multiple_of(10) => 100_000_000_000 + (bits >> 33),
            Self::Outliers if bits.is_multiple_of(1_000) => END_OF_TIME,
            Self::Bimodal | Self::Outliers => 1 + (bits >> 43),
            Self::PowersOfTwo => 1 << (bits >> 59),
            Self::Clumps => 1_000_000_000 + (bits >> 54),
            Self::Ticks => 1_000_000 * (1 + (bits >> 54)),
        }
    }

    /// Whether one alarm waits at the end of time from the start.
    pub(crate) fn has_last(self) -> bool {
        self == Self::OneBucket
    }
}

/// Far beyond what any run here reaches [ns].
pub(crate) const END_OF_TIME: u64 = 1 << 60;

/// Sets an alarm for each one that fires, with skewed delays.
struct SkewedHolder {
    pending: u64,
    chance: Chance,
    skew: Skew,
}

impl SkewedHolder {
    fn delay(&mut self) -> SimDuration {
        SimDuration::from_nanos(self.skew.delay(&mut self.chance))
    }
}

impl Agent<Msg> for SkewedHolder {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..self.pending {
            let delay = self.delay();
            ctx.alarm_in(delay, Msg::Due(0));
        }
        if self.skew.has_last() {
            ctx.alarm_in(SimDuration::from_nanos(END_OF_TIME), Msg::Again);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Due(count) = mail.body {
            let delay = self.delay();
            ctx.alarm_in(delay, Msg::Due(count + 1));
        }
    }
}

/// The hold model with skewed delays.
pub(crate) fn skewed(skew: Skew, pending: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..HOLDERS {
        let holder = SkewedHolder {
            pending: pending / HOLDERS,
            chance: Chance(id),
            skew,
        };
        scheduler.add(id, holder)?;
    }
    Ok(Model { scheduler })
}

/// With each alarm that fires, clears its timeout, which is far ahead, and sets it anew.
struct Careful {
    pending: u64,
    chance: Chance,
    timeout: Option<AlarmId>,
}

/// How far ahead the timeouts of [`clearing`] are [ns].
pub(crate) const TIMEOUT: u64 = 3_600_000_000_000;

impl Agent<Msg> for Careful {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..self.pending {
            ctx.alarm_in(SimDuration::from_nanos(self.chance.ahead()), Msg::Due(0));
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Due(count) = mail.body {
            if let Some(timeout) = self.timeout.take() {
                ctx.clear_alarm(timeout);
            }
            self.timeout = Some(ctx.alarm_in(SimDuration::from_nanos(TIMEOUT), Msg::Again));
            let ahead = SimDuration::from_nanos(self.chance.ahead());
            ctx.alarm_in(ahead, Msg::Due(count + 1));
        }
    }
}

/// The hold model of agents that set and clear a timeout with every event.
pub(crate) fn clearing(pending: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..HOLDERS {
        let careful = Careful {
            pending: pending / HOLDERS,
            chance: Chance(id),
            timeout: None,
        };
        scheduler.add(id, careful)?;
    }
    Ok(Model { scheduler })
}

/// Agents in the hold model.
pub(crate) const HOLDERS: u64 = 100;

/// The hold model: `pending` alarms, spread over a hundred agents.
pub(crate) fn hold(pending: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..HOLDERS {
        let holder = Holder {
            pending: pending / HOLDERS,
            fired: 0,
            chance: Chance(id),
        };
        scheduler.add(id, holder)?;
    }
    Ok(Model { scheduler })
}

struct Relay {
    agents: u64,
    chance: Chance,
}

impl Relay {
    fn pass_on(&mut self, own: AgentId, count: u64, ctx: &mut Context<'_, Msg>) {
        let delay = PHOLD_LOOKAHEAD + self.chance.exponential(PHOLD_MEAN - PHOLD_LOOKAHEAD);
        let to = if self.chance.below(100) < PHOLD_REMOTE {
            AgentId::from(self.chance.below(self.agents))
        } else {
            own
        };
        let alarm = Alarm::after(SimDuration::from_nanos(delay)).to(to);
        ctx.set_alarm(alarm, Msg::Due(count));
    }
}

impl Agent<Msg> for Relay {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        for _ in 0..PHOLD_EVENTS {
            self.pass_on(ctx.id(), 0, ctx);
        }
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        if let Msg::Due(count) = mail.body {
            self.pass_on(ctx.id(), count + 1, ctx);
        }
    }
}

/// PHOLD in one scheduler.
pub(crate) fn phold(agents: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..agents {
        let chance = Chance(id);
        scheduler.add(id, Relay { agents, chance })?;
    }
    Ok(Model { scheduler })
}

/// An agent that only waits; its state is one word.
struct Sleeper {
    _state: u64,
}

/// Own state of an agent of [`sleepers`] [bytes].
pub(crate) const SLEEPER: u64 = 8;

impl Agent<Msg> for Sleeper {}

/// Agents that have been set up and updated once, and do nothing more.
pub(crate) fn sleepers(agents: u64) -> Result<Model, Error> {
    let mut scheduler = Scheduler::new();
    for id in 0..agents {
        scheduler.add(id, Sleeper { _state: id })?;
    }
    let mut model = Model { scheduler };
    model.run(2)?;
    Ok(model)
}

/// The same, and each has read a mail, all in one superstep.
pub(crate) fn woken_sleepers(agents: u64) -> Result<Model, Error> {
    let mut model = sleepers(agents)?;
    for id in 0..agents {
        let mail = Mail::new(id, AgentId::from(id), Msg::Again);
        model.scheduler.send_mail(mail);
    }
    model.run(2)?;
    Ok(model)
}
