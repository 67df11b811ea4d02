//! Tells by a request's `Authorization` whether its sender is one of the users.
//!
//! In: the header, where it comes from, and hashes of passwords by names. Out: a [`Verdict`].
//! Not here: what is answered (`http`).
//! Always: bcrypt runs on a thread of its own, one at a time; its results are remembered, in bounded number and by a
//! keyed hash, never the password; a name that nobody has costs what one of the users' passwords costs. Few of one
//! address wait for that at a time, so that others get their turn; what is remembered is not waited for.
//! Follows: RFC 7617.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use hyper::header::HeaderValue;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use tokio::sync::Semaphore;

/// Results remembered, of either kind. Those of right passwords are as many as users, unless passwords change.
const MOST_REMEMBERED: usize = 128;

/// Requests of one address that may wait for a password to be checked at a time.
const MOST_WAITING: usize = 4;

type Digest = [u8; 32];

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Verdict {
    /// One of the users.
    User,
    /// Nobody known.
    Stranger,
    /// That is not looked into, since so many others of its address wait already.
    TooMany,
}

/// Checks passwords, and remembers what came of it.
pub(super) struct Checker {
    /// Whoever holds it may run bcrypt: an attacker gets a part of one core, and no more.
    turn: Arc<Semaphore>,
    remembered: Mutex<Remembered>,
    /// How many wait, by where they come from.
    waiting: Mutex<HashMap<Option<IpAddr>, usize>>,
    secret: Digest,
    /// Chooses what a name that nobody has is compared with.
    hasher: RandomState,
}

/// Kept apart, so that no flood of wrong passwords drives a right one out.
#[derive(Default)]
struct Remembered {
    right: Vec<Digest>,
    wrong: Vec<Digest>,
}

impl Remembered {
    fn get(&self, digest: &Digest) -> Option<bool> {
        let is_in = |list: &[Digest]| list.contains(digest);
        if is_in(&self.right) { Some(true) } else { is_in(&self.wrong).then_some(false) }
    }

    fn add(&mut self, digest: Digest, is_right: bool) {
        let list = if is_right { &mut self.right } else { &mut self.wrong };
        if list.len() >= MOST_REMEMBERED {
            list.remove(0);
        }
        list.push(digest);
    }
}

/// Holds a place among those who wait, until dropped.
struct Waits<'a>(&'a Checker, Option<IpAddr>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let left = waiting.remove(&self.1).map_or(0, |number| number - 1);
        if left > 0 {
            waiting.insert(self.1, left);
        }
    }
}

impl Checker {
    /// One that has seen nothing yet.
    pub(super) fn new() -> Self {
        let mut secret = Digest::default();
        // Without randomness there is no TLS either; the hashes are then plain ones, which are never shown.
        let _ = rustls::crypto::ring::default_provider().secure_random.fill(&mut secret);
        Self {
            turn: Arc::new(Semaphore::new(1)),
            remembered: Mutex::default(),
            waiting: Mutex::default(),
            secret,
            hasher: RandomState::new(),
        }
    }

    /// Whether the header, of a request from `peer`, is that of one of `users`. Takes as long as bcrypt, if this has not
    /// been asked before.
    pub(super) async fn judge(
        &self,
        users: &BTreeMap<String, String>,
        header: Option<&HeaderValue>,
        peer: Option<IpAddr>,
    ) -> Verdict {
        let told = |is_right| if is_right { Verdict::User } else { Verdict::Stranger };
        let Some((name, password)) = header.and_then(|header| credentials(header.as_bytes())) else {
            return Verdict::Stranger;
        };
        let (known, hash) = match users.get(&name) {
            Some(hash) => (true, hash.clone()),
            None => (false, self.nobody(users, &name)),
        };
        let digest = self.digest(&[name.as_bytes(), &password, hash.as_bytes()]);
        let remembered = || self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        let found = remembered().get(&digest);
        if let Some(found) = found {
            return told(found);
        }
        let Some(_waits) = self.wait(peer) else { return Verdict::TooMany };
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect("the semaphore is never closed");
        // Another request may have asked the same while this one waited.
        let found = remembered().get(&digest);
        if let Some(found) = found {
            return told(found);
        }
        // Whoever asked may go away meanwhile: the next one still waits until this is over.
        let work = move || {
            let _turn = turn;
            bcrypt::verify(&password, &hash).unwrap_or(false)
        };
        // For a name that nobody has as well: it takes as long.
        let matches = tokio::task::spawn_blocking(work).await.unwrap_or(false);
        let is_right = known && matches;
        remembered().add(digest, is_right);
        told(is_right)
    }

    /// A place among those who wait, unless `peer` has all it may have.
    fn wait(&self, peer: Option<IpAddr>) -> Option<Waits<'_>> {
        let peer = peer.map(network);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.entry(peer).or_default();
        (*number < MOST_WAITING).then(|| {
            *number += 1;
            Waits(self, peer)
        })
    }

    /// A hash that no password has, at the cost of the hash of some user, always the same for a name.
    fn nobody(&self, users: &BTreeMap<String, String>, name: &str) -> String {
        let place = self.hasher.hash_one(name) as usize % users.len().max(1);
        let cost = users.values().nth(place).and_then(|hash| bcrypt::HashParts::from_str(hash).ok());
        let mut hash = format!("$2b${:02}$", cost.map_or(10, |parts| parts.get_cost()));
        // Salt and hash, all bits zero: nobody knows a password for it, and what is found is not looked at.
        write!(hash, "{:.<53}", "").expect("a String takes everything");
        hash
    }

    fn digest(&self, parts: &[&[u8]]) -> Digest {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("it is a suite of TLS 1.3");
        let mut hash = suite.common.hash_provider.start();
        hash.update(&self.secret);
        for part in parts {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.finish().as_ref().try_into().expect("SHA-256 is 32 bytes long")
    }
}

/// What counts as one address: of IPv6 the first half, since whoever has one address has all of those.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !u128::from(u64::MAX)).into()),
        address => address,
    }
}

/// Name and password of a header; `None` if it is of another scheme, or malformed.
fn credentials(header: &[u8]) -> Option<(String, Vec<u8>)> {
    let (scheme, rest) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut name = decode_base64(rest.trim_ascii())?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    Some((String::from_utf8(name).ok()?, password))
}

/// Letters of base64, in order of their values.
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The bytes of a base64 with its padding.
fn decode_base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|letter| **letter == b'=').count();
    if padding > 2 {
        return None;
    }
    let (mut bits, mut number) = (0_u32, 0);
    for letter in &text[..text.len() - padding] {
        let value = BASE64.iter().position(|known| known == letter)?;
        bits = bits << 6 | value as u32;
        number += 6;
        if number >= 8 {
            number -= 8;
            bytes.push((bits >> number) as u8);
        }
    }
    Some(bytes)
}

/// The header's value for a name and a password, `name:password`.
pub fn basic(credentials: &[u8]) -> String {
    let mut text = "Basic ".to_owned();
    for three in credentials.chunks(3) {
        let bits = three.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = BASE64[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(letter) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn is_user(checker: &Checker, users: &BTreeMap<String, String>, header: &str) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let header = HeaderValue::from_str(header).unwrap();
        runtime.block_on(checker.judge(users, Some(&header), None)) == Verdict::User
    }

    fn users(of: &[(&str, &str, u32)]) -> BTreeMap<String, String> {
        let hash = |password: &str, cost| bcrypt::hash(password, cost).unwrap();
        of.iter().map(|(name, password, cost)| ((*name).to_owned(), hash(password, *cost))).collect()
    }

    #[test]
    fn only_a_users_own_password_lets_in() {
        let checker = Checker::new();
        let users = users(&[("alice", "wonder:land", 4), ("bob", "", 4)]);
        for _ in 0..2 {
            for (credentials, expected) in [
                ("alice:wonder:land", true),
                ("alice:wonderland", false),
                ("alice:", false),
                ("bob:", true),
                ("bob:wonder:land", false),
                ("Alice:wonder:land", false),
                ("nobody:wonder:land", false),
                (":", false),
                ("alice", false),
            ] {
                assert_eq!(is_user(&checker, &users, &basic(credentials.as_bytes())), expected, "{credentials}");
            }
        }
        for header in ["", "Basic", "Basic ", "Bearer YWxpY2U6d29uZGVyOmxhbmQ=", "Basic YWxpY2U6d29uZGVyOmxhbmQ"] {
            assert!(!is_user(&checker, &users, header), "{header:?}");
        }
        assert!(is_user(&checker, &users, "bASIC YWxpY2U6d29uZGVyOmxhbmQ="));
    }

    #[test]
    fn hashes_of_htpasswd_are_taken_and_a_new_hash_outdates_what_was_remembered() {
        let checker = Checker::new();
        // Of "statsieve", by htpasswd's prefix.
        let y = bcrypt::hash("statsieve", 4).unwrap().replacen("$2b$", "$2y$", 1);
        let mut users = BTreeMap::from([("a".to_owned(), y)]);
        assert!(is_user(&checker, &users, &basic(b"a:statsieve")));
        users.insert("a".to_owned(), bcrypt::hash("another", 4).unwrap());
        assert!(!is_user(&checker, &users, &basic(b"a:statsieve")));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_wrong_passwords_drive_out_no_right_one() {
        let checker = Checker::new();
        let users = users(&[("alice", "right", 4)]);
        assert!(is_user(&checker, &users, &basic(b"alice:right")));
        for n in 0..MOST_REMEMBERED + 10 {
            assert!(!is_user(&checker, &users, &basic(format!("alice:wrong{n}").as_bytes())));
        }
        let remembered = checker.remembered.lock().unwrap();
        assert_eq!((remembered.right.len(), remembered.wrong.len()), (1, MOST_REMEMBERED));
    }

    #[test]
    fn one_password_is_checked_at_a_time_whosever_it_is_even_if_who_asked_has_gone() {
        let checker = Checker::new();
        let users = users(&[("alice", "a", 9)]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            for credentials in ["nobody:1", "alice:2", "nobody:3", "alice:4"] {
                let header = HeaderValue::from_str(&basic(credentials.as_bytes())).unwrap();
                let asked = checker.judge(&users, Some(&header), None);
                assert!(tokio::time::timeout(Duration::from_millis(1), asked).await.is_err(), "it takes some 30 ms");
                assert_eq!(checker.turn.available_permits(), 0);
            }
            let _turn = checker.turn.acquire().await.unwrap();
        });
    }

    #[test]
    fn few_of_an_address_wait_while_others_get_their_turn_and_what_is_remembered_waits_for_nobody() {
        let checker = Checker::new();
        let users = users(&[("alice", "a", 4)]);
        assert!(is_user(&checker, &users, &basic(b"alice:a")));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let turn = checker.turn.acquire().await.unwrap();
            let ask = |credentials: String, peer: &str| {
                let (peer, header) =
                    (peer.parse().unwrap(), HeaderValue::from_str(&basic(credentials.as_bytes())).unwrap());
                let (checker, users) = (&checker, &users);
                Box::pin(async move { checker.judge(users, Some(&header), Some(peer)).await })
            };
            let at_once = async |asked| tokio::time::timeout(Duration::ZERO, asked).await.ok();
            let mut waiting = Vec::new();
            // The last two differ from the two before in what counts as one address.
            for network in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1", "2001:db8::1:0:0:0:1"] {
                for n in 0..MOST_WAITING {
                    let mut asked = ask(format!("alice:{n}"), network);
                    assert!(tokio::time::timeout(Duration::ZERO, &mut asked).await.is_err());
                    waiting.push(asked);
                }
                for name in ["alice", "nobody"] {
                    assert_eq!(at_once(ask(format!("{name}:b"), network)).await, Some(Verdict::TooMany), "{network}");
                }
                assert_eq!(at_once(ask("alice:a".to_owned(), network)).await, Some(Verdict::User));
            }
            for neighbour in ["192.0.2.2", "2001:db8::2", "::ffff:192.0.2.1"] {
                let asked = at_once(ask("alice:b".to_owned(), neighbour)).await;
                assert_eq!(asked, Some(Verdict::TooMany), "{neighbour}");
            }
            // Whoever goes, leaves a place.
            drop(waiting.remove(0));
            let mut asked = ask("alice:b".to_owned(), "192.0.2.1");
            assert!(tokio::time::timeout(Duration::ZERO, &mut asked).await.is_err());
            waiting.push(asked);
            drop(turn);
            for asked in waiting {
                assert_eq!(asked.await, Verdict::Stranger);
            }
            assert!(checker.waiting.lock().unwrap().is_empty());
        });
    }

    #[test]
    fn a_name_that_nobody_has_is_compared_with_a_hash_of_a_users_cost() {
        let checker = Checker::new();
        let users = users(&[("alice", "a", 4), ("bob", "b", 7)]);
        let costs: std::collections::BTreeSet<u32> = (0..100)
            .map(|n| bcrypt::HashParts::from_str(&checker.nobody(&users, &n.to_string())).unwrap().get_cost())
            .collect();
        assert_eq!(costs.into_iter().collect::<Vec<_>>(), [4, 7]);
        assert_eq!(checker.nobody(&users, "x"), checker.nobody(&users, "x"));
        let begun = Instant::now();
        bcrypt::verify("x", &checker.nobody(&BTreeMap::new(), "x")).unwrap();
        assert!(begun.elapsed() > Duration::from_millis(2), "it is bcrypt that is run, at cost 10");
    }

    #[test]
    fn base64_goes_there_and_back() {
        for (text, encoded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(basic(text.as_bytes()), format!("Basic {encoded}"));
            assert_eq!(decode_base64(encoded.as_bytes()).unwrap(), text.as_bytes());
        }
        for bad in ["Zg", "Zg=", "Z===", "Z g=", "====", "Zm9v!A=="] {
            assert_eq!(decode_base64(bad.as_bytes()), None, "{bad}");
        }
    }
}
