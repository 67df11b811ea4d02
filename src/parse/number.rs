//! Numbers as clients write them.
//!
//! In: the bytes of one value. Out: a finite `f64`, exactly the one nearest to the text.
//! Always: nothing is accepted that is not a decimal number from end to end; no blanks, no hexadecimal, no `_`.

use crate::model::DropReason;

/// A value, and whether it was written with a sign (which makes a gauge relative).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number {
    /// Finite.
    pub value: f64,
    /// The text began with `+` or `-`.
    pub signed: bool,
}

/// Powers of ten that a double holds exactly, as far as `plain` needs them.
const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

/// Reads `digits` or `digits.digits` at the start of `text`: the value and its length in bytes.
///
/// `None` if there is no such thing or it has more than 15 digits. Up to 15 the digits as one integer and the power
/// of ten are both exact, so their quotient is correctly rounded (Clinger 1990). What follows is the caller's.
#[inline]
pub fn plain(text: &[u8]) -> Option<(f64, usize)> {
    let mut digits: u64 = 0;
    let mut at = 0;
    let mut point = usize::MAX;
    loop {
        match text.get(at) {
            Some(byte) if byte.wrapping_sub(b'0') < 10 => digits = digits * 10 + u64::from(byte - b'0'),
            Some(b'.') if point == usize::MAX && at > 0 => point = at,
            _ => break,
        }
        at += 1;
        if at > 16 {
            return None;
        }
    }
    if point == usize::MAX {
        return if at > 0 && at < 16 { Some((digits as f64, at)) } else { None };
    }
    let decimals = at - point - 1;
    if decimals == 0 { None } else { Some((digits as f64 / POWERS[decimals], at)) }
}

/// Reads one value from end to end.
///
/// # Errors
/// `MalformedValue` if it is no decimal number, `NotFinite` for infinities, NaN, and numbers too large for a double.
pub fn parse(text: &[u8]) -> Result<Number, DropReason> {
    let (signed, digits) = match text {
        [b'+' | b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if matches!(digits.first(), None | Some(b'+' | b'-')) {
        return Err(DropReason::MalformedValue);
    }
    let value: f64 = fast_float2::parse(digits).map_err(|_| DropReason::MalformedValue)?;
    if !value.is_finite() {
        return Err(DropReason::NotFinite);
    }
    Ok(Number { value: if text[0] == b'-' { -value } else { value }, signed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_equal_what_the_standard_library_reads() {
        for text in
            ["0", "1", "42", "007", "0.1", "8.25", "12.7", "999999999999999", "0.00000000000001", "3.14159265358979"]
        {
            let (value, length) = plain(text.as_bytes()).expect(text);
            assert_eq!((value, length), (text.parse::<f64>().expect(text), text.len()), "{text}");
        }
    }

    #[test]
    fn what_plain_leaves_alone_is_read_by_parse() {
        for text in ["9999999999999999", "1e3", "1.", ".5", "-3", "+0.25", "1E-7", "12345678901234567890.5"] {
            assert!(plain(text.as_bytes()).is_none_or(|(_, length)| length < text.len()), "{text}");
            let number = parse(text.as_bytes()).expect(text);
            assert_eq!(number.value, text.parse::<f64>().expect(text), "{text}");
            assert_eq!(number.signed, text.starts_with(['+', '-']), "{text}");
        }
    }

    #[test]
    fn only_finite_decimal_numbers_are_values() {
        for text in ["", "-", "+", "--1", "+-1", "x", "1x", " 1", "1 ", "0x10", "1_000", "1,5", "1e", "."] {
            assert_eq!(parse(text.as_bytes()), Err(DropReason::MalformedValue), "{text:?}");
        }
        for text in ["nan", "NaN", "inf", "-inf", "Infinity", "1e400", "-1e400"] {
            assert_eq!(parse(text.as_bytes()), Err(DropReason::NotFinite), "{text:?}");
        }
    }
}
