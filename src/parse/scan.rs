//! Finds delimiters, sixteen bytes at a time.
//!
//! In: text and where to start. Out: where the first delimiter stands.
//! Always: the same answer as a loop over bytes; nothing outside the slice is read.
//!
//! Most finds in a line end within a few dozen bytes, where the call and set-up of a general search cost more than the
//! search.

use wide::u8x16;

/// Where the first `byte` at or behind `from` stands; the text's length if there is none.
#[inline(always)]
pub fn find(text: &[u8], from: usize, byte: u8) -> usize {
    find_any(text, from, [byte])
}

/// Where the first of `bytes` at or behind `from` stands; the text's length if there is none. `from` may be the length.
#[inline(always)]
pub fn find_any<const N: usize>(text: &[u8], from: usize, bytes: [u8; N]) -> usize {
    let (blocks, rest) = text[from..].as_chunks();
    let mut at = from;
    for block in blocks {
        let found = matches(block, bytes);
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    if rest.is_empty() {
        return at;
    }
    // The last few bytes: the text's last block, less what was searched already.
    match text.last_chunk() {
        Some(last) => {
            let found = matches(last, bytes) >> (BLOCK - rest.len());
            if found == 0 { text.len() } else { at + found.trailing_zeros() as usize }
        }
        None => rest.iter().position(|byte| bytes.contains(byte)).map_or(text.len(), |place| at + place),
    }
}

/// Bytes looked at together.
const BLOCK: usize = 16;

/// A bit for each byte of the block that is one of `bytes`, the lowest for the first.
#[inline(always)]
fn matches<const N: usize>(block: &[u8; BLOCK], bytes: [u8; N]) -> u32 {
    let block = u8x16::new(*block);
    let found = bytes.map(|byte| block.simd_eq(u8x16::splat(byte)));
    found.into_iter().fold(u8x16::ZERO, |all, found| all | found).to_bitmask()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_in_texts_of_every_length_gives_what_a_loop_gives() {
        let mut text = Vec::new();
        for n in 0..100u8 {
            for from in 0..=text.len() {
                let plain = |bytes: &[u8]| {
                    text[from..].iter().position(|byte| bytes.contains(byte)).map_or(text.len(), |place| from + place)
                };
                assert_eq!(find(&text, from, b','), plain(b","), "{from} in {text:?}");
                assert_eq!(find_any(&text, from, [b',', b'|', 0xFF]), plain(b",|\xFF"), "{from} in {text:?}");
            }
            text.push(match n % 23 {
                7 => b',',
                19 => b'|',
                3 => b',' + 0x80,
                11 => 0xFF,
                other => b'a' + other,
            });
        }
    }
}
