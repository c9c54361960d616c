//! Which part of a request tells one caller from another: `client.ip`, `header:x-tenant`, `cookie:session`, …
//!
//! A key is written the same way wherever the configuration takes one, and reads a request without allocating.
//! What is made of the value (a hash, a bucket) is not decided here.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{COOKIE, HeaderName};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use smallvec::SmallVec;

use super::request::RequestView;

/// One part of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// `client.ip`: the client's address; an IPv6 client counts as its /64.
    ClientIp,
    /// `host`
    Host,
    /// `method`
    Method,
    /// `route`: the name of the route.
    Route,
    /// `principal`: the name of the authenticated caller.
    Principal,
    /// `jwt:CLAIM`: a claim of the caller's token.
    Claim(Box<str>),
    /// `path`: in canonical form, without the query.
    Path,
    /// `header:NAME`: the first field of that name.
    Header(HeaderName),
    /// `query:NAME`: the first parameter of that name, decoded.
    Query(Box<str>),
    /// `cookie:NAME`: the first cookie of that name.
    Cookie(Box<str>),
}

/// Why a key was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(String);

/// What a key found in a request, in the bytes that stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyValue<'a> {
    /// An IPv4 address.
    V4([u8; 4]),
    /// The first 64 bits of an IPv6 address.
    V6Prefix([u8; 8]),
    /// Bytes as they stand in the request.
    Raw(&'a [u8]),
    /// Percent-encoded bytes, which count as what they decode to.
    Encoded(&'a str),
    /// A text that does not stand in the request as it is.
    Text(Cow<'a, str>),
}

impl Key {
    /// Whether its value is known only after authentication.
    #[must_use]
    pub const fn needs_principal(&self) -> bool {
        matches!(self, Self::Principal | Self::Claim(_))
    }

    /// The key's value in `request`; `None` when it has none, or an empty one.
    #[must_use]
    pub fn value<'a>(&self, request: &RequestView<'a>) -> Option<KeyValue<'a>> {
        let raw = |bytes: &'a [u8]| (!bytes.is_empty()).then_some(KeyValue::Raw(bytes));
        match self {
            Self::ClientIp => Some(address(request.client)),
            Self::Host => raw(request.host.as_bytes()),
            Self::Method => raw(request.method.as_str().as_bytes()),
            Self::Route => raw(request.route?.as_bytes()),
            Self::Principal => raw(request.principal?.name().as_bytes()),
            Self::Claim(path) => {
                let claim = request.principal?.claim(path)?;
                (!claim.is_empty()).then_some(KeyValue::Text(claim))
            }
            Self::Path => raw(request.path.as_bytes()),
            Self::Header(name) => raw(request.headers.get(name)?.as_bytes()),
            Self::Query(name) => {
                let value = parameter(request.query?, name)?;
                (!value.is_empty()).then_some(KeyValue::Encoded(value))
            }
            Self::Cookie(name) => {
                // HTTP/2 may split the field (RFC 9113 §8.2.3)
                let mut fields = request.headers.get_all(COOKIE).iter();
                raw(fields.find_map(|field| cookie(field.as_bytes(), name.as_bytes()))?)
            }
        }
    }
}

impl KeyValue<'_> {
    /// Adds every byte of the value to `bytes`.
    pub fn append_to<A: smallvec::Array<Item = u8>>(self, bytes: &mut SmallVec<A>) {
        match self {
            Self::V4(octets) => bytes.extend_from_slice(&octets),
            Self::V6Prefix(octets) => bytes.extend_from_slice(&octets),
            Self::Raw(raw) => bytes.extend_from_slice(raw),
            Self::Encoded(text) => bytes.extend(decoded(text)),
            Self::Text(text) => bytes.extend_from_slice(text.as_bytes()),
        }
    }

    /// Gives `take` every byte of the value in turn.
    pub fn for_each(self, mut take: impl FnMut(u8)) {
        match self {
            Self::V4(octets) => octets.into_iter().for_each(take),
            Self::V6Prefix(octets) => octets.into_iter().for_each(take),
            Self::Raw(bytes) => bytes.iter().copied().for_each(&mut take),
            Self::Encoded(text) => decoded(text).for_each(take),
            Self::Text(text) => text.bytes().for_each(take),
        }
    }
}

impl fmt::Display for KeyValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(octets) => write!(f, "{}", IpAddr::from(*octets)),
            Self::V6Prefix(prefix) => {
                let network = u128::from(u64::from_be_bytes(*prefix)) << 64;
                write!(f, "{}/64", std::net::Ipv6Addr::from_bits(network))
            }
            Self::Raw(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Encoded(text) => f.write_str(&String::from_utf8_lossy(&decoded(text).collect::<Vec<u8>>())),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn address(client: IpAddr) -> KeyValue<'static> {
    match client.to_canonical() {
        IpAddr::V4(address) => KeyValue::V4(address.octets()),
        IpAddr::V6(address) => {
            let prefix = address.to_bits() >> 64;
            KeyValue::V6Prefix(u64::try_from(prefix).unwrap_or(u64::MAX).to_be_bytes())
        }
    }
}

/// The first parameter of that name, still encoded.
fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| {
        let (written, value) = pair.split_once('=').unwrap_or((pair, ""));
        decoded(written).eq(name.bytes()).then_some(value)
    })
}

/// The bytes that a form-encoded text stands for; an incomplete escape stands for itself.
#[must_use = "an iterator does nothing by itself"]
pub fn decoded(text: &str) -> impl Iterator<Item = u8> + '_ {
    let hex = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = text.bytes();
    std::iter::from_fn(move || {
        let byte = rest.next()?;
        if byte == b'+' {
            return Some(b' ');
        }
        let mut ahead = rest.clone();
        if byte == b'%'
            && let (Some(high), Some(low)) = (hex(ahead.next()), hex(ahead.next()))
        {
            rest = ahead;
            return Some(high << 4 | low);
        }
        Some(byte)
    })
}

/// The value of the first cookie of that name in one `Cookie` field (RFC 6265 §4.2.1).
fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    field.split(|byte| *byte == b';').find_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (written, value) = pair.split_at_checked(equals)?;
        (written.trim_ascii() == name).then(|| value.strip_prefix(b"=").unwrap_or(value).trim_ascii())
    })
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(written: &str) -> Result<Self, KeyError> {
        let unknown = || {
            KeyError(format!(
                "not a key (client.ip, principal, route, host, method, path, header:NAME, query:NAME, cookie:NAME or jwt:CLAIM): {written:?}"
            ))
        };
        let Some((kind, name)) = written.split_once(':') else {
            return match written {
                "client.ip" => Ok(Self::ClientIp),
                "host" => Ok(Self::Host),
                "method" => Ok(Self::Method),
                "route" => Ok(Self::Route),
                "principal" => Ok(Self::Principal),
                "path" => Ok(Self::Path),
                _ => Err(unknown()),
            };
        };
        let header = || {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| KeyError(format!("not a name that a field can have: {written:?}")))
        };
        match kind {
            "header" => Ok(Self::Header(header()?)),
            "jwt" if name.is_empty() => Err(KeyError(format!("the claim has no name: {written:?}"))),
            "jwt" => Ok(Self::Claim(name.into())),
            "query" if name.is_empty() => Err(KeyError(format!("the parameter has no name: {written:?}"))),
            "query" => Ok(Self::Query(name.into())),
            // a cookie's name is a token, as a field's is (RFC 6265 §4.1.1), but its case matters
            "cookie" => header().map(|_| Self::Cookie(name.into())),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClientIp => f.write_str("client.ip"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::Route => f.write_str("route"),
            Self::Principal => f.write_str("principal"),
            Self::Claim(path) => write!(f, "jwt:{path}"),
            Self::Path => f.write_str("path"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
        }
    }
}

/// One key or a list of them, which count together: `"client.ip"` or `["host", "cookie:session"]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Keys(SmallVec<[Key; 1]>);

impl Keys {
    /// The longest list.
    pub const MAX: usize = 8;

    /// The keys in the order in which they were written; never none.
    #[must_use]
    pub fn as_slice(&self) -> &[Key] {
        &self.0
    }
}

impl From<Key> for Keys {
    fn from(key: Key) -> Self {
        Self(SmallVec::from_buf([key]))
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, key) in self.0.iter().enumerate() {
            write!(f, "{}{key}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

impl Serialize for Keys {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [key] => serializer.collect_str(key),
            keys => serializer.collect_seq(keys.iter().map(ToString::to_string)),
        }
    }
}

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeysVisitor;

        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key such as \"client.ip\" or \"header:x-tenant\", or a list of keys")
            }

            fn visit_str<E: de::Error>(self, written: &str) -> Result<Keys, E> {
                written.parse::<Key>().map(Keys::from).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Keys, A::Error> {
                let mut keys = SmallVec::new();
                while let Some(written) = list.next_element::<Cow<'de, str>>()? {
                    keys.push(written.parse().map_err(de::Error::custom)?);
                    if keys.len() > Keys::MAX {
                        return Err(de::Error::custom(format_args!("more than {} keys", Keys::MAX)));
                    }
                }
                if keys.is_empty() { Err(de::Error::custom("a list without keys")) } else { Ok(Keys(keys)) }
            }
        }

        deserializer.deserialize_any(KeysVisitor)
    }
}

impl JsonSchema for Keys {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Keys".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let key = json_schema!({
            "type": "string",
            "description": "`client.ip`, `principal`, `route`, `host`, `method`, `path`, `header:NAME`, `query:NAME`, `cookie:NAME` or `jwt:CLAIM`.",
            "examples": ["client.ip", "header:x-tenant"],
        });
        json_schema!({
            "anyOf": [key, { "type": "array", "items": key, "minItems": 1, "maxItems": Self::MAX }],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, HeaderValue, Method, Version};

    use super::*;
    use crate::model::principal::{AuthMethod, Principal};
    use crate::model::request::Scheme;

    #[track_caller]
    fn check(key: &str, expected: Option<&[u8]>) {
        let mut headers = HeaderMap::new();
        headers.insert("x-tenant", HeaderValue::from_static("blue"));
        headers.append("x-tenant", HeaderValue::from_static("red"));
        headers.insert("x-empty", HeaderValue::from_static(""));
        headers.append(COOKIE, HeaderValue::from_static("a=1; session = s=1 ;Session=other"));
        headers.append(COOKIE, HeaderValue::from_static("late=2; session=not-me"));
        let claims = serde_json::json!({ "tenant": { "id": 7 }, "empty": "" });
        let claims = claims.as_object().cloned().map(Arc::new);
        let principal = Principal::new("ann", AuthMethod::Jwt, [], claims);
        let request = RequestView {
            method: &Method::GET,
            scheme: Scheme::Http,
            host: "api.example.com",
            port: None,
            path: "/orders/7",
            query: Some("first&q=a%20b+c&q=second&na%6De=v&bad=%4&empty="),
            headers: &headers,
            version: Version::HTTP_11,
            client: "2001:db8:1:2:3:4:5:6".parse().expect("an address"),
            peer: "127.0.0.1:1".parse().expect("an address"),
            principal: Some(&principal),
            route: Some("orders"),
        };
        let mut seen = Vec::new();
        let value = key.parse::<Key>().expect("a key").value(&request);
        let found = value.map(|value| value.for_each(|byte| seen.push(byte))).is_some();
        assert_eq!(found.then_some(seen.as_slice()), expected, "{key}");
    }

    #[test]
    fn a_key_finds_its_part_of_the_request() {
        check("client.ip", Some(&[0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 2]));
        check("host", Some(b"api.example.com"));
        check("method", Some(b"GET"));
        check("route", Some(b"orders"));
        check("principal", Some(b"ann"));
        check("jwt:tenant.id", Some(b"7"));
        check("jwt:empty", None);
        check("jwt:none", None);
        check("path", Some(b"/orders/7"));
        check("header:X-Tenant", Some(b"blue"));
        check("header:x-empty", None);
        check("header:x-none", None);
        check("query:q", Some(b"a b c"));
        check("query:name", Some(b"v"));
        check("query:bad", Some(b"%4"));
        check("query:first", None);
        check("query:empty", None);
        check("cookie:session", Some(b"s=1"));
        check("cookie:late", Some(b"2"));
        check("cookie:none", None);
    }

    #[test]
    fn an_ipv4_client_counts_as_itself_even_when_mapped() {
        assert_eq!(address("::ffff:192.0.2.7".parse().expect("an address")), KeyValue::V4([192, 0, 2, 7]));
    }

    #[test]
    fn keys_are_one_or_a_list_and_show_as_written() {
        for written in [r#""client.ip""#, r#"["host","cookie:Session"]"#, r#""header:x-tenant""#] {
            let keys: Keys = serde_json::from_str(written).expect("keys");
            assert_eq!(serde_json::to_string(&keys).expect("text"), written);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for written in
            [r#""ip""#, r#""header:""#, r#""header:a b""#, r#""query:""#, r#""cookie:a=b""#, r#""jwt:""#, "[]", "7"]
        {
            assert!(serde_json::from_str::<Keys>(written).is_err(), "{written}");
        }
        assert!(serde_json::from_str::<Keys>(&format!("[{}]", ["\"host\""; 9].join(","))).is_err());
    }
}
