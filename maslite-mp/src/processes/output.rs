//! What child processes print: read at all times, passed on in whole lines, and the end of it kept
//! for the post-mortem.
//!
//! ```text
//! child 1 ─ stdout, stderr ──┐              ┌──► main's stdout, stderr: `[north] a line`
//! child 2 ─ stdout, stderr ──┼── pump ──────┼──► records of `tracing`, through main's subscriber
//! supervisor ── requests ────┘   (a thread) └──► the last 64 KiB of each stderr
//! ```
//!
//! - One thread reads the streams of all children. It blocks in `poll` until one of them has
//!   something, and takes at most a buffer of each in turn, so none starves the others, and a child
//!   that floods is slowed down by its own full pipe.
//! - It writes whole lines, each at once, past the lock of [`std::io::stdout`]: a program may hold
//!   that during a run, and children that cannot print would come to a halt.
//! - What a child printed before its end is passed on before its end is reported, and what it
//!   printed in a run before that run returns.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::links::transport::now;
use crate::processes::logs::{Log, RECORD, Recorder};
use crate::processes::printed::{Printed, StreamKind};
use crate::processes::supervision::Watch;
use crate::settings::timing::OUTPUT_LIMIT;

/// What becomes of what child processes print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// It is passed on to this process's stdout and stderr line by line, each line with its
    /// cluster's name before it: `[north] …`. Lines stay whole; one of more than 64 KiB comes in
    /// pieces, whose second and further ones begin with `[north]+`.
    #[default]
    Prefixed,
    /// The children have this process's stdout and stderr. Lines of different clusters may mix, an
    /// error does not know what a child said last, and what children record with `tracing` does not
    /// arrive.
    Inherit,
    /// It is not shown. Errors still know what a child said last, and what children record with
    /// `tracing` arrives.
    Null,
}

/// How much of a stderr is kept \[bytes\].
const TAIL: usize = 64 * 1024;

/// The longest line that is passed on in one piece, and how much is read at once \[bytes\].
const LINE: usize = 64 * 1024;

/// The longest record \[bytes\]; those that are made are shorter.
const RECORD_LIMIT: usize = 4 * 1024 * 1024;

/// How much is read at most of a stream whose child has ended \[bytes\]. A pipe holds less, unless
/// others still write.
const REST: usize = 4 * 1024 * 1024;

/// Takes what is passed on: whole lines with their newlines.
pub(crate) type Sink = Box<dyn FnMut(StreamKind, &[u8]) + Send>;

/// The thread that reads what children print.
#[derive(Debug)]
pub(crate) struct Pump {
    line: Line,
    next_key: u64,
    thread: Option<JoinHandle<()>>,
    /// Disconnected by the end of the thread.
    done: Receiver<()>,
}

/// A line to that thread.
#[derive(Clone, Debug)]
struct Line {
    requests: Sender<PumpRequest>,
    /// A byte in it wakes the thread.
    bell: Arc<PipeWriter>,
}

impl Line {
    fn send(&self, request: PumpRequest) {
        if self.requests.send(request).is_ok() {
            // A thread that is gone needs no waking.
            let _ = (&*self.bell).write_all(&[0]);
        }
    }
}

enum PumpRequest {
    Attach(Attach),
    /// Pass on what there is of all children.
    Settle(Sender<()>),
    /// Tell how much this one has printed so far.
    Count(u64, Sender<Printed>),
    /// Pass on what there is of this one, and tell what it said. Its cluster gets another process,
    /// or not.
    Close(u64, bool, Sender<Said>),
}

struct Attach {
    key: u64,
    name: Arc<str>,
    streams: Vec<(StreamKind, OwnedFd)>,
    shown: bool,
    recorder: Option<Recorder>,
    returning: Option<Printed>,
}

/// What a child has said.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// The end of its stderr.
    tail: Vec<u8>,
    printed: Printed,
}

/// The output of one child. When it is dropped, nothing more of it is read.
#[derive(Debug)]
pub(crate) struct Outlet {
    line: Line,
    key: u64,
}

impl Outlet {
    /// Asks for all that the child, which has ended, has printed to be passed on, and for the end
    /// of its stderr.
    pub(crate) fn close(&self) -> Closing {
        self.close_for(false)
    }

    /// How much the child has printed so far; nothing, if that is not known by then.
    pub(crate) fn printed(&self, until: Option<Instant>) -> Printed {
        let (reply, printed) = mpsc::channel();
        self.line.send(PumpRequest::Count(self.key, reply));
        let limit = until.map_or(OUTPUT_LIMIT, |until| until.saturating_duration_since(now()));
        printed.recv_timeout(limit).unwrap_or_default()
    }

    /// The same of a child whose cluster gets another process, which will say the line again that
    /// this one has begun.
    pub(crate) fn close_for_another(&self) -> Closing {
        self.close_for(true)
    }

    fn close_for(&self, another: bool) -> Closing {
        let (reply, said) = mpsc::channel();
        self.line.send(PumpRequest::Close(self.key, another, reply));
        Closing(said)
    }
}

/// What a child has said, which is on its way.
#[derive(Debug)]
pub(crate) struct Closing(Receiver<Said>);

impl Closing {
    /// Waits for it, but not for longer than until `until`.
    pub(crate) fn wait(self, until: Option<Instant>) -> String {
        self.wait_for_all(until).0
    }

    /// The same, and how much it has printed.
    pub(crate) fn wait_for_all(self, until: Option<Instant>) -> (String, Printed) {
        let limit = until.map_or(OUTPUT_LIMIT, |until| until.saturating_duration_since(now()));
        let Said { tail, printed } = self.0.recv_timeout(limit).unwrap_or_default();
        (String::from_utf8_lossy(&tail).into_owned(), printed)
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let (reply, _) = mpsc::channel();
        self.line.send(PumpRequest::Close(self.key, false, reply));
    }
}

impl Pump {
    /// Starts the thread; it writes to this process's stdout and stderr.
    pub(crate) fn start() -> io::Result<Self> {
        Self::start_into(Box::new(print))
    }

    pub(crate) fn start_into(sink: Sink) -> io::Result<Self> {
        let (requests, receiver) = mpsc::channel();
        let (wake, bell) = io::pipe()?;
        let (working, done) = mpsc::channel();
        unblock(&wake)?;
        let thread = thread::Builder::new()
            .name("maslite-output".to_owned())
            .spawn(move || {
                let _working: Sender<()> = working;
                Reader {
                    requests: receiver,
                    wake,
                    streams: Vec::new(),
                    children: BTreeMap::new(),
                    sink,
                    buffer: vec![0; LINE],
                }
                .run();
            })?;
        let bell = Arc::new(bell);
        Ok(Self {
            line: Line { requests, bell },
            next_key: 0,
            thread: Some(thread),
            done,
        })
    }

    /// Reads the streams of a child from now on. `shown`: whether lines are passed on. `returning`:
    /// it may be followed by another, and what those before it have printed is not passed on again.
    pub(crate) fn attach(
        &mut self,
        name: &str,
        streams: Vec<(StreamKind, OwnedFd)>,
        shown: bool,
        recorder: Option<Recorder>,
        returning: Option<Printed>,
    ) -> io::Result<Outlet> {
        for (_, stream) in &streams {
            unblock(stream)?;
        }
        let key = self.next_key;
        self.next_key += 1;
        self.line.send(PumpRequest::Attach(Attach {
            key,
            name: name.into(),
            streams,
            shown,
            recorder,
            returning,
        }));
        let line = self.line.clone();
        Ok(Outlet { line, key })
    }

    /// Passes on all that children have printed so far.
    pub(crate) fn settle(&self) {
        let (reply, settled) = mpsc::channel();
        self.line.send(PumpRequest::Settle(reply));
        let _ = settled.recv_timeout(OUTPUT_LIMIT);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        // The thread ends when its channel of requests is closed.
        let (requests, _) = mpsc::channel();
        self.line.requests = requests;
        let _ = (&*self.line.bell).write_all(&[0]);
        if self.done.recv_timeout(OUTPUT_LIMIT) != Err(mpsc::RecvTimeoutError::Timeout)
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

/// Connects stdout and stderr of the child to be, as `output` says. `quiet`: its stdout goes
/// nowhere in any case.
pub(crate) fn connect(
    command: &mut Command,
    watch: &mut Watch,
    (cluster, name): (u32, &str),
    output: Output,
    log: &Log,
    quiet: bool,
) -> io::Result<Option<Outlet>> {
    if quiet || output == Output::Null {
        command.stdout(Stdio::null());
    }
    if output == Output::Inherit {
        return Ok(None);
    }
    log.tell(command);
    let mut streams = Vec::new();
    if !quiet && output == Output::Prefixed {
        let (ours, theirs) = io::pipe()?;
        command.stdout(theirs);
        streams.push((StreamKind::Out, ours.into()));
    }
    let (ours, theirs) = io::pipe()?;
    command.stderr(theirs);
    streams.push((StreamKind::Err, ours.into()));
    let shown = output == Output::Prefixed;
    let returning = watch.printed_by(cluster);
    watch
        .pump()?
        .attach(name, streams, shown, log.recorder(), returning)
        .map(Some)
}

/// Makes reads of our end return at once; the child's end stays as it is.
fn unblock(end: &impl AsFd) -> io::Result<()> {
    fcntl_setfl(end, fcntl_getfl(end)? | OFlags::NONBLOCK)?;
    Ok(())
}

/// Writes to this process's stdout or stderr; what it cannot write is lost.
fn print(kind: StreamKind, mut bytes: &[u8]) {
    let to = match kind {
        StreamKind::Out => rustix::stdio::stdout(),
        StreamKind::Err => rustix::stdio::stderr(),
    };
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&to, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}

/// The state of the thread.
struct Reader {
    requests: Receiver<PumpRequest>,
    wake: PipeReader,
    streams: Vec<Stream>,
    children: BTreeMap<u64, Child>,
    sink: Sink,
    buffer: Vec<u8>,
}

/// A child's stdout or stderr.
struct Stream {
    child: u64,
    kind: StreamKind,
    from: OwnedFd,
    /// Of a line that is not over.
    text: Vec<u8>,
    /// The text continues a line, of which a piece has been passed on.
    continues: bool,
    /// Of a record that is not over.
    record: Option<Vec<u8>>,
}

struct Child {
    name: Arc<str>,
    shown: bool,
    recorder: Option<Recorder>,
    tail: VecDeque<u8>,
    /// Its cluster may get another process after it.
    returns: bool,
    /// What the processes before it have printed, as far as it has not done so yet itself.
    skip: Printed,
    printed: Printed,
    /// Lines that it began and did not end, where it may be followed by another.
    begun: Vec<(StreamKind, Vec<u8>, bool)>,
}

impl Reader {
    fn run(mut self) {
        loop {
            let mut ends = vec![PollFd::new(&self.wake, PollFlags::IN)];
            ends.extend(
                self.streams
                    .iter()
                    .map(|stream| PollFd::new(&stream.from, PollFlags::IN)),
            );
            match poll(&mut ends, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = ends.iter().map(|end| !end.revents().is_empty()).collect();
            let mut streams = mem::take(&mut self.streams);
            let mut place = 0;
            streams.retain_mut(|stream| {
                place += 1;
                !ready[place] || self.read(stream)
            });
            self.streams = streams;
            if ready[0] && !self.obey() {
                return;
            }
        }
    }

    /// Serves the requests. False if no further request can come.
    fn obey(&mut self) -> bool {
        // Bytes first: a later request rings again.
        while rustix::io::read(&self.wake, &mut self.buffer).is_ok_and(|read| read > 0) {}
        loop {
            match self.requests.try_recv() {
                Ok(PumpRequest::Attach(attach)) => self.attach(attach),
                Ok(PumpRequest::Settle(reply)) => {
                    self.drain(None);
                    let _ = reply.send(());
                }
                Ok(PumpRequest::Count(key, reply)) => {
                    self.drain(Some(key));
                    let child = self.children.get(&key);
                    let _ = reply.send(child.map(|child| child.printed).unwrap_or_default());
                }
                Ok(PumpRequest::Close(key, another, reply)) => {
                    self.drain(Some(key));
                    let mut streams = mem::take(&mut self.streams);
                    streams.retain_mut(|stream| {
                        let closed = stream.child == key;
                        if closed {
                            self.end(stream);
                        }
                        !closed
                    });
                    self.streams = streams;
                    let said = self.children.remove(&key).map(|mut child| {
                        for (kind, mut text, mut continues) in mem::take(&mut child.begun) {
                            if !another {
                                let mut lines = Lines::new(kind, &mut child, &mut self.sink);
                                lines.line(&mut text, &mut continues);
                                lines.flush();
                            }
                        }
                        Said {
                            tail: child.tail.into(),
                            printed: child.printed,
                        }
                    });
                    let _ = reply.send(said.unwrap_or_default());
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn attach(&mut self, attach: Attach) {
        let child = Child {
            name: attach.name,
            shown: attach.shown,
            recorder: attach.recorder,
            tail: VecDeque::new(),
            returns: attach.returning.is_some(),
            skip: attach.returning.unwrap_or_default(),
            printed: Printed::default(),
            begun: Vec::new(),
        };
        self.children.insert(attach.key, child);
        for (kind, from) in attach.streams {
            self.streams.push(Stream {
                child: attach.key,
                kind,
                from,
                text: Vec::new(),
                continues: false,
                record: None,
            });
        }
    }

    /// Reads what there is of one child or of all, as far as it was written before.
    fn drain(&mut self, child: Option<u64>) {
        let mut streams = mem::take(&mut self.streams);
        streams.retain_mut(|stream| {
            if child.is_some_and(|child| child != stream.child) {
                return true;
            }
            let mut left = REST;
            loop {
                let before = left;
                if !self.read_counting(stream, &mut left) {
                    return false;
                }
                if left == before || left == 0 {
                    return true;
                }
            }
        });
        self.streams = streams;
    }

    /// Reads once. False if the stream is over.
    fn read(&mut self, stream: &mut Stream) -> bool {
        let mut left = REST;
        self.read_counting(stream, &mut left)
    }

    fn read_counting(&mut self, stream: &mut Stream, left: &mut usize) -> bool {
        match rustix::io::read(&stream.from, &mut self.buffer) {
            Err(Errno::AGAIN | Errno::INTR) => true,
            Ok(0) | Err(_) => {
                self.end(stream);
                false
            }
            Ok(read) => {
                *left = left.saturating_sub(read);
                if let Some(child) = self.children.get_mut(&stream.child) {
                    let mut lines = Lines::new(stream.kind, child, &mut self.sink);
                    lines.feed(stream, &self.buffer[..read]);
                    lines.flush();
                }
                true
            }
        }
    }

    /// Passes on a last line without a newline.
    fn end(&mut self, stream: &mut Stream) {
        if let Some(child) = self.children.get_mut(&stream.child) {
            let mut lines = Lines::new(stream.kind, child, &mut self.sink);
            if let Some(record) = stream.record.take() {
                lines.not_a_record(stream, &record);
            }
            if !stream.text.is_empty() {
                if lines.child.returns {
                    let text = mem::take(&mut stream.text);
                    lines
                        .child
                        .begun
                        .push((stream.kind, text, stream.continues));
                } else {
                    lines.line(&mut stream.text, &mut stream.continues);
                }
            }
            lines.flush();
        }
    }
}

/// Cuts what was read of one stream into lines, and gathers them, so that they are written at once.
struct Lines<'a> {
    kind: StreamKind,
    child: &'a mut Child,
    sink: &'a mut Sink,
    gathered: Vec<u8>,
}

impl<'a> Lines<'a> {
    fn new(kind: StreamKind, child: &'a mut Child, sink: &'a mut Sink) -> Self {
        let gathered = Vec::new();
        Self {
            kind,
            child,
            sink,
            gathered,
        }
    }

    fn feed(&mut self, stream: &mut Stream, mut bytes: &[u8]) {
        let records = stream.kind == StreamKind::Err && self.child.recorder.is_some();
        while !bytes.is_empty() {
            if let Some(mut record) = stream.record.take() {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let (more, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                record.extend_from_slice(more);
                bytes = rest.get(1..).unwrap_or_default();
                if end.is_some() {
                    if !self.record(&record) {
                        self.not_a_record(stream, &record);
                        self.text(stream, b"\n");
                    }
                } else if record.len() > RECORD_LIMIT {
                    self.not_a_record(stream, &record);
                } else {
                    stream.record = Some(record);
                }
                continue;
            }
            let end = bytes
                .iter()
                .position(|byte| *byte == b'\n' || (records && *byte == RECORD));
            match end {
                Some(end) if bytes[end] == RECORD => {
                    self.text(stream, &bytes[..end]);
                    stream.record = Some(Vec::new());
                    bytes = &bytes[end + 1..];
                }
                Some(end) => {
                    self.text(stream, &bytes[..=end]);
                    bytes = &bytes[end + 1..];
                }
                None => {
                    self.text(stream, bytes);
                    bytes = &[];
                }
            }
        }
    }

    /// Takes text of at most one line.
    fn text(&mut self, stream: &mut Stream, mut text: &[u8]) {
        if stream.kind == StreamKind::Err {
            let tail = &mut self.child.tail;
            tail.extend(text);
            tail.drain(..tail.len().saturating_sub(TAIL));
        }
        if !self.child.shown {
            return;
        }
        while !text.is_empty() {
            let (piece, rest) = text.split_at(text.len().min(LINE - stream.text.len()));
            stream.text.extend_from_slice(piece);
            text = rest;
            if piece.ends_with(b"\n") || stream.text.len() == LINE {
                self.line(&mut stream.text, &mut stream.continues);
            }
        }
    }

    /// Passes on what there is of a line, unless a process before this one has printed the line.
    fn line(&mut self, text: &mut Vec<u8>, goes_on: &mut bool) {
        let whole = text.ends_with(b"\n");
        let continues = mem::replace(goes_on, !whole);
        let Child { printed, skip, .. } = &mut *self.child;
        let is_known = skip.has(self.kind);
        if whole {
            printed.note_line(self.kind, text);
            skip.forget_line(self.kind);
        }
        // The line was as long as a piece, to the byte.
        let is_rest_of_nothing = continues && text == b"\n";
        if !is_known && !is_rest_of_nothing {
            let mark: &[u8] = if continues { b"]+ " } else { b"] " };
            for part in [b"[", self.child.name.as_bytes(), mark, text] {
                self.gathered.extend_from_slice(part);
            }
            if !whole {
                self.gathered.push(b'\n');
            }
        }
        text.clear();
    }

    /// False if it is none.
    fn record(&mut self, record: &[u8]) -> bool {
        // What was printed before it comes first.
        self.flush();
        let Child {
            recorder,
            name,
            printed,
            skip,
            ..
        } = &mut *self.child;
        let is_known = skip.forget_record();
        let is_record = is_known
            || recorder
                .as_mut()
                .is_some_and(|recorder| recorder(name, record));
        printed.note_record(is_record);
        is_record
    }

    /// Takes for text what looked like a record.
    fn not_a_record(&mut self, stream: &mut Stream, record: &[u8]) {
        self.text(stream, &[RECORD]);
        self.text(stream, record);
    }

    fn flush(&mut self) {
        if !self.gathered.is_empty() {
            (self.sink)(self.kind, &self.gathered);
            self.gathered.clear();
        }
    }
}

#[cfg(test)]
mod tests;
