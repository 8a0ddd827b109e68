//! A run of a simulation, and the report of it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use maslite_core::clock::wall;
use maslite_core::{Mail, MainContext, Report, Run, SimTime};
use tracing::debug;

use crate::cluster::registry::WireMessage;
use crate::coordination::rounds::{Handler, Rounds};
use crate::coordination::routing::Traffic;
use crate::error::control::ControlError;
use crate::error::{Chain, Error};
use crate::simulation::mp_main::MpMain;
use crate::simulation::report::{ClusterReport, Flow, MpReport, Versions};
use crate::stall::meter::{Meter, Spent};
use crate::steering::status::memory_of;

/// A run of less is not made longer to find out how much memory there is in use.
const LONG: Duration = Duration::from_millis(10);

impl<M: WireMessage> MpMain<M> {
    /// Runs. Consecutive runs equal one longer run.
    ///
    /// Mail addressed to main is undeliverable; see [`run_with`](Self::run_with).
    ///
    /// # Errors
    /// [`Error::Agent`] and [`Error::Model`] for what agents do, [`Error::ClusterDied`],
    /// [`Error::Link`], [`Error::Stuck`], [`Error::Interrupted`], [`Error::Start`],
    /// [`Error::Protocol`], [`Error::Encode`], [`Error::Decode`]; all processes have then been
    /// stopped, and later runs are [`Error::Ended`].
    pub fn run(&mut self, run: Run) -> Result<MpReport, Error> {
        self.run_with_hooks(run, None)
    }

    /// Runs, and hands mail addressed to [`AgentId::MAIN`](maslite_core::AgentId::MAIN) to
    /// `handler`, between two supersteps.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(
        &mut self,
        run: Run,
        mut handler: impl FnMut(Mail<M>, &mut MainContext<M>),
    ) -> Result<MpReport, Error> {
        self.run_with_hooks(run, Some(&mut handler))
    }

    /// Runs until simulated time reaches `time`, or nothing is left to happen.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_until(&mut self, time: SimTime) -> Result<MpReport, Error> {
        self.run(Run::until(time))
    }

    fn run_with_hooks(
        &mut self,
        run: Run,
        handler: Option<&mut Handler<'_, M>>,
    ) -> Result<MpReport, Error> {
        self.check_usable()?;
        let result = catch_unwind(AssertUnwindSafe(|| self.try_to_run(run, handler)));
        let result = result.unwrap_or_else(|payload| {
            // A callback of the program has panicked. What it was called for is half done, so
            // nothing can go on.
            let why = "a callback of the program panicked in a run";
            self.control_queue
                .close(ControlError::Failed(why.to_owned()));
            self.abandon(&Error::Ended);
            resume_unwind(payload)
        });
        if let Err(error) = &result {
            debug!(target: "maslite", sim_time = %self.standing.time, error = %Chain(error), "run failed");
            // A half-done superstep cannot be continued: nothing is left running, and nobody is
            // torn down.
            self.abandon(error);
        }
        result
    }

    fn try_to_run(
        &mut self,
        run: Run,
        handler: Option<&mut Handler<'_, M>>,
    ) -> Result<MpReport, Error> {
        let (started, start) = (wall(), self.standing.time);
        let timeout = run.wall_limit();
        let lookaheads = self.effective_lookaheads()?;
        self.start()?;
        let queued = std::mem::take(&mut self.queued);
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        let before: Vec<u64> = self.standing.delivered_in_clusters().collect();
        let delivered = self.standing.counters().delivered;
        let rounds_before = self.standing.rounds;
        let snapshot = &self.control_queue.snapshot;
        snapshot.note_run(start, run.end(start), delivered);
        clusters.begin_run(timeout, deadline);
        let format = self.entered.registry.trace_format();
        let (routing, standing) = (&mut self.routing, &mut self.standing);
        standing.errors.clear();
        standing.errors_of_setup = 0;
        let under_way = &mut self.under_way;
        let trace = &mut self.trace;
        let mut rounds = Rounds::new(clusters, routing, standing, under_way, trace, format, run);
        rounds.handler = handler;
        rounds.lookaheads = lookaheads;
        rounds.setup(queued)?;
        self.startup
            .get_or_insert_with(|| wall().duration_since(self.created));
        let (stopped_by, late) = rounds.run_steered(&self.control_queue, deadline)?;
        clusters.end_run();
        self.queued.extend(late);
        debug!(target: "maslite", sim_time = %self.standing.time, by = %stopped_by, "run ended");
        let wall = wall().duration_since(started);
        let mut report = Report::new(stopped_by, start, self.standing.time, wall);
        report.counters = self.standing.counters();
        report.digest = self.digest();
        report.content_digest = self.standing.content_digest();
        report.errors.clone_from(&self.standing.errors);
        report.lost = self.standing.lost.iter().map(|(_, lost)| *lost).collect();
        report.silent = self.routing.silent_topics(&self.standing.heard);
        report.amnesias = self.standing.amnesias;
        let events = report.counters.delivered - delivered;
        let mut report = self.report(report, events, &before);
        report.rounds_in_run = self.standing.rounds - rounds_before;
        Ok(report)
    }

    /// The report of a run in which so much mail was taken, and before which so much had been in
    /// each cluster.
    fn report(&self, run: Report, events: u64, before: &[u64]) -> MpReport {
        let reports = || self.standing.reports.iter().flatten();
        let is_long = run.wall >= LONG;
        let meter = self.clusters.as_ref().map(|clusters| &clusters.meter);
        MpReport {
            events,
            local: reports().map(|report| report.local).sum(),
            held_back: reports().map(|report| report.held_back).sum(),
            held_back_to_main: reports().map(|report| report.held_back_to_main).sum(),
            routed: self.routing.routed,
            rounds: self.standing.rounds,
            rounds_in_run: 0,
            seed: self.seed,
            placement: self.placement,
            startup: self.startup,
            main_busy: meter.map_or(Duration::ZERO, Meter::busy_of_main),
            main_memory: is_long.then(|| memory_of(std::process::id())).flatten(),
            flows: self.flows(),
            clusters: self.cluster_reports(before, is_long),
            recoveries: self
                .clusters
                .as_ref()
                .map_or_else(Vec::new, |clusters| clusters.recovered.clone()),
            versions: Versions::here(),
            run,
        }
    }

    /// What went from where to where.
    fn flows(&self) -> Vec<Flow> {
        let name = |place: usize| place.checked_sub(1).map(|cluster| &self.names[cluster]);
        let rows = self.routing.traffic.rows().iter().enumerate();
        let flows = rows.flat_map(|(from, row)| {
            let some = row.iter().filter(|(_, crossing)| crossing.mails > 0);
            some.map(move |(to, crossing)| Flow {
                from: name(from).cloned(),
                to: name(*to).cloned(),
                mails: crossing.mails,
                bytes: crossing.bytes,
            })
        });
        flows.collect()
    }

    /// `before`: mail that each had taken before the run. `is_long`: it is worth while to ask for
    /// memory.
    fn cluster_reports(&self, before: &[u64], is_long: bool) -> Vec<ClusterReport> {
        let Some(clusters) = &self.clusters else {
            return Vec::new();
        };
        let lookaheads = self.effective_lookaheads().unwrap_or_default();
        let reports = clusters
            .list
            .iter()
            .zip(self.standing.reports.iter().flatten());
        let reports = reports.enumerate().map(|(place, (cluster, report))| {
            let before = before.get(place).copied().unwrap_or(0);
            let spent = clusters.meter.spent(place);
            let time = |part: fn(&Spent) -> Duration| spent.as_ref().map_or(Duration::ZERO, part);
            let traffic = &self.routing.traffic;
            let (mail_in, mail_out) = traffic.in_and_out(Traffic::place_of(place));
            let asks = is_long && cluster.carrier.is_some();
            ClusterReport {
                id: self.routing.ids[place],
                name: cluster.name.clone(),
                pid: cluster.pid,
                link: cluster.carrier,
                lookahead: lookaheads.get(place).copied(),
                events: report.counters.delivered - before,
                busy: time(|spent| spent.busy),
                blocked: time(|spent| spent.blocked),
                waiting: time(|spent| spent.waiting),
                mail_in,
                mail_out,
                awake: u64::from(report.awake_last),
                memory: asks.then(|| memory_of(cluster.pid)).flatten(),
                counters: report.counters,
            }
        });
        reports.collect()
    }
}
