//! The buckets of one limit: as many keys as are in use, in bounded memory.
//!
//! A key is 128 bits of a keyed hash, a bucket one instant: 25 bytes with the map's control byte, at most some 60 with its
//! free slots, so a million keys take about 55 MB (`bench/micro/rate_limit.rs` measures it). A bucket that has refilled
//! says no more than one that was never made, so those, and only those, are forgotten: when a shard would grow, when the
//! table is full, and one shard a second ([`Buckets::sweep_next`]). A key that is forgotten never regains a burst.
//!
//! When `max_keys` are in use and none has refilled, further keys share one bucket. They are not refused outright, because
//! some of them may be honest, and they don't displace others, because whoever can make keys could then empty the bucket
//! of anybody. A key that leaves that bucket for one of its own takes the shared one's level along.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use parking_lot::{Mutex, MutexGuard};
use siphasher::sip128::SipHasher13;
use smallvec::SmallVec;

use super::gcra::Quota;
use super::store::{Report, Share, Store};
use crate::model::clock::Instant;
use crate::model::ids::LimitName;
use crate::model::key::Keys;
use crate::model::request::RequestView;
use crate::model::units::Rate;

/// Keys of a shard when it is full, roughly: few enough that a sweep takes microseconds.
const KEYS_PER_SHARD: usize = 1024;
const MAX_SHARDS: usize = 64;

/// What a limit counts, and how much of it: as long as this stays, its buckets outlive a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counting {
    /// What tells one bucket from another.
    pub keys: Keys,
    /// How fast a bucket refills.
    pub rate: Rate,
    /// Units that a full bucket holds.
    pub burst: u32,
    /// Keys that have a bucket of their own, at most.
    pub max_keys: u32,
}

/// For how long a client is sent away when a store is down that everything is refused without.
const CLOSED_FOR: Duration = Duration::from_secs(1);

/// What stands for the value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHash {
    low: u64,
    high: u64,
}

impl KeyHash {
    const fn word(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.low);
    }
}

/// A [`KeyHash`] is hashed already, with a key that nobody outside knows.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    /// `NAME` of a named limit, `NAME@ROUTE` of a route's own.
    id: LimitName,
    counting: Counting,
    quota: Quota,
    seed: (u64, u64),
    shards: Box<[Mutex<Shard>]>,
    tracked: AtomicUsize,
    /// The bucket of keys for which there is no room.
    overflow: Mutex<Instant>,
    overflowed: AtomicU64,
    keyless: AtomicU64,
    /// The shard that is swept next.
    hand: AtomicUsize,
    /// The shard whose reports are next.
    reporting: AtomicUsize,
    /// Where other gateways count too.
    store: Option<Arc<Store>>,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<KeyHash, Instant, BuildHasherDefault<Identity>>,
    /// Keys that found no room since the last sweep.
    turned_away: usize,
    /// What the store has not been told. At most one entry for each bucket.
    owed: HashMap<KeyHash, Owed, BuildHasherDefault<Identity>>,
}

/// What the store is to be told of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    /// So many units were taken, or put back.
    Units(i64),
    /// How empty it is: the store may have lost its count.
    Level,
}

impl Shard {
    /// Forgets the buckets that have refilled; how many those were.
    fn sweep(&mut self, now: Instant) -> usize {
        let before = self.buckets.len();
        self.buckets.retain(|_, bucket| *bucket > now);
        self.turned_away = 0;
        let (left, room) = (self.buckets.len(), self.buckets.capacity());
        if room > 64 && left < room / 8 {
            self.buckets.shrink_to(left * 2);
        }
        before - left
    }
}

impl Buckets {
    /// No key has a bucket yet. `seed` should be random: whoever knows it can make keys that meet in one bucket.
    pub(super) fn new(id: LimitName, counting: Counting, quota: Quota, seed: u128, store: Option<Arc<Store>>) -> Self {
        let shards = usize::try_from(counting.max_keys).unwrap_or(usize::MAX) / KEYS_PER_SHARD;
        let shards = shards.clamp(1, MAX_SHARDS).next_power_of_two();
        let (low, high) = halves(seed);
        Self {
            id,
            counting,
            quota,
            seed: (low, high),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            tracked: AtomicUsize::new(0),
            overflow: Mutex::default(),
            overflowed: AtomicU64::new(0),
            keyless: AtomicU64::new(0),
            hand: AtomicUsize::new(0),
            reporting: AtomicUsize::new(0),
            store,
        }
    }

    /// The limit's name in metrics: `NAME` of a named limit, `NAME@ROUTE` of a route's own.
    #[must_use]
    pub fn id(&self) -> &LimitName {
        &self.id
    }

    /// What it counts.
    #[must_use]
    pub fn counting(&self) -> &Counting {
        &self.counting
    }

    /// Keys that have a bucket now.
    #[must_use]
    pub fn tracked(&self) -> usize {
        self.tracked.load(Ordering::Relaxed)
    }

    /// How often a request counted in the bucket of keys for which there is no room.
    #[must_use]
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// How often a request had no value for the key.
    #[must_use]
    pub fn keyless(&self) -> u64 {
        self.keyless.load(Ordering::Relaxed)
    }

    /// Where other gateways count too.
    #[must_use]
    pub fn store(&self) -> Option<&Arc<Store>> {
        self.store.as_ref()
    }

    /// How long an overdrawn bucket takes to refill, at most.
    #[must_use]
    pub fn longest_debt(&self) -> Duration {
        self.quota.longest_debt()
    }

    pub(super) const fn quota(&self) -> Quota {
        self.quota
    }

    /// What stands for `request`, and whether it had a value for any of the keys. Allocates only for values past 64 bytes.
    pub(super) fn key_of(&self, request: &RequestView<'_>) -> (KeyHash, bool) {
        let mut bytes: SmallVec<[u8; 64]> = SmallVec::new();
        let mut found = false;
        for key in self.counting.keys.as_slice() {
            // the length goes before the value, so that ["ab", "c"] is not ["a", "bc"], and an absent value is neither
            let Some(value) = key.value(request) else {
                bytes.push(0);
                continue;
            };
            found = true;
            let start = bytes.len();
            bytes.extend_from_slice(&[1, 0, 0, 0, 0]);
            value.append_to(&mut bytes);
            let length = u32::try_from(bytes.len() - start).unwrap_or(u32::MAX);
            bytes.iter_mut().skip(start + 1).zip(length.to_le_bytes()).for_each(|(place, byte)| *place = byte);
        }
        if !found {
            self.keyless.fetch_add(1, Ordering::Relaxed);
        }
        (self.hash(&bytes), found)
    }

    /// With a key of this process alone, or, where others have to find the same bucket, one that needs none.
    fn hash(&self, bytes: &[u8]) -> KeyHash {
        if self.store.is_none() {
            let hash = SipHasher13::new_with_keys(self.seed.0, self.seed.1).hash(bytes);
            return KeyHash { low: hash.h1, high: hash.h2 };
        }
        let digest = digest::digest(&digest::SHA256, bytes);
        let word = digest.as_ref().iter().take(16).fold(0_u128, |word, byte| word << 8 | u128::from(*byte));
        let (low, high) = halves(word);
        KeyHash { low, high }
    }

    /// What this gateway may give out of its buckets: the limit, or a share of it.
    pub(super) fn judge(&self, bucket: Instant, now: Instant, cost: u64) -> Result<Instant, Duration> {
        match self.store.as_ref().map_or(Share::OneOf(1), |store| store.share()) {
            Share::OneOf(nodes) => self.quota.take_share(bucket, now, cost, nodes),
            Share::Everything => Ok(bucket),
            Share::Nothing => Err(CLOSED_FOR),
        }
    }

    /// As how many units one counts here.
    pub(super) fn weight(&self) -> u64 {
        self.store.as_ref().map_or(1, |store| u64::from(store.nodes()))
    }

    /// What the store has to be told, of at most `most` buckets; it counts as told.
    pub fn reports(&self, now: Instant, most: usize) -> Vec<Report> {
        let mut reports = Vec::new();
        // goes on where the last reports ended: no shard waits for ever behind busy ones
        let first = self.reporting.load(Ordering::Relaxed) % self.shards.len().max(1);
        let shards = self.shards.iter().enumerate();
        for (index, shard) in shards.clone().skip(first).chain(shards.take(first)) {
            self.reporting.store(index, Ordering::Relaxed);
            let mut shard = shard.lock();
            let room = most - reports.len();
            let keys: SmallVec<[KeyHash; 16]> = shard.owed.keys().take(room).copied().collect();
            for key in keys {
                let Some(owed) = shard.owed.remove(&key) else { continue };
                let backlog = shard.buckets.get(&key).map_or(Duration::ZERO, |bucket| bucket.since(now));
                let (taken, lacks) = match owed {
                    Owed::Units(units) => (self.quota.time_for(units), 0),
                    Owed::Level => (0, u64::try_from(backlog.as_micros()).unwrap_or(u64::MAX)),
                };
                // rounded up: never less than was taken
                let taken_micros = taken.div_euclid(1_000) + i64::from(taken.rem_euclid(1_000) > 0);
                reports.push(Report { key: key.word(), taken_micros, lacks_micros: lacks });
            }
            if reports.len() >= most {
                break;
            }
        }
        reports
    }

    /// Takes over how empty a bucket is for all gateways, as of `now`, and adds what was taken here since the report.
    pub fn adopt(&self, key: u128, backlog: Duration, now: Instant) {
        let (low, high) = halves(key);
        let key = KeyHash { low, high };
        let mut shard = self.shard(key).lock();
        let since = match shard.owed.get(&key) {
            Some(Owed::Units(units)) => self.quota.time_for(*units).saturating_mul(weight_of(self.weight())),
            Some(Owed::Level) => return,
            None => 0,
        };
        if let Some(bucket) = shard.buckets.get_mut(&key) {
            let since = Duration::from_nanos(u64::try_from(since).unwrap_or(0));
            *bucket = now.after(backlog).after(since);
        }
    }

    /// The store is back and may have lost its count: it is to be told how empty each bucket is.
    pub fn tell_levels(&self, now: Instant) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let Shard { buckets, owed, .. } = &mut *shard;
            owed.clear();
            owed.extend(buckets.iter().filter(|(_, bucket)| **bucket > now).map(|(key, _)| (*key, Owed::Level)));
        }
    }

    /// The bucket of `key`, held until the value is dropped.
    pub(super) fn open(&self, key: KeyHash, now: Instant) -> Open<'_> {
        let mut shard = self.shard(key).lock();
        let own = shard.buckets.get(&key).copied();
        let (place, bucket) = match own {
            Some(bucket) => (Place::Own, bucket),
            None if self.has_room(&mut shard, now) => (Place::New, self.shared_level()),
            None => {
                self.overflowed.fetch_add(1, Ordering::Relaxed);
                let overflow = self.overflow.lock();
                let bucket = *overflow;
                (Place::Overflow(overflow), bucket)
            }
        };
        Open { of: self, key, now, shard, place, bucket }
    }

    /// A key that comes out of the shared bucket may have taken all that is missing there.
    fn shared_level(&self) -> Instant {
        // a key's requests meet in its shard's lock, so what the same key has taken is seen
        if self.overflowed.load(Ordering::Relaxed) == 0 { Instant::default() } else { *self.overflow.lock() }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn shard(&self, key: KeyHash) -> &Mutex<Shard> {
        // the map takes its bits from the low word
        let index = key.high as usize % self.shards.len().max(1);
        self.shards.get(index).unwrap_or_else(|| self.first_shard())
    }

    #[expect(clippy::expect_used, reason = "`new` makes at least one")]
    fn first_shard(&self) -> &Mutex<Shard> {
        self.shards.first().expect("at least one shard")
    }

    /// Whether one more key gets a bucket of its own; its place is taken.
    fn has_room(&self, shard: &mut Shard, now: Instant) -> bool {
        if self.reserve() {
            return true;
        }
        // a sweep looks at each bucket of the shard: so many keys share its cost that it comes to a few for each
        shard.turned_away += 1;
        if shard.turned_away * 4 < shard.buckets.len() {
            return false;
        }
        self.release(shard.sweep(now));
        self.reserve()
    }

    fn reserve(&self) -> bool {
        let most = usize::try_from(self.counting.max_keys).unwrap_or(usize::MAX);
        let one_more = |tracked: usize| (tracked < most).then_some(tracked + 1);
        self.tracked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    fn release(&self, places: usize) {
        self.tracked.fetch_sub(places, Ordering::Relaxed);
    }

    /// Forgets what has refilled in one shard, the next one with each call: memory comes back when the traffic has gone.
    pub fn sweep_next(&self, now: Instant) {
        let turn = self.hand.fetch_add(1, Ordering::Relaxed);
        if let Some(shard) = self.shards.get(turn % self.shards.len().max(1)) {
            let freed = shard.lock().sweep(now);
            self.release(freed);
        }
    }
}

fn weight_of(nodes: u64) -> i64 {
    i64::try_from(nodes).unwrap_or(i64::MAX)
}

const fn halves(word: u128) -> (u64, u64) {
    #[expect(clippy::cast_possible_truncation, reason = "each half is taken")]
    (word as u64, (word >> 64) as u64)
}

enum Place<'a> {
    Own,
    New,
    Overflow(MutexGuard<'a, Instant>),
}

/// A bucket that nobody else can use meanwhile.
pub(super) struct Open<'a> {
    of: &'a Buckets,
    key: KeyHash,
    now: Instant,
    shard: MutexGuard<'a, Shard>,
    place: Place<'a>,
    bucket: Instant,
}

impl Open<'_> {
    /// When it will have refilled.
    pub(super) const fn bucket(&self) -> Instant {
        self.bucket
    }

    /// Whether the key had no bucket, so that nothing can be put back.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.place, Place::New)
    }

    /// Whether it is the bucket of keys for which there is no room.
    pub(super) const fn is_overflow(&self) -> bool {
        matches!(self.place, Place::Overflow(_))
    }

    /// Changes the bucket: so many units were taken, or put back.
    pub(super) fn set(mut self, bucket: Instant, units: i64) {
        if self.of.store.as_ref().is_some_and(|store| store.is_up()) && !self.is_overflow() {
            match self.shard.owed.entry(self.key).or_insert(Owed::Units(0)) {
                Owed::Units(owed) => *owed = owed.saturating_add(units),
                Owed::Level => {}
            }
        }
        match &mut self.place {
            Place::Overflow(overflow) => **overflow = bucket,
            Place::Own => {
                if let Some(place) = self.shard.buckets.get_mut(&self.key) {
                    *place = bucket;
                }
            }
            Place::New => {
                if self.shard.buckets.len() == self.shard.buckets.capacity() {
                    let freed = self.shard.sweep(self.now);
                    self.of.release(freed);
                }
                self.shard.buckets.insert(self.key, bucket);
                self.place = Place::Own;
            }
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.is_new() {
            self.of.release(1);
        }
    }
}
