//! The rules of `google.api.http`: which method a request's verb and path mean, and what the path says.
//!
//! ```text
//! Template = "/" Segment { "/" Segment } [ ":" Verb ]
//! Segment  = "*" | "**" | Literal | "{" Field [ "=" Segment { "/" Segment } ] "}"
//! ```
//!
//! Templates that end in a verb are tried first, for otherwise `labs/*` would take `labs/x:apply` as the name of a lab.

use http::Method;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
};

/// Why the descriptors' rules cannot be served: a fault in the proto files, found at start.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP rule of {method} cannot be served: {what}")]
pub struct RuleError {
    method: String,
    what: String,
}

/// One segment of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Rest,
}

/// A field that a part of the path is for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    field: String,
    /// The segments it spans.
    from: usize,
    to: usize,
}

/// A part of a path that each request fills in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// What it is: `lab`.
    pub name: String,
    /// The field of the request that it goes into.
    pub field: String,
    /// It may hold slashes.
    pub many: bool,
}

/// A path template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    segments: Vec<Segment>,
    variables: Vec<Variable>,
    verb: Option<String>,
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut rest = text.strip_prefix('/').ok_or_else(|| format!("\"{text}\" does not begin with /"))?;
        let mut template = Template { segments: Vec::new(), variables: Vec::new(), verb: None };
        loop {
            rest = template.segment(rest)?;
            match rest.chars().next() {
                Some('/') => rest = &rest[1..],
                Some(':') => {
                    let verb = &rest[1..];
                    if verb.is_empty() || verb.contains(['/', '{', '}', '*', ':']) {
                        return Err(format!("\"{verb}\" is not a verb"));
                    }
                    template.verb = Some(verb.to_owned());
                    break;
                }
                None => break,
                Some(c) => return Err(format!("unexpected \"{c}\" in \"{text}\"")),
            }
        }
        let early = template.segments.iter().rev().skip(1).any(|s| *s == Segment::Rest);
        if early { Err(format!("\"**\" is not at the end of \"{text}\"")) } else { Ok(template) }
    }

    /// Reads one segment, a variable included, and returns what is left.
    fn segment<'a>(&mut self, text: &'a str) -> Result<&'a str, String> {
        let Some(inner) = text.strip_prefix('{') else {
            let end = text.find(['/', ':', '{', '}']).unwrap_or(text.len());
            self.segments.push(plain(&text[..end])?);
            return Ok(&text[end..]);
        };
        let (inner, rest) = inner.split_once('}').ok_or_else(|| format!("\"{{{inner}\" is not closed"))?;
        let (field, pattern) = inner.split_once('=').unwrap_or((inner, "*"));
        if field.is_empty() || pattern.contains(['{', ':']) {
            return Err(format!("\"{{{inner}}}\" is not a variable"));
        }
        let from = self.segments.len();
        for segment in pattern.split('/') {
            self.segments.push(plain(segment)?);
        }
        self.variables.push(Variable { field: field.to_owned(), from, to: self.segments.len() });
        Ok(rest)
    }

    /// The path with a name for each part that is open, as OpenAPI writes it, and those parts: `/v1/{name=labs/*}:apply` is `/v1/labs/{lab}:apply`.
    pub fn open(&self) -> (String, Vec<Open>) {
        let (mut path, mut parts) = (String::new(), Vec::<Open>::new());
        let mut before = "";
        for (i, segment) in self.segments.iter().enumerate() {
            path.push('/');
            if let Segment::Literal(literal) = segment {
                path.push_str(literal);
                before = literal;
                continue;
            }
            let variable = self.variables.iter().find(|v| v.from <= i && i < v.to);
            // `labs/*` is a lab; an open part with no collection before it is named by its field.
            let by_itself = variable.is_some_and(|v| v.from == i);
            let field = variable.map_or("", |v| v.field.as_str());
            let mut name = if by_itself || before.is_empty() { field } else { before };
            name = name.strip_suffix('s').unwrap_or(name);
            path.push_str(&format!("{{{name}}}"));
            parts.push(Open {
                name: name.to_owned(),
                field: field.to_owned(),
                many: *segment == Segment::Rest,
            });
            before = "";
        }
        if let Some(verb) = &self.verb {
            path.push_str(&format!(":{verb}"));
        }
        (path, parts)
    }

    /// What the variables hold when the path is of this form. Each segment of the path is decoded by itself.
    pub fn matches(&self, path: &str) -> Option<Vec<String>> {
        let mut path = path.strip_prefix('/')?;
        if let Some(verb) = &self.verb {
            path = path.strip_suffix(verb.as_str())?.strip_suffix(':')?;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let open_ended = self.segments.last() == Some(&Segment::Rest);
        let fixed = self.segments.len() - usize::from(open_ended);
        if parts.len() < self.segments.len() || (!open_ended && parts.len() > fixed) {
            return None;
        }
        let decoded = parts.iter().map(|p| decode(p, false)).collect::<Option<Vec<_>>>()?;
        for (i, part) in decoded.iter().enumerate() {
            let fits = match self.segments.get(i) {
                Some(Segment::Literal(literal)) => literal == part,
                _ => !part.is_empty(),
            };
            if !fits {
                return None;
            }
        }
        let span = |v: &Variable| {
            let to = if v.to == self.segments.len() { decoded.len() } else { v.to };
            decoded[v.from..to].join("/")
        };
        Some(self.variables.iter().map(span).collect())
    }
}

/// The methods of a path, and those that every path with them takes, as the header `Allow` lists them.
pub fn allow(methods: &[&Method]) -> String {
    let mut all: Vec<&str> = Vec::new();
    for method in methods {
        all.push(method.as_str());
        if **method == Method::GET {
            all.push("HEAD");
        }
    }
    all.push("OPTIONS");
    all.join(", ")
}

fn plain(text: &str) -> Result<Segment, String> {
    match text {
        "*" => Ok(Segment::One),
        "**" => Ok(Segment::Rest),
        "" => Err("a segment is empty".to_owned()),
        literal if literal.contains('*') => Err(format!("\"{literal}\" mixes text and *")),
        literal => Ok(Segment::Literal(literal.to_owned())),
    }
}

/// Decodes `%41`, and `+` where it means a space; none when the bytes are not what they should be.
pub fn decode(text: &str, plus_is_space: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(b) = bytes.next() {
        decoded.push(match b {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// Which part of the request the body is.
#[derive(Debug, Clone)]
pub enum Body {
    /// There is none.
    None,
    /// All of it that the path does not say.
    Whole,
    /// One field, a message.
    Field(FieldDescriptor),
    /// One field of each message of a client's stream: the body as it is.
    Bytes(FieldDescriptor),
}

/// One HTTP rule of a method.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The HTTP method.
    pub http: Method,
    /// The path.
    pub template: Template,
    /// Fields that the path's variables are for, each as the way to it.
    pub bindings: Vec<Vec<FieldDescriptor>>,
    /// The template as OpenAPI writes it.
    pub route: String,
    /// The body.
    pub body: Body,
    /// The method.
    pub method: MethodDescriptor,
}

/// All rules.
#[derive(Debug)]
pub struct Table {
    rules: Vec<Rule>,
}

/// What a request means.
#[derive(Debug)]
pub enum Found<'a> {
    /// A call, and what the path's variables hold.
    Rule(&'a Rule, Vec<String>),
    /// The path exists, with these other HTTP methods.
    OtherMethods(Vec<&'a Method>),
    /// There is no such path.
    Nothing,
}

impl Table {
    /// The rules of all methods in these descriptors.
    pub fn build(pool: &DescriptorPool) -> Result<Table, RuleError> {
        let mut rules = Vec::new();
        for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
            let at = |what: String| RuleError { method: method.full_name().to_owned(), what };
            rules.extend(rules_of(pool, &method).map_err(at)?);
        }
        let rank = |rule: &Rule| {
            let t = &rule.template;
            let literals = t.segments.iter().filter(|s| matches!(s, Segment::Literal(_))).count();
            (t.verb.is_none(), t.segments.contains(&Segment::Rest), usize::MAX - literals)
        };
        rules.sort_by_key(rank);
        for (i, rule) in rules.iter().enumerate() {
            let same = |r: &&Rule| {
                r.http == rule.http
                    && r.template.segments == rule.template.segments
                    && r.template.verb == rule.template.verb
            };
            if let Some(other) = rules[..i].iter().find(same) {
                return Err(RuleError {
                    method: rule.method.full_name().to_owned(),
                    what: format!("{} has the same one", other.method.full_name()),
                });
            }
        }
        Ok(Table { rules })
    }

    /// All of them, in the order in which they are tried.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What a request means.
    pub fn find(&self, http: &Method, path: &str) -> Found<'_> {
        let mut others: Vec<&Method> = Vec::new();
        let mut by_verb = false;
        for rule in &self.rules {
            // A path that ends in a verb of its own is not also a name with a colon in it.
            if by_verb && rule.template.verb.is_none() {
                break;
            }
            let Some(values) = rule.template.matches(path) else { continue };
            if rule.http == http {
                return Found::Rule(rule, values);
            }
            by_verb |= rule.template.verb.is_some();
            if !others.contains(&&rule.http) {
                others.push(&rule.http);
            }
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }
}

fn rules_of(pool: &DescriptorPool, method: &MethodDescriptor) -> Result<Vec<Rule>, String> {
    let Some(extension) = pool.get_extension_by_name("google.api.http") else { return Ok(Vec::new()) };
    let options = method.options();
    if !options.has_extension(&extension) {
        return Ok(Vec::new());
    }
    let first = options.get_extension(&extension).as_message().cloned().ok_or("it is not a message")?;
    let more: Vec<DynamicMessage> = first
        .get_field_by_name("additional_bindings")
        .and_then(|l| l.as_list().map(|l| l.iter().filter_map(|v| v.as_message().cloned()).collect()))
        .unwrap_or_default();
    [first].iter().chain(&more).map(|rule| rule_of(method, rule)).collect()
}

fn rule_of(method: &MethodDescriptor, rule: &DynamicMessage) -> Result<Rule, String> {
    let text = |field: &str| {
        let value = rule.get_field_by_name(field);
        value.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let methods = [
        ("get", Method::GET),
        ("put", Method::PUT),
        ("post", Method::POST),
        ("delete", Method::DELETE),
        ("patch", Method::PATCH),
    ];
    let (path, http) = methods
        .into_iter()
        .find_map(|(field, http)| Some((text(field), http)).filter(|(path, _)| !path.is_empty()))
        .ok_or("it has none of get, put, post, delete and patch")?;
    if !text("response_body").is_empty() {
        return Err("response_body is not served".to_owned());
    }
    let template = Template::parse(&path)?;
    let input = method.input();
    let bindings = template
        .variables
        .iter()
        .map(|v| {
            let way = resolve(&input, &v.field)?;
            match way.last() {
                Some(f) if !f.is_list() && !matches!(f.kind(), Kind::Message(_)) => Ok(way),
                _ => Err(format!("{} is not a single value", v.field)),
            }
        })
        .collect::<Result<_, _>>()?;
    let body = match text("body").as_str() {
        "" => Body::None,
        "*" => Body::Whole,
        name => {
            let field = input.get_field_by_name(name).ok_or_else(|| format!("there is no field {name}"))?;
            let single = !field.is_list() && !field.is_map();
            if single && field.kind() == Kind::Bytes && method.is_client_streaming() {
                Body::Bytes(field)
            } else if single && field.kind().as_message().is_some() {
                Body::Field(field)
            } else {
                return Err(format!("the body {name} is not a message"));
            }
        }
    };
    let route = template.open().0;
    Ok(Rule { http, template, route, bindings, body, method: method.clone() })
}

/// The way to a field through messages, by names as in the proto file or as in JSON.
pub fn resolve(message: &MessageDescriptor, path: &str) -> Result<Vec<FieldDescriptor>, String> {
    let mut way: Vec<FieldDescriptor> = Vec::new();
    let mut message = Some(message.clone());
    for name in path.split('.') {
        let field = message
            .as_ref()
            .and_then(|m| m.get_field_by_name(name).or_else(|| m.get_field_by_json_name(name)))
            .ok_or_else(|| format!("there is no field \"{path}\""))?;
        let single = !field.is_list() && !field.is_map();
        message = field.kind().as_message().filter(|_| single).cloned();
        way.push(field);
    }
    Ok(way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table::build(&DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap()).unwrap()
    }

    fn matches(template: &str, path: &str) -> Option<Vec<String>> {
        Template::parse(template).unwrap().matches(path)
    }

    #[test]
    fn templates_match_what_they_say() {
        let some = |values: &[&str]| Some(values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>());
        assert_eq!(matches("/v1/labs", "/v1/labs"), some(&[]));
        assert_eq!(matches("/v1/{name=labs/*}", "/v1/labs/a"), some(&["labs/a"]));
        assert_eq!(matches("/v1/{name}/x", "/v1/a/x"), some(&["a"]));
        assert_eq!(matches("/v1/{a=*}/{b=c/*}:v", "/v1/1/c/2:v"), some(&["1", "c/2"]));
        assert_eq!(matches("/v1/{name=images/**}", "/v1/images/a/b:c"), some(&["images/a/b:c"]));
        assert_eq!(matches("/v1/{name=images/**}", "/v1/images/a%2Fb"), some(&["images/a/b"]));
        assert_eq!(matches("/v1/{name=labs/*}", "/v1/labs/a%20b"), some(&["labs/a b"]));
        for (template, path) in [
            ("/v1/labs", "/v1/labs/"),
            ("/v1/labs", "/v1/lab"),
            ("/v1/{name=labs/*}", "/v1/labs/"),
            ("/v1/{name=labs/*}", "/v1/labs/a/b"),
            ("/v1/{name=labs/*}", "/v1/labs/%ff"),
            ("/v1/{name=labs/*}", "/v1/labs/%4"),
            ("/v1/{name=labs/*}:v", "/v1/labs/a:w"),
            ("/v1/{name=labs/*}:v", "/v1/labs/:v"),
            ("/v1/{name=images/**}", "/v1/images"),
            ("/v1/{name=images/**}", "/v1/images/"),
            ("/v1/{name=images/**}", "/v1/images/a//b"),
        ] {
            assert_eq!(matches(template, path), None, "{template} {path}");
        }
    }

    #[test]
    fn open_parts_are_named_after_their_collections() {
        let open = |template: &str| Template::parse(template).unwrap().open().0;
        assert_eq!(open("/v1/labs:import"), "/v1/labs:import");
        assert_eq!(open("/v1/{name=labs/*/nodes/*}:exec"), "/v1/labs/{lab}/nodes/{node}:exec");
        assert_eq!(open("/v1/{parent=labs/*}/nodes"), "/v1/labs/{lab}/nodes");
        assert_eq!(open("/v1/{name=images/**}"), "/v1/images/{image}");
        assert_eq!(open("/v1/{name}/x"), "/v1/{name}/x");
        let (_, parts) = Template::parse("/v1/{name=images/**}").unwrap().open();
        assert_eq!(parts, [Open { name: "image".into(), field: "name".into(), many: true }]);
    }

    #[test]
    fn wrong_templates_are_refused() {
        for text in [
            "",
            "v1",
            "/",
            "/v1/{name",
            "/v1/{=a}",
            "/v1/a:",
            "/v1/**/b",
            "/v1/a*",
            "/{a={b}}",
            "/a:b:c",
            "/a}",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_method_of_the_api_has_a_rule() {
        let pool = DescriptorPool::decode(netloom_api::DESCRIPTORS).unwrap();
        let table = table();
        for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
            let has = table.rules().iter().any(|r| r.method.full_name() == method.full_name());
            assert!(has, "{} has no google.api.http rule", method.full_name());
        }
    }

    #[test]
    fn verbs_come_before_names() {
        let table = table();
        let found = |http: &Method, path: &str| match table.find(http, path) {
            Found::Rule(rule, values) => format!("{} {}", rule.method.name(), values.join(",")),
            Found::OtherMethods(methods) => format!("{methods:?}"),
            Found::Nothing => "nothing".to_owned(),
        };
        assert_eq!(found(&Method::GET, "/v1/labs/x:watch"), "WatchLabs labs/x");
        assert_eq!(found(&Method::GET, "/v1/labs:watch"), "WatchLabs ");
        assert_eq!(found(&Method::POST, "/v1/labs/x:apply"), "ApplyLab labs/x");
        assert_eq!(found(&Method::GET, "/v1/labs/x:apply"), "[POST]");
        assert_eq!(found(&Method::GET, "/v1/labs/x/links/a:1--b:2"), "GetLink labs/x/links/a:1--b:2");
        assert_eq!(found(&Method::PUT, "/v1/labs/x"), "[GET, PATCH, DELETE]");
        assert_eq!(found(&Method::GET, "/v1/images/netloom/frr:local"), "GetImage images/netloom/frr:local");
        assert_eq!(found(&Method::GET, "/v2/labs"), "nothing");
    }
}
