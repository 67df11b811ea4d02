//! What the kernel knows of a socket's queue.
//!
//! In: a socket, or `/proc/self/net/udp`. Out: bytes queued, and datagrams dropped since it was made.
//! Always: a drop count only grows, though the kernel's own wraps at 32 bits.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use memchr::memrchr;

/// What the kernel gives at once of a table, bytes.
const PAGE: usize = 4096;

/// The queue of one socket as the kernel's table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Bytes waiting, as the kernel charges them.
    pub(super) bytes: u64,
    /// Datagrams dropped so far, modulo 2^32.
    pub(super) drops: u32,
}

/// Looks sockets up in `/proc/self/net/udp` or `udp6`; `found` takes the place of each in `inodes`.
///
/// Reads no further than it must: the kernel goes over its whole table of sockets, most of it empty, each time that it
/// is asked for more.
///
/// # Errors
/// If the table cannot be read; what was found until then is told.
pub(super) fn queues(mut table: impl Read, inodes: &[u64], mut found: impl FnMut(usize, Queue)) -> io::Result<()> {
    // A page is what the kernel gives at once.
    let (mut text, mut length, mut left) = (vec![0; 2 * PAGE], 0, inodes.len());
    while left > 0 {
        let more = table.read(&mut text[length..])?;
        if more == 0 {
            break;
        }
        length += more;
        let whole = memrchr(b'\n', &text[..length]).map_or(0, |end| end + 1);
        for line in text[..whole].split(|byte| *byte == b'\n') {
            let Some((inode, queue)) = str::from_utf8(line).ok().and_then(queue_of) else { continue };
            if let Some(place) = inodes.iter().position(|other| *other == inode) {
                found(place, queue);
                left -= 1;
            }
        }
        // A line is much shorter than a page, and what is longer is none.
        text.copy_within(whole..length, 0);
        length = if length - whole < PAGE { length - whole } else { 0 };
    }
    Ok(())
}

/// The inode and the queue that a line of the table tells of; `None` if it is its head.
///
/// Columns: slot, local, remote, state, `tx:rx` queue in hexadecimal, timer, retransmits, uid, timeout, inode,
/// references, pointer, drops. Source: Linux `udp4_format_sock`.
fn queue_of(line: &str) -> Option<(u64, Queue)> {
    let mut columns = line.split_ascii_whitespace();
    let (_, queued) = columns.nth(4)?.split_once(':')?;
    let inode = columns.nth(4)?.parse().ok()?;
    let queue = Queue { bytes: u64::from_str_radix(queued, 16).ok()?, drops: columns.nth(2)?.parse().ok()? };
    Some((inode, queue))
}

/// Takes in a drop count as the kernel tells it; several threads may, in any order.
///
/// The count is 32 bits wide and wraps, and a reading may be older than one that was taken in already: what is less
/// than half the range ahead is new, anything else is old.
pub(super) fn extend_drops(total: &AtomicU64, seen: u32) {
    let extend = |total: u64| {
        let ahead = seen.wrapping_sub(total as u32);
        (ahead > 0 && ahead < 1 << 31).then(|| total + u64::from(ahead))
    };
    // An `Err` says that the reading was no news.
    let _ = total.fetch_update(Relaxed, Relaxed, extend);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 0100007F:1FBD 00000000:0000 07 00000000:00000A00 00:00000000 00000000     0        0 77 2 0000000000000000 5
 1235: 0100007F:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 78 2 0000000000000000 4294967295
";

    /// Gives so many bytes at once, and fails once more than so many were asked for.
    struct Slow<'a>(&'a [u8], usize, usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(self.0.len()).min(buffer.len());
            self.2 = self.2.checked_sub(n.max(1)).ok_or(io::ErrorKind::Other)?;
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn sockets_are_found_by_their_inodes_however_the_table_is_cut() {
        for at_once in [1, 7, 150, 10_000] {
            let mut seen = Vec::new();
            let table = Slow(TABLE.as_bytes(), at_once, usize::MAX);
            let found = |place, queue: Queue| seen.push((place, queue.bytes, queue.drops));
            queues(table, &[78, 79, 77], found).expect("no error");
            assert_eq!(seen, [(2, 2560, 5), (0, 0, u32::MAX)], "{at_once} at once");
        }
    }

    #[test]
    fn the_table_is_read_no_further_than_the_last_socket() {
        let first = TABLE.find(" 1235").expect("a second");
        let mut seen = 0;
        queues(Slow(TABLE.as_bytes(), first, first), &[77], |_, _| seen += 1).expect("no second read");
        assert_eq!(seen, 1);
        assert!(queues(Slow(TABLE.as_bytes(), first, first), &[78], |_, _| ()).is_err());
    }

    #[test]
    fn what_is_no_line_is_passed_over() {
        let table = format!("{}\n{TABLE}", "x".repeat(3 * PAGE));
        let mut seen = 0;
        queues(table.as_bytes(), &[77, 78], |_, _| seen += 1).expect("no error");
        assert_eq!(seen, 2);
        queues(&b""[..], &[77], |_, _| unreachable!("nothing is there")).expect("no error");
    }

    #[test]
    fn drop_counts_grow_over_the_wrap_and_ignore_old_readings() {
        let total = AtomicU64::new(0);
        for (seen, expected) in [
            (5, 5),
            (3, 5),
            (5, 5),
            (1 << 30, 1 << 30),
            (3 << 30, 1 << 30),
            (2 << 30, 2 << 30),
            (u32::MAX, u64::from(u32::MAX)),
            (4, (1 << 32) + 4),
            (u32::MAX, (1 << 32) + 4),
        ] {
            extend_drops(&total, seen);
            assert_eq!(total.load(Relaxed), expected, "after {seen}");
        }
    }
}
