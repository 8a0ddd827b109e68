//! Programs that signals can end, even if this program ignores signals.

use std::ffi::OsStr;
use std::process::Command;

/// SIGINT, SIGTERM and SIGHUP, as bits of a mask of signals.
const MASK: u64 = 1 << (2 - 1) | 1 << (15 - 1) | 1;

/// A program that SIGINT, SIGTERM and SIGHUP do what they do by default. `&` in scripts starts
/// programs that ignore SIGINT, `nohup` those that ignore SIGHUP, and what those start ignores it as
/// well.
pub fn interruptible(program: impl AsRef<OsStr>) -> Command {
    if !ignores_signals() {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM,HUP").arg(program);
    command
}

/// Whether this process ignores one of them; known on Linux only.
fn ignores_signals() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.unwrap_or(0) & MASK != 0
}
