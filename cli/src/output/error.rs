//! An error for people: what was wrong, each field at fault on its own line, the reason for programs in brackets, and what to do.

use netloom_model::{Code, Failure};

use super::style::{Style, Tone, one_line};
use crate::error::Error;

/// The text for standard error. `trace` is named when the server was asked; `names` are the command line's lab and node.
pub fn text(style: Style, error: &Error, trace: &str, names: &(String, String)) -> String {
    let label = match error {
        Error::Interrupted(_) => style.paint(Tone::Busy, "interrupted:"),
        _ => style.paint(Tone::Bad, "error:"),
    };
    match error {
        Error::Refused(failure) => {
            // What has several parts says each on a line of its own.
            let mut lines = failure.message.trim().lines().map(one_line);
            let mut text = format!("{label} {} [{}]\n", lines.next().unwrap_or_default(), failure.reason);
            for line in lines {
                text.push_str(&format!("  {line}\n"));
            }
            for violation in &failure.violations {
                text.push_str(&format!(
                    "  {}: {}\n",
                    one_line(&violation.field),
                    one_line(&violation.description)
                ));
            }
            if let Some(hint) = hint(failure, names) {
                text.push_str(&format!("hint: {hint}\n"));
            }
            // What the user can mend needs no look into the server's log.
            if matches!(failure.code, Code::Internal | Code::Unavailable | Code::DeadlineExceeded) {
                text.push_str(&format!("trace: {trace} (look for it in the server's log)\n"));
            }
            text
        }
        Error::Io { what, source } => format!("{label} {what}: {source}\n"),
        other => format!("{label} {other}\n"),
    }
}

/// What to do about a refusal, where its message cannot know this program.
fn hint(failure: &Failure, (lab, node): &(String, String)) -> Option<String> {
    let known = |named: &String, key: &str, else_: &str| match (named.as_str(), failure.metadata.get(key)) {
        ("", Some(told)) => one_line(told),
        ("", None) => else_.to_owned(),
        (named, _) => one_line(named),
    };
    let (lab, node) = (known(lab, "lab", "LAB"), known(node, "node", "NODE"));
    Some(match failure.reason.as_str() {
        "LAB_NOT_FOUND" => "netloom inspect --all lists the labs".to_owned(),
        "NODE_NOT_FOUND" => format!("netloom inspect {lab} lists the nodes"),
        "KIND_NOT_FOUND" => "netloom kinds list shows the kinds".to_owned(),
        "NODE_NOT_RUNNING" => {
            format!("netloom inspect {lab} says why, netloom logs {lab} {node} what it wrote")
        }
        "OPERATION_ACTIVE" => format!(
            "wait until it is done; netloom inspect {lab} shows how far it is, netloom cancel {lab} ends it"
        ),
        "SERVICE_UNREACHABLE" => {
            "the server went away or a part of it does not run; netloom doctor checks this machine".to_owned()
        }
        _ if failure.code == Code::Unauthenticated => {
            "the token is not the server's; name its file with --token-file".to_owned()
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(error: &Error, trace: &str) -> String {
        super::text(Style::PLAIN, error, trace, &Default::default())
    }

    #[test]
    fn every_field_at_fault_has_its_line() {
        let failure = Failure::invalid("two things are wrong", Vec::new())
            .violation("nodes[0].image", "no image\nat all")
            .violation("a.clab.yml:3:2", "no such key");
        let expected = "error: two things are wrong [INVALID_REQUEST]
  nodes[0].image: no image at all
  a.clab.yml:3:2: no such key
";
        assert_eq!(text(&failure.into(), "t"), expected);
    }

    #[test]
    fn each_part_of_a_message_has_its_line() {
        let message = "images cannot be used:\n  node a: image x is missing\n  node b: \u{1b}[2J";
        let failure = Failure::new(Code::FailedPrecondition, "IMAGE_MISSING", message);
        let expected = "error: images cannot be used: [IMAGE_MISSING]\n  node a: image x is missing\n  node b: \\u{1b}[2J\n";
        assert_eq!(text(&failure.into(), "t"), expected);
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let failure = Failure::new(Code::NotFound, "LAB_NOT_FOUND", "there is no lab \"x\"");
        let expected =
            "error: there is no lab \"x\" [LAB_NOT_FOUND]\nhint: netloom inspect --all lists the labs\n";
        assert_eq!(text(&failure.into(), "t"), expected);
        let failure = Failure::internal("oops");
        assert!(text(&failure.into(), "4bf9").contains("trace: 4bf9"));
    }

    #[test]
    fn a_hint_can_be_typed_as_it_stands() {
        let error: Error = Failure::new(Code::FailedPrecondition, "NODE_NOT_RUNNING", "no").into();
        let shown = super::text(Style::PLAIN, &error, "t", &("ospf".into(), "r1".into()));
        assert!(shown.contains("netloom inspect ospf says why, netloom logs ospf r1 what"), "{shown}");
        let failure = Failure::new(Code::FailedPrecondition, "OPERATION_ACTIVE", "no").with("lab", "bgp");
        assert!(text(&failure.into(), "t").contains("netloom inspect bgp shows"));
    }
}
