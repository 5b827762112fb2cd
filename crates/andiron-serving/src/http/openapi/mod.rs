//! The description of the API in OpenAPI's format, made from what the server runs.
//!
//! Paths come from the table of routes. The fields of a request come from its parser: it runs on an example and notes each field that it
//! asks for, with its type and its range ([`Fields::noting`]). So a field that is read is described, with the limits of this
//! server and the sizes of its models.
//!
//! Source: OpenAPI Initiative, "OpenAPI Specification 3.1.1", <https://spec.openapis.org/oas/v3.1.1.html>.

mod notes;
mod schema;

use serde_json::{Map, Value, json};

use super::fields::Fields;
use super::{ApiError, App, Endpoint};

pub(super) use notes::Notes;
pub(super) use schema::schema_of;

/// What is said of a route that would refuse every request.
const UNAVAILABLE: &str = "Not available with the models that are loaded.";

/// What a description says about a route besides its path.
pub(super) struct About {
    /// Its group.
    pub(super) tag: &'static str,
    /// What it does, in a sentence.
    pub(super) summary: &'static str,
    pub(super) body: Option<Body>,
    pub(super) answer: Answer,
    /// Whether its errors have another shape than OpenAI's.
    pub(super) foreign_errors: bool,
}

/// The body of a request.
pub(super) struct Body {
    /// A small request that is valid for every model that can do it.
    pub(super) example: &'static str,
    /// The parser of the route.
    pub(super) parse: fn(&Fields<'_>, &App) -> Result<(), ApiError>,
}

/// What comes back when all is well.
pub(super) enum Answer {
    /// A JSON object with at least these fields.
    Object(&'static [&'static str]),
    /// The same, or events if the request asks for a stream.
    Stream(&'static [&'static str]),
    /// A JSON array.
    Array,
    /// A JSON object or an array, by the request.
    Either,
    /// Something of this media type.
    Text(&'static str),
}

/// The description of a server.
pub(super) fn document(app: &App, endpoints: &[Endpoint], about: fn(&str) -> Option<About>) -> Value {
    let mut paths = Map::new();
    for endpoint in endpoints {
        let Some(about) = about(endpoint.path) else { continue };
        let path = endpoint.path.replace("{*", "{");
        let operation = operation(app, endpoint, &path, &about);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[endpoint.method.to_ascii_lowercase()] = operation;
    }
    let mut document = json!({
        "openapi": "3.1.1",
        "info": {
            "title": "Andiron",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Language models behind the APIs of OpenAI and others. Fields that are unknown are ignored; those that would \
                            change the answer and are not supported are refused by name.",
        },
        "paths": paths,
        "components": { "schemas": {
            "Error": error(),
            "ForeignError": { "type": "object", "required": ["error"] },
        } },
    });
    if !app.config.access.keys.is_empty() {
        document["components"]["securitySchemes"] = json!({ "key": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "key": [] }]);
    }
    document
}

fn operation(app: &App, endpoint: &Endpoint, path: &str, about: &About) -> Value {
    let reference = match about.foreign_errors {
        true => "#/components/schemas/ForeignError",
        false => "#/components/schemas/Error",
    };
    let mut operation = json!({
        "tags": [about.tag],
        "summary": about.summary,
        "responses": {
            "200": { "description": "The answer.", "content": content(&about.answer) },
            "default": {
                "description": "An error.",
                "content": { "application/json": { "schema": { "$ref": reference } } },
            },
        },
    });
    if endpoint.open {
        operation["security"] = json!([]);
    }
    let parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = &about.body {
        let (schema, able) = request(app, body);
        let example: Value = serde_json::from_str(body.example).unwrap_or_default();
        operation["requestBody"] = json!({
            "required": true,
            "content": { "application/json": { "schema": schema, "example": example } },
        });
        if !able {
            operation["description"] = UNAVAILABLE.into();
        }
    }
    operation
}

/// The schema of a request, and whether a loaded model can answer it.
fn request(app: &App, body: &Body) -> (Value, bool) {
    // The examples are constants, so that only a model may be missing.
    let Ok(fields) = Fields::noting(body.example.as_bytes()) else {
        return (json!({ "type": "object" }), false);
    };
    let able = (body.parse)(&fields, app).is_ok();
    (fields.notes().map_or_else(|| json!({ "type": "object" }), |notes| notes.schema()), able)
}

fn content(answer: &Answer) -> Value {
    let object = |keys: &[&str]| {
        let properties: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), json!({}))).collect();
        json!({ "schema": { "type": "object", "properties": properties, "required": keys } })
    };
    match answer {
        Answer::Object(keys) => json!({ "application/json": object(keys) }),
        Answer::Stream(keys) => {
            // Of each event, as tools that read the description take it.
            let text = json!({ "type": "string" });
            let properties = json!({ "event": text, "data": text });
            let event = json!({ "type": "object", "properties": properties, "required": ["data"] });
            json!({ "application/json": object(keys), "text/event-stream": { "schema": event } })
        }
        Answer::Array => json!({ "application/json": { "schema": { "type": "array" } } }),
        Answer::Either => json!({ "application/json": { "schema": { "type": ["object", "array"] } } }),
        Answer::Text(media) => json!({ *media: { "schema": { "type": "string" } } }),
    }
}

/// The body of [`ApiError`].
fn error() -> Value {
    let text = json!({ "type": ["string", "null"] });
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": { "message": { "type": "string" }, "type": { "type": "string" }, "param": text, "code": text },
        } },
    })
}
