//! What an operator may write under `validate`. The documentation of the fields is the reference.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::source::Spanned;
use crate::model::units::ByteSize;
use crate::model::verdict::Mode;

/// `validate`: what a request must be like. A route that says nothing has the default limit below; `validate = false`
/// lifts it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The longest request body. A longer one is refused with 413 `body_too_large`: at once when `Content-Length`
    /// declares it, else as soon as that many bytes have come. `"0B"` refuses every body. Default: `"10MiB"`, and no
    /// limit on upgraded connections (WebSocket) and for content types `application/grpc*`; a limit that is written
    /// holds for those as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body: Option<Spanned<ByteSize>>,
    /// The longest path and query, as received. A longer one is refused with 431 `headers_too_large`. Default: what
    /// the listener's `header_size` leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_url: Option<Spanned<ByteSize>>,
    /// The most fields in a request's head. More are refused with 431 `headers_too_large`. Default: the listener's
    /// `header_count`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_headers: Option<Spanned<u32>>,
    /// The media types that a body may have, such as `"application/json"`, `"application/*+json"` or `"text/*"`. Any
    /// other, and a body without `Content-Type`, is refused with 415 `unsupported_media_type` and `Accept`. Default:
    /// those of the description, else any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Spanned<Vec<Spanned<String>>>>,
    /// How deep JSON may nest, 1 to 100 levels. It, `max_keys` and `max_string` hold for bodies of JSON types, while
    /// they arrive, when one of the three is written or a schema judges the body. Such a body must then be UTF-8 with one
    /// reading: no name twice in an object, no byte order mark, no `Content-Encoding`. Default: 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_depth: Option<Spanned<u32>>,
    /// The most keys in all objects of a JSON body together. Default: 10000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<Spanned<u32>>,
    /// The longest string or key in a JSON body, in bytes of UTF-8. Default: `"1MiB"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_string: Option<Spanned<ByteSize>>,
    /// A description of the API by its name in `[openapi.NAME]`: it judges path, query, fields, cookies and the body of
    /// each request. What is wrong is answered with 400 `invalid_request` and up to 20 `errors`, each with its place,
    /// never with a value. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openapi: Option<Spanned<String>>,
    /// What becomes of a request that the description does not have: `"reject"` answers 404 `no_route`, or 405
    /// `method_not_allowed` on a path that it has; `"allow"` lets it go on unjudged. Only with `openapi`. Default:
    /// `"reject"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_operation: Option<Spanned<Strictness>>,
    /// What becomes of a query parameter that the operation does not describe: `"reject"` makes it a violation. Only
    /// with `openapi`. Default: `"allow"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undeclared_query: Option<Spanned<Strictness>>,
    /// Whether responses are judged by the description as well: status, media type and JSON bodies. `"report"` lets each
    /// one through and counts `would_reject`; `"enforce"` holds it until it is judged and answers 502 `upstream_invalid`
    /// in place of one that is not as described. What is longer than `buffer` or has a `Content-Encoding` passes and is
    /// counted as `unjudged`. Only with `openapi`. Default: `"off"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses: Option<Spanned<Responses>>,
    /// A JSON Schema for bodies, which are judged before any of them goes to an upstream. Not with `openapi`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<Spanned<BodyConfig>>,
    /// A JSON Schema for the query, as an object of its parameters; a text becomes what the schema asks for, and a
    /// parameter that stands more than once is a list. Not with `openapi`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<Spanned<PartConfig>>,
    /// A JSON Schema for the head, as an object of its fields with names in lower case; lines of one field are joined
    /// with a comma. Not with `openapi`. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<Spanned<PartConfig>>,
    /// How much of a body is held to be judged before any of it goes upstream. Each such request may cost that much
    /// memory while it arrives. Default: `"1MiB"`, or `max_body` where that is less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffer: Option<Spanned<ByteSize>>,
    /// What becomes of a body that is longer than `buffer`: `"reject"` answers 413 `body_too_large`; `"stream"` sends
    /// it on under the limits alone, not judged by any schema. Default: `"reject"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_buffer: Option<Spanned<OverBuffer>>,
    /// `"enforce"` refuses; `"report"` lets the request go on and counts `would_reject`.
    pub mode: Mode,
}

/// `validate.body`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BodyConfig {
    /// The file: JSON Schema, draft 2020-12 or what its `$schema` names (draft-07 and others), as JSON or YAML. It may
    /// refer to other files, which are read beside it; references to other hosts are refused. Alternatives (`anyOf`, `oneOf`)
    /// that refer back to the whole are asked anew at each level of the value: give such a schema a low `max_depth`, or
    /// use an OpenAPI description, in which each schema is asked once of each part.
    pub schema: Spanned<String>,
    /// Whether POST, PUT and PATCH need a body. Other methods never do.
    #[serde(default = "yes")]
    pub required: bool,
}

const fn yes() -> bool {
    true
}

/// `validate.query`, `validate.header`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PartConfig {
    /// The file, as in `body.schema`.
    pub schema: Spanned<String>,
}

/// What becomes of something that is not described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strictness {
    /// It is refused.
    Reject,
    /// It passes.
    Allow,
}

/// Whether responses are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Responses {
    /// They aren't.
    Off,
    /// They are, and pass all the same.
    Report,
    /// One that is not as described does not reach the client.
    Enforce,
}

/// What becomes of a body that is too long to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverBuffer {
    /// It is refused.
    Reject,
    /// It passes under the limits alone.
    Stream,
}

impl Config {
    /// The files of schemas that it names.
    pub fn files(&self) -> impl Iterator<Item = &Spanned<String>> {
        let body = self.body.iter().map(|body| &body.schema);
        body.chain(self.query.iter().chain(&self.header).map(|part| &part.schema))
    }
}
