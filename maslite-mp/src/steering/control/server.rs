//! The thread that listens at a control socket.
//!
//! ```text
//! clients ── lines ──► one thread, in `poll` ──► at once: status, resume, stop
//!         ◄── lines ──      ▲      └──► the control queue, for all other requests: the run serves it
//!                           └────────────── its answer, and a byte in a pipe
//! ```
//!
//! - It blocks until something happens: a request, an answer, the end.
//! - There are at most [`CLIENTS`]; one more takes the place of the client that has been silent the
//!   longest. So clients that say nothing, and clients that wait for ever, keep no other client
//!   out.
//! - At most [`AT_WORK`] clients wait for the run; one more is refused, unless it asks for a pause,
//!   which ends the wait of all who wait for one. The request of a client that has left does not
//!   count.
//! - A client's next request is read when it has taken the answer to the last one. Who takes none
//!   holds up itself.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::access::is_this_user;
use super::place::Claim;
use super::protocol::{self, REQUEST_LIMIT, Reply, Request};
use super::{Asker, Making};
use crate::links::guarded;
use crate::settings::timing::FAREWELL;

/// How many clients there are at a time.
const CLIENTS: usize = 64;

/// How many requests wait for the run at a time.
const AT_WORK: usize = 8;

/// Has a request done, and answered in time.
pub(crate) type Begin = Box<dyn Fn(Request, Asker) + Send>;

/// An open control socket. When it is dropped no client can ask any more, and its file is gone.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    path: PathBuf,
    /// The right to the path.
    claim: Option<Claim>,
    over: Arc<AtomicBool>,
    bell: Arc<PipeWriter>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected by the end of the thread.
    done: Receiver<()>,
}

impl ControlSocket {
    /// Listens at a path, whose directory is this user's alone.
    pub(crate) fn open(path: PathBuf, begin: Begin) -> io::Result<Self> {
        // From here on it removes what is left if something fails.
        let claim = Claim::take(&path)?.ok_or(ErrorKind::AddrInUse)?;
        let listener = UnixListener::bind(&path)?;
        let (wake, bell) = prepare(&listener, &path)?;
        let (bell, over) = (Arc::new(bell), Arc::new(AtomicBool::new(false)));
        let (results, answers) = mpsc::channel();
        let (working, done) = mpsc::channel();
        let server = Server {
            listener,
            is_deaf: false,
            wake,
            bell: Arc::clone(&bell),
            over: Arc::clone(&over),
            begin,
            results,
            answers,
            clients: BTreeMap::new(),
            heard: 0,
            next_key: 0,
        };
        let thread = thread::Builder::new()
            .name("maslite-control".to_owned())
            .spawn(move || {
                let _working: Sender<()> = working;
                server.run();
            })?;
        Ok(Self {
            path,
            claim: Some(claim),
            over,
            bell,
            thread: Some(thread),
            done,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

fn prepare(listener: &UnixListener, path: &Path) -> io::Result<(PipeReader, PipeWriter)> {
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let (wake, bell) = io::pipe()?;
    rustix::io::ioctl_fionbio(&wake, true)?;
    Ok((wake, bell))
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // No further client connects.
        self.claim = None;
        self.over.store(true, Ordering::SeqCst);
        let _ = (&*self.bell).write_all(&[0]);
        // A thread that a client asked for something may not come back: it ends with the process.
        if self.done.recv_timeout(FAREWELL * 2) != Err(mpsc::RecvTimeoutError::Timeout)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// The state of the thread.
struct Server {
    listener: UnixListener,
    /// No client can connect until another leaves: the process has no descriptors left.
    is_deaf: bool,
    wake: PipeReader,
    bell: Arc<PipeWriter>,
    over: Arc<AtomicBool>,
    begin: Begin,
    results: Sender<(u64, Making)>,
    answers: Receiver<(u64, Making)>,
    clients: BTreeMap<u64, Client>,
    /// Counts what was heard, so that the silent can be told.
    heard: u64,
    next_key: u64,
}

/// A client that has connected.
struct Client {
    socket: UnixStream,
    /// What has come and is no whole line yet, or waits until the answer before it is taken.
    arrived: Vec<u8>,
    /// What is still to be sent.
    leaving: Vec<u8>,
    /// Its request waits for the run.
    waits: bool,
    /// Told to those who have the request once it has left.
    gone: Arc<AtomicBool>,
    /// When it was heard last.
    heard: u64,
    /// Nothing more is read of it.
    is_done: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::Relaxed);
    }
}

impl Client {
    /// What to wait for: room while there is something to send, otherwise a request.
    fn interest(&self) -> PollFlags {
        if !self.leaving.is_empty() {
            PollFlags::OUT
        } else if self.waits {
            PollFlags::empty()
        } else {
            PollFlags::IN
        }
    }

    /// Sends what there is to send, as far as there is room. False if it is gone.
    fn flush(&mut self) -> bool {
        while !self.leaving.is_empty() {
            match self.socket.write(&self.leaving) {
                Ok(0) => return false,
                Ok(sent) => drop(self.leaving.drain(..sent)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        !self.is_done
    }

    /// Takes in what has come. False if it is gone.
    fn take_in(&mut self) -> bool {
        let mut bytes = [0; REQUEST_LIMIT];
        match self.socket.read(&mut bytes) {
            Ok(0) => false,
            Ok(length) => {
                self.arrived.extend_from_slice(&bytes[..length]);
                true
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }

    /// The next request, if it is there whole.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let end = self.arrived.iter().position(|byte| *byte == b'\n')?;
        Some(self.arrived.drain(..=end).collect())
    }

    fn reply(&mut self, reply: Reply) {
        self.leaving.extend_from_slice(&protocol::write(reply));
    }

    /// Says why, and then goodbye.
    fn send_away(&mut self, message: String) {
        self.reply(Reply::Refused { message });
        self.is_done = true;
    }
}

impl Server {
    fn run(mut self) {
        while !self.over.load(Ordering::SeqCst) {
            if self.wait(None).is_err() {
                return;
            }
        }
        // Requests that wait are answered by now, with the reason of the end.
        let limit = crate::links::transport::now() + FAREWELL;
        while self
            .clients
            .values()
            .any(|it| it.waits || !it.leaving.is_empty())
        {
            let rest = limit.saturating_duration_since(crate::links::transport::now());
            if rest.is_zero() || self.wait(Some(rest)).is_err() {
                return;
            }
        }
    }

    /// Waits until something happens, and sees to it.
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(limit.min(FAREWELL).subsec_nanos()),
        });
        let is_over = self.over.load(Ordering::SeqCst);
        let listens = if self.is_deaf || is_over {
            PollFlags::empty()
        } else {
            PollFlags::IN
        };
        let mut ends = vec![
            PollFd::new(&self.wake, PollFlags::IN),
            PollFd::new(&self.listener, listens),
        ];
        let clients = self.clients.values();
        ends.extend(clients.map(|it| PollFd::from_borrowed_fd(it.socket.as_fd(), it.interest())));
        match poll(&mut ends, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<PollFlags> = ends.iter().map(PollFd::revents).collect();
        let keys: Vec<u64> = self.clients.keys().copied().collect();
        for (key, ready) in keys.into_iter().zip(&ready[2..]) {
            if !ready.is_empty() {
                self.serve(key, *ready);
            }
        }
        if !ready[0].is_empty() {
            self.take_answers();
        }
        if ready[1].contains(PollFlags::IN) && !is_over {
            self.let_in();
        }
        Ok(())
    }

    /// Accepts a client.
    fn let_in(&mut self) {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) => {
                    match error.kind() {
                        ErrorKind::WouldBlock => {}
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted => continue,
                        // Another client has to leave first.
                        _ => self.is_deaf = !self.send_off_the_silent(),
                    }
                    return;
                }
            };
            if !is_this_user(&socket) || socket.set_nonblocking(true).is_err() {
                continue;
            }
            if self.clients.len() >= CLIENTS && !self.send_off_the_silent() {
                continue;
            }
            self.heard += 1;
            self.clients.insert(
                self.next_key,
                Client {
                    socket,
                    arrived: Vec::new(),
                    leaving: Vec::new(),
                    waits: false,
                    gone: Arc::default(),
                    heard: self.heard,
                    is_done: false,
                },
            );
            self.next_key += 1;
        }
    }

    /// Makes room: sends off the client that has been silent the longest; if all wait for the run,
    /// the client that has waited the longest. False if there is no client.
    fn send_off_the_silent(&mut self) -> bool {
        let silent = self
            .clients
            .iter()
            .min_by_key(|(_, it)| (it.waits, it.heard));
        let Some(key) = silent.map(|(key, _)| *key) else {
            return false;
        };
        self.leave(key);
        true
    }

    fn leave(&mut self, key: u64) {
        self.clients.remove(&key);
        self.is_deaf = false;
    }

    /// Serves a client whose socket has an event.
    fn serve(&mut self, key: u64, ready: PollFlags) {
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        self.heard += 1;
        client.heard = self.heard;
        let is_there = if client.waits {
            // Nothing was asked of `poll` but whether it has gone.
            false
        } else if client.leaving.is_empty() && ready.contains(PollFlags::IN) {
            client.take_in()
        } else {
            !client.leaving.is_empty() && client.flush()
        };
        if is_there {
            self.hear(key);
        } else {
            self.leave(key);
        }
    }

    /// Does what a client has asked for, as long as it takes the answers.
    fn hear(&mut self, key: u64) {
        while let Some(client) = self.clients.get_mut(&key)
            && client.leaving.is_empty()
            && !client.waits
        {
            let Some(line) = client.next_line() else {
                if client.arrived.len() < REQUEST_LIMIT {
                    return;
                }
                client.send_away(format!("a request is at most {REQUEST_LIMIT} bytes long"));
                if !client.flush() {
                    self.leave(key);
                }
                return;
            };
            match protocol::read(&line) {
                Err(message) => client.reply(Reply::Refused { message }),
                Ok(request) => self.set_to_work(key, request),
            }
            if let Some(client) = self.clients.get_mut(&key)
                && !client.flush()
            {
                self.leave(key);
            }
        }
    }

    /// Has the run do it, unless too many wait for it.
    fn set_to_work(&mut self, key: u64, request: Request) {
        let is_bounded = !matches!(
            request,
            Request::Status | Request::Resume | Request::Stop | Request::Pause
        );
        let at_work = self.clients.values().filter(|it| it.waits).count();
        let Some(client) = self.clients.get_mut(&key) else {
            return;
        };
        if is_bounded && at_work >= AT_WORK {
            let message = format!("{AT_WORK} requests wait already: ask later");
            return client.reply(Reply::Refused { message });
        }
        client.waits = true;
        let (results, bell) = (self.results.clone(), Arc::clone(&self.bell));
        let asker = Asker {
            gone: Arc::clone(&client.gone),
            take: Box::new(move |making| {
                // This may be the thread of the run: it only leaves the answer here.
                let _ = results.send((key, making));
                let _ = (&*bell).write_all(&[0]);
            }),
        };
        if let Err(panic) = guarded::catch(|| (self.begin)(request, asker)) {
            let message = format!("the program panicked over it: {panic}");
            self.answer(key, Reply::Refused { message });
        }
    }

    /// Hands a client its answer.
    fn answer(&mut self, key: u64, reply: Reply) {
        // It may have left meanwhile.
        if let Some(client) = self.clients.get_mut(&key) {
            client.waits = false;
            client.reply(reply);
        }
    }

    /// Passes on the answers of the run.
    fn take_answers(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.wake.read(&mut bytes), Ok(1..)) {}
        while let Ok((key, make)) = self.answers.try_recv() {
            if !self.clients.contains_key(&key) {
                // It has left meanwhile.
                continue;
            }
            let reply = guarded::catch(make).unwrap_or_else(|panic| Reply::Refused {
                message: format!("the program panicked over it: {panic}"),
            });
            self.answer(key, reply);
            if self.clients.get_mut(&key).is_some_and(Client::flush) {
                self.hear(key);
            } else {
                self.leave(key);
            }
        }
    }
}
