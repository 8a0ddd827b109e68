//! Processes as the system sees them: who is left, who gets which signal.

use std::fs;
use std::process::id;
use std::sync::mpsc;
use std::time::Duration;

use maslite_mp::clock::wall;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// Sends a signal, if the process is still there.
pub(crate) fn send(signal: Signal, pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Whether there is such a process, be it as a zombie.
pub(crate) fn exists(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(false)
}

/// All children of this process, adopted ones among them.
pub(crate) fn children() -> Vec<u32> {
    children_of(id())
}

/// All children of a process.
pub(crate) fn children_of(process: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent(*pid) == Some(process)).collect()
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have anything in it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Reaps all children, waiting for their ends, and returns how long that took. Kills those that are
/// left after `limit`, and says how many.
pub(crate) fn reap_all(limit: Duration) -> (Duration, usize) {
    let begin = wall();
    let (done, over) = mpsc::channel::<()>();
    let killer = std::thread::spawn(move || match over.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => {
            let left = children();
            left.iter().for_each(|pid| send(Signal::KILL, *pid));
            left.len()
        }
        _ => 0,
    });
    while waitid(WaitId::All, WaitIdOptions::EXITED).is_ok() {}
    let took = wall().duration_since(begin);
    drop(done);
    (took, killer.join().unwrap_or(0))
}

/// Lets time pass.
pub(crate) fn pause(time: Duration) {
    let (_keep, nothing) = mpsc::channel::<()>();
    let _ = nothing.recv_timeout(time);
}

/// The files that this process has open.
pub(crate) fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The entries of the directory for temporary files, which is this program's own.
pub(crate) fn temporary_files() -> usize {
    fs::read_dir(std::env::temp_dir()).map_or(0, Iterator::count)
}

/// The memory of this process that is in use [kB].
pub(crate) fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
