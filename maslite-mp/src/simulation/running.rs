//! A run of a simulation, and the report of it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use maslite_core::clock::wall;
use maslite_core::internal::{ReportInternals, RunInternals};
use maslite_core::{Mail, MainContext, Report, Run, SimTime};
use tracing::debug;

use crate::cluster::registry::{TraceFormat, WireMessage, write_compared};
use crate::coordination::automatic::SaveTimer;
use crate::coordination::pace::Pace;
use crate::coordination::rounds::{Handler, Rounds};
use crate::coordination::routing::Traffic;
use crate::coordination::save_plan::{Automatic, Saving};
use crate::error::control::ControlError;
use crate::error::spawn::SpawnError;
use crate::error::{Chain, Error};
use crate::simulation::counted::Counted;
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
            // A half-done superstep cannot be continued: nothing is left running, and no agent is
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
        let format = self.trace_format();
        let automatic = self.automatic.take();
        let leaving_out = automatic.as_ref().is_some_and(|it| it.policy().leaving_out);
        let mut saving = Saving {
            subject: self.subject(leaving_out),
            automatic,
        };
        let timer = self.start_save_timer(&saving)?;
        let clusters = self.clusters.as_mut().ok_or(Error::Ended)?;
        let deadline = timeout.and_then(|timeout| started.checked_add(timeout));
        let delivered = self.standing.counters().delivered;
        let snapshot = &self.control_queue.snapshot;
        snapshot.note_run(start, run.end(start), delivered);
        clusters.begin_run(timeout, deadline);
        let (routing, standing) = (&mut self.routing, &mut self.standing);
        standing.errors.clear();
        standing.errors_of_setup = 0;
        let under_way = &mut self.under_way;
        let trace = &mut self.trace;
        let mut rounds = Rounds::new(clusters, routing, standing, under_way, trace, format, run);
        rounds.handler = handler;
        rounds.saving = Some(&mut saving);
        rounds.window = self.window;
        if lookaheads.is_empty() {
            rounds.pace = Pace::new(self.speculation);
        }
        rounds.lookaheads = lookaheads;
        rounds.setup(queued)?;
        self.startup
            .get_or_insert_with(|| wall().duration_since(self.created));
        let (stopped_by, late) = rounds.run_steered(&self.control_queue, deadline)?;
        drop(timer);
        rounds.save_if_stopped(stopped_by, &late)?;
        self.automatic = saving.automatic.take();
        clusters.end_run();
        self.queued.extend(late);
        debug!(target: "maslite", sim_time = %self.standing.time, by = %stopped_by, "run ended");
        let wall = wall().duration_since(started);
        let mut report = Report::new(stopped_by, start, self.standing.time, wall);
        report.digest = self.digest();
        report.content_digest = self.standing.content_digest();
        report.errors.clone_from(&self.standing.errors);
        report.lost = self.standing.lost.iter().map(|(_, lost)| *lost).collect();
        report.silent = self.routing.silent_topics(&self.standing.heard);
        let counted = Counted::of(&self.standing, &self.routing);
        let before = std::mem::replace(&mut self.counted, counted);
        Ok(self.report(report, &before))
    }

    /// How mail to main is written into the trace.
    pub(super) fn trace_format(&self) -> TraceFormat<M> {
        match self.window {
            Some(_) => write_compared,
            None => self.entered.registry.trace_format(),
        }
    }

    /// What asks the run to be saved by wall time, if it is to be.
    fn start_save_timer(&self, saving: &Saving<M>) -> Result<Option<SaveTimer>, Error> {
        let policy = saving.automatic.as_ref().map(Automatic::policy);
        let Some(every) = policy.and_then(|policy| policy.every) else {
            return Ok(None);
        };
        let timer = SaveTimer::start(every, Arc::clone(&self.control_queue));
        let timer = timer.map_err(|why| Error::from(SpawnError::Resources(why)))?;
        Ok(Some(timer))
    }

    /// The report of a run, before which this was counted.
    fn report(&self, mut run: Report, before: &Counted) -> MpReport {
        let now = &self.counted;
        run.total = now.counters;
        run.counters = now.counters.since(&before.counters);
        run.amnesias = now.amnesias - before.amnesias;
        run.undone = now.undone - before.undone;
        let is_long = run.wall >= LONG;
        let traffic = now.traffic.since(&before.traffic);
        let meter = self.clusters.as_ref().map(|clusters| &clusters.meter);
        let recovered = self.clusters.as_ref().map(|clusters| &clusters.recovered);
        let dropped = self.clusters.as_ref().map(|clusters| &clusters.dropped);
        MpReport {
            events: run.counters.delivered,
            local: now.local - before.local,
            held_back: now.held_back - before.held_back,
            held_back_to_main: now.held_back_to_main - before.held_back_to_main,
            routed: now.routed - before.routed,
            rounds: now.rounds - before.rounds,
            seed: self.seed,
            placement: self.placement,
            startup: self.startup,
            main_busy: meter.map_or(Duration::ZERO, Meter::busy_of_main),
            main_memory: is_long.then(|| memory_of(std::process::id())).flatten(),
            flows: self.flows(&traffic),
            clusters: self.cluster_reports(before, &traffic, is_long),
            recoveries: recovered.cloned().unwrap_or_default(),
            dropped: dropped.cloned().unwrap_or_default(),
            left_out: self.standing.left_out.clone(),
            versions: Versions::here(),
            run,
        }
    }

    /// What went from where to where.
    fn flows(&self, traffic: &Traffic) -> Vec<Flow> {
        let name = |place: usize| place.checked_sub(1).map(|cluster| &self.names[cluster]);
        let rows = traffic.rows().iter().enumerate();
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

    /// `before`: what was counted before the run. `is_long`: it is worth while to ask for memory.
    fn cluster_reports(
        &self,
        before: &Counted,
        traffic: &Traffic,
        is_long: bool,
    ) -> Vec<ClusterReport> {
        let Some(clusters) = &self.clusters else {
            return Vec::new();
        };
        let lookaheads = self.effective_lookaheads().unwrap_or_default();
        let reports = clusters
            .list
            .iter()
            .zip(self.standing.reports.iter().flatten());
        let reports = reports.enumerate().map(|(place, (cluster, report))| {
            let before = before.clusters.get(place).copied().unwrap_or_default();
            let counters = report.counters.since(&before);
            let spent = clusters.meter.spent(place);
            let time = |part: fn(&Spent) -> Duration| spent.as_ref().map_or(Duration::ZERO, part);
            let (mail_in, mail_out) = traffic.in_and_out(Traffic::place_of(place));
            let asks = is_long && cluster.carrier.is_some();
            ClusterReport {
                id: self.routing.ids[place],
                name: cluster.name.clone(),
                pid: cluster.pid,
                link: cluster.carrier,
                lookahead: lookaheads.get(place).copied(),
                events: counters.delivered,
                busy: time(|spent| spent.busy),
                blocked: time(|spent| spent.blocked),
                waiting: time(|spent| spent.waiting),
                mail_in,
                mail_out,
                awake: u64::from(report.awake_last),
                memory: asks.then(|| memory_of(cluster.pid)).flatten(),
                counters,
                total: report.counters,
            }
        });
        reports.collect()
    }
}
