//! Descriptions and what requests come to by them.

#![expect(clippy::needless_pass_by_value, reason = "the cases are written in place")]

use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::model::diagnostic::Diagnostics;
use crate::model::source::SourceSpan;
use crate::model::spec::{Places, SpecFile, Specs};

const LIMITS: JsonLimits = JsonLimits { depth: 64, keys: 1000, string: 1000 };

/// Specs of one file, or of several that know each other by their names.
fn specs(files: &[(&str, Value)]) -> Specs {
    let links: HashMap<String, Result<usize, String>> =
        files.iter().enumerate().map(|(index, (name, _))| ((*name).to_owned(), Ok(index))).collect();
    let files = files.iter().enumerate().map(|(index, (name, value))| {
        let file = u32::try_from(index).expect("few");
        Arc::new(SpecFile {
            path: (*name).into(),
            text: value.to_string().into(),
            value: value.clone(),
            places: Places { file, spans: HashMap::new() },
            links: links.clone(),
            problems: Vec::new(),
        })
    });
    Specs { files: files.collect(), roots: HashMap::from([((0, "root".to_owned()), Ok(0))]) }
}

fn config(base_path: Option<&str>) -> Spanned<Config> {
    let base_path = base_path.map(|base| base.to_owned().into());
    Spanned::new(Config { file: "root".to_owned().into(), base_path }, SourceSpan::default())
}

fn compiled(files: &[(&str, Value)]) -> Result<Arc<Description>, String> {
    let mut diagnostics = Diagnostics::default();
    compile("x", &config(None), &specs(files), None, &mut diagnostics)
        .ok_or_else(|| diagnostics.as_slice().iter().map(|found| found.message.clone()).collect::<Vec<_>>().join("; "))
}

fn described(version: &str, paths: Value, components: Value) -> Value {
    json!({ "openapi": version, "info": { "title": "t", "version": "1" }, "paths": paths, "components": components })
}

/// What is wrong with a request: `place pointer message`, one a line.
fn judged(description: &Description, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> String {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(name.parse::<HeaderName>().expect("a name"), HeaderValue::from_str(value).expect("a value"));
    }
    let mut out = Violations::default();
    let operation = match description.find(&method, path) {
        Asked::Operation(operation, parameters) => {
            let head = Head { path: parameters, query, headers: &map, undeclared: true };
            description.judge_head(operation, head, LIMITS, &mut out);
            operation
        }
        Asked::Methods(methods) => return format!("methods {methods:?}"),
        Asked::Nothing => return "nothing".to_owned(),
    };
    if !body.is_empty() {
        let media = MediaType::of(&map);
        match (description.body_rule(operation, media.as_ref()), media) {
            (BodyRule::Judge(content), Some(media)) => {
                description.judge_body(operation, content, &media, body.as_bytes(), LIMITS, &mut out);
            }
            (rule, _) => return format!("{rule:?}"),
        }
    }
    let line = |found: &crate::model::violation::Violation| {
        format!("{} {} {}", found.place.as_str(), found.pointer, found.message)
    };
    out.as_slice().iter().map(line).collect::<Vec<_>>().join("\n")
}

#[track_caller]
fn check_parameter(parameter: Value, target: &str, headers: &[(&str, &str)], expected: &str) {
    let description = described("3.1.0", json!({ "/p": { "get": { "parameters": [parameter.clone()] } } }), json!({}));
    let description = compiled(&[("root", description)]).expect("it compiles");
    assert_eq!(judged(&description, "GET", target, headers, ""), expected, "{parameter} {target}");
}

fn parameter(place: &str, more: Value) -> Value {
    let mut parameter = json!({ "name": "p", "in": place, "schema": { "type": "integer", "maximum": 10 } });
    for (key, value) in more.as_object().expect("a table") {
        parameter[key] = value.clone();
    }
    parameter
}

#[test]
fn query_parameters_are_read_by_their_style() {
    let list = json!({ "type": "array", "items": { "type": "integer" }, "maxItems": 2 });
    let object = json!({ "type": "object", "properties": { "a": { "type": "integer" }, "b": { "type": "string" } },
        "additionalProperties": false, "required": ["a"] });
    let check =
        |more: Value, target: &str, expected: &str| check_parameter(parameter("query", more), target, &[], expected);
    check(json!({}), "/p?p=7", "");
    check(json!({}), "/p", "");
    check(json!({ "required": true }), "/p", "query /p is required");
    check(json!({}), "/p?p=11", "query /p is more than 10");
    check(json!({}), "/p?p=x", "query /p is not integer");
    check(json!({}), "/p?p=1&p=2", "query /p is given more than once");
    check(json!({}), "/p?p=%zz", "query /p is not percent-encoded UTF-8");
    check(json!({}), "/p?q=1", "query /q is not described");
    check(json!({}), "/p?p=", "query /p is not integer");
    check(json!({ "allowEmptyValue": true }), "/p?p=", "");
    check(json!({ "schema": list }), "/p?p=1&p=2", "");
    check(json!({ "schema": list }), "/p?p=1", "");
    check(json!({ "schema": list }), "/p?p=1&p=2&p=3", "query /p has more than 2 items");
    check(json!({ "schema": list }), "/p?p=1&p=x", "query /p/1 is not integer");
    check(json!({ "schema": list, "explode": false }), "/p?p=1,2", "");
    check(json!({ "schema": list, "explode": false }), "/p?p=1,x", "query /p/1 is not integer");
    check(json!({ "schema": list, "style": "pipeDelimited", "explode": false }), "/p?p=1|2", "");
    check(json!({ "schema": list, "style": "pipeDelimited", "explode": false }), "/p?p=1%7C2", "");
    check(json!({ "schema": list, "style": "spaceDelimited", "explode": false }), "/p?p=1%202", "");
    check(json!({ "schema": object, "style": "deepObject" }), "/p?p[a]=1&p[b]=2", "");
    check(json!({ "schema": object, "style": "deepObject" }), "/p?p%5Ba%5D=x", "query /p/a is not integer");
    check(json!({ "schema": object }), "/p?a=1&b=2", "");
    check(json!({ "schema": object }), "/p?a=1&c=2", "query /c is not described");
    check(json!({ "schema": object }), "/p?b=1", "query /p lacks the property \"a\"");
    check(json!({ "schema": object, "explode": false }), "/p?p=a,1,b,2", "");
    check(json!({ "schema": object, "explode": false }), "/p?p=a,1,b", "query /p has a property without a value");
    check(json!({ "schema": { "type": "boolean" } }), "/p?p=true", "");
    check(json!({ "schema": { "type": "boolean" } }), "/p?p=True", "query /p is not boolean");
    check(json!({ "schema": { "type": "string" } }), "/p?p=7", "");
    check(
        json!({ "schema": { "oneOf": [{ "type": "integer" }, { "type": "string", "pattern": "^[0-9]{3}$" }] } }),
        "/p?p=7",
        "",
    );
    let content = json!({ "content": { "application/json": { "schema": { "type": "object", "required": ["a"] } } } });
    let mut in_json = parameter("query", content);
    in_json.as_object_mut().expect("a table").remove("schema");
    check_parameter(in_json.clone(), "/p?p=%7B%22a%22%3A1%7D", &[], "");
    check_parameter(in_json.clone(), "/p?p=%7B%7D", &[], "query /p lacks the property \"a\"");
    check_parameter(in_json, "/p?p=%7B", &[], "query /p is not JSON that can be taken");
}

#[test]
fn fields_and_cookies_are_read_by_their_style() {
    let list = json!({ "type": "array", "items": { "type": "integer" } });
    let header = |more: Value, headers: &[(&str, &str)], expected: &str| {
        check_parameter(parameter("header", more), "/p", headers, expected);
    };
    header(json!({}), &[("p", "7")], "");
    header(json!({}), &[("P", "x")], "header /p is not integer");
    header(json!({ "required": true }), &[], "header /p is required");
    header(json!({ "schema": list }), &[("p", "1, 2"), ("p", "3")], "");
    header(json!({ "schema": list }), &[("p", "1, x")], "header /p/1 is not integer");
    header(json!({ "name": "Authorization", "required": true }), &[], "");
    let cookie = |more: Value, value: &str, expected: &str| {
        check_parameter(parameter("cookie", more), "/p", &[("cookie", value)], expected);
    };
    cookie(json!({}), "a=b; p=7", "");
    cookie(json!({}), "a=b; p=x", "cookie /p is not integer");
    cookie(json!({ "required": true }), "a=b", "cookie /p is required");
    cookie(json!({}), "p=1; p=2", "cookie /p is given more than once");
}

#[test]
fn path_parameters_are_read_by_their_style() {
    #[track_caller]
    fn check(more: Value, path: &str, expected: &str) {
        let mut parameter = json!({ "name": "p", "in": "path", "required": true, "schema": { "type": "integer" } });
        for (key, value) in more.as_object().expect("a table") {
            parameter[key] = value.clone();
        }
        let paths = json!({ "/a/{p}": { "parameters": [parameter], "get": {} } });
        let description = compiled(&[("root", described("3.0.3", paths, json!({})))]).expect("it compiles");
        assert_eq!(judged(&description, "GET", path, &[], ""), expected, "{more} {path}");
    }
    let list = json!({ "type": "array", "items": { "type": "integer" } });
    let object = json!({ "type": "object", "properties": { "x": { "type": "integer" } } });
    check(json!({}), "/a/7", "");
    check(json!({}), "/a/x", "path /p is not integer");
    check(json!({ "schema": list }), "/a/1,2", "");
    check(json!({ "schema": list, "style": "label" }), "/a/.1,2", "");
    check(json!({ "schema": list, "style": "label", "explode": true }), "/a/.1.2", "");
    check(json!({ "schema": list, "style": "label" }), "/a/1", "path /p does not begin with a dot");
    check(json!({ "schema": list, "style": "matrix" }), "/a/;p=1,2", "");
    check(json!({ "schema": list, "style": "matrix", "explode": true }), "/a/;p=1;p=2", "");
    check(
        json!({ "schema": list, "style": "matrix", "explode": true }),
        "/a/;q=1",
        "path /p is not written as its style asks",
    );
    check(json!({ "style": "matrix" }), "/a/;p=7", "");
    check(json!({ "schema": object }), "/a/x,1", "");
    check(json!({ "schema": object, "explode": true }), "/a/x=1", "");
    check(json!({ "schema": object, "explode": true }), "/a/x=y", "path /p/x is not integer");
    check(json!({ "schema": { "type": "string" } }), "/a/1%2F2", "");
}

#[track_caller]
fn check_body(version: &str, schema: Value, components: Value, body: &str, expected: &str) {
    let operation = json!({ "requestBody": { "content": { "application/json": { "schema": schema } } } });
    let paths = json!({ "/b": { "post": operation } });
    let description = compiled(&[("root", described(version, paths, components))]).expect("it compiles");
    let found = judged(&description, "POST", "/b", &[("content-type", "application/json; charset=utf-8")], body);
    assert_eq!(found, expected, "{body}");
}

#[test]
fn what_3_0_says_differently_is_understood() {
    let v30 = |schema: Value, body: &str, expected: &str| check_body("3.0.3", schema, json!({}), body, expected);
    v30(json!({ "type": "string", "nullable": true }), "null", "");
    v30(json!({ "type": "string" }), "null", "body  is not string");
    v30(json!({ "type": "string", "nullable": true, "enum": ["a"] }), "null", "");
    v30(json!({ "nullable": true, "allOf": [{ "type": "object" }] }), "null", "");
    v30(json!({ "type": "integer", "maximum": 5, "exclusiveMaximum": true }), "5", "body  is not less than 5");
    v30(json!({ "type": "integer", "minimum": 5, "exclusiveMinimum": false }), "5", "");
    v30(json!({ "type": "integer", "format": "int32" }), "2147483648", "body  is more than 2147483647");
    v30(json!({ "type": "string", "format": "byte" }), "\"%%\"", "body  is not a valid byte");
    v30(json!({ "type": "string", "format": "date" }), "\"2024-02-30\"", "body  is not a valid date");
    let v31 = |schema: Value, body: &str, expected: &str| check_body("3.1.0", schema, json!({}), body, expected);
    v31(json!({ "type": ["string", "null"] }), "null", "");
    v31(json!({ "exclusiveMaximum": 5 }), "5", "body  is not less than 5");
    v31(json!({ "const": 9_007_199_254_740_993_u64 }), "9007199254740992", "body  is not 9007199254740993");
    v31(json!({ "multipleOf": 9_007_199_254_740_993_u64 }), "18014398509481986", "");
    v31(
        json!({ "multipleOf": 9_007_199_254_740_993_u64 }),
        "18014398509481985",
        "body  is not a multiple of 9007199254740993",
    );
    v31(json!({ "maximum": 9_007_199_254_740_992_u64 }), "9007199254740993", "body  is more than 9007199254740992");
    v31(json!({ "allOf": [{ "properties": { "a": {} } }], "unevaluatedProperties": false }), "{\"a\":1}", "");
    v31(
        json!({ "allOf": [{ "properties": { "a": {} } }], "unevaluatedProperties": false }),
        "{\"b\":1}",
        "body  has properties that are not described: \"b\"",
    );
}

#[test]
fn what_is_read_only_is_neither_asked_for_nor_taken() {
    let schema = json!({ "type": "object", "required": ["id", "name"], "properties": {
        "id": { "type": "integer", "readOnly": true }, "name": { "type": "string" }, "ref": { "$ref": "#/components/schemas/Ro" },
    } });
    let components = json!({ "schemas": { "Ro": { "type": "integer", "readOnly": true } } });
    check_body("3.0.3", schema.clone(), components.clone(), "{\"name\":\"a\"}", "");
    check_body(
        "3.0.3",
        schema.clone(),
        components.clone(),
        "{\"name\":\"a\",\"id\":1}",
        "body /id is not allowed here",
    );
    check_body("3.1.0", schema, components, "{\"name\":\"a\",\"ref\":1}", "body /ref is not allowed here");
}

#[test]
fn a_discriminator_chooses_the_branch() {
    let branch = |kind: &str| json!({ "type": "object", "required": ["kind", kind], "properties": { "kind": {}, kind: { "type": "integer" } } });
    let components = json!({ "schemas": { "Cat": branch("lives"), "Dog": branch("tricks") } });
    let schema = json!({
        "oneOf": [{ "$ref": "#/components/schemas/Cat" }, { "$ref": "#/components/schemas/Dog" }],
        "discriminator": { "propertyName": "kind", "mapping": { "hund": "#/components/schemas/Dog" } },
    });
    let check = |body: &str, expected: &str| check_body("3.0.3", schema.clone(), components.clone(), body, expected);
    check(r#"{"kind":"Cat","lives":9}"#, "");
    check(r#"{"kind":"Cat","lives":9,"tricks":1}"#, "");
    check(r#"{"kind":"hund","tricks":1}"#, "");
    check(r#"{"kind":"hund","lives":1}"#, "body  lacks the property \"tricks\"");
    check(r#"{"lives":1}"#, "body  lacks the property \"kind\"");
    check(r#"{"kind":"Cow"}"#, "body /kind is not one of [\"Cat\",\"Dog\",\"hund\"]");
}

/// Would take longer than the world is old, were each alternative asked anew at each of the sixty levels.
#[test]
fn alternatives_that_refer_back_are_asked_once_of_each_part() {
    let node = |name: &str| {
        json!({ "type": "object", "required": ["arg", "op"], "properties": {
            "arg": { "$ref": "#/components/schemas/Expr" }, "op": { "enum": [name] },
        } })
    };
    let either = ["Not", "Group"].map(|name| json!({ "$ref": format!("#/components/schemas/{name}") }));
    let leaf = json!({ "type": "integer" });
    let expr = json!({ "oneOf": [either[0], either[1], leaf] });
    let components = json!({ "schemas": { "Expr": expr, "Not": node("not"), "Group": node("group") } });
    let schema = json!({ "$ref": "#/components/schemas/Expr" });
    let nested = |innermost: &str| {
        let (open, close) = ("{\"arg\":".repeat(60), ",\"op\":\"not\"}".repeat(60));
        format!("{open}{innermost}{close}")
    };
    check_body("3.1.0", schema.clone(), components.clone(), &nested("1"), "");
    check_body("3.1.0", schema, components, &nested("\"x\""), "body  fits none of the alternatives");
}

#[test]
fn references_reach_into_other_files_and_are_judged_in_depth() {
    let operation = json!({ "requestBody": { "$ref": "bodies.yaml#/order" } });
    let root =
        described("3.1.0", json!({ "/b": { "post": operation }, "/c": { "$ref": "bodies.yaml#/path" } }), json!({}));
    let bodies = json!({
        "order": { "required": true, "content": { "application/json": { "schema": { "$ref": "schemas.yaml#/Order" } } } },
        "path": { "get": { "parameters": [{ "name": "q", "in": "query", "schema": { "$ref": "schemas.yaml#/Count" } }] } },
    });
    let schemas = json!({
        "Order": { "type": "object", "properties": { "lines": { "type": "array", "items": { "$ref": "#/Line" } }, "next": { "$ref": "#/Order" } } },
        "Line": { "type": "object", "properties": { "count": { "$ref": "#/Count" } } },
        "Count": { "type": "integer", "minimum": 1 },
    });
    let files = [("root", root), ("bodies.yaml", bodies), ("schemas.yaml", schemas)];
    let description = compiled(&files).expect("it compiles");
    let json = [("content-type", "application/json")];
    let found = judged(&description, "POST", "/b", &json, r#"{"next":{"lines":[{"count":1},{"count":0}]}}"#);
    assert_eq!(found, "body /next/lines/1/count is less than 1");
    assert_eq!(judged(&description, "GET", "/c?q=0", &[], ""), "query /q is less than 1");
}

#[test]
fn operations_are_found_by_path_and_method_below_the_servers() {
    let mut document =
        described("3.0.0", json!({ "/a/{x}": { "get": {}, "delete": {} }, "/a/b": { "put": {} } }), json!({}));
    document["servers"] =
        json!([{ "url": "https://api.example.com/{v}/", "variables": { "v": { "default": "v1" } } }, { "url": "/" }]);
    let description = compiled(&[("root", document.clone())]).expect("it compiles");
    let check = |method: &str, path: &str, expected: &str| {
        assert_eq!(judged(&description, method, path, &[], ""), expected, "{method} {path}");
    };
    check("GET", "/v1/a/7", "");
    check("GET", "/a/7", "");
    check("HEAD", "/a/7", "");
    check("PUT", "/a/b", "");
    // What is fixed counts, also where a template would have the method (OpenAPI 3.1 §4.8.8).
    check("GET", "/a/b", "methods [PUT]");
    check("POST", "/a/7", "methods [GET, DELETE]");
    check("GET", "/v2/a/7", "nothing");
    check("GET", "/v1x/a/7", "nothing");
    let mut diagnostics = Diagnostics::default();
    let based = compile("x", &config(Some("/base/")), &specs(&[("root", document)]), None, &mut diagnostics);
    let based = based.expect("it compiles");
    assert_eq!(judged(&based, "GET", "/base/a/7", &[], ""), "");
    assert_eq!(judged(&based, "GET", "/a/7", &[], ""), "nothing");
}

#[test]
fn bodies_are_judged_by_their_media_type() {
    let schema = json!({ "type": "object", "properties": { "n": { "type": "integer" } }, "required": ["n"] });
    let operation = json!({ "requestBody": { "content": {
        "application/json": { "schema": schema }, "application/x-www-form-urlencoded": { "schema": schema },
        "multipart/form-data": { "schema": schema }, "text/*": { "schema": { "type": "string", "maxLength": 3 } },
    } } });
    let description = compiled(&[("root", described("3.1.0", json!({ "/b": { "post": operation } }), json!({})))]);
    let description = description.expect("it compiles");
    let check = |content_type: &str, body: &str, expected: &str| {
        assert_eq!(judged(&description, "POST", "/b", &[("content-type", content_type)], body), expected, "{body}");
    };
    check("application/json", "{\"n\":1}", "");
    check("application/json", "{\"n\":1}{", "body  can't be taken: not JSON at byte 7: something follows the value");
    check("application/x-www-form-urlencoded", "n=1", "");
    check("application/x-www-form-urlencoded", "n=x", "body /n is not integer");
    check("multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n--b--", "");
    check("multipart/form-data; boundary=b", "--b--", "body  lacks the property \"n\"");
    check("text/plain", "abc", "");
    check("text/markdown", "abcd", "body  is longer than 3 characters");
    check("application/xml", "<a/>", "Unsupported");
}

#[test]
fn responses_are_judged_by_status_and_type() {
    let ok = json!({ "description": "d", "content": { "application/json": { "schema": { "type": "object", "required": ["id"],
        "properties": { "secret": { "writeOnly": true }, "id": { "readOnly": true, "type": "integer" } } } } } });
    let operation = json!({ "responses": { "200": ok, "2XX": { "description": "d" }, "404": { "description": "d" } } });
    let description = compiled(&[("root", described("3.0.0", json!({ "/r": { "get": operation } }), json!({})))]);
    let description = description.expect("it compiles");
    let json = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let head = |status: u16, headers: &HeaderMap| {
        description.judges_response(0, StatusCode::from_u16(status).expect("a status"), headers)
    };
    assert_eq!(head(200, &json), None);
    assert_eq!(head(201, &json), Some(Judged::Sound));
    assert!(matches!(head(500, &json), Some(Judged::Wrong(why)) if why.contains("500")));
    assert_eq!(head(200, &HeaderMap::new()), Some(Judged::Unjudged));
    let body = |text: &str| description.judge_response(0, StatusCode::OK, &json, text.as_bytes());
    assert_eq!(body("{\"id\":1}"), Judged::Sound);
    assert!(matches!(body("{}"), Judged::Wrong(why) if why.contains("lacks")));
    assert!(matches!(body("{\"id\":1,\"secret\":2}"), Judged::Wrong(why) if why.contains("/secret")));
    assert!(matches!(body("{"), Judged::Wrong(_)));
}

#[track_caller]
fn check_mistake(document: Value, expected: &str) {
    let found = compiled(&[("root", document)]).expect_err("a mistake");
    assert!(found.contains(expected), "{found}");
}

#[test]
fn mistakes_are_told() {
    let with = |paths: Value| described("3.1.0", paths, json!({}));
    let body = |schema: Value| {
        with(
            json!({ "/b": { "post": { "requestBody": { "content": { "application/json": { "schema": schema } } } } } }),
        )
    };
    check_mistake(json!({ "swagger": "2.0" }), "a version that is not read");
    check_mistake(json!({ "openapi": "3.2.0" }), "a version that is not read");
    check_mistake(json!({}), "`openapi` is missing");
    check_mistake(with(json!({ "a": {} })), "not a path");
    check_mistake(with(json!({ "/a/{x}": {}, "/a/{y}": {} })), "described already");
    check_mistake(with(json!({ "/a": { "get": { "parameters": [{ "in": "query" }] } } })), "without a `name`");
    check_mistake(with(json!({ "/a": { "get": { "parameters": [{ "name": "a", "in": "body" }] } } })), "`in` is");
    check_mistake(
        with(json!({ "/a": { "get": { "parameters": [{ "name": "a", "in": "query" }] } } })),
        "without a `schema`",
    );
    check_mistake(
        with(
            json!({ "/a": { "get": { "parameters": [{ "name": "a", "in": "query", "style": "label", "schema": {} }] } } }),
        ),
        "no style",
    );
    check_mistake(with(json!({ "/a": { "get": { "responses": { "20": {} } } } })), "not a status");
    check_mistake(body(json!({ "type": "strin" })), "not a schema");
    check_mistake(body(json!({ "pattern": "(" })), "not a schema");
    check_mistake(body(json!({ "$ref": "#/nowhere" })), "leads nowhere");
    check_mistake(body(json!({ "$ref": "https://example.com/x.yaml" })), "other hosts");
    check_mistake(body(json!(3)), "a schema is a table");
    check_mistake(
        described(
            "3.1.0",
            json!({ "/b": { "post": { "requestBody": { "content": { "application/json": { "schema": { "$ref": "#/components/schemas/A" } } } } } } }),
            json!({ "schemas": { "A": { "allOf": [{ "$ref": "#/components/schemas/B" }] }, "B": { "$ref": "#/components/schemas/A" } } }),
        ),
        "consists of itself",
    );
}

#[test]
fn a_description_goes_on_while_its_files_are_equal() {
    let document = described("3.1.0", json!({ "/a": { "get": {} } }), json!({}));
    let first = compiled(&[("root", document.clone())]).expect("it compiles");
    let again = |document: Value, base| {
        let mut diagnostics = Diagnostics::default();
        compile("x", &config(base), &specs(&[("root", document)]), Some(&first), &mut diagnostics).expect("it compiles")
    };
    assert!(Arc::ptr_eq(&first, &again(document.clone(), None)));
    assert!(!Arc::ptr_eq(&first, &again(document.clone(), Some("/x"))));
    let mut changed = document;
    changed["info"]["title"] = json!("other");
    assert!(!Arc::ptr_eq(&first, &again(changed, None)));
}
