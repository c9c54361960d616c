//! The same endpoint for the same key: weighted rendezvous hashing.
//!
//! Every endpoint scores each key, and the highest score wins (Thaler and Ravishankar 1998; the weights as in
//! draft-ietf-bess-weighted-hrw). When an endpoint leaves, exactly its keys move, and they spread over all the others
//! by weight; when one comes, exactly the keys move that it wins. A retry goes where the key would go if the tried
//! endpoint were gone. Shares are exact, there is no table to build when DNS changes, and all gateways agree, since a
//! score depends on nothing but the key and the endpoint's address. A ring or Maglev table looks up faster among
//! hundreds of endpoints, but gives uneven shares or moves more keys. The cost grows with the endpoints: in a copy of
//! this loop on a shared machine 20 to 35 ns for ten of equal weight and about 110 ns for ten of different weights, and
//! about 2 µs for a thousand of either.

use std::sync::Arc;

use super::super::endpoint::Endpoint;
use super::super::health::WHOLE;
use super::weights::remix;
use crate::model::key::{Key, KeyValue};
use crate::model::request::RequestView;

/// What each endpoint's scores begin with.
#[derive(Debug)]
pub(super) struct Rendezvous {
    seeds: Box<[(u64, u32)]>,
    /// Without different weights the order of the hashes is the order of the scores.
    weighted: bool,
}

impl Rendezvous {
    pub(super) fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let seed = |endpoint: &Arc<Endpoint>| {
            let mut seed = Fnv::default();
            seed.text(endpoint.url.as_bytes());
            seed.text(endpoint.address.as_bytes());
            (remix(seed.0), endpoint.weight)
        };
        let seeds: Box<[_]> = endpoints.iter().map(seed).collect();
        let weighted = seeds.windows(2).any(|pair| matches!(pair, [(_, one), (_, other)] if one != other));
        Self { seeds, weighted }
    }

    /// The endpoint that scores `hash` highest, of those with a `share` above 0. As a share grows, keys move to its
    /// endpoint, each once. `may_ramp`: some shares may be between 0 and [`WHOLE`].
    pub(super) fn choose(&self, hash: u64, may_ramp: bool, share: impl Fn(usize) -> u64) -> Option<usize> {
        let ramps = may_ramp && (0..self.seeds.len()).any(|index| (1..WHOLE).contains(&share(index)));
        let candidates = self.seeds.iter().enumerate().map(|(index, seed)| (index, seed, share(index)));
        let candidates = candidates.filter(|(.., share)| *share > 0);
        let hashes =
            candidates.map(|(index, (seed, weight), share)| (index, remix(hash ^ seed), u64::from(*weight) * share));
        if !self.weighted && !ramps {
            return hashes.max_by_key(|(_, hash, _)| *hash).map(|(index, ..)| index);
        }
        let mut best = None;
        let mut highest = f64::NEG_INFINITY;
        for (index, hash, weight) in hashes {
            #[expect(clippy::cast_precision_loss, reason = "a weight of at most 1000 * 1024")]
            let (uniform, weight) = (uniform(hash), weight as f64);
            // ln(u) <= u - 1 rules out nearly all candidates without the logarithm
            if (uniform - 1.0) / weight <= highest {
                continue;
            }
            // Of the exponentially distributed times -ln(u) / w the smallest belongs to an endpoint with probability
            // w / sum(w): the score is that time, negated.
            let score = uniform.ln() / weight;
            if score > highest {
                (best, highest) = (Some(index), score);
            }
        }
        best
    }
}

/// A hash as a number between 0 and 1, never quite either.
fn uniform(hash: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "the 52 bits that are left fit")]
    let uniform = ((hash >> 12) as f64 + 0.5) / (1_u64 << 52) as f64;
    uniform
}

/// The hash of what `keys` find in `request`; `None` when none of them finds anything. The same in every process.
#[must_use]
pub fn hash(keys: &[Key], request: &RequestView<'_>) -> Option<u64> {
    let mut hash = Fnv::default();
    let mut found = false;
    for key in keys {
        let value = key.value(request);
        found |= value.is_some();
        hash.value(value);
    }
    found.then(|| remix(hash.0))
}

/// FNV-1a with 64 bits: simple and the same everywhere. [`remix`] spreads what it leaves close together.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn byte(&mut self, byte: u8) {
        self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }

    fn text(&mut self, text: &[u8]) {
        self.value(Some(KeyValue::Raw(text)));
    }

    /// Takes in a value, so that `["ab", "c"]`, `["a", "bc"]` and an absent value are all different.
    fn value(&mut self, value: Option<KeyValue<'_>>) {
        let mut length = 0_u64;
        if let Some(value) = value {
            value.for_each(|byte| {
                self.byte(byte);
                length += 1;
            });
            length += 1;
        }
        length.to_le_bytes().into_iter().for_each(|byte| self.byte(byte));
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, SocketAddr};

    use http::{HeaderMap, HeaderValue, Method, Version};

    use super::*;
    use crate::model::key::Keys;
    use crate::model::request::Scheme;

    fn hash_of(keys: &str, query: &str, tenant: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers
            .extend(tenant.map(|tenant| (http::HeaderName::from_static("x-tenant"), HeaderValue::from_static(tenant))));
        let keys: Keys = serde_json::from_str(keys).expect("keys");
        let request = RequestView {
            method: &Method::GET,
            scheme: Scheme::Http,
            host: "a",
            port: None,
            path: "/",
            query: Some(query),
            headers: &headers,
            version: Version::HTTP_11,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            peer: SocketAddr::from(([127, 0, 0, 1], 1)),
            principal: None,
            route: None,
        };
        hash(keys.as_slice(), &request)
    }

    #[test]
    fn a_request_without_any_key_has_no_hash() {
        assert_eq!(hash_of(r#""header:x-tenant""#, "", None), None);
        assert!(hash_of(r#"["header:x-tenant", "host"]"#, "", None).is_some());
    }

    #[test]
    fn equal_values_hash_equally_and_others_do_not() {
        let both = r#"["query:a", "query:b"]"#;
        assert_eq!(hash_of(both, "a=x%79&b=z", None), hash_of(both, "b=z&a=xy", None));
        assert_ne!(hash_of(both, "a=xy&b=z", None), hash_of(both, "a=x&b=yz", None));
        assert_ne!(hash_of(both, "a=xy", None), hash_of(both, "b=xy", None));
    }

    #[test]
    fn a_hash_is_the_same_in_every_release() {
        // sessions stick to their endpoint while a fleet is upgraded one gateway at a time
        assert_eq!(hash_of(r#""header:x-tenant""#, "", Some("blue")), Some(5_699_714_289_874_421_575));
    }
}
