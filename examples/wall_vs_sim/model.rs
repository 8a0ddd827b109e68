//! Warehouses full of robots.

use std::sync::Arc;

use maslite_mp::prelude::*;
use maslite_testkit::measuring::spin;
use rand::RngExt;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, Message)]
pub(crate) enum Msg {
    /// To oneself: it is time to plan anew.
    Plan,
    /// To another robot: what it should know of the plan.
    Word,
}

/// What all robots have in common.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) clusters: u64,
    /// Of each cluster.
    pub(crate) agents: u64,
    /// Between two plans of one robot, in the mean.
    pub(crate) period: SimDuration,
    /// Rounds of busy work per event.
    pub(crate) work: u64,
    /// The share of mail that goes to another cluster.
    pub(crate) cross: f64,
    /// What mail to another cluster takes at least.
    pub(crate) lookahead: SimDuration,
}

impl Model {
    /// The same without mail between clusters, and thus with the same work in each.
    pub(crate) fn unconnected(&self) -> Self {
        let cross = 0.0;
        Self {
            cross,
            ..self.clone()
        }
    }

    /// The id of a robot. Both count from 0.
    fn robot(&self, cluster: u64, number: u64) -> AgentId {
        AgentId::from(cluster * self.agents + number + 1)
    }

    /// A random time above 0 with the period as its mean.
    fn pause(&self, rng: &mut AgentRng) -> SimDuration {
        SimDuration::from_nanos(rng.random_range(1..=self.period.as_nanos().saturating_mul(2)))
    }
}

/// A robot: it plans, tells another one, and goes on. What it is told keeps it busy as well.
#[derive(Clone)]
struct Robot {
    model: Arc<Model>,
    cluster: u64,
}

impl Agent<Msg> for Robot {
    fn setup(&mut self, ctx: &mut Context<'_, Msg>) {
        let pause = self.model.pause(ctx.rng());
        ctx.alarm_in(pause, Msg::Plan);
    }

    fn receive(&mut self, mail: Mail<Msg>, ctx: &mut Context<'_, Msg>) {
        let model = &*self.model;
        spin(model.work);
        match mail.body {
            Msg::Word => {}
            Msg::Plan => {
                let rng = ctx.rng();
                let (pause, number) = (model.pause(rng), rng.random_range(0..model.agents));
                if model.clusters > 1 && rng.random::<f64>() < model.cross {
                    let distance = rng.random_range(1..model.clusters);
                    let delay = model.lookahead.saturating_add(model.pause(rng));
                    let to = model.robot((self.cluster + distance) % model.clusters, number);
                    ctx.set_alarm(Alarm::after(delay).to(to), Msg::Word);
                } else {
                    ctx.send(model.robot(self.cluster, number), Msg::Word);
                }
                ctx.alarm_in(pause, Msg::Plan);
            }
        }
    }
}

/// What the builder is told: which warehouse to fill.
#[derive(Serialize, Deserialize)]
pub(crate) struct Warehouse {
    pub(crate) model: Model,
    pub(crate) cluster: u64,
}

/// The builder's name.
pub(crate) const WAREHOUSE: &str = "warehouse";

/// The registry of this program. A child process goes no further.
pub(crate) fn agents() -> Entered<Msg> {
    let registry = Registry::new().with_copies::<Robot>().with_builder(
        WAREHOUSE,
        |warehouse: Warehouse, agents| {
            let (model, cluster) = (Arc::new(warehouse.model), warehouse.cluster);
            for number in 0..model.agents {
                let model = Arc::clone(&model);
                agents.add(model.robot(cluster, number), Robot { model, cluster });
            }
        },
    );
    registry.enter()
}
