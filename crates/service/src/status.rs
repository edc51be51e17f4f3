//! The one map between [`Failure`] and gRPC's status, and from there to HTTP.
//!
//! A status always carries a `google.rpc.ErrorInfo` of domain "netloom"; a wrong request also a `BadRequest` with every field at fault. Reading a status
//! back gives the same failure, so that an error passes through the gateway unchanged.

use std::collections::HashMap;

use netloom_model::failure::{Code, Failure, Violation};
use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Domain of every `ErrorInfo` of netloom.
pub const DOMAIN: &str = "netloom";

/// Most characters of a message, and of a fact, in a status.
const MAX_TEXT: usize = 2_000;

/// Most bytes of violations in a status.
const MAX_VIOLATIONS: usize = 3 << 10;

/// True for the end of an answer whose server died: which code it has depends on the moment. What netloom's services say by themselves has details.
pub fn is_cut(status: &Status) -> bool {
    use tonic::Code::{Cancelled, Internal, Unknown};
    matches!(status.code(), Cancelled | Internal | Unknown) && status.details().is_empty()
}

/// True for a connection that was lost, or could not be made, as against an answer that will not change.
pub fn is_lost(status: &Status) -> bool {
    status.code() == tonic::Code::Unavailable || is_cut(status)
}

/// What a status says, or, of one that was made on this side, the innermost cause: those around it say less.
pub fn cause(status: &Status) -> String {
    let causes = std::iter::successors(Some(status as &dyn std::error::Error), |e| e.source());
    match causes.last() {
        Some(last) if std::error::Error::source(status).is_some() => last.to_string(),
        _ => status.message().to_owned(),
    }
}

/// The status that a failure is on the wire. It travels in headers, of which many clients take no more than 8 KiB: what is longer is clipped, and the last
/// violation says how many were left out.
pub fn to_status(failure: Failure) -> Status {
    whole_status(fitting(failure))
}

fn fitting(failure: Failure) -> Failure {
    let total = failure.violations.len();
    let mut room = MAX_VIOLATIONS;
    let mut violations = Vec::new();
    for v in failure.violations {
        let v = Violation { field: clipped(v.field), description: clipped(v.description) };
        let size = v.field.len() + v.description.len() + 8;
        if size > room {
            break;
        }
        room -= size;
        violations.push(v);
    }
    if violations.len() < total {
        let description = format!("and {} more", total - violations.len());
        violations.push(Violation { field: String::new(), description });
    }
    let metadata = failure.metadata.into_iter().map(|(key, value)| (key, clipped(value))).collect();
    Failure { message: clipped(failure.message), metadata, violations, ..failure }
}

fn clipped(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

fn whole_status(failure: Failure) -> Status {
    let metadata: HashMap<String, String> = failure.metadata.into_iter().collect();
    let mut details = ErrorDetails::with_error_info(failure.reason, DOMAIN, metadata);
    if !failure.violations.is_empty() {
        let violations = failure.violations.into_iter().map(|v| FieldViolation::new(v.field, v.description));
        details.set_bad_request(violations.collect::<Vec<_>>());
    }
    Status::with_error_details(code(failure.code), failure.message, details)
}

/// The failure that a status is. One without our `ErrorInfo` (a lost connection, say) gets a reason from its code.
pub fn from_status(status: &Status) -> Failure {
    let details = status.get_error_details();
    let code = match status.code() {
        tonic::Code::InvalidArgument => Code::InvalidArgument,
        tonic::Code::NotFound => Code::NotFound,
        tonic::Code::AlreadyExists => Code::AlreadyExists,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::Aborted => Code::Aborted,
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::OutOfRange => Code::OutOfRange,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        tonic::Code::Unimplemented => Code::Unimplemented,
        tonic::Code::Unavailable => Code::Unavailable,
        tonic::Code::DeadlineExceeded => Code::DeadlineExceeded,
        tonic::Code::Cancelled => Code::Cancelled,
        tonic::Code::Ok | tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => {
            Code::Internal
        }
    };
    let (reason, metadata) = match details.error_info() {
        Some(info) => (info.reason.clone(), info.metadata.clone().into_iter().collect()),
        None if code == Code::Unavailable => ("SERVICE_UNREACHABLE".to_owned(), Default::default()),
        None if code == Code::InvalidArgument => ("INVALID_REQUEST".to_owned(), Default::default()),
        None if code == Code::Internal => ("INTERNAL".to_owned(), Default::default()),
        None => (code_word(status.code()).to_owned(), Default::default()),
    };
    let violations = details.bad_request().map_or_else(Vec::new, |b| {
        b.field_violations
            .iter()
            .map(|v| Violation { field: v.field.clone(), description: v.description.clone() })
            .collect()
    });
    Failure { code, reason, message: status.message().to_owned(), metadata, violations }
}

/// The `google.rpc.Status` message of a failure, whole, as operations carry it.
pub fn to_rpc_status(failure: &Failure) -> tonic_types::pb::Status {
    use prost::Message as _;
    let status = whole_status(failure.clone());
    // with_error_details put exactly this message into the details.
    tonic_types::pb::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::pb::Status {
        code: status.code().into(),
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

fn code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Aborted => tonic::Code::Aborted,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::Unimplemented => tonic::Code::Unimplemented,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::Cancelled => tonic::Code::Cancelled,
        Code::Internal => tonic::Code::Internal,
    }
}

/// A gRPC code as it is written: `NOT_FOUND`.
pub fn code_word(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The HTTP status of a gRPC code, as grpc-gateway maps it.
pub fn http_status(code: tonic::Code) -> u16 {
    match code {
        tonic::Code::Ok => 200,
        tonic::Code::Cancelled => 499,
        tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::OutOfRange => 400,
        tonic::Code::DeadlineExceeded => 504,
        tonic::Code::NotFound => 404,
        tonic::Code::AlreadyExists | tonic::Code::Aborted => 409,
        tonic::Code::PermissionDenied => 403,
        tonic::Code::Unauthenticated => 401,
        tonic::Code::ResourceExhausted => 429,
        tonic::Code::Unimplemented => 501,
        tonic::Code::Unavailable => 503,
        tonic::Code::Unknown | tonic::Code::Internal | tonic::Code::DataLoss => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure::invalid("two things are wrong", Vec::new())
            .with("lab", "x")
            .violation("spec.nodes[0]", "no kind")
            .violation("spec.links[1]", "no end");
        assert_eq!(from_status(&to_status(failure.clone())), failure);
        let rpc = to_rpc_status(&failure);
        assert_eq!((rpc.code, rpc.details.len()), (3, 2));
    }

    #[test]
    fn a_thousand_violations_still_fit_into_a_header() {
        let violation =
            |i| Violation { field: format!("f.yml:{i}:1"), description: "unknown key".repeat(20) };
        let failure = Failure::invalid("x".repeat(100_000), (0..1000).map(violation).collect());
        let status = to_status(failure.clone());
        assert!(status.details().len() + status.message().len() < 8 << 10, "{}", status.details().len());
        let kept = from_status(&status).violations;
        assert!(kept.last().unwrap().description.starts_with("and 9"), "{:?}", kept.last());
        assert!(to_rpc_status(&failure).message.len() == 100_000, "an operation is no header");
    }

    #[test]
    fn a_foreign_status_still_has_a_reason() {
        let failure = from_status(&Status::unavailable("connection refused"));
        assert_eq!((failure.code, failure.reason.as_str()), (Code::Unavailable, "SERVICE_UNREACHABLE"));
        let failure = from_status(&Status::out_of_range("a message of 5 MB"));
        assert_eq!(failure.reason, "OUT_OF_RANGE", "words are apart as in every other reason");
        // What a server that is not netloom's says of a request or of itself are the same two things everywhere.
        for (status, reason) in [
            (Status::invalid_argument("x"), "INVALID_REQUEST"),
            (Status::unknown("x"), "INTERNAL"),
            (Status::data_loss("x"), "INTERNAL"),
        ] {
            assert_eq!(from_status(&status).reason, reason);
        }
    }
}
