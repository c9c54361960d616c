//! What a client accepts, by RFC 9110 §12.5.3.
//!
//! Decides among the encodings on offer by the client's weights; among equals the order of the configuration wins, and an
//! encoding wins over none at all. A client that says nothing gets none, though the letter of the RFC would allow any:
//! it may be one that can't decode. So does one that accepts nothing, not even `identity`: an answer that it may still
//! read is better than none. A member that can't be parsed counts as not there. A coding that is named twice has its lower
//! weight, so that a zero forbids wherever it stands.

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, HeaderMap, IF_NONE_MATCH};

use super::Algorithm;
use crate::model::fields;

/// What one client wants of what is on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// `None`: the response goes out as it is.
    pub(super) algorithm: Option<Algorithm>,
    /// Whether it holds a copy under a weak tag: maybe one that we compressed.
    pub(super) holds_weak_tag: bool,
}

/// Thousandths, as weights have at most three digits.
type Weight = u16;
const FULL: Weight = 1000;

/// The weights that one request gives.
#[derive(Debug, Default)]
struct Weights {
    zstd: Option<Weight>,
    br: Option<Weight>,
    gzip: Option<Weight>,
    identity: Option<Weight>,
    any: Option<Weight>,
}

impl Wanted {
    pub(super) fn read(offers: &[Algorithm], request: &HeaderMap) -> Self {
        let holds_weak_tag = fields::members(request, &IF_NONE_MATCH).any(|tag| tag.starts_with("W/"));
        // RFC 9111 §5.2.1.6: the client asks for the bytes as they are
        if fields::members(request, &CACHE_CONTROL).any(|directive| directive.eq_ignore_ascii_case("no-transform")) {
            return Self { algorithm: None, holds_weak_tag };
        }
        let mut weights = Weights::default();
        for (coding, weight) in fields::members(request, &ACCEPT_ENCODING).filter_map(parse) {
            weights.note(coding, weight);
        }
        Self { algorithm: weights.choose(offers), holds_weak_tag }
    }
}

impl Weights {
    fn note(&mut self, coding: &str, weight: Weight) {
        let is = |name: &str| coding.eq_ignore_ascii_case(name);
        let slot = match coding {
            "*" => &mut self.any,
            _ if is("zstd") => &mut self.zstd,
            _ if is("br") => &mut self.br,
            _ if is("gzip") || is("x-gzip") => &mut self.gzip,
            _ if is("identity") => &mut self.identity,
            _ => return,
        };
        *slot = Some(slot.map_or(weight, |known| known.min(weight)));
    }

    fn choose(&self, offers: &[Algorithm]) -> Option<Algorithm> {
        let mut best: Option<(Weight, Algorithm)> = None;
        for offer in offers {
            let explicit = match offer {
                Algorithm::Zstd => self.zstd,
                Algorithm::Br => self.br,
                Algorithm::Gzip => self.gzip,
            };
            let weight = explicit.or(self.any).unwrap_or(0);
            if weight > best.map_or(0, |(top, _)| top) {
                best = Some((weight, *offer));
            }
        }
        let identity = self.identity.or(self.any).unwrap_or(0);
        best.filter(|(weight, _)| *weight >= identity).map(|(_, algorithm)| algorithm)
    }
}

/// `coding [ ";" "q=" weight ]`
fn parse(member: &str) -> Option<(&str, Weight)> {
    let space = [' ', '\t'];
    let Some((coding, parameter)) = member.split_once(';') else { return Some((member, FULL)) };
    let parameter = parameter.trim_matches(space);
    let weight = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    Some((coding.trim_end_matches(space), parse_weight(weight)?))
}

/// RFC 9110 §12.4.2: `0` to `1` with at most three digits after the point.
fn parse_weight(written: &str) -> Option<Weight> {
    let (whole, digits) = written.split_once('.').unwrap_or((written, ""));
    if digits.len() > 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let whole = match whole {
        "0" => 0,
        "1" => FULL,
        _ => return None,
    };
    let places = [100, 10, 1];
    let fraction: Weight = digits.bytes().zip(places).map(|(digit, place)| Weight::from(digit - b'0') * place).sum();
    Some(whole + fraction).filter(|weight| *weight <= FULL)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Zstd, Algorithm::Br, Algorithm::Gzip];

    fn wanted(offers: &[Algorithm], lines: &[&str]) -> Option<Algorithm> {
        let value = |line: &&str| HeaderValue::from_str(line).expect("visible");
        let headers = lines.iter().map(|line| (ACCEPT_ENCODING, value(line))).collect();
        Wanted::read(offers, &headers).algorithm
    }

    #[track_caller]
    fn check(lines: &[&str], chosen: Option<Algorithm>) {
        assert_eq!(wanted(&ALL, lines), chosen, "{lines:?}");
    }

    #[test]
    fn weights_decide_and_our_order_breaks_ties() {
        check(&["gzip;q=1.0, br;q=0.9"], Some(Algorithm::Gzip));
        check(&["gzip", "br"], Some(Algorithm::Br));
        check(&["gzip ; q=0.5,\tbr\t;\tq=0.501"], Some(Algorithm::Br));
        check(&["X-GZIP"], Some(Algorithm::Gzip));
        check(&["*"], Some(Algorithm::Zstd));
        check(&["*;q=0.5, gzip"], Some(Algorithm::Gzip));
        check(&["zstd;q=0, *"], Some(Algorithm::Br));
    }

    #[test]
    fn zero_forbids() {
        check(&["gzip;q=0"], None);
        check(&["gzip;q=0.000, br;q=0.0"], None);
        check(&["*;q=0"], None);
        check(&["*;q=0, gzip"], Some(Algorithm::Gzip));
        check(&["gzip, br;q=0.2", "gzip;q=0"], Some(Algorithm::Br));
        check(&["x-gzip;q=0, gzip"], None);
    }

    #[test]
    fn identity_may_be_liked_better() {
        check(&["gzip;q=0.5, identity"], None);
        check(&["gzip, identity"], Some(Algorithm::Gzip));
        check(&["identity;q=0, gzip;q=0.1"], Some(Algorithm::Gzip));
        check(&["identity;q=0"], None);
        assert_eq!(wanted(&[Algorithm::Gzip], &["gzip;q=0.5, *;q=0.8"]), None);
    }

    #[test]
    fn what_browsers_and_tools_send() {
        check(&["gzip, deflate, br, zstd"], Some(Algorithm::Zstd));
        check(&["gzip, deflate, br"], Some(Algorithm::Br));
        check(&["gzip;q=1.0,deflate;q=0.6,identity;q=0.3"], Some(Algorithm::Gzip));
        check(&["br;q=1.0, gzip;q=0.8, *;q=0.1"], Some(Algorithm::Br));
        check(&["identity"], None);
        check(&["*/*"], None);
    }

    #[test]
    fn the_order_of_the_configuration_counts_and_only_what_is_on_offer() {
        use Algorithm::{Br, Gzip, Zstd};
        assert_eq!(wanted(&[Gzip, Br, Zstd], &["zstd, br, gzip"]), Some(Gzip));
        assert_eq!(wanted(&[Br, Zstd], &["*"]), Some(Br));
        assert_eq!(wanted(&[Gzip], &["zstd, br"]), None);
        assert_eq!(wanted(&[Gzip], &["zstd, br, gzip;q=0.001"]), Some(Gzip));
    }

    #[test]
    fn who_says_nothing_gets_the_bytes_as_they_are() {
        check(&[], None);
        check(&[""], None);
        check(&["deflate, compress"], None);
    }

    #[test]
    fn what_can_not_be_parsed_is_not_there() {
        for weight in ["2", "1.001", "0.1234", "-1", ".5", "", "1.a", "0,5"] {
            check(&[&format!("br;q={weight}, gzip;q=0.1")], Some(Algorithm::Gzip));
        }
        check(&["br;level=1, gzip"], Some(Algorithm::Gzip));
    }

    #[test]
    fn the_client_may_forbid_any_change() {
        let headers = HeaderMap::from_iter([
            (ACCEPT_ENCODING, HeaderValue::from_static("gzip")),
            (CACHE_CONTROL, HeaderValue::from_static("max-age=0, No-Transform")),
        ]);
        assert_eq!(Wanted::read(&ALL, &headers).algorithm, None);
    }

    proptest! {
        #[test]
        fn what_is_chosen_is_what_the_client_likes_best(zstd in 0_u16..=1000, br in 0_u16..=1000, gzip in 0_u16..=1000, identity in 0_u16..=1000) {
            let weight = |weight: u16| format!("{}.{:03}", weight / 1000, weight % 1000);
            let line = format!("zstd;q={}, br;q={}, gzip;q={}, identity;q={}", weight(zstd), weight(br), weight(gzip), weight(identity));
            let chosen = match wanted(&ALL, &[&line]) {
                Some(Algorithm::Zstd) => zstd,
                Some(Algorithm::Br) => br,
                Some(Algorithm::Gzip) => gzip,
                None => {
                    let best = zstd.max(br).max(gzip);
                    prop_assert!(best < identity || best == 0);
                    return Ok(());
                }
            };
            prop_assert!(chosen > 0 && chosen >= zstd.max(br).max(gzip).max(identity));
        }

        #[test]
        fn any_line_is_read_without_harm(line in "[ -~\t]{0,60}") {
            let _ = wanted(&ALL, &[&line]);
        }
    }
}
