//! The OpenAPI document, made from the table of routes and the types that travel.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        Ref, RefOr,
        schema::{ArrayBuilder, Schema},
    },
};

use super::{
    problem::Problem,
    routes::{Route, routes},
};

/// Where the document is served, without a token.
pub(super) const PATH: &str = "/openapi.json";

/// Where the routes are.
pub(super) const BASE: &str = "/admin/v1";

/// A type, as the document shows it.
pub(super) struct Described {
    name: String,
    schema: RefOr<Schema>,
    others: Vec<(String, RefOr<Schema>)>,
}

impl Described {
    pub(super) fn of<T: ToSchema>() -> Self {
        let mut others = Vec::new();
        T::schemas(&mut others);
        Self { name: T::name().into_owned(), schema: T::schema(), others }
    }

    /// A list of such.
    pub(super) fn list<T: ToSchema>() -> Self {
        let Self { name, schema, mut others } = Self::of::<T>();
        let list = ArrayBuilder::new().items(Ref::from_schema_name(&name));
        let nameless = String::new();
        others.push((name, schema));
        Self { name: nameless, schema: list.into(), others }
    }

    /// A reference to it, with all it needs left in `components`; a list is described in its place.
    fn refer(self, components: &mut BTreeMap<String, Value>) -> Value {
        for (name, schema) in self.others {
            components.insert(name, value(&schema));
        }
        let schema = value(&self.schema);
        if schema["type"] == "array" {
            return schema;
        }
        let reference = json!({ "$ref": format!("#/components/schemas/{}", self.name) });
        components.insert(self.name, schema);
        reference
    }

    /// Its fields as parameters: those that the path names, and the rest in the query.
    fn parameters(self, path: &str, components: &mut BTreeMap<String, Value>) -> Vec<Value> {
        for (name, schema) in self.others {
            components.insert(name, value(&schema));
        }
        let schema = value(&self.schema);
        let needed: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let Some(fields) = schema["properties"].as_object() else { return Vec::new() };
        let parameter = |(name, field): (&String, &Value)| {
            let place = if path.contains(&format!("{{{name}}}")) { "path" } else { "query" };
            let mut parameter = json!({
                "name": name, "in": place, "required": needed.contains(&name.as_str()), "schema": field,
            });
            if let Some(said) = field["description"].as_str() {
                parameter["description"] = said.into();
            }
            parameter
        };
        fields.iter().map(parameter).collect()
    }
}

#[expect(clippy::expect_used, reason = "proven")]
fn value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).expect("a schema is made of texts, numbers and lists")
}

/// The document.
pub fn openapi() -> Value {
    let mut components = BTreeMap::new();
    let problem = Described::of::<Problem>().refer(&mut components);
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes() {
        let path = format!("{BASE}{}", route.path);
        let method = route.method.as_str().to_lowercase();
        paths.entry(path).or_default().insert(method, operation(route, &mut components));
    }
    for (path, summary, media) in [
        ("/health/live", "It runs", "application/json"),
        ("/health/ready", "It can do its work", "application/json"),
        ("/metrics", "Metrics for Prometheus", "text/plain"),
        (PATH, "This document", "application/json"),
    ] {
        let answer = json!({ "description": summary, "content": { media: {} } });
        let open = json!({
            "summary": summary, "security": [], "responses": { "200": answer, "default": refused() },
        });
        paths.entry(path.to_owned()).or_default().insert("get".to_owned(), open);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Närvaro, admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache 2.0", "identifier": "Apache-2.0" },
            "description": "Of the private listener. Lists come in a stable order. What is refused is answered with a problem document (RFC 9457) whose `type` is stable.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "Problem": {
                "description": "A problem document",
                "content": { "application/problem+json": { "schema": problem } },
            } },
            "schemas": components,
        },
    })
}

fn operation(route: Route, components: &mut BTreeMap<String, Value>) -> Value {
    let Route { path, role, summary, address, body, answer, .. } = route;
    let answer = answer.refer(components);
    let mut operation = json!({
        "summary": summary,
        "description": format!("Needs the role `{}`.", role.name()),
        "x-role": role.name(),
        "parameters": address.parameters(path, components),
        "responses": {
            "200": { "description": "Done", "content": { "application/json": { "schema": answer } } },
            "401": refused(), "403": refused(), "default": refused(),
        },
    });
    if let Some(body) = body {
        let schema = body.refer(components);
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn refused() -> Value {
    json!({ "$ref": "#/components/responses/Problem" })
}
