//! Passwords: stored as slow hashes, checked away from the workers, and the outcome remembered for a while.
//!
//! A check costs tens of milliseconds by design, so decisions never make one: they ask for a [`PasswordCheck`] to be run.
//! What it found is kept in [`Verified`] under a keyed hash of user and password; neither is kept itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc;
use argon2::{Argon2, Params};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use parking_lot::Mutex;

use crate::model::clock::Instant;
use crate::model::diagnostic::{Diagnostic, Diagnostics};
use crate::model::source::Spanned;

/// The longest password that is checked, in bytes.
pub(super) const MAX_PASSWORD: usize = 1024;
/// The most that one check may cost.
const MAX_MEMORY_KIB: u32 = 256 * 1024;
const MAX_PASSES: u32 = 16;
const MAX_LANES: u32 = 16;
const MAX_BCRYPT_COST: u32 = 16;
/// How many outcomes of each kind are remembered.
const MAX_REMEMBERED: usize = 4096;

/// The stored hash of a password.
#[derive(PartialEq, Eq)]
pub struct PasswordHash {
    text: Box<str>,
    algorithm: Algorithm,
    cost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Argon2,
    Bcrypt,
}

/// The hash is not shown.
impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordHash").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl PasswordHash {
    /// Reads a hash; what was written may be a password, so no message repeats it.
    pub fn compile(written: &Spanned<String>, diagnostics: &mut Diagnostics) -> Option<Self> {
        let parsed = Self::parse(&written.value);
        if let Err(why) = &parsed {
            diagnostics.push(
                Diagnostic::error("bad_value", written.span, *why)
                    .help("`portcullis hash password` prints one; passwords are never stored as they are"),
            );
        }
        parsed.ok()
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let made = |algorithm, cost| Self { text: text.into(), algorithm, cost };
        if text.starts_with("$argon2id$") {
            let hash = phc::PasswordHash::new(text).map_err(|_| "not an argon2id hash in PHC format")?;
            let params = Params::try_from(&hash).map_err(|_| "the parameters of the argon2id hash are not valid")?;
            if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
                return Err("the hash costs too much to check: m is at most 262144 (KiB), t and p at most 16");
            }
            // in units of a pass over 1 KiB
            return Ok(made(Algorithm::Argon2, u64::from(params.m_cost()) * u64::from(params.t_cost())));
        }
        let bcrypt = ["$2a$", "$2b$", "$2y$"].iter().find_map(|prefix| text.strip_prefix(prefix));
        let (cost, rest) = bcrypt.and_then(|rest| rest.split_once('$')).ok_or("not an argon2id or bcrypt hash")?;
        let cost: u32 = cost.parse().map_err(|_| "not a bcrypt hash")?;
        let is_radix64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
        if rest.len() != 53 || !rest.bytes().all(is_radix64) || cost < 4 {
            return Err("not a bcrypt hash");
        }
        if cost > MAX_BCRYPT_COST {
            return Err("the hash costs too much to check: the cost of bcrypt is at most 16");
        }
        // measured: a pass of argon2 over 1 KiB takes about as long as eight rounds of bcrypt's key schedule
        Ok(made(Algorithm::Bcrypt, (1 << cost) * 8))
    }

    /// How much a check costs, in a common unit.
    pub(super) const fn cost(&self) -> u64 {
        self.cost
    }

    fn fits(&self, password: &[u8]) -> bool {
        match self.algorithm {
            Algorithm::Argon2 => phc::PasswordHash::new(&self.text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Algorithm::Bcrypt => bcrypt::verify(password, &self.text).unwrap_or(false),
        }
    }
}

/// How the consumers file writes a password: argon2id with the parameters of RFC 9106's neighbourhood that OWASP names
/// (19 MiB, two passes, one lane). `None` when there is no randomness to be had.
#[must_use]
pub fn hashed_password(password: &[u8]) -> Option<String> {
    use argon2::password_hash::PasswordHasher;
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).ok()?;
    Argon2::default().hash_password_with_salt(password, &salt).ok().map(|hash: phc::PasswordHash| hash.to_string())
}

/// A password to be checked against a hash. Blocks for as long as the hash is meant to cost.
pub struct PasswordCheck {
    password: Box<[u8]>,
    hash: Arc<PasswordHash>,
    /// Whether the hash is the user's own: an unknown user's password is checked against another's, for the time's sake.
    is_own: bool,
}

/// The password is not shown.
impl fmt::Debug for PasswordCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordCheck").finish_non_exhaustive()
    }
}

impl PasswordCheck {
    pub(super) fn new(password: &[u8], hash: &Arc<PasswordHash>, is_own: bool) -> Self {
        Self { password: password.into(), hash: Arc::clone(hash), is_own }
    }

    /// Whether it is the user's password.
    #[must_use]
    pub fn run(self) -> bool {
        let fits = self.hash.fits(&self.password);
        fits && self.is_own
    }
}

/// What was found out about credentials lately, at most [`MAX_REMEMBERED`] of each kind: guesses don't displace what is
/// right.
pub(super) struct Verified {
    secret: hmac::Key,
    right: Mutex<HashMap<[u8; 32], Instant>>,
    wrong: Mutex<HashMap<[u8; 32], Instant>>,
}

impl Default for Verified {
    fn default() -> Self {
        // Without randomness nothing could serve TLS either; a key of zeros then only makes the hash a public one.
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .unwrap_or_else(|_| hmac::Key::new(hmac::HMAC_SHA256, &[0; 32]));
        Self { secret, right: Mutex::default(), wrong: Mutex::default() }
    }
}

/// Credentials, as they are remembered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fingerprint([u8; 32]);

impl Verified {
    pub(super) fn fingerprint(&self, user: &str, password: &[u8]) -> Fingerprint {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(&(user.len() as u64).to_be_bytes());
        context.update(user.as_bytes());
        context.update(password);
        Fingerprint(context.sign().as_ref().try_into().unwrap_or_default())
    }

    /// Whether the credentials are right, if that was found out and still holds.
    pub(super) fn recall(&self, credentials: Fingerprint, now: Instant) -> Option<bool> {
        let holds =
            |map: &Mutex<HashMap<[u8; 32], Instant>>| map.lock().get(&credentials.0).is_some_and(|end| now < *end);
        if holds(&self.right) {
            return Some(true);
        }
        holds(&self.wrong).then_some(false)
    }

    pub(super) fn remember(&self, credentials: Fingerprint, is_right: bool, now: Instant, hold: Duration) {
        let mut map = if is_right { self.right.lock() } else { self.wrong.lock() };
        if map.len() >= MAX_REMEMBERED {
            map.retain(|_, end| now < *end);
        }
        if map.len() >= MAX_REMEMBERED {
            map.clear();
        }
        map.insert(credentials.0, now.after(hold));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A hash that costs as little as argon2id can.
    pub(in super::super) fn cheap(password: &str) -> String {
        use argon2::password_hash::PasswordHasher;
        let params = Params::new(8, 1, 1, None).expect("valid");
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        let hash: phc::PasswordHash =
            argon2.hash_password_with_salt(password.as_bytes(), b"salt of tests 16").expect("hashed");
        hash.to_string()
    }

    /// `hunter2` by another program (Python's bcrypt, cost 4).
    const BCRYPT: &str = "$2b$04$abcdefghijklmnopqrstuuJ0c7vLXn9.nyDTj9r6qyi5.K6cJ4KjG";

    #[test]
    fn a_password_fits_its_hash_alone() {
        #[track_caller]
        fn check(hash: &str, password: &str, is_own: bool, fits: bool) {
            let hash = Arc::new(PasswordHash::parse(hash).expect("a hash"));
            assert_eq!(PasswordCheck::new(password.as_bytes(), &hash, is_own).run(), fits);
        }
        check(&cheap("hunter2"), "hunter2", true, true);
        check(&cheap("hunter2"), "hunter2", false, false);
        check(&cheap("hunter2"), "hunter3", true, false);
        let bcrypt = bcrypt::hash("hunter2", 4).expect("hashed");
        check(&bcrypt, "hunter2", true, true);
        check(&bcrypt, "Hunter2", true, false);
        check(BCRYPT, "wrong", true, false);
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_refused() {
        let salted =
            |params: &str| format!("$argon2id$v=19${params}$c29tZXNhbHRzb21lc2FsdA$ZGlnZXN0ZGlnZXN0ZGlnZXN0ZGlnZXN0");
        for text in [
            "hunter2",
            "",
            "$argon2id$",
            "$2b$04$short",
            "$2b$20$abcdefghijklmnopqrstuuJ0c7vLXn9.nyDTj9r6qyi5.K6cJ4KjG",
            &salted("m=4194304,t=2,p=1"),
            &salted("m=19456,t=99,p=1"),
        ] {
            let mut diagnostics = Diagnostics::default();
            assert!(PasswordHash::compile(&text.to_owned().into(), &mut diagnostics).is_none(), "{text}");
            assert!(diagnostics.as_slice().iter().all(|found| text.is_empty() || !found.message.contains(text)));
        }
        assert!(PasswordHash::parse(&salted("m=19456,t=2,p=1")).is_ok());
    }

    #[test]
    fn outcomes_are_remembered_for_a_while_and_not_too_many() {
        let verified = Verified::default();
        let start = Instant::default();
        let ann = verified.fingerprint("ann", b"right");
        assert_eq!(verified.recall(ann, start), None);
        verified.remember(ann, true, start, Duration::from_mins(1));
        assert_eq!(verified.recall(verified.fingerprint("ann", b"right"), start), Some(true));
        assert_eq!(verified.recall(verified.fingerprint("annr", b"ight"), start), None);
        for guess in 0..2 * MAX_REMEMBERED {
            let wrong = verified.fingerprint("ann", guess.to_string().as_bytes());
            verified.remember(wrong, false, start, Duration::from_mins(1));
        }
        assert!(verified.wrong.lock().len() <= MAX_REMEMBERED);
        assert_eq!(verified.recall(ann, start), Some(true), "guesses don't displace what is right");
        assert_eq!(verified.recall(ann, start.after(Duration::from_mins(1))), None);
    }

    #[test]
    fn a_printed_hash_is_one_that_is_read() {
        let printed = hashed_password(b"hunter2").expect("randomness");
        let hash = Arc::new(PasswordHash::parse(&printed).expect("a hash"));
        assert!(PasswordCheck::new(b"hunter2", &hash, true).run());
    }
}
