//! The empty receiver: reads datagrams and counts newlines, and nothing else. What it takes is the kernel's price.
//!
//! It runs in a process of its own. In: a port, and a line on standard input for each question. Out: the lines counted
//! so far, as an answer on standard output.

use std::io::{BufRead, IoSliceMut, Write};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};

use crate::programs::BUFFER_BYTES;

const BATCH: usize = 64;

/// Room for one datagram; longer ones are not sent here.
const STRIDE: usize = 2048;

static LINES: AtomicU64 = AtomicU64::new(0);

/// Receives until standard input ends.
pub(crate) fn run(port: u16) -> std::io::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", port))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(BUFFER_BYTES)?;
    std::thread::spawn(|| {
        let mut out = std::io::stdout();
        for _ in std::io::stdin().lock().lines() {
            // A parent that is gone asks nothing any more.
            let _ = writeln!(out, "{}", LINES.load(Relaxed)).and_then(|()| out.flush());
        }
        std::process::exit(0);
    });
    let mut buffers = vec![0; BATCH * STRIDE];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    loop {
        // Borrowed by the call for as long as they live, and cheap beside it.
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.chunks_exact_mut(STRIDE).map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let flags = MsgFlags::MSG_WAITFORONE;
        let Ok(messages) = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None) else { continue };
        let lines: usize = messages
            .filter_map(|message| message.iovs().next().map(|bytes| memchr::memchr_iter(b'\n', bytes).count()))
            .sum();
        LINES.fetch_add(lines as u64, Relaxed);
    }
}
