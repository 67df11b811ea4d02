//! What the kernel drops is counted, to the datagram.

use nix::sys::signal::Signal;

use crate::harness::{Sidecar, wait_until};

/// Whether every thread of the process is stopped: none reads its socket any more.
pub(crate) fn all_threads_are_stopped(process: i32) -> bool {
    std::fs::read_dir(format!("/proc/{process}/task")).unwrap().all(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // The state is the first field behind the command, which stands in parentheses.
        stat.rsplit_once(") ").is_some_and(|(_, fields)| fields.starts_with('T'))
    })
}

#[test]
fn datagrams_read_and_dropped_by_the_kernel_are_the_datagrams_sent() {
    // Two overflows with quiet batches before each: a count that reading quiet batches spoils would show.
    const QUIET: u64 = 20;
    const FLOOD: u64 = 400;
    let sidecar = Sidecar::start(&["listen.workers=1", "listen.receive_buffer_bytes=4096"]);
    let sender = sidecar.sender();
    let mut sent = 0;
    for round in 1..=2 {
        for _ in 0..QUIET {
            sender.send(b"hits:1|c");
            sent += 1;
            sidecar.wait_until("a quiet datagram is taken up", |it| {
                let scrape = it.scrape();
                scrape.value("statsieve_datagrams_total{listener=\"udp\"}") + scrape.kernel_drops() >= sent as f64
            });
        }
        let before = sidecar.scrape();
        sidecar.signal(Signal::SIGSTOP);
        wait_until("every thread is stopped", || all_threads_are_stopped(sidecar.pid().as_raw()));
        for _ in 0..FLOOD {
            sender.send(b"hits:1|c");
            sent += 1;
        }
        sidecar.signal(Signal::SIGCONT);
        sidecar.wait_until("read and dropped are what was sent", |it| {
            let scrape = it.scrape();
            let read = scrape.value("statsieve_datagrams_total{listener=\"udp\"}");
            assert!(read + scrape.kernel_drops() <= sent as f64, "more than was sent:\n{}", scrape.text);
            read + scrape.kernel_drops() == sent as f64
        });
        let read = sidecar.scrape().value("statsieve_datagrams_total{listener=\"udp\"}");
        let scrape = sidecar.settled(read as u64);
        // 8,192 bytes, which is what the kernel makes of 4,096, hold far fewer than the flood.
        assert!(scrape.kernel_drops() > before.kernel_drops() + 300.0, "round {round}:\n{}", scrape.text);
        // What was read was counted, and nothing else.
        scrape.assert("hits_total", read);
        assert_eq!((scrape.lines(), scrape.recorded(), scrape.dropped()), (read, read, 0.0));
    }
    sidecar.stop();
}

#[test]
fn the_granted_receive_buffer_is_exposed() {
    let sidecar = Sidecar::start(&["listen.workers=1", "listen.receive_buffer_bytes=65536"]);
    // The kernel doubles what is asked, to pay for its bookkeeping.
    sidecar.scrape().assert("statsieve_receive_queue_limit_bytes{listener=\"udp\"}", 131_072.0);
    sidecar.stop();
}
