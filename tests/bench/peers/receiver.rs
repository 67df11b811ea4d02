//! Starts a receiver on the receivers' core, asks it what it took, and ends it.
//!
//! In: a [`Program`]. Out: [`Receiver`]. Always: a dropped [`Receiver`] leaves no process behind.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::http;
use crate::process::{self, Cores, Cpu};
use crate::programs::{Counts, Launch, Limits, Program};

/// Longest wait for a start, and for all that was sent to be dealt with. netdata takes a second or two.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at whether a receiver has finished.
const LOOK: Duration = Duration::from_millis(50);

/// A running program.
pub(crate) struct Receiver {
    pub(crate) program: Program,
    child: Child,
    pub(crate) udp: SocketAddr,
    /// Zero where it serves no HTTP.
    pub(crate) http: u16,
    pub(crate) ready_after: Duration,
    /// To ask the empty receiver, and where it answers.
    questions: Option<(ChildStdin, BufReader<ChildStdout>)>,
    /// Its configuration and its log.
    _folder: tempfile::TempDir,
}

/// What a receiver has taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Taken {
    /// It counts lines itself.
    Lines(u64),
    /// It does not: the kernel counts the datagrams that it lost.
    AllBut(u64),
}

impl Receiver {
    /// Starts `program` on its core and waits until its ports are open.
    ///
    /// # Errors
    /// If it does not start; the message holds the end of what it said.
    pub(crate) fn start(program: Program, limits: Limits, cores: Cores) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let udp = SocketAddr::from(([127, 0, 0, 1], UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port()));
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let Launch { mut command, http } = program.launch(limits, udp.port(), http, folder.path())?;
        let log = folder.path().join("log");
        let asks = program == Program::Empty;
        command.stderr(File::create(&log)?).stdin(if asks { Stdio::piped() } else { Stdio::null() });
        command.stdout(if asks { Stdio::piped() } else { Stdio::from(File::create(folder.path().join("out"))?) });
        // A child inherits the core of the thread that starts it.
        process::pin(cores.receiver)?;
        let start = Instant::now();
        let child = command.spawn();
        process::pin(cores.sender)?;
        let mut child = child?;
        let questions = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        let mut receiver = Self {
            program,
            child,
            udp,
            http: http.unwrap_or(0),
            ready_after: Duration::ZERO,
            questions,
            _folder: folder,
        };
        let is_up = || {
            process::port(udp.port()).sockets > 0
                && http.is_none_or(|port| TcpStream::connect(("127.0.0.1", port)).is_ok())
        };
        while !is_up() {
            if receiver.child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let said: Vec<&str> = said.lines().rev().take(10).collect();
                return Err(io::Error::other(format!("{} does not start:\n{}", program.name(), said.join("\n"))));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        receiver.ready_after = start.elapsed();
        Ok(receiver)
    }

    pub(crate) fn cpu(&self) -> io::Result<Cpu> {
        process::cpu(self.child.id())
    }

    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        process::resident_bytes(self.child.id())
    }

    /// Waits until everything sent was dealt with: nothing waits in the socket, and it hardly uses its core any more.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut quiet = 0;
        // Twice, since a program that gathers rests between two batches.
        while quiet < 2 && Instant::now() < deadline {
            let before = self.cpu()?;
            std::thread::sleep(LOOK);
            let idle = self.cpu()?.since(before) < LOOK.mul_f64(0.05);
            quiet = if idle && process::port(self.udp.port()).queued_bytes == 0 { quiet + 1 } else { 0 };
        }
        Ok(())
    }

    /// What it has taken so far.
    pub(crate) fn taken(&mut self) -> io::Result<Taken> {
        match self.program.counts() {
            Counts::Answers => {
                let (ask, answers) = self.questions.as_mut().ok_or_else(|| io::Error::other("it cannot be asked"))?;
                writeln!(ask).and_then(|()| ask.flush())?;
                let mut answer = String::new();
                answers.read_line(&mut answer)?;
                answer.trim().parse().map(Taken::Lines).map_err(io::Error::other)
            }
            Counts::Metric { path, name, label } => {
                let text = http::get(self.http, path, false)?;
                // Some show no counter until it counted something.
                Ok(Taken::Lines(http::sum(&String::from_utf8_lossy(&text), name, label).unwrap_or(0.0) as u64))
            }
            Counts::KernelDrops => Ok(Taken::AllBut(process::port(self.udp.port()).dropped)),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // All of these fail only if it is gone already.
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
