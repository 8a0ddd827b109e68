//! Main's side of a start: invites all children of a call, hears who they are, and whether they
//! accept the links that it offers.
//!
//! ```text
//! start ──► supervisor thread: invite_all ──► a process for each
//!              hear_all ◄── Hellos and answers, through the control lines
//! ```
//!
//! All of it waits for all control lines at once, up to the deadline. The waiter of a child that
//! ends closes its control line.
//!
//! **Invariant:** when [`start`] returns an error, no process of the call is left.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use maslite_core::internal::LockEvenPoisoned;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use shared_child::SharedChild;

use super::PROTOCOL;
use super::child_side::refuse_to_start;
use super::entry::Point;
use super::handshake::{Hello, Invitation, NextOffer, Word};
use super::program::{Program, directory_to_go_to, explain_failure};
use crate::error::death::ExitKind;
use crate::error::spawn::SpawnError;
use crate::links::kind::{Kind, MainEnd, Offer, Start};
use crate::links::kinds::{self, KindNumber};
use crate::links::transport::{Transport, Wait, now};
use crate::processes::limits;
use crate::processes::logs::Log;
use crate::processes::output::{self, Output};
use crate::processes::supervision::{Supervisor, Watch};
use crate::settings::Link;
use crate::settings::timing::END_NEWS_LIMIT;

/// One start at a time in this process: a child must not inherit what another start has open.
static STARTING: Mutex<()> = Mutex::new(());

/// What to start.
#[derive(Clone, Debug)]
pub(crate) struct StartPlan {
    pub(crate) program: Program,
    /// Number and name of each cluster.
    pub(crate) clusters: Vec<(u32, String)>,
    /// Where the children become clusters, and the registry that both sides must have there.
    pub(crate) point: Arc<Point>,
    /// How long all of it may take: [`START_DEADLINE`](crate::settings::timing::START_DEADLINE).
    pub(crate) deadline: Duration,
    /// How main's ends of the links wait.
    pub(crate) wait: Wait,
    /// What is to carry the messages.
    pub(crate) carrier: Link,
    /// What becomes of what the children print.
    pub(crate) output: Output,
    /// Where what they record goes.
    pub(crate) log: Log,
}

/// Main's side of a child that has started.
pub(crate) struct MainSide {
    pub(crate) cluster: u32,
    pub(crate) pid: u32,
    pub(crate) link: Box<dyn Transport>,
    /// The kind of link.
    pub(crate) carrier: Link,
}

/// Starts the children on the supervisor's thread and returns main's sides, in the order of the
/// clusters.
///
/// # Errors
///
/// As [`SpawnError`] says; no child of this call is then left.
pub(crate) fn start(supervisor: &Supervisor, plan: StartPlan) -> Result<Vec<MainSide>, SpawnError> {
    refuse_to_start();
    limits::open_standard_streams().map_err(SpawnError::Resources)?;
    if plan.program.exe.is_none() {
        limits::check_program()?;
    }
    supervisor
        .run_job(move |watch| {
            let _one_at_a_time = STARTING.lock_even_poisoned();
            limits::check_descriptors(plan.clusters.len())?;
            start_all(watch, &plan)
        })
        .unwrap_or_else(|| {
            Err(SpawnError::Resources(io::Error::other(
                "the supervisor thread has ended",
            )))
        })
}

/// A child has ended: the one with this index.
struct Exited(usize, Option<ExitStatus>);

/// A child between its start and the end of the handshake.
struct Invited<'a> {
    cluster: u32,
    name: &'a str,
    pid: u32,
    nonce: [u8; 16],
    /// The child's control line. The end of the child shows there, even if another process holds
    /// the other end, too.
    control: Arc<UnixStream>,
    /// What has come of its next word.
    come: Vec<u8>,
    /// The calls of `enter` that it has passed, for people.
    passed: Vec<String>,
    is_known: bool,
    /// The link that is offered to it.
    offered: Offered,
    /// Main's end of its link, once it has accepted it.
    accepted: Option<(Link, MainEnd)>,
}

fn start_all(watch: &mut Watch, plan: &StartPlan) -> Result<Vec<MainSide>, SpawnError> {
    let until = now().checked_add(plan.deadline);
    let kept = watch.adopted();
    shake_hands(watch, plan, until).map_err(|error| error.explained(&watch.disown(kept)))
}

fn shake_hands(
    watch: &mut Watch,
    plan: &StartPlan,
    until: Option<Instant>,
) -> Result<Vec<MainSide>, SpawnError> {
    let (sender, signs) = mpsc::channel();
    let mut offers = Offers::new(plan);
    let mut invited = invite_all(watch, plan, &mut offers, &sender)?;
    hear_all(&signs, &mut invited, plan, &mut offers, until)?;
    let sides = invited.into_iter().filter_map(|child| {
        let (carrier, MainEnd { link, cut }) = child.accepted?;
        watch.link(child.pid, cut);
        Some(MainSide {
            cluster: child.cluster,
            pid: child.pid,
            link,
            carrier,
        })
    });
    Ok(sides.collect())
}

/// Invites all children.
fn invite_all<'a>(
    watch: &mut Watch,
    plan: &'a StartPlan,
    offers: &mut Offers,
    signs: &Sender<Exited>,
) -> Result<Vec<Invited<'a>>, SpawnError> {
    let clusters = plan.clusters.iter().enumerate();
    clusters
        .map(|(index, (cluster, name))| {
            let (offered, sent) = offers
                .first()
                .map_err(|refused| refused.error(*cluster, name))?;
            invite(
                watch,
                plan,
                (*cluster, name),
                (offered, &sent),
                index,
                signs,
            )
        })
        .collect()
}

/// Starts the process of a child and sends the invitation.
fn invite<'a>(
    watch: &mut Watch,
    plan: &StartPlan,
    (cluster, name): (u32, &'a str),
    (offered, sent): (Offered, &OwnedFd),
    index: usize,
    signs: &Sender<Exited>,
) -> Result<Invited<'a>, SpawnError> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| SpawnError::Resources(error.into()))?;
    let invitation = Invitation {
        cluster,
        nonce,
        kind: offered.kind,
        place: plan.point.place.clone(),
        call: plan.point.call,
        schema: plan.point.signature.hash(),
        by_test: plan.program.test.is_some(),
        directory: directory_to_go_to().map(|path| path.into_os_string().into_vec()),
    };
    let (control, stdin) = UnixStream::pair().map_err(SpawnError::Resources)?;
    invitation
        .write(&control, Some(sent))
        .map_err(|source| spawn_error(cluster, name, source))?;
    let control = Arc::new(control);
    let heard = Arc::downgrade(&control);
    let signs = signs.clone();
    let exited = move |status| {
        let _ = signs.send(Exited(index, status));
        if let Some(control) = heard.upgrade() {
            let _ = control.shutdown(Shutdown::Read);
        }
    };
    let pid = start_process(watch, plan, (cluster, name), stdin, &control, exited)?;
    Ok(Invited {
        cluster,
        name,
        pid,
        nonce,
        control,
        come: Vec::new(),
        passed: Vec::new(),
        is_known: false,
        offered,
        accepted: None,
    })
}

/// Starts the process of a cluster, whose stdin is its control line, and has the supervisor watch
/// it; `exited` is called when it has ended. Returns its process id.
fn start_process(
    watch: &mut Watch,
    plan: &StartPlan,
    (cluster, name): (u32, &str),
    stdin: UnixStream,
    control: &Arc<UnixStream>,
    exited: impl FnOnce(Option<ExitStatus>) + Send + 'static,
) -> Result<u32, SpawnError> {
    let spawn_error = |source| spawn_error(cluster, name, source);
    let mut command = plan.program.command().map_err(spawn_error)?;
    #[cfg(target_os = "linux")]
    super::sys::signal_with_end_of_parent(&mut command, plan.program.death_signal());
    command.stdin(Stdio::from(OwnedFd::from(stdin)));
    let quiet = plan.program.quiet_stdout;
    let outlet = output::connect(
        &mut command,
        watch,
        (cluster, name),
        plan.output,
        &plan.log,
        quiet,
    )
    .map_err(SpawnError::Resources)?;
    let process = SharedChild::spawn(&mut command)
        .map_err(explain_failure)
        .map_err(spawn_error)?;
    // It holds the child's ends.
    drop(command);
    let pid = process.id();
    let (name, control) = (name.to_owned(), Arc::clone(control));
    watch
        .adopt(cluster, name, process, control, outlet, exited)
        .map_err(SpawnError::Resources)?;
    Ok(pid)
}

fn spawn_error(cluster: u32, name: &str, source: io::Error) -> SpawnError {
    SpawnError::Spawn {
        cluster,
        name: name.to_owned(),
        source,
    }
}

/// Takes and checks the Hellos and answers, as they come, until all children have accepted a link
/// or something went wrong.
fn hear_all(
    signs: &Receiver<Exited>,
    invited: &mut [Invited<'_>],
    plan: &StartPlan,
    offers: &mut Offers,
    until: Option<Instant>,
) -> Result<(), SpawnError> {
    loop {
        let outside = invited
            .iter()
            .enumerate()
            .filter(|(_, child)| child.accepted.is_none());
        let outside: Vec<usize> = outside.map(|(index, _)| index).collect();
        let Some(first) = outside.first() else {
            return Ok(());
        };
        let controls = outside.iter().map(|index| &*invited[*index].control);
        let mut lines: Vec<_> = controls
            .map(|control| PollFd::new(control, PollFlags::IN))
            .collect();
        match poll(&mut lines, remaining(until).as_ref()) {
            Ok(0) => return Err(invited[*first].late(plan)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SpawnError::Resources(error.into())),
        }
        let speaks = lines.iter().map(|line| !line.revents().is_empty());
        let speaking: Vec<usize> = outside
            .iter()
            .zip(speaks)
            .filter(|(_, speaks)| *speaks)
            .map(|(index, _)| *index)
            .collect();
        for index in speaking {
            let child = &mut invited[index];
            while child.accepted.is_none() {
                match Word::take(&child.control, &mut child.come) {
                    Ok(None) => break,
                    Ok(Some(word)) => child.listen(word, plan, offers)?,
                    Err(source) => return Err(child.gone(index, plan, signs, source)),
                }
            }
        }
    }
}

/// The time until then.
fn remaining(until: Option<Instant>) -> Option<Timespec> {
    let remaining = until?.saturating_duration_since(now());
    Timespec::try_from(remaining).ok()
}

/// The kinds of link that a start may offer.
struct Offers {
    /// The preferred one first.
    kinds: Vec<KindNumber>,
    /// What has begun of each.
    begun: Vec<Option<Box<dyn Start>>>,
    clusters: usize,
    wait: Wait,
}

/// A link that is offered to a child.
struct Offered {
    kind: KindNumber,
    /// The place of the kind among those that the start may offer.
    place: usize,
    offer: Option<Box<dyn Offer>>,
}

/// Why a child has no link: the kind that was tried last, and what was the matter.
struct NoOffer(Link, io::Error);

impl NoOffer {
    fn error(self, cluster: u32, name: &str) -> SpawnError {
        let Self(link, source) = self;
        SpawnError::NoLink {
            cluster,
            name: name.to_owned(),
            kind: link.to_string(),
            source,
        }
    }
}

impl Offers {
    fn new(plan: &StartPlan) -> Self {
        let kinds = kinds::allowed(plan.carrier);
        Self {
            begun: kinds.iter().map(|_| None).collect(),
            kinds,
            clusters: plan.clusters.len(),
            wait: plan.wait,
        }
    }

    /// Makes an offer of the first kind that main can have.
    fn first(&mut self) -> Result<(Offered, OwnedFd), NoOffer> {
        let none = io::ErrorKind::Unsupported.into();
        self.from(0, NoOffer(Link::Auto, none))
    }

    /// The same, after a child has refused one.
    fn after(&mut self, refused: &Offered, why: String) -> Result<(Offered, OwnedFd), NoOffer> {
        let link = kinds::numbered(refused.kind).map_or(Link::Auto, Kind::link);
        self.from(refused.place + 1, NoOffer(link, io::Error::other(why)))
    }

    /// Makes an offer of the first kind from this place on.
    fn from(&mut self, place: usize, before: NoOffer) -> Result<(Offered, OwnedFd), NoOffer> {
        let mut failed = before;
        for place in place..self.kinds.len() {
            let kind = self.kinds[place];
            match self.offer(place) {
                Ok((offer, sent)) => {
                    let offer = Some(offer);
                    return Ok((Offered { kind, place, offer }, sent));
                }
                Err(error) => {
                    let link = kinds::numbered(kind).map_or(Link::Auto, Kind::link);
                    failed = NoOffer(link, error);
                }
            }
        }
        Err(failed)
    }

    fn offer(&mut self, place: usize) -> io::Result<(Box<dyn Offer>, OwnedFd)> {
        let begun = &mut self.begun[place];
        if begun.is_none() {
            let kind = kinds::numbered(self.kinds[place])?;
            *begun = Some(kind.begin(self.clusters, self.wait)?);
        }
        let start = begun.as_mut().ok_or(io::ErrorKind::Unsupported)?;
        start.offer()
    }
}

impl Invited<'_> {
    fn listen(
        &mut self,
        word: Word,
        plan: &StartPlan,
        offers: &mut Offers,
    ) -> Result<(), SpawnError> {
        let (cluster, name) = (self.cluster, self.name.to_owned());
        match word {
            Word::Hello(hello) if self.come.is_empty() && !self.is_known => {
                let refusal = self.meet(hello, plan)?;
                self.settle(refusal, offers)
            }
            Word::Answer(refusal) if self.come.is_empty() && self.is_known => {
                self.settle(refusal, offers)
            }
            // Main has asked it nothing.
            Word::Hello(_) | Word::Answer(_) => Err(self.broken(io::ErrorKind::InvalidData.into())),
            Word::Passed(point, signature) => {
                let difference = plan.point.signature.differences(&signature);
                self.passed.push(match &*difference {
                    "" => point,
                    difference => format!("{point} ({difference})"),
                });
                Ok(())
            }
            Word::Changed(signature) => Err(SpawnError::OtherRegistry {
                cluster,
                name,
                point: plan.point.to_string(),
                difference: plan.point.signature.differences(&signature),
            }),
            Word::Failed(why) => Err(SpawnError::ChildFailed { cluster, name, why }),
        }
    }

    /// Checks a Hello. Returns why the child has not accepted the link, if it has not.
    fn meet(&mut self, hello: Hello, plan: &StartPlan) -> Result<Option<String>, SpawnError> {
        if hello.nonce != self.nonce {
            return Err(self.stranger());
        }
        self.same("protocol", &PROTOCOL, &hello.protocol)?;
        self.same("maslite", env!("CARGO_PKG_VERSION"), &*hello.version)?;
        self.same("the process id", &self.pid, &hello.pid)?;
        self.same("the cluster number", &self.cluster, &hello.cluster)?;
        self.same(
            "the schema",
            &format!("{:016x}", plan.point.signature.hash()),
            &format!("{:016x}", hello.schema),
        )?;
        self.is_known = true;
        Ok(hello.refusal)
    }

    /// Takes main's end of the link that it has accepted, or offers the next kind.
    fn settle(&mut self, refusal: Option<String>, offers: &mut Offers) -> Result<(), SpawnError> {
        let Some(why) = refusal else {
            let accepted = self.offered.offer.take();
            let accepted = accepted.ok_or_else(|| io::ErrorKind::InvalidData.into());
            let end = accepted.and_then(Offer::take);
            let link = kinds::numbered(self.offered.kind).map(Kind::link);
            let accepted = link.and_then(|link| Ok((link, end?)));
            self.accepted = Some(accepted.map_err(|source| self.broken(source))?);
            return Ok(());
        };
        let next = offers.after(&self.offered, why);
        let (offered, sent) = next.map_err(|refused| refused.error(self.cluster, self.name))?;
        match NextOffer(offered.kind).write(&self.control, sent.as_fd()) {
            Ok(()) => {}
            // It has ended, which its control line shows.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(source) => return Err(self.broken(source)),
        }
        self.offered = offered;
        Ok(())
    }

    /// Its control line has closed, or says what no child says.
    fn gone(
        &self,
        index: usize,
        plan: &StartPlan,
        signs: &Receiver<Exited>,
        source: io::Error,
    ) -> SpawnError {
        if source.kind() != io::ErrorKind::InvalidData {
            // If it has ended, its end is known now or in a moment.
            while let Ok(Exited(ended, status)) = signs.recv_timeout(END_NEWS_LIMIT) {
                if ended == index {
                    return self.ended(status, plan);
                }
            }
        }
        self.broken(source)
    }

    fn ended(&self, status: Option<ExitStatus>, plan: &StartPlan) -> SpawnError {
        SpawnError::ExitedBeforeHello {
            cluster: self.cluster,
            name: self.name.to_owned(),
            exit: ExitKind::of(status),
            stderr: String::new(),
            test: plan.program.test.clone(),
            passed: self.passed.clone(),
        }
    }

    fn broken(&self, source: io::Error) -> SpawnError {
        SpawnError::Handshake {
            cluster: self.cluster,
            name: self.name.to_owned(),
            source,
        }
    }

    fn late(&self, plan: &StartPlan) -> SpawnError {
        SpawnError::HandshakeTimeout {
            cluster: self.cluster,
            name: self.name.to_owned(),
            waited: plan.deadline,
        }
    }

    fn stranger(&self) -> SpawnError {
        SpawnError::Stranger {
            cluster: self.cluster,
            name: self.name.to_owned(),
        }
    }

    fn same<T: PartialEq + ToString + ?Sized>(
        &self,
        what: &'static str,
        ours: &T,
        theirs: &T,
    ) -> Result<(), SpawnError> {
        if ours == theirs {
            return Ok(());
        }
        Err(SpawnError::Mismatch {
            cluster: self.cluster,
            name: self.name.to_owned(),
            what,
            ours: ours.to_string(),
            theirs: theirs.to_string(),
        })
    }
}
