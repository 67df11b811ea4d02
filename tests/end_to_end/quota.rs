//! A CPU quota far too small for what is sent: what the kernel drops, what is thinned, and what the sums then are.
//!
//! A control group holds the sidecar down to a tenth of a core, so that a sender can overtake it on any machine. All
//! rates are multiples of what the sidecar was just measured to read, so no verdict depends on how fast that is.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Scrape, Sender, Sidecar, assert_within, flood_alone};
use crate::overload::{read, reason};

/// Counters that the flood counts up, all in each datagram, so that each is sent equally often.
pub(crate) const GROUPS: usize = 100;
/// What the kernel charges a receive buffer for such a datagram, 4,489 bytes long: 8,192 of data, 256 of bookkeeping.
const CHARGE_BYTES: f64 = 8_448.0;

/// A control group with a tenth of a core, gone at the end; its last process must have ended.
struct TenthOfACore(PathBuf);

impl TenthOfACore {
    /// `None` if this process may not make control groups, or none that hold a CPU quota.
    fn new() -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("statsieve_test_{}_{}", std::process::id(), MADE.fetch_add(1, Relaxed));
        let quotas = [("cpu", "cpu.cfs_quota_us", "10000"), ("", "cpu.max", "10000 100000")];
        quotas.iter().find_map(|(mount, file, quota)| {
            let group = Self(Path::new("/sys/fs/cgroup").join(mount).join(&name));
            std::fs::create_dir(&group.0).ok()?;
            std::fs::write(group.0.join(file), quota).ok()?;
            Some(group)
        })
    }

    fn take_in(&self, sidecar: &Sidecar) -> std::io::Result<()> {
        std::fs::write(self.0.join("cgroup.procs"), sidecar.pid().to_string())
    }
}

impl Drop for TenthOfACore {
    fn drop(&mut self) {
        // The kernel may take a moment to see the last process off.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A sidecar in such a group. The fields go in this order: the process ends before its group.
pub(crate) struct HeldDown {
    pub(crate) sidecar: Sidecar,
    _group: TenthOfACore,
}

impl HeldDown {
    /// `None`, and a message, where no group can be made.
    pub(crate) fn start(settings: &[&str]) -> Option<Self> {
        let Some(group) = TenthOfACore::new() else {
            eprintln!("skipped: no control group with a CPU quota can be made here");
            return None;
        };
        let sidecar = Sidecar::start(&[&["listen.workers=1"], settings].concat());
        if let Err(error) = group.take_in(&sidecar) {
            sidecar.stop();
            eprintln!("skipped: a process cannot be put into a control group here: {error}");
            return None;
        }
        Some(Self { sidecar, _group: group })
    }

    /// Waits until each of `sent` datagrams was read or dropped by the kernel, and booked.
    fn at_rest(&self, sent: u64) -> Scrape {
        self.sidecar.wait_until("read and dropped are what was sent", |it| {
            let scrape = it.scrape();
            read(&scrape) + scrape.kernel_drops() == sent as f64 && scrape.lines() == GROUPS as f64 * read(&scrape)
        });
        self.sidecar.scrape()
    }
}

/// One line for each group.
pub(crate) fn datagram() -> Vec<u8> {
    let lines: Vec<String> =
        (0..GROUPS).map(|group| format!("bot.messages:1|c|#user_id:{},group:{group}", 700_000_000 + group)).collect();
    lines.join("\n").into_bytes()
}

/// Datagrams a second that a sidecar of these settings reads under its quota without sampling, while there is always
/// one more to read: at any rate below that the kernel need drop nothing, at any above it must in the end.
fn loss_free_rate() -> Option<f64> {
    let it = HeldDown::start(&["sampling.mode=off"])?;
    let (sender, datagram) = (it.sidecar.sender(), datagram());
    let buffer_bytes = it.sidecar.scrape().value("statsieve_receive_queue_limit_bytes{listener=\"udp\"}");
    let fill = || {
        (0..=(buffer_bytes / CHARGE_BYTES) as usize).for_each(|_| sender.send(&datagram));
        (Instant::now(), read(&it.sidecar.scrape()))
    };
    let (started, before) = fill();
    loop {
        let (now, read) = fill();
        let seconds = (now - started).as_secs_f64();
        if seconds >= 3.0 {
            return Some((read - before) / seconds);
        }
    }
}

/// Sends by `send`, evenly `per_second` times a second as it is told at each moment, for `time`; gives how often.
///
/// A moment that the machine did not let it send in is made up for, a longer one is let go, so that it never sends what
/// no stream at this rate would bring.
pub(crate) fn pace(mut send: impl FnMut(), per_second: impl Fn() -> f64, time: Duration) -> u64 {
    const MOMENT: Duration = Duration::from_millis(50);
    let started = Instant::now();
    let (mut last, mut owed, mut sent) = (started, 0.0, 0);
    while last - started < time {
        thread::sleep(Duration::from_millis(2));
        let now = Instant::now();
        owed += per_second() * (now - last).min(MOMENT).as_secs_f64();
        last = now;
        while owed >= 1.0 {
            send();
            sent += 1;
            owed -= 1.0;
        }
    }
    sent
}

/// What became of a flood.
struct Flood {
    /// Datagrams that each sidecar was sent.
    sent: u64,
    /// What the kernel dropped in all after ten seconds.
    drops_at_ten: Vec<f64>,
    /// All in the books.
    ends: Vec<Scrape>,
}

/// Sends each of `sidecars` the same for this time: so many `times` of `rate`, datagrams a second.
///
/// A second sidecar, which must not thin, says each second what the rate is by now: a machine that others use takes
/// twice as long for a line at one moment as at another.
fn flood(sidecars: &[&HeldDown], rate: f64, times: f64, time: Duration) -> Flood {
    let senders: Vec<Sender> = sidecars.iter().map(|it| it.sidecar.sender()).collect();
    let (rate, datagram) = (Mutex::new(rate), datagram());
    let look = |it: &HeldDown| {
        let read = read(&it.sidecar.scrape());
        (Instant::now(), read)
    };
    let send = || senders.iter().for_each(|sender| sender.send(&datagram));
    let (sent, drops_at_ten) = thread::scope(|scope| {
        let sending = scope.spawn(|| pace(&send, || *rate.lock().unwrap() * times, time));
        let started = Instant::now();
        let mut drops_at_ten = Vec::new();
        let mut before = sidecars.get(1).map(|plain| look(plain));
        for second in 1..time.as_secs() {
            thread::sleep((started + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
            if second == 10 {
                drops_at_ten = sidecars.iter().map(|it| it.sidecar.scrape().kernel_drops()).collect();
            }
            if let (Some(plain), Some((then, read_then))) = (sidecars.get(1), before) {
                let (now, read_now) = look(plain);
                let mut rate = rate.lock().unwrap();
                // Half of the old, since a look is a moment late now and then.
                *rate = (*rate + (read_now - read_then) / (now - then).as_secs_f64()) / 2.0;
                before = Some((now, read_now));
            }
        }
        (sending.join().unwrap(), drops_at_ten)
    });
    Flood { sent, drops_at_ten, ends: sidecars.iter().map(|it| it.at_rest(sent)).collect() }
}

/// A buffer that holds what comes in so many seconds at the loss-free rate; the kernel doubles what it is asked for.
fn buffer(rate: f64, seconds: f64) -> String {
    format!("listen.receive_buffer_bytes={}", (rate * seconds * CHARGE_BYTES / 2.0) as u64)
}

/// How many standard errors the sum of `bot_messages_total` is off the lines that were read; 0 if it is exact.
///
/// Each group had as many lines as any other, at the same rates, so their sums differ by what sampling did and nothing
/// else: their variance is that of one of them, whatever the rates were.
pub(crate) fn standard_errors_off(scrape: &Scrape, read: f64) -> f64 {
    let sums: Vec<f64> = scrape.of("bot_messages_total").map(|(_, sum)| sum).collect();
    assert_eq!(sums.len(), GROUPS);
    let groups = GROUPS as f64;
    let total: f64 = sums.iter().sum();
    let variance = sums.iter().map(|sum| (sum - total / groups).powi(2)).sum::<f64>() / (groups - 1.0);
    let off = total - groups * read;
    if off == 0.0 { 0.0 } else { off / (groups * variance).sqrt() }
}

/// Half as much again as it can read, for twenty seconds, in a buffer of half a second.
///
/// A second sidecar that does not thin is sent the same: it shows how much that is, and that it is too much. Up to
/// three runs: one in 290 is more than three standard errors off (Student's distribution with 99 degrees of freedom),
/// three in a row are one in 25 million, and a machine that others slow down in one run may not do so in the next.
#[test]
fn at_half_as_much_again_the_kernel_drops_nothing_from_the_tenth_second_on_and_sums_are_right() {
    let _alone = flood_alone();
    let mut found = Vec::new();
    for _ in 0..3 {
        let Some(rate) = loss_free_rate() else { return };
        let buffer = buffer(rate, 0.5);
        let Some(thinning) = HeldDown::start(&[&buffer, "sampling.mode=adaptive"]) else { return };
        let Some(plain) = HeldDown::start(&[&buffer, "sampling.mode=off"]) else { return };
        let flood = flood(&[&thinning, &plain], rate, 1.5, Duration::from_secs(20));
        let late: Vec<f64> = (0..2).map(|which| flood.ends[which].kernel_drops() - flood.drops_at_ten[which]).collect();
        let scrape = &flood.ends[0];
        let off = standard_errors_off(scrape, read(scrape));
        found.push(format!(
            "{rate:.0} datagrams a second are read; {} sent; dropped in the first ten seconds {:?}, later {late:?} \
             (the second does not thin); thinned out {} of {} lines; {off:.2} standard errors off",
            flood.sent,
            flood.drops_at_ten,
            reason(scrape, "sampled"),
            scrape.lines()
        ));
        eprintln!("{}", found.last().unwrap());
        assert_eq!(scrape.recorded() + reason(scrape, "sampled"), scrape.lines(), "{}", scrape.text);
        if late[0] == 0.0 && late[1] > 0.0 && off.abs() <= 3.0 && reason(scrape, "sampled") > 0.0 {
            return;
        }
    }
    panic!("in none of three runs:\n{}", found.join("\n"));
}

/// Three times as much as it can read, in a buffer of a tenth of a second: it has to lose some and thin the rest.
#[test]
fn at_three_times_as_much_every_line_sent_is_dropped_by_the_kernel_or_recorded_or_dropped_by_name() {
    let _alone = flood_alone();
    let Some(rate) = loss_free_rate() else { return };
    let Some(it) = HeldDown::start(&[&buffer(rate, 0.1), "sampling.mode=adaptive"]) else { return };
    let Flood { sent, ends, .. } = flood(&[&it], rate, 3.0, Duration::from_secs(12));
    let scrape = &ends[0];
    let groups = GROUPS as f64;
    assert_eq!(
        sent as f64 * groups,
        scrape.kernel_drops() * groups + scrape.recorded() + scrape.dropped(),
        "{}",
        scrape.text
    );
    assert!(scrape.kernel_drops() > 0.0 && reason(scrape, "sampled") > 0.0, "{}", scrape.text);
    assert_eq!(scrape.dropped(), reason(scrape, "sampled"), "{:?}", scrape.dropped_by_reason());
    // One in thirty million is further off (Student's distribution with 99 degrees of freedom).
    assert_within("standard errors off", standard_errors_off(scrape, read(scrape)), -6.0..=6.0);
}
