//! More than the sidecar can take: every datagram and every line is in the books, and thinned sums stay right.

use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::{PATIENCE, Scrape, Sidecar, assert_within};

pub(crate) const DATAGRAM: &[u8] = b"hits:1|c|#k:v\nwait:2|h\ndepth:+1|g\npacked:1:2:3|c\nbroken:x|g";
/// Lines in it, and values: what each line ends as.
pub(crate) const LINES: f64 = 5.0;
pub(crate) const VALUES: f64 = 7.0;

/// Datagrams read from the socket.
pub(crate) fn read(scrape: &Scrape) -> f64 {
    scrape.value("statsieve_datagrams_total{listener=\"udp\"}")
}

/// Samples dropped for this reason.
pub(crate) fn reason(scrape: &Scrape, reason: &str) -> f64 {
    scrape.value(&format!("statsieve_samples_dropped_total{{reason=\"{reason}\"}}"))
}

/// Waits until all of `sent` was read or dropped by the kernel, and booked.
fn at_rest(sidecar: &Sidecar, sent: f64) -> Scrape {
    sidecar.wait_until("read and dropped are what was sent", |it| {
        let scrape = it.scrape();
        read(&scrape) + scrape.kernel_drops() == sent && scrape.lines() == LINES * read(&scrape)
    });
    sidecar.scrape()
}

/// Stops the sidecar while more is sent than its buffer holds, lets it go on, and so again: it gets to run too little,
/// whatever the machine.
#[test]
fn under_overload_the_books_balance_to_the_value_and_sums_stay_right() {
    const FLOOD: u32 = 300;
    let sidecar = Sidecar::start(&[
        "listen.workers=1",
        "listen.receive_buffer_bytes=65536",
        "sampling.mode=adaptive",
        "sampling.interval=300ms",
        "sampling.min_rate=0.25",
        // The fill of the buffer is to decide, not the load.
        "sampling.target_load=1",
    ]);
    let sender = sidecar.sender();
    let started = Instant::now();
    let mut sent = 0.0;
    let scrape = loop {
        sidecar.signal(Signal::SIGSTOP);
        for _ in 0..FLOOD {
            sender.send(DATAGRAM);
            sent += 1.0;
        }
        sidecar.signal(Signal::SIGCONT);
        let scrape = at_rest(&sidecar, sent);
        // Thinned again and again, a thousand values in all; and dropped by the kernel as well.
        if reason(&scrape, "sampled") > 1000.0 && scrape.kernel_drops() > 0.0 {
            break scrape;
        }
        assert!(started.elapsed() < PATIENCE, "nothing is thinned:\n{}", scrape.text);
    };
    let read = read(&scrape);
    assert_eq!(scrape.recorded() + scrape.dropped(), VALUES * read, "{}", scrape.text);
    assert_eq!(reason(&scrape, "malformed_value"), read);
    let others = scrape.dropped() - reason(&scrape, "malformed_value") - reason(&scrape, "sampled");
    assert_eq!(others, 0.0, "{:?}", scrape.dropped_by_reason());
    // Gauges are never thinned.
    scrape.assert("depth", read);
    scrape.assert("statsieve_samples_recorded_total{type=\"gauge\"}", read);
    // At the least rate a line's weight has the variance 3, so six standard deviations are at most this.
    let off = 6.0 * (3.0 * read).sqrt();
    for (series, value) in [("hits_total{k=\"v\"}", 1.0), ("wait_sum", 2.0), ("wait_count", 1.0), ("packed_total", 6.0)]
    {
        assert_within(series, scrape.value(series), (read - off) * value..=(read + off) * value);
    }
    sidecar.stop();
}

#[test]
fn a_worker_that_is_idle_again_keeps_everything_again() {
    let sidecar = Sidecar::start(&[
        "listen.workers=1",
        "listen.receive_buffer_bytes=8192",
        "sampling.mode=adaptive",
        "sampling.interval=300ms",
        "sampling.target_load=1",
    ]);
    let rate = |scrape: &Scrape| scrape.value("statsieve_sampling_rate{worker=\"0\"}");
    assert_eq!(rate(&sidecar.scrape()), 1.0);
    let sender = sidecar.sender();
    let mut sent = 0.0;
    sidecar.wait_until("the rate falls", |it| {
        it.signal(Signal::SIGSTOP);
        (0..100).for_each(|_| sender.send(DATAGRAM));
        sent += 100.0;
        it.signal(Signal::SIGCONT);
        rate(&it.scrape()) < 1.0
    });
    // Nothing is sent any more: the worker looks by itself.
    sidecar.wait_until("the rate is 1 again", |it| rate(&it.scrape()) == 1.0);
    let before = at_rest(&sidecar, sent);
    let sampled = reason(&before, "sampled");
    sidecar.send(&["calm:1|c"]);
    let scrape = sidecar.settled(before.lines() as u64 + 1);
    scrape.assert("calm_total", 1.0);
    assert_eq!(reason(&scrape, "sampled"), sampled);
    sidecar.stop();
}

#[test]
fn a_fixed_rate_thins_by_that_rate() {
    const LINES: usize = 4000;
    let sidecar = Sidecar::start(&["listen.workers=1", "sampling.mode=fixed", "sampling.rate=0.25"]);
    let datagram = vec!["hits:1|c"; 100].join("\n");
    let sender = sidecar.sender();
    (0..LINES / 100).for_each(|_| sender.send(datagram.as_bytes()));
    let scrape = sidecar.settled(LINES as u64);
    let (recorded, total) = (scrape.recorded(), scrape.value("hits_total"));
    assert_eq!(total, recorded * 4.0);
    assert_eq!(recorded + reason(&scrape, "sampled"), LINES as f64);
    // Six standard deviations of a binomial distribution: sqrt(4000 * 0.25 * 0.75) = 27.4.
    assert_within("lines recorded", recorded, 835.0..=1165.0);
    scrape.assert("statsieve_sampling_rate{worker=\"0\"}", 0.25);
    assert!(scrape.get("statsieve_load_ratio{worker=\"0\"}").is_some(), "{}", scrape.text);
    sidecar.stop();
}

#[test]
fn a_quota_lets_through_what_it_says_and_the_rest_is_counted() {
    const QUOTA: f64 = 200.0;
    const DATAGRAMS: usize = 20;
    for set in ["rate_limit.samples_per_second=200", "rate_limit.family_samples_per_second=200"] {
        let sidecar = Sidecar::start(&["listen.workers=1", set]);
        let sender = sidecar.sender();
        let datagram = vec!["hits:1|c"; 100].join("\n");
        let started = Instant::now();
        (0..DATAGRAMS).for_each(|_| sender.send(datagram.as_bytes()));
        let scrape = sidecar.settled(DATAGRAMS as u64 * 100);
        // A second's worth at once, and what came since; within a second that is twice the quota at most.
        let seconds = started.elapsed().as_secs_f64();
        assert_within("samples recorded", scrape.recorded(), QUOTA..=QUOTA * (1.0 + seconds));
        assert_eq!(scrape.recorded() + reason(&scrape, "rate_limited"), DATAGRAMS as f64 * 100.0, "{}", scrape.text);
        scrape.assert("hits_total", scrape.recorded());
        sidecar.stop();
    }
}
