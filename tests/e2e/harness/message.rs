//! HTTP/1.1 messages as they stood on the wire, taken apart for comparison.

use std::fmt;

use super::wire::Body;

/// Header fields in their order and spelling.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, String)>);

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, value)| format!("{name}: {value}"))).finish()
    }
}

impl Fields {
    /// Reads lines; panics on what is no field line, so a gateway that writes nonsense is caught.
    pub fn parse(lines: &str) -> Self {
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("a field line: {line:?}"));
            assert!(!name.is_empty() && !name.contains([' ', '\t']), "a field name: {line:?}");
            (name.to_owned(), value.trim_matches([' ', '\t']).to_owned())
        };
        Self(lines.split("\r\n").filter(|line| !line.is_empty()).map(field).collect())
    }

    /// The values of every field of that name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of the only field of that name; panics when there are two.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} stands {} times: {self:?}", all.len());
        all.first().copied()
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// Whether a list field has that token, in any of its lines.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name).iter().flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// The fields of an HTTP/2 message.
    pub fn of(map: &http::HeaderMap) -> Self {
        let text = |value: &http::HeaderValue| value.as_bytes().iter().map(|byte| char::from(*byte)).collect();
        Self(map.iter().map(|(name, value)| (name.to_string(), text(value))).collect())
    }
}

/// A request as an upstream received it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which connection of the upstream it came on, from 0.
    pub connection: usize,
    /// The head in bytes, with its empty line.
    pub raw: String,
    pub method: String,
    pub target: String,
    pub version: String,
    pub fields: Fields,
    /// `None` until it has been read.
    pub body: Option<Body>,
}

impl Request {
    /// Takes a head apart.
    pub fn parse(head: &[u8], connection: usize) -> Self {
        let (raw, line, fields) = parts(head);
        let mut words = line.split(' ').map(str::to_owned);
        let mut word = || words.next().unwrap_or_default();
        let (method, target, version) = (word(), word(), word());
        assert!(version.starts_with("HTTP/1."), "the upstream was sent a request line: {line:?}");
        Self { connection, raw, method, target, version, fields, body: None }
    }

    /// A field's value; panics when it stands twice.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body's bytes.
    #[track_caller]
    pub fn body(&self) -> &[u8] {
        &self.body.as_ref().expect("the body was read").bytes
    }
}

/// A response as a client received it.
#[derive(Debug, Clone)]
pub struct Response {
    /// The head in bytes, with its empty line.
    pub raw: String,
    pub version: String,
    pub status: u16,
    pub fields: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Whether the framing says that this is all of it.
    pub whole: bool,
    /// The interim responses before it (RFC 9110 §15.2).
    pub interim: Vec<(u16, Fields)>,
}

impl Response {
    /// Takes a head apart.
    pub fn parse(head: &[u8]) -> Self {
        let (raw, line, fields) = parts(head);
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let version = words.next().unwrap_or_default();
        assert!(version.starts_with("HTTP/1."), "a status line: {line:?}");
        let status = words.next().and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("a status: {line:?}"));
        Self {
            raw,
            version,
            status,
            fields,
            body: Vec::new(),
            trailers: Fields::default(),
            whole: false,
            interim: Vec::new(),
        }
    }

    /// A field's value; panics when it stands twice.
    #[track_caller]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The code of a refusal; panics when this is not a refusal in the form of the contract.
    #[track_caller]
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        refusal(self.status, &self.fields, &self.json())
    }

    /// Whether the peer said that the connection ends after this.
    pub fn says_close(&self) -> bool {
        self.fields.has_token("connection", "close")
    }
}

/// The code of a refusal, after looking at all that the contract asks of one.
#[track_caller]
pub fn refusal(status: u16, fields: &Fields, problem: &serde_json::Value) -> String {
    assert_eq!(problem["status"], status, "{problem}");
    for key in ["title", "detail"] {
        assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {problem}");
    }
    let proxy_status = fields.get("proxy-status").unwrap_or_else(|| panic!("no Proxy-Status: {fields:?}"));
    assert!(proxy_status.starts_with("portcullis; error="), "{proxy_status}");
    let id = fields.get("x-request-id").unwrap_or_else(|| panic!("no X-Request-Id: {fields:?}"));
    assert_eq!(problem["request_id"], id, "{problem}");
    let kind = problem["type"].as_str().unwrap_or_else(|| panic!("no type: {problem}"));
    let code = kind.strip_prefix("https://portcullis.dev/errors/").unwrap_or_else(|| panic!("{kind}"));
    code.to_owned()
}

fn parts(head: &[u8]) -> (String, String, Fields) {
    // one char for one byte, so that bytes outside ASCII show and nothing is replaced
    let raw: String = head.iter().map(|byte| char::from(*byte)).collect();
    let (line, fields) = raw.split_once("\r\n").expect("a head has a first line");
    let (line, fields) = (line.to_owned(), Fields::parse(fields));
    (raw, line, fields)
}
