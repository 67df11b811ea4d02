//! What the kernel knows of a socket's queue.
//!
//! In: a socket, or one line of `/proc/self/net/udp`. Out: bytes queued, and datagrams dropped since it was made.
//! Always: a drop count only grows, though the kernel's own wraps at 32 bits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The queue of one socket as the kernel's table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue {
    /// Bytes waiting, as the kernel charges them.
    pub(super) bytes: u64,
    /// Datagrams dropped so far, modulo 2^32.
    pub(super) drops: u32,
}

/// Looks a socket up in the text of `/proc/self/net/udp` or `udp6`.
///
/// Columns: slot, local, remote, state, `tx:rx` queue in hexadecimal, timer, retransmits, uid, timeout, inode,
/// references, pointer, drops. Source: Linux `udp4_format_sock`.
pub(super) fn queue_in(table: &str, inode: u64) -> Option<Queue> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        if columns.get(9)?.parse::<u64>().ok()? != inode {
            return None;
        }
        let (_, queued) = columns[4].split_once(':')?;
        Some(Queue { bytes: u64::from_str_radix(queued, 16).ok()?, drops: columns.get(12)?.parse().ok()? })
    })
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

    #[test]
    fn a_socket_is_found_by_its_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1234: 0100007F:1FBD 00000000:0000 07 00000000:00000A00 00:00000000 00000000     0        0 77 2 0000000000000000 5
 1235: 0100007F:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 78 2 0000000000000000 4294967295
";
        assert_eq!(queue_in(table, 77), Some(Queue { bytes: 2560, drops: 5 }));
        assert_eq!(queue_in(table, 78), Some(Queue { bytes: 0, drops: u32::MAX }));
        assert_eq!(queue_in(table, 79), None);
        assert_eq!(queue_in("", 77), None);
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
