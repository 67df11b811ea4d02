//! The protobuf encoding itself: numbers, bytes, and messages whose length stands before them.
//!
//! In: field numbers and values. Out: bytes at the end of a buffer.
//! Not here: which field means what (`protobuf`).
//! Always: every field that is asked for is written, also one that is 0; lengths are in their shortest form.
//! Follows: Protocol Buffers, "Encoding".

/// How the value of a field is laid out.
#[derive(Clone, Copy)]
enum Layout {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
}

/// Appends seven bits at a time, the lowest first.
#[inline]
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// All our field numbers are below 16, so that this is one byte.
#[inline]
fn key(field: u8, layout: Layout, out: &mut Vec<u8>) {
    out.push(field << 3 | layout as u8);
}

/// Appends a field that is a whole number.
#[inline]
pub(super) fn uint(field: u8, value: u64, out: &mut Vec<u8>) {
    key(field, Layout::Varint, out);
    varint(value, out);
}

/// Appends a field that is a whole number of either sign, near to 0 as a rule.
#[inline]
pub(super) fn sint(field: u8, value: i64, out: &mut Vec<u8>) {
    uint(field, ((value << 1) ^ (value >> 63)) as u64, out);
}

/// Appends a field that is a double.
#[inline]
pub(super) fn double(field: u8, value: f64, out: &mut Vec<u8>) {
    key(field, Layout::Fixed64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a field that is text, or bytes.
#[inline]
pub(super) fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    key(field, Layout::Length, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Appends a field that is what `write` appends: a message, or text in the making.
#[inline]
pub(super) fn message(field: u8, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    key(field, Layout::Length, out);
    delimited(out, write);
}

/// Appends what `write` appends, with its length before it.
///
/// The length is known only behind it. One byte is kept for it; what is longer than 127 bytes is moved on by the rest,
/// which costs less than writing into a second buffer, and no memory.
#[inline]
pub(super) fn delimited(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let place = out.len();
    out.push(0);
    write(out);
    let end = out.len();
    let mut length = end - place - 1;
    if length < 0x80 {
        out[place] = length as u8;
        return;
    }
    let more = length.ilog2() as usize / 7;
    out.resize(end + more, 0);
    out.copy_within(place + 1..end, place + 1 + more);
    for byte in &mut out[place..place + more] {
        *byte = length as u8 | 0x80;
        length >>= 7;
    }
    out[place + more] = length as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[127]),
            (128, &[0x80, 1]),
            (300, &[0xAC, 2]),
            (u64::MAX, &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1]),
        ] {
            let mut out = Vec::new();
            varint(value, &mut out);
            assert_eq!(out, bytes, "{value}");
        }
    }

    #[test]
    fn a_length_stands_before_what_it_is_of_however_long_that_is() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 70_000] {
            let mut out = b"before".to_vec();
            message(4, &mut out, |out| out.resize(out.len() + length, b'x'));
            let mut expected = b"before\x22".to_vec();
            varint(length as u64, &mut expected);
            expected.resize(expected.len() + length, b'x');
            assert_eq!(out, expected, "{length}");
        }
    }

    #[test]
    fn messages_stand_within_messages() {
        let mut out = Vec::new();
        message(1, &mut out, |out| {
            bytes(1, "y".repeat(200).as_bytes(), out);
            message(2, out, |out| uint(3, 0, out));
            double(15, 1.0, out);
        });
        let mut expected = vec![0x0A, 0xD8, 1, 0x0A, 0xC8, 1];
        expected.resize(expected.len() + 200, b'y');
        expected.extend([0x12, 2, 0x18, 0, 0x79, 0, 0, 0, 0, 0, 0, 0xF0, 0x3F]);
        assert_eq!(out, expected);
    }
}
