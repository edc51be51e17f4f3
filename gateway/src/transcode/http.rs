//! One HTTP/JSON request, from its rule to its answer.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::header::ACCEPT;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, BodyStream};
use hyper::body::Body as HttpBody;
use netloom_model::{Code, Failure};
use netloom_service::measure::Measure;
use netloom_service::telemetry;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::service::Routes;

use super::answer::{self, EVENTS, Refusal, Writer};
use super::codec::DynCodec;
use super::json;
use super::rules::{self, Found, Rule, RuleError, Table};
use super::wire::Forms;
use crate::auth;
use crate::grpc::{MAX_LAB_REQUEST, MAX_REQUEST};
use crate::timeout;

/// From here on a body is read as JSON away from the threads that serve calls.
const LONG: usize = 256 << 10;
/// Bytes beyond the limit that are read and dropped, so that a caller who sends too much can still read why it was refused.
const DRAINED: usize = 128 << 20;

/// Silence after which a stream of events says that it still lives.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// The number of the last event that a page has seen, when it asks again.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Answers HTTP/JSON requests by calling the gRPC routes of the same process.
pub struct Transcoder {
    table: Table,
    routes: Measure<Routes>,
    forms: Arc<Forms>,
    heartbeat: Duration,
}

impl Transcoder {
    /// For all methods that the descriptors give an HTTP rule.
    pub fn new(pool: &DescriptorPool, routes: Measure<Routes>) -> anyhow::Result<Transcoder> {
        let table = Table::build(pool).map_err(|e: RuleError| anyhow::anyhow!(e))?;
        let forms = Arc::new(Forms::new(pool).map_err(|e| anyhow::anyhow!(e))?);
        Ok(Transcoder { table, routes, forms, heartbeat: HEARTBEAT })
    }

    /// With another silence after which a stream of events says that it still lives.
    #[must_use]
    pub fn with_heartbeat(self, heartbeat: Duration) -> Transcoder {
        Transcoder { heartbeat, ..self }
    }

    /// The rules that are served.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Answers one request.
    pub async fn call<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let head = request.method() == Method::HEAD;
        let response = self.answer(request).await.unwrap_or_else(|refusal| self.refuse(refusal));
        if head { answer::without_body(response) } else { response }
    }

    /// A refusal as a response.
    pub fn refuse(&self, refusal: Refusal) -> Response<Body> {
        refusal.into_response(&self.forms)
    }

    async fn answer<B>(&self, request: Request<B>) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path();
        // HEAD is GET without the body.
        let method = if parts.method == Method::HEAD { &Method::GET } else { &parts.method };
        let (rule, values) = match self.table.find(method, path) {
            Found::Rule(rule, values) => (rule, values),
            Found::OtherMethods(methods) => {
                let allow = rules::allow(&methods);
                if parts.method == Method::OPTIONS {
                    return Ok(answer::options(&allow));
                }
                return Err(not_allowed(path, &parts.method, allow));
            }
            Found::Nothing => {
                let said = format!("there is nothing at {path}; the API begins at /v1/labs");
                let failure = Failure::new(Code::NotFound, "PATH_NOT_FOUND", said);
                return Err(Refusal { status: StatusCode::NOT_FOUND, failure });
            }
        };
        let (service, name) = (rule.method.parent_service().full_name(), rule.method.name());
        telemetry::is_call(service, name, &rule.route);
        if rule.method.is_client_streaming() && !matches!(rule.body, rules::Body::Bytes(_)) {
            let said = format!(
                "{} streams in both directions, which HTTP/JSON cannot: call it over gRPC",
                rule.method.full_name()
            );
            return Err(Failure::new(Code::Unimplemented, "BIDI_NEEDS_GRPC", said).into());
        }
        let limit = match timeout::read(&parts.headers) {
            Ok(limit) => limit,
            Err(text) => return Err(wrong("grpc-timeout", format!("\"{text}\" is not a time like 30S"))),
        };
        let query = parts.uri.query().unwrap_or_default();
        if let rules::Body::Bytes(field) = &rule.body {
            let first = self.message(rule, &values, query, Bytes::new()).await?;
            return self.send(rule, field, first, body, &parts.headers, limit).await;
        }
        if !matches!(rule.body, rules::Body::None) && auth::is_bytes(&parts.headers) {
            return Err(auth::not_json());
        }
        let body = match rule.body {
            rules::Body::None | rules::Body::Bytes(_) => Bytes::new(),
            rules::Body::Whole | rules::Body::Field(_) => read_body(body, largest_body(rule)).await?,
        };
        let mut message = self.message(rule, &values, query, body).await?;
        if wants_events(&parts.headers) {
            resume(&mut message, rule, &parts.headers)?;
        }
        self.forward(rule, message, &parts.headers, limit).await
    }

    /// The request message: the body, then the query, then the path, which nothing may contradict.
    async fn message(
        &self,
        rule: &Rule,
        values: &[String],
        query: &str,
        body: Bytes,
    ) -> Result<DynamicMessage, Refusal> {
        let input = rule.method.input();
        let mut message = match &rule.body {
            rules::Body::None | rules::Body::Bytes(_) => DynamicMessage::new(input.clone()),
            rules::Body::Whole => read_json(input.clone(), body).await?,
            rules::Body::Field(field) => {
                let kind = field.kind();
                let Some(descriptor) = kind.as_message() else {
                    return Err(Failure::internal("a body that is no message").into());
                };
                let inner = read_json(descriptor.clone(), body).await?;
                let mut message = DynamicMessage::new(input.clone());
                message.set_field(field, Value::Message(inner));
                message
            }
        };
        for (name, texts) in query_parameters(query)? {
            let way = rules::resolve(&input, &name).map_err(|what| wrong(&name, what))?;
            let in_body = match &rule.body {
                rules::Body::None => false,
                rules::Body::Whole => true,
                rules::Body::Field(field) | rules::Body::Bytes(field) => way.first() == Some(field),
            };
            if in_body || rule.bindings.contains(&way) {
                let what = if in_body { "belongs into the body" } else { "is set by the path" };
                return Err(wrong(&name, format!("{what}: leave it out of the query")));
            }
            json::bind(&mut message, &way, &texts).map_err(|what| wrong(&name, what))?;
        }
        for (way, value) in rule.bindings.iter().zip(values) {
            let name = || way.iter().map(|f| f.name()).collect::<Vec<_>>().join(".");
            json::bind(&mut message, way, std::slice::from_ref(value))
                .map_err(|what| wrong(&name(), what))?;
        }
        Ok(message)
    }

    /// Sends a body as the bytes of a client's stream: a message of path and query, then one for each piece as it comes.
    async fn send<B>(
        &self,
        rule: &Rule,
        field: &FieldDescriptor,
        first: DynamicMessage,
        body: B,
        headers: &HeaderMap,
        limit: Option<Duration>,
    ) -> Result<Response<Body>, Refusal>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let (field, input) = (field.clone(), rule.method.input());
        // A body that breaks off ends the stream: whoever sent it does not read the answer.
        let pieces = BodyStream::new(body).map(Result::ok).take_while(|frame| ready(frame.is_some()));
        let pieces = pieces.filter_map(move |frame| {
            let message = frame.and_then(|f| f.into_data().ok()).map(|data| {
                let mut message = DynamicMessage::new(input.clone());
                message.set_field(&field, Value::Bytes(data));
                message
            });
            ready(message)
        });
        let parts = stream::once(ready(first)).chain(pieces);
        let path = way(rule)?;
        let mut client = tonic::client::Grpc::new(self.routes.clone());
        let mut request = tonic::Request::new(parts);
        *request.metadata_mut() = answer::request_metadata(headers);
        let call = client.client_streaming(request, path, DynCodec);
        let end = limit.map(|l| Instant::now() + l);
        let (metadata, answer, _) = timeout::bound(end, call).await?.into_parts();
        let mut response = answer::unary(&self.forms, &rule.method.output(), answer)?;
        answer::response_headers(metadata, response.headers_mut());
        Ok(response)
    }

    async fn forward(
        &self,
        rule: &Rule,
        message: DynamicMessage,
        headers: &HeaderMap,
        limit: Option<Duration>,
    ) -> Result<Response<Body>, Refusal> {
        let path = way(rule)?;
        // In process: what the handler may answer is bounded by the handler.
        let mut client = tonic::client::Grpc::new(self.routes.clone()).max_decoding_message_size(usize::MAX);
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = answer::request_metadata(headers);
        let end = limit.map(|l| Instant::now() + l);
        if !rule.method.is_server_streaming() {
            let call = client.unary(request, path, DynCodec);
            let (metadata, answer, _) = timeout::bound(end, call).await?.into_parts();
            let mut response = answer::unary(&self.forms, &rule.method.output(), answer)?;
            answer::response_headers(metadata, response.headers_mut());
            return Ok(response);
        }
        let writer = Writer {
            forms: self.forms.clone(),
            of: rule.method.output(),
            events: wants_events(headers),
            heartbeat: self.heartbeat,
        };
        let call = client.server_streaming(request, path, DynCodec);
        let answers = match timeout::bound(end, call).await {
            Ok(answers) => answers,
            Err(e) if writer.events && e.code() == tonic::Code::OutOfRange => return Ok(writer.failed(&e)),
            Err(e) => return Err(e.into()),
        };
        let (metadata, answers, _) = answers.into_parts();
        let mut response = if answer::is_raw(&rule.method.output()) {
            answer::raw_stream(answers, end).await?
        } else {
            writer.stream(answers, end)
        };
        answer::response_headers(metadata, response.headers_mut());
        Ok(response)
    }
}

/// The way to a method.
fn way(rule: &Rule) -> Result<PathAndQuery, Refusal> {
    let (service, method) = (rule.method.parent_service().full_name().to_owned(), rule.method.name());
    let path = format!("/{service}/{method}").try_into();
    path.map_err(|_| Failure::internal(format!("{service}.{method} is not a path")).into())
}

/// The refusal of a method that a path does not take.
pub fn not_allowed(path: &str, method: &Method, allow: String) -> Refusal {
    let said = format!("{path} does not take {method}: it takes {allow}");
    let failure = Failure::new(Code::Unimplemented, "METHOD_NOT_ALLOWED", said).with("allow", allow);
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, failure }
}

fn wants_events(headers: &HeaderMap) -> bool {
    let wanted = headers.get(ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    wanted.split(',').any(|t| t.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case(EVENTS)))
}

/// A page that lost its stream of events goes on after the last one it has seen. Its address still holds the number it began with: the header is newer.
fn resume(message: &mut DynamicMessage, rule: &Rule, headers: &HeaderMap) -> Result<(), Refusal> {
    let last = headers.get(LAST_EVENT_ID).filter(|v| !v.is_empty());
    let since = rule.method.input().get_field_by_name("since").filter(|f| f.kind() == Kind::Uint64);
    let (Some(last), Some(since)) = (last, since) else { return Ok(()) };
    let number = last.to_str().ok().and_then(|text| text.parse().ok());
    let number =
        number.ok_or_else(|| wrong("Last-Event-ID", "is not the id of an event: begin again without it"))?;
    message.set_field(&since, Value::U64(number));
    Ok(())
}

fn wrong(field: &str, what: impl Into<String>) -> Refusal {
    let (field, what) = (field.to_owned(), what.into());
    let said = if field.is_empty() { what.clone() } else { format!("{field}: {what}") };
    Failure::invalid(said, Vec::new()).violation(field, what).into()
}

/// Requests that carry files may be large.
fn largest_body(rule: &Rule) -> usize {
    let carries_files = rule
        .method
        .input()
        .fields()
        .any(|f| f.kind().as_message().is_some_and(|m| m.name() == "FileContent"));
    if carries_files { MAX_LAB_REQUEST } else { MAX_REQUEST }
}

async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, Refusal>
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    let mut body = Box::pin(body);
    let mut read: Vec<u8> = Vec::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| wrong("", format!("the body cannot be read: {e}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size > limit {
            // What was read is of no use any more.
            read = Vec::new();
            if size > limit + DRAINED {
                break;
            }
        } else {
            read.extend_from_slice(&data);
        }
    }
    if size > limit {
        let said = format!("the body has more than the {limit} bytes that are taken here");
        let failure =
            Failure::new(Code::ResourceExhausted, "BODY_TOO_LARGE", said).with("limit", limit.to_string());
        return Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, failure });
    }
    Ok(read.into())
}

async fn read_json(descriptor: MessageDescriptor, text: Bytes) -> Result<DynamicMessage, Refusal> {
    let refused = |e: String| wrong("body", format!("is not the JSON that is expected: {e}"));
    if text.len() < LONG {
        return json::read(&descriptor, &text).map_err(refused);
    }
    let read = tokio::task::spawn_blocking(move || json::read(&descriptor, &text)).await;
    read.map_err(|_| Failure::internal("the reader of JSON ended without an answer"))?.map_err(refused)
}

/// Parameters in the order in which they first come, each with all its values.
fn query_parameters(query: &str) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    for pair in query.split('&').filter(|p| !p.is_empty()) {
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(text)) = (rules::decode(name, true), rules::decode(text, true)) else {
            return Err(wrong("", format!("\"{pair}\" in the query is not percent-encoded UTF-8")));
        };
        match parameters.iter_mut().find(|(n, _)| *n == name) {
            Some((_, texts)) => texts.push(text),
            None => parameters.push((name, vec![text])),
        }
    }
    Ok(parameters)
}
