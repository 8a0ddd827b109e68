//! Ctrl-C: what signals of the system do to the simulations that asked for it.
//!
//! ```text
//! SIGINT, SIGTERM, SIGHUP ──► a thread of this process ──► ControlQueue of every simulation ──► stop, then kill
//!                                                     └──► none has a use for it: the default, which ends this process
//! ```
//!
//! Children never see these signals: each is in a process group of its own, and the terminal's
//! reach main alone.
//!
//! The thread, once there, stays for good, since signals belong to the process and not to a
//! simulation. Nothing is done in a signal handler but what signal-hook does there: it writes to a
//! pipe.

use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::thread;

use maslite_core::internal::LockEvenPoisoned;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

use crate::steering::control_queue::ControlQueue;

/// The simulations that signals are for. None until one has asked for it.
static SIMULATIONS: Mutex<Option<Vec<Weak<ControlQueue>>>> = Mutex::new(None);

/// Has signals stop a simulation, and starts to listen for them if no simulation did before.
pub(crate) fn stop_on_signals(control_queue: &Arc<ControlQueue>) -> io::Result<()> {
    let mut simulations = lock();
    let known = match &mut *simulations {
        Some(known) => known,
        none => {
            listen()?;
            none.insert(Vec::new())
        }
    };
    known.retain(|known| known.strong_count() > 0);
    if !known
        .iter()
        .any(|known| known.as_ptr() == Arc::as_ptr(control_queue))
    {
        known.push(Arc::downgrade(control_queue));
    }
    Ok(())
}

fn lock() -> std::sync::MutexGuard<'static, Option<Vec<Weak<ControlQueue>>>> {
    SIMULATIONS.lock_even_poisoned()
}

/// Starts the thread that waits for signals.
fn listen() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let is_in = |mask: &str, signal: i32| bits_of(&status, mask) >> (signal - 1) & 1 == 1;
    if [SIGINT, SIGTERM]
        .iter()
        .any(|signal| is_in("SigCgt:", *signal))
    {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "this program handles SIGINT or SIGTERM itself",
        ));
    }
    // SIGHUP is left to a program that handles it: it may mean something else there.
    let heard = [SIGINT, SIGTERM, SIGHUP].into_iter();
    let heard = heard.filter(|signal| !is_in("SigIgn:", *signal) && !is_in("SigCgt:", *signal));
    let mut signals = Signals::new(heard)?;
    thread::Builder::new()
        .name("maslite-signals".to_owned())
        .spawn(move || signals.forever().for_each(pass_on))?;
    Ok(())
}

/// A mask of signals as Linux shows it; none elsewhere.
fn bits_of(status: &str, mask: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(mask));
    line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0)
}

/// Hands a signal to all simulations, and to the system if none has a use for it.
fn pass_on(signal: i32) {
    let mut used = false;
    for simulation in lock().iter().flatten() {
        used |= simulation
            .upgrade()
            .is_some_and(|control_queue| control_queue.on_signal());
    }
    if !used {
        // Returns only from signals that do not end a process, which these do.
        let _ = emulate_default_handler(signal);
    }
}
