//! Traces and figures of a real deploy: one trace from the command line to the hosts' services, and figures that say what was done.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netloom_tests::{Mode, Sandbox, eventually, request};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tonic::{Request, Response, Status};

use crate::line;

/// A collector of spans, by the service that sent each.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for sent in request.into_inner().resource_spans {
            let attributes = sent.resource.map(|r| r.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|a| a.key == "service.name");
            let Some(Value::StringValue(service)) = name.and_then(|n| n.value).and_then(|v| v.value) else {
                return Err(Status::invalid_argument("a resource without a name"));
            };
            let spans = sent.scope_spans.into_iter().flat_map(|s| s.spans);
            self.0.lock().unwrap().extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Runs a collector on a Unix socket, which is the same in every network namespace.
fn collect(socket: PathBuf) -> Collector {
    let collector = Collector::default();
    let service = TraceServiceServer::new(collector.clone());
    let (bound, is_bound) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::bind(socket).unwrap();
            bound.send(()).unwrap();
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    is_bound.recv().unwrap();
    collector
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

/// The names of a span and of all above it that were sent, from the top.
fn chain(spans: &HashMap<String, (String, Span)>, span: &Span) -> Vec<String> {
    let mut names = vec![span.name.clone()];
    let mut parent = hex(&span.parent_span_id);
    while let Some((_, above)) = spans.get(&parent) {
        names.push(above.name.clone());
        parent = hex(&above.parent_span_id);
    }
    names.reverse();
    names
}

fn a_deploy_is_one_trace(mode: Mode) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("otlp.sock");
    let collector = collect(socket.clone());
    let sandbox = Sandbox::start_with(mode, &format!("otlp_endpoint = \"unix:{}\"\n", socket.display()));
    let lab = sandbox.lab("trace");
    let file = sandbox.write("lab.clab.yml", &line(&lab, 2));
    let id = "5bd66ef5095369c7b0d1f8f4bd33716a";
    let mut deploy = sandbox.command();
    deploy
        .args(["deploy", "-t", &file.display().to_string()])
        .env("TRACEPARENT", format!("00-{id}-7f4a3b2c1d0e9f80-01"));
    let deployed = deploy.output().unwrap();
    assert!(deployed.status.success(), "{}", String::from_utf8_lossy(&deployed.stderr));

    let import = "netloom.v1.LabService/ImportLab";
    let apply = "netloom.scheduler.v1.SchedulerService/ApplyLab";
    let compute = "netloom.compute.v1.ComputeService/Ensure";
    let network = "netloom.network.v1.NetworkService/Ensure";
    let of_trace = || -> HashMap<String, (String, Span)> {
        let all = collector.0.lock().unwrap().clone();
        let ours = all.into_iter().filter(|(_, span)| hex(&span.trace_id) == id);
        ours.map(|(service, span)| (hex(&span.span_id), (service, span))).collect()
    };
    // Programs send what they have every few seconds.
    eventually("all spans were sent", Duration::from_secs(30), || {
        let spans = of_trace();
        [import, apply, compute, network].iter().all(|name| spans.values().any(|(_, s)| s.name == **name))
            && spans.values().any(|(_, s)| s.name == "reconcile")
    });
    let spans = of_trace();
    let named =
        |name: &str| spans.values().find(|(_, s)| s.name == name).unwrap_or_else(|| panic!("no span {name}"));
    for (name, service) in [
        (import, "gateway"),
        (apply, "scheduler"),
        (compute, "compute"),
        (network, "network"),
        ("reconcile", "scheduler"),
    ] {
        let service = if mode == Mode::One { "netloomd".to_owned() } else { format!("netloom-{service}") };
        assert_eq!(named(name).0, service, "{name}");
    }
    assert_eq!(chain(&spans, &named(apply).1), [import, apply]);
    for name in [compute, network] {
        assert_eq!(chain(&spans, &named(name).1), [import, apply, "reconcile", name]);
    }
    let attribute = |span: &Span, key: &str| {
        let value = span.attributes.iter().find(|a| a.key == key)?.value.clone()?.value?;
        if let Value::StringValue(text) = value { Some(text) } else { None }
    };
    let import = &named(import).1;
    assert_eq!(attribute(import, "rpc.system").as_deref(), Some("grpc"));
    assert_eq!(attribute(&named(apply).1, "netloom.lab").as_deref(), Some(lab.as_str()));
}

/// A program's figures, over its own socket.
fn figures(socket: &Path) -> HashMap<String, f64> {
    let reply = request(socket, "GET", "/metrics", None).unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text);
    let lines = reply.text.lines().filter(|l| !l.starts_with('#'));
    lines
        .filter_map(|l| l.rsplit_once(' '))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

fn figures_say_what_was_done(mode: Mode) {
    let sandbox = Sandbox::start(mode);
    let lab = sandbox.lab("figures");
    sandbox.deploy(&line(&lab, 3).replace("topology:", "plane: ovs\ntopology:"));
    let run = sandbox.path().join("run");
    // Each program tells its own; all in one process tell the same by any door.
    let of = |program: &str| {
        let socket = if mode == Mode::One { "api".to_owned() } else { program.to_owned() };
        figures(&run.join(format!("{socket}.sock")))
    };
    let at_least = |program: &str, name: &str, least: f64| {
        let figures = of(program);
        let is = figures.get(name).copied();
        let near: Vec<_> =
            figures.iter().filter(|(n, _)| n.split('{').next() == name.split('{').next()).collect();
        assert!(
            is.is_some_and(|is| is >= least),
            "{program}: {name} is {is:?}, not {least} at least: {near:?}"
        );
    };
    let equals = |program: &str, name: &str, is: f64| {
        eventually(&format!("{name} is {is}"), Duration::from_secs(10), || {
            of(program).get(name) == Some(&is)
        });
    };
    equals("scheduler", "netloom_nodes{state=\"READY\"}", 3.0);
    equals("scheduler", "netloom_nodes{state=\"FAILED\"}", 0.0);
    equals("scheduler", "netloom_links{state=\"UP\"}", 2.0);
    equals("scheduler", "netloom_labs{operation=\"none\"}", 1.0);
    equals("scheduler", "netloom_hosts{heard=\"yes\"}", 1.0);
    equals(
        "scheduler",
        "netloom_operation_duration_seconds_count{kind=\"deploy\",outcome=\"succeeded\"}",
        1.0,
    );
    for service in ["compute", "network"] {
        let name = format!(
            "netloom_scheduler_reconcile_duration_seconds_count{{outcome=\"ok\",service=\"{service}\"}}"
        );
        at_least("scheduler", &name, 1.0);
    }
    at_least("compute", "netloom_compute_step_duration_seconds_count{outcome=\"ok\",step=\"create\"}", 3.0);
    at_least("compute", "netloom_docker_call_duration_seconds_count{call=\"start\",outcome=\"ok\"}", 3.0);
    at_least("network", "netloom_nics_made_total", 4.0);
    at_least("network", "netloom_flows_changed_total{change=\"added\",outcome=\"ok\"}", 4.0);
    at_least("network", "netloom_ovsdb_transaction_duration_seconds_count{outcome=\"ok\"}", 1.0);
    at_least("network", "netloom_network_pass_duration_seconds_count{outcome=\"ok\"}", 1.0);
    let imported =
        "netloom_rpc_requests_total{code=\"OK\",method=\"ImportLab\",service=\"netloom.v1.LabService\"}";
    at_least("api", imported, 1.0);
    let ensured = "netloom_rpc_requests_total{code=\"OK\",method=\"Ensure\",service=\"netloom.compute.v1.ComputeService\"}";
    at_least("compute", ensured, 1.0);
    let build = of("image-registry").into_keys().find(|n| n.starts_with("netloom_build_info{")).unwrap();
    let program = if mode == Mode::One { "netloomd" } else { "netloom-image-registry" };
    assert!(build.contains(&format!("program=\"{program}\"")), "{build}");

    sandbox.netloom(&["destroy", &lab, "--yes"]).must();
    equals(
        "scheduler",
        "netloom_operation_duration_seconds_count{kind=\"destroy\",outcome=\"succeeded\"}",
        1.0,
    );
    equals("scheduler", "netloom_nodes{state=\"READY\"}", 0.0);
    at_least("network", "netloom_nics_removed_total", 1.0);
}

in_both_modes!(a_deploy_is_one_trace, figures_say_what_was_done);
