//! The OpenAPI description of HTTP/JSON, from the descriptors and the rules that are served: it cannot say what the gateway does not do.
//!
//! `schema` turns messages into schemas, `paths` rules into operations, `comments` finds what the contracts say in words. All of it is made once, at start, and is
//! the same for the same descriptors.

mod comments;
mod paths;
mod schema;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::grpc::lab::PCAPNG;
use crate::transcode::answer;
use crate::transcode::rules::Table;
use comments::Comments;
use schema::Schemas;

/// Where it is served.
pub const PATHS: [&str; 2] = ["/openapi.json", "/v1/openapi.json"];

const ABOUT: &str = "Virtual network labs: topologies of routers, hosts and links, deployed, watched and changed.\n\n\
    The same API is spoken over gRPC, gRPC-Web and HTTP/JSON on one port; this describes HTTP/JSON. Fields are in lowerCamelCase, in queries also as in the \
    contracts; 64-bit integers are strings; fields that are not set are written with their defaults, messages as null; members of a oneof that are not set are left \
    out. Unknown fields and parameters are refused.\n\n\
    Streams are lines of JSON (NDJSON), or server-sent events with `Accept: text/event-stream`.\n\n\
    Over the Unix socket no token is asked for.";

/// The content type of a method that answers with bytes, which descriptors do not tell.
fn raw_type(method: &str) -> &'static str {
    match method {
        "CapturePackets" => PCAPNG,
        _ => "*/*",
    }
}

/// Headers that calls take.
fn parameters() -> Value {
    json!({
        "GrpcTimeout": {
            "name": "Grpc-Timeout",
            "in": "header",
            "required": false,
            "description": "The time that the call has: at most eight digits and a unit, of H (hours), M (minutes), S (seconds), m (milliseconds), u (microseconds) and n (nanoseconds). Without it there is no bound.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,8}[HMSmun]$", "examples": ["30S"]},
        },
        "LastEventId": {
            "name": "Last-Event-ID",
            "in": "header",
            "required": false,
            "description": "Of server-sent events only: goes on after this number instead of the parameter since.",
            "schema": {"type": "string", "pattern": "^[0-9]{1,20}$"},
        },
    })
}

/// The description, as it is sent.
pub struct Document {
    text: Bytes,
}

impl Document {
    /// Describes the rules.
    pub fn new(pool: &DescriptorPool, table: &Table) -> Document {
        Document { text: describe(pool, table).to_string().into() }
    }

    /// As a response.
    pub fn response(&self) -> Response<Body> {
        let mut response = answer::whole(StatusCode::OK, "application/json", self.text.to_vec());
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }
}

/// The OpenAPI document.
pub fn describe(pool: &DescriptorPool, table: &Table) -> Value {
    let comments = Comments::read(pool);
    let mut schemas = Schemas::new(&comments, table);
    let paths = paths::describe(table, &comments, &mut schemas);
    let error = schemas.of_name(pool, "google.rpc.Status");
    let mut tags = Vec::new();
    for service in pool.services() {
        let served = |r: &crate::transcode::rules::Rule| r.method.parent_service() == &service;
        if table.rules().iter().any(served) {
            let about = comments.of(service.parent_file().name(), service.path());
            tags.push(json!({"name": service.name(), "description": about}));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "netloom",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This gateway."}],
        "security": [{"token": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.into_components(),
            "parameters": parameters(),
            "responses": {
                "Error": {
                    "description": "What went wrong. `details` holds a google.rpc.ErrorInfo of domain \"netloom\", whose `reason` is for programs, and a google.rpc.BadRequest with every field at fault when the request was wrong.",
                    "content": {"application/json": {"schema": error}},
                },
            },
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The content of admin.token in the gateway's data directory.",
                },
            },
        },
    })
}
