//! Records the place and the backtrace of panics.
//!
//! Unwinding carries neither, so a panic hook keeps both in the thread while agents are called. The
//! hook is set once per process, at the first such call, and passes every panic on to the previous
//! hook.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{
    AssertUnwindSafe, PanicHookInfo, catch_unwind, resume_unwind, set_hook, take_hook,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::panicking;

use crate::lock::LockEvenPoisoned;

/// A caught panic.
pub(crate) struct Panic {
    /// The payload; none once the panic continues.
    payload: Option<Box<dyn Any + Send>>,
    /// File, line and column. None if the program has set its own hook since, or has resumed a
    /// panic that it had caught.
    pub(crate) place: Option<Box<str>>,
    /// The backtrace, if `RUST_BACKTRACE` asks for one.
    pub(crate) backtrace: Option<Box<str>>,
}

impl Panic {
    /// Returns the message of the panic.
    pub(crate) fn message(&self) -> &str {
        self.payload.as_deref().map_or("", message)
    }

    /// Resumes the panic in the caller. Code that catches it there gets the same place and
    /// backtrace.
    pub(crate) fn go_on(mut self) -> ! {
        let seen = Seen {
            message: self.message().to_owned(),
            place: self.place.take(),
            backtrace: self.backtrace.take(),
        };
        SEEN.with_borrow_mut(|outer| {
            if let Some(outer) = outer {
                *outer = seen;
            }
        });
        let payload = self.payload.take();
        resume_unwind(payload.unwrap_or_else(|| Box::new("no message")))
    }
}

impl Drop for Panic {
    fn drop(&mut self) {
        let payload = self.payload.take();
        // The payload is a value of the program: it may panic in its own `Drop`, and so may the
        // payload of that panic.
        if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(another);
        }
    }
}

/// The last panic that the hook saw in this thread.
#[derive(Default)]
struct Seen {
    message: String,
    place: Option<Box<str>>,
    backtrace: Option<Box<str>>,
}

thread_local! {
    /// None while the kernel catches no panics in this thread.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };

    /// Panics are not recorded.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `what`. Panics of this thread in it, which are caught there, are not shown. The program's
/// hook is in its place again afterwards.
pub fn quietly<T>(what: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            QUIET.set(self.0);
        }
    }
    let _restore = Restore(QUIET.replace(true));
    let setting = SETTING.lock_even_poisoned();
    if HOOK.is_completed() || panicking() {
        drop(setting);
        return what();
    }
    let before = Arc::new(take_hook());
    let others = Arc::clone(&before);
    set_hook(Box::new(move |info| {
        if !is_quiet() {
            others(info);
        }
    }));
    let done = catch_unwind(AssertUnwindSafe(what));
    drop(take_hook());
    set_hook(match Arc::try_unwrap(before) {
        Ok(before) => before,
        // Another thread is just showing a panic of its own.
        Err(before) => Box::new(move |info| before(info)),
    });
    drop(setting);
    done.unwrap_or_else(|payload| resume_unwind(payload))
}

fn is_quiet() -> bool {
    QUIET.try_with(Cell::get).unwrap_or(false)
}

/// Held while the hook is replaced.
static SETTING: Mutex<()> = Mutex::new(());

static HOOK: Once = Once::new();

/// Calls `what`; a panic in it is an error.
pub(crate) fn catch<T>(what: impl FnOnce() -> T) -> Result<T, Panic> {
    watch();
    let outer = SEEN.replace(Some(Seen::default()));
    // What a panicking agent leaves half done is never looked at again: the error ends the run.
    let result = catch_unwind(AssertUnwindSafe(what));
    let seen = SEEN.replace(outer).unwrap_or_default();
    result.map_err(|payload| {
        // Else it is about a panic that was caught before.
        let same = seen.message == message(&*payload);
        let seen = if same { seen } else { Seen::default() };
        Panic {
            payload: Some(payload),
            place: seen.place,
            backtrace: seen.backtrace,
        }
    })
}

/// Sets the hook.
fn watch() {
    // A hook cannot be set during a panic; the next call does it.
    if HOOK.is_completed() || panicking() {
        return;
    }
    HOOK.call_once(|| {
        let _setting = SETTING.lock_even_poisoned();
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let _reporting = Reporting::begin();
            see(info);
            if !is_quiet() {
                before(info);
            }
        }));
    });
}

/// How many panics are being reported.
static REPORTED: AtomicUsize = AtomicUsize::new(0);

/// A panic is being reported as long as this is there.
struct Reporting;

impl Reporting {
    fn begin() -> Self {
        REPORTED.fetch_add(1, Ordering::SeqCst);
        Self
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        REPORTED.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Whether a panic is being reported somewhere in this process: to resolve and print a backtrace
/// may take seconds.
#[must_use]
pub fn is_reporting_panic() -> bool {
    REPORTED.load(Ordering::SeqCst) > 0
}

/// Keeps what only the hook knows.
fn see(info: &PanicHookInfo<'_>) {
    // A thread that ends may panic when its variables are gone already.
    let _ = SEEN.try_with(|seen| {
        let Ok(mut seen) = seen.try_borrow_mut() else {
            return;
        };
        if let Some(seen) = &mut *seen {
            let backtrace = Backtrace::capture();
            let captured = backtrace.status() == BacktraceStatus::Captured;
            *seen = Seen {
                message: message(info.payload()).to_owned(),
                place: info.location().map(|place| place.to_string().into()),
                backtrace: captured.then(|| backtrace.to_string().into()),
            };
        }
    });
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use std::env::current_exe;
    use std::panic::{catch_unwind, resume_unwind};
    use std::process::Command;

    use super::*;

    #[test]
    fn a_panic_tells_where_it_was() {
        let line = line!() + 1;
        let panic = catch(|| panic!("out of {}", "paint")).err().unwrap();
        assert_eq!(panic.message(), "out of paint");
        let place = panic.place.as_deref().unwrap();
        assert!(
            place.ends_with(&format!("panics.rs:{line}:30")),
            "{place}, not line {line}"
        );
    }

    #[test]
    #[ignore = "started by the test below, in another environment"]
    fn asked_for() {
        let panic = catch(|| panic!("out of paint")).err().unwrap();
        let backtrace = panic.backtrace.as_deref().unwrap();
        assert!(backtrace.contains("panics::catch"), "{backtrace}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "it starts a process")]
    fn a_backtrace_is_there_if_the_environment_asks_for_it() {
        for (asked, there) in [("1", true), ("0", false)] {
            let output = Command::new(current_exe().unwrap())
                .args(["panics::tests::asked_for", "--exact", "--ignored"])
                .env("RUST_BACKTRACE", asked)
                .output();
            assert_eq!(output.unwrap().status.success(), there);
        }
    }

    #[test]
    fn the_place_of_another_panic_is_not_told() {
        let panic = catch(|| {
            let caught = catch_unwind(|| panic!("caught")).unwrap_err();
            drop(caught);
            resume_unwind(Box::new("another"));
        });
        let panic = panic.err().unwrap();
        assert_eq!(panic.message(), "another");
        assert_eq!(panic.place, None);
    }

    #[test]
    fn a_panic_within_leaves_the_outer_one_its_place() {
        let outer = catch(|| {
            let inner = catch(|| panic!("inner")).err().unwrap();
            assert_eq!(inner.message(), "inner");
            panic!("outer");
        });
        let outer = outer.err().unwrap();
        assert_eq!(outer.message(), "outer");
        assert!(outer.place.is_some());
    }
}
