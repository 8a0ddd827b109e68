//! A program under check: it is started, told how to run, and its traces are read.

use std::ffi::OsString;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;

use maslite_mp::comparison::{CHECK_VARIABLE, CheckSettings};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// What is written into the socket when the program has ended.
const EXITED: &str = "exited\n";

/// This much of what a program has written to stderr is shown \[bytes\].
const TAIL: u64 = 2_000;

/// A folder that only its owner may read, and that is removed at the end.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> io::Result<Self> {
        let name = format!("maslite-check-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A program that runs. It is killed if it is dropped before its end.
pub(crate) struct Running {
    child: Child,
    listener: UnixListener,
    settings: String,
    stderr: PathBuf,
}

impl Running {
    /// Starts a program, and waits for no simulation of it.
    pub(crate) fn start(
        program: &[OsString],
        settings: CheckSettings,
        folder: &Folder,
        name: &str,
    ) -> io::Result<Self> {
        let socket = folder.0.join(name);
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket)?;
        let stderr = folder.0.join(format!("{name}.stderr"));
        let (executable, arguments) = program.split_first().ok_or(io::ErrorKind::NotFound)?;
        let child = Command::new(executable)
            .args(arguments)
            .env(CHECK_VARIABLE, &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&stderr)?)
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        thread::spawn(move || tell_of_end(pid, &socket));
        let settings = serde_json::to_string(&settings)? + "\n";
        Ok(Self {
            child,
            listener,
            settings,
            stderr,
        })
    }

    /// The trace of its next simulation; none if the program has ended.
    pub(crate) fn next_trace(&mut self) -> io::Result<Option<Lines>> {
        let (socket, _) = self.listener.accept()?;
        // A program that has ended reads nothing.
        let _ = (&socket).write_all(self.settings.as_bytes());
        let mut lines = Lines {
            reader: BufReader::with_capacity(1 << 16, socket),
            first: None,
        };
        let first = lines.next()?;
        if first.as_deref() == Some(EXITED.trim_end()) {
            return Ok(None);
        }
        lines.first = first;
        Ok(Some(lines))
    }

    /// Waits for its end. Tells its status, and the end of what it has written to stderr.
    pub(crate) fn end(&mut self) -> io::Result<(ExitStatus, String)> {
        let status = self.child.wait()?;
        Ok((status, tail(&self.stderr).unwrap_or_default()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for the end of a program, and writes into its socket that it has ended. Whatever the
/// program has connected before is accepted before.
fn tell_of_end(pid: Option<Pid>, socket: &Path) {
    if let Some(pid) = pid {
        // It is reaped by who started it.
        let how = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while waitid(WaitId::Pid(pid), how).is_err_and(|why| why == rustix::io::Errno::INTR) {}
    }
    if let Ok(mut socket) = UnixStream::connect(socket) {
        let _ = socket.write_all(EXITED.as_bytes());
    }
}

fn tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// The lines of a trace.
pub(crate) struct Lines {
    reader: BufReader<UnixStream>,
    /// It was read already.
    first: Option<String>,
}

impl Lines {
    /// The next line; none at the end. A line that is cut is none: its program was killed.
    pub(crate) fn next(&mut self) -> io::Result<Option<String>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(_) if line.ends_with('\n') => {
                line.pop();
                Ok(Some(line))
            }
            Ok(_) => Ok(None),
            Err(why) if why.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(why) => Err(why),
        }
    }
}
