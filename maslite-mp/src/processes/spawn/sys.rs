//! What a child does between `fork` and `exec`: unsafe code, since little may be done there.

use std::io;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::{Command, id};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Has the kernel send the child this signal when the thread that starts it is gone, from before it
/// executes the program. So a child ends with main even if it is stopped before it comes to its
/// `enter`.
pub(super) fn signal_with_end_of_parent(command: &mut Command, signal: Signal) {
    let main = id();
    let ask = move || {
        // Where that is refused, the control line is left, which is enough for all but stopped
        // processes.
        let _ = set_parent_process_death_signal(Some(signal));
        if parent_id() != main {
            // Main was gone before.
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls. It allocates nothing, takes no lock, and touches
    // no memory that other threads of main may have left in the middle of a change.
    unsafe {
        command.pre_exec(ask);
    }
}
