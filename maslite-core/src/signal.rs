//! Lets other threads stop a run, wake it, or time it out.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::wall;
use crate::lock::LockEvenPoisoned;

/// A thread asked the run to end.
pub(crate) const STOP: u32 = Signal::STOP;
/// The wall-clock timeout passed.
pub(crate) const TIMEOUT: u32 = Signal::TIMEOUT;
/// Mail arrived from another thread.
pub(crate) const MAIL: u32 = 4;

/// A set of bits. A run can read them cheaply between two supersteps, and raising one wakes a
/// thread that waits.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicU32,
    lock: Mutex<()>,
    wake: Condvar,
}

impl Signal {
    /// A thread asked the run to end.
    pub const STOP: u32 = 1;
    /// The wall-clock timeout passed.
    pub const TIMEOUT: u32 = 2;
    /// A thread has a request, and the run goes on after it.
    pub const REQUEST: u32 = 8;

    /// Raises bits, and wakes the thread that waits.
    pub fn raise(&self, bits: u32) {
        let guard = self.lock.lock_even_poisoned();
        self.raised.fetch_or(bits, Ordering::Release);
        drop(guard);
        self.wake.notify_all();
    }

    /// Lowers bits.
    pub fn lower(&self, bits: u32) {
        self.raised.fetch_and(!bits, Ordering::AcqRel);
    }

    /// Returns the raised bits.
    #[must_use]
    #[inline]
    pub fn raised(&self) -> u32 {
        self.raised.load(Ordering::Relaxed)
    }

    /// Blocks until a bit is raised, or until the given moment.
    pub(crate) fn wait(&self, until: Option<Instant>) {
        let mut guard = self.lock.lock_even_poisoned();
        while self.raised.load(Ordering::Acquire) == 0 {
            guard = match until.map(|until| until.saturating_duration_since(wall())) {
                Some(Duration::ZERO) => return,
                Some(rest) => {
                    let waited = self.wake.wait_timeout(guard, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .wake
                    .wait(guard)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// Raises a bit after a timeout, unless it is dropped before.
#[derive(Debug)]
pub struct TimeoutTimer {
    off: Arc<Signal>,
    thread: Option<JoinHandle<()>>,
}

impl TimeoutTimer {
    /// Raises [`Signal::TIMEOUT`] when `timeout` has passed.
    #[must_use]
    pub fn start(signal: &Arc<Signal>, timeout: Duration) -> Self {
        let off = Arc::new(Signal::default());
        let (watched, signal) = (Arc::clone(&off), Arc::clone(signal));
        let deadline = wall().checked_add(timeout);
        let thread = std::thread::spawn(move || {
            watched.wait(deadline);
            if watched.raised() == 0 {
                signal.raise(TIMEOUT);
            }
        });
        Self {
            off,
            thread: Some(thread),
        }
    }
}

impl Drop for TimeoutTimer {
    fn drop(&mut self) {
        self.off.raise(STOP);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
