//! User buckets: a bounded number of stand-ins for an unbounded number of ids.
//!
//! In: the value of a bucketed tag. Out: the number of its bucket, and the text that the label shows.
//! Always: the same value, salt and rule give the same bucket on every instance; the value itself is not kept.

use xxhash_rust::xxh64::{Xxh64, xxh64};

use crate::config::{BucketMethod, Bucketing};

/// One `[[bucketing]]` rule, compiled. No `Debug`: it holds the salt.
pub struct UserBuckets {
    /// The label that stands in for the tag.
    pub label: String,
    /// Whether observations keep the label.
    pub observers: bool,
    method: BucketMethod,
    count: u32,
    /// The hash after the salt's bytes; `None` without a salt.
    salted: Option<Xxh64>,
    before: String,
    after: String,
}

impl UserBuckets {
    /// Compiles a checked rule.
    pub fn new(rule: &Bucketing) -> Self {
        let (before, after) = rule.format.split_once("{}").unwrap_or((&rule.format, ""));
        let salted = (!rule.salt.is_empty()).then(|| {
            let mut hash = Xxh64::new(0);
            hash.update(&rule.salt);
            hash
        });
        Self {
            label: rule.label.clone(),
            observers: rule.observers,
            method: rule.method,
            count: rule.count,
            salted,
            before: before.to_owned(),
            after: after.to_owned(),
        }
    }

    /// The bucket of `value`, below the rule's count.
    pub fn number(&self, value: &[u8]) -> u32 {
        self.number_of(value, self.hash(value))
    }

    /// xxh64 (seed 0) of the salt's bytes and then those of `value`, whatever the method.
    #[inline]
    pub fn hash(&self, value: &[u8]) -> u64 {
        match &self.salted {
            None => xxh64(value, 0),
            Some(salted) => {
                let mut hash = salted.clone();
                hash.update(value);
                hash.digest()
            }
        }
    }

    /// The bucket of `value`, whose [`UserBuckets::hash`] is `hash`.
    #[inline]
    pub fn number_of(&self, value: &[u8], hash: u64) -> u32 {
        if let BucketMethod::Range { size } = self.method
            && let Some(id) = integer(value)
        {
            return id.div_euclid(size).rem_euclid(i64::from(self.count)) as u32;
        }
        (hash % u64::from(self.count)) as u32
    }

    /// Appends the label's value for bucket `number`.
    pub fn write(&self, number: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.extend_from_slice(self.after.as_bytes());
    }
}

/// A decimal integer with an optional sign, if that is all of `text` and it fits.
fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    let mut value: i64 = 0;
    for digit in digits {
        let digit = i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?);
        value = value.checked_mul(10)?.checked_sub(digit)?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(method: BucketMethod, count: u32, salt: &str) -> UserBuckets {
        UserBuckets::new(&Bucketing {
            tags: vec!["user_id".to_owned()],
            label: "user_bucket".to_owned(),
            method,
            count,
            salt: salt.as_bytes().to_vec(),
            format: "<{}>".to_owned(),
            observers: false,
        })
    }

    #[test]
    fn hash_buckets_are_xxh64_of_the_value_modulo_the_count() {
        let users = rule(BucketMethod::Hash, 100, "");
        for id in ["42", "1", "", "näme", "-1001234567890"] {
            assert_eq!(u64::from(users.number(id.as_bytes())), xxh64(id.as_bytes(), 0) % 100, "{id}");
        }
    }

    #[test]
    fn a_salt_goes_in_front_of_the_value() {
        let users = rule(BucketMethod::Hash, 1000, "pepper");
        assert_eq!(u64::from(users.number(b"42")), xxh64(b"pepper42", 0) % 1000);
    }

    #[test]
    fn ranges_round_down_as_python_does() {
        let users = rule(BucketMethod::Range { size: 1000 }, 100, "");
        let cases: [(&str, u32); 8] = [
            ("0", 0),
            ("999", 0),
            ("1000", 1),
            ("100000", 0),
            ("-1", 99),
            ("-1001234567890", 32),
            ("9223372036854775807", 75),
            ("-9223372036854775808", 24),
        ];
        for (id, bucket) in cases {
            assert_eq!(users.number(id.as_bytes()), bucket, "{id}");
        }
    }

    #[test]
    fn what_is_no_64_bit_integer_is_hashed_by_the_range_method_too() {
        let users = rule(BucketMethod::Range { size: 1000 }, 100, "");
        for id in ["alice", "9223372036854775808", "1.5", "", "-", "12x"] {
            assert_eq!(u64::from(users.number(id.as_bytes())), xxh64(id.as_bytes(), 0) % 100, "{id}");
        }
    }

    #[test]
    fn the_text_of_a_bucket_follows_the_format() {
        let mut text = Vec::new();
        rule(BucketMethod::Hash, 100, "").write(7, &mut text);
        assert_eq!(text, b"<7>");
    }
}
