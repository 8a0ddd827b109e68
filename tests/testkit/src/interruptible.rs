//! Programs that signals can end, whoever started this one.

use std::ffi::OsStr;
use std::process::Command;

/// SIGINT and SIGTERM, as bits of a mask of signals.
const INT_AND_TERM: u64 = 1 << (2 - 1) | 1 << (15 - 1);

/// A program that SIGINT and SIGTERM do what they do by default. `nohup`, and `&` in scripts, start
/// programs that ignore SIGINT, and what those start ignores it as well.
pub fn interruptible(program: impl AsRef<OsStr>) -> Command {
    if !ignores_signals() {
        return Command::new(program);
    }
    let mut command = Command::new("env");
    command.arg("--default-signal=INT,TERM").arg(program);
    command
}

/// Whether this process ignores one of them; known on Linux only.
fn ignores_signals() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.unwrap_or(0) & INT_AND_TERM != 0
}
