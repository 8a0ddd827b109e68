//! How long maslite waits: limits, graces and intervals of wall time that no program chooses, and
//! the defaults of those that a program may choose.
//!
//! A time that makes sense only next to its algorithm stands there: how long a process looks before
//! it sleeps (`Waiting::steps`, `links/ring/crowd.rs`), and which runs are too short for a
//! measurement of memory (`simulation/running.rs`).

use std::time::Duration;

/// How long a start of clusters may take by default. A machine under load starts a process in less.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(10);

/// How long simulated time may stand still before there is a warning, by default. A user who waits
/// for less does not need to be told.
pub(crate) const WARNING_AFTER: Duration = Duration::from_secs(5);

/// How long a cluster may say nothing, or do nothing, while main waits for it, by default. A
/// process that is held up for longer is stopped or broken.
pub(crate) const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// The least limit of the stall detector, whatever the program asks for. With less it would look
/// without a pause.
pub(crate) const LEAST_STALL_LIMIT: Duration = Duration::from_millis(1);

/// How long the answer to a probe may take before its child counts as not answering. The news of a
/// death may be late by as much, since the supervisor thread does nothing else meanwhile.
pub(crate) const PROBE_LIMIT: Duration = Duration::from_millis(250);

/// The longest time that a controller may give clusters to answer a look. The supervisor thread does
/// nothing else meanwhile.
pub(crate) const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How long clusters are given to answer when a client of the control socket asks how the run
/// stands. Then the answer is what main knows, since a client expects an answer at once.
pub(crate) const STATUS_LOOK: Duration = Duration::from_millis(4);

/// How long an interrupted run may go on before it counts as stuck. An update that takes longer is
/// not waited for.
pub(crate) const INTERRUPT_GRACE: Duration = Duration::from_secs(2);

/// How long the news of the end of a process may take after its link or its control line has broken.
/// The system closes the files of a process some time before it reports the end.
pub(crate) const END_NEWS_LIMIT: Duration = Duration::from_secs(1);

/// How long a killed process may take to become reapable. It takes longer only if the system itself
/// is stuck with the process.
pub(crate) const REAP_LIMIT: Duration = Duration::from_secs(2);

/// How long to wait for the thread that passes on what children print. It may be stuck for ever if
/// what this process prints is not read.
pub(crate) const OUTPUT_LIMIT: Duration = Duration::from_secs(1);

/// How long a child without a link may take to end with a code that says why. Destructors and
/// handlers of the program run meanwhile, and one of them may wait for ever.
pub(crate) const CHILD_END_LIMIT: Duration = Duration::from_millis(500);

/// How long `Drop` of `MpMain` gives the clusters to end. They tear their agents down meanwhile.
pub(crate) const DROP_GRACE: Duration = Duration::from_secs(2);

/// How long `Drop` of `MpMain` gives the clusters during a panic. The user waits for the text of the
/// error then, not for teardowns.
pub(crate) const PANIC_DROP_GRACE: Duration = Duration::from_millis(500);

/// How long the last answers may take to leave the control socket when the simulation ends, less
/// than a second. A client that does not read must not hold up the program.
pub(crate) const FAREWELL: Duration = Duration::from_millis(500);

/// When the first line of progress is due; the next ones are due after twice as long each. A shorter
/// run needs no line.
pub(crate) const FIRST_PROGRESS: Duration = Duration::from_secs(2);

/// The longest time between two lines of progress. A user who looks sees a recent line.
pub(crate) const LONGEST_PROGRESS: Duration = Duration::from_mins(1);
