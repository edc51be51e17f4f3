//! A plan for people: one line a step, its symbol first.

use netloom_api::v1 as api;

use super::style::{Style, Tone, one_line};
use super::words::natural;

/// The plan, line by line, with a summary; empty when there is nothing to do. Nodes come before links, and of each what is made before what is changed and removed.
pub fn text(style: Style, plan: &api::Plan) -> String {
    told(style, plan, ["fits on no host", "that fit nowhere"])
}

/// The plan of a move, in the same way.
pub fn moves(style: Style, plan: &api::Plan) -> String {
    told(style, plan, ["stays where it is", "that stay"])
}

/// What is said of a node that has no place in the plan, and of all of them.
fn told(style: Style, plan: &api::Plan, [of_one, of_all]: [&str; 2]) -> String {
    let mut text = String::new();
    let width = plan.actions.iter().map(|a| a.id.len()).max().unwrap_or(0).min(40);
    let mut actions: Vec<&api::Action> = plan.actions.iter().collect();
    actions.sort_by_cached_key(|a| (a.object != "node", rank(a.verb()), natural(&a.id)));
    for action in actions {
        let (symbol, tone) = symbol(action.verb());
        let host = if action.host.is_empty() { String::new() } else { format!("on {}", action.host) };
        let why: Vec<String> =
            [host, one_line(&action.reason)].into_iter().filter(|part| !part.is_empty()).collect();
        let line =
            format!("{symbol} {:4} {:width$}  {}", action.object, one_line(&action.id), why.join(", "));
        text.push_str(&style.paint(tone, line.trim_end()));
        text.push('\n');
    }
    for unplaced in &plan.unplaced {
        let line = format!("  ! node {}  {of_one}", one_line(&unplaced.node));
        text.push_str(&style.paint(Tone::Bad, &line));
        text.push('\n');
        for rejection in &unplaced.rejections {
            text.push_str(&format!("           {}\n", rejected(rejection)));
        }
    }
    if !text.is_empty() {
        text.push_str(&summary(plan, of_all));
        text.push('\n');
    }
    text
}

/// How many links between hosts are named.
const NAMED: usize = 10;

/// The links between hosts, and if asked for why each node that is placed is not on the other hosts.
pub fn placement(plan: &api::Plan, why: bool) -> String {
    let mut text = String::new();
    for placed in plan.placements.iter().filter(|_| why) {
        text.push_str(&format!("Node {} goes to {}\n", one_line(&placed.node), placed.host));
        placed.others.iter().for_each(|other| text.push_str(&format!("  not to {}\n", rejected(other))));
    }
    if !plan.cut_links.is_empty() {
        let more = match plan.cut_links.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named: Vec<&str> = plan.cut_links.iter().take(NAMED).map(String::as_str).collect();
        text.push_str(&format!("Links between hosts: {}{more}\n", named.join(", ")));
    }
    text
}

/// Why a host does not take a node.
pub fn rejected(rejection: &api::HostRejection) -> String {
    let later = if rejection.resolvable { "" } else { "; waiting does not help" };
    format!("{}: {} [{}]{later}", rejection.host, one_line(&rejection.detail), rejection.code)
}

/// The symbols that Terraform made known.
fn symbol(verb: api::ActionVerb) -> (&'static str, Tone) {
    match verb {
        api::ActionVerb::Create => ("  +", Tone::Good),
        api::ActionVerb::Recreate => ("-/+", Tone::Busy),
        api::ActionVerb::Update => ("  ~", Tone::Busy),
        api::ActionVerb::Delete => ("  -", Tone::Bad),
        api::ActionVerb::Start => ("  >", Tone::Good),
        api::ActionVerb::Stop => ("  .", Tone::Bad),
        api::ActionVerb::Restart => ("  @", Tone::Busy),
        api::ActionVerb::Wipe => ("-/+", Tone::Busy),
        api::ActionVerb::Restore => ("  <", Tone::Busy),
        api::ActionVerb::Unspecified => ("  ?", Tone::Plain),
    }
}

fn rank(verb: api::ActionVerb) -> usize {
    use api::ActionVerb as V;
    let order =
        [V::Create, V::Recreate, V::Update, V::Start, V::Restart, V::Restore, V::Wipe, V::Stop, V::Delete];
    order.iter().position(|v| *v == verb).unwrap_or(order.len())
}

/// What is made, changed and removed is always said, the rest where there is some.
fn summary(plan: &api::Plan, of_unplaced: &str) -> String {
    use api::ActionVerb as V;
    let count = |verb| plan.actions.iter().filter(|a| a.verb() == verb).count();
    let words = [
        (V::Create, "to make", true),
        (V::Recreate, "to make anew", false),
        (V::Update, "to change", true),
        (V::Start, "to start", false),
        (V::Restart, "to restart", false),
        (V::Stop, "to stop", false),
        (V::Delete, "to remove", true),
    ];
    let said = words.into_iter().filter(|(verb, _, always)| *always || count(*verb) > 0);
    let mut parts: Vec<String> = said.map(|(verb, words, _)| format!("{} {words}", count(verb))).collect();
    if !plan.unplaced.is_empty() {
        parts.push(format!("{} {of_unplaced}", plan.unplaced.len()));
    }
    format!("Plan: {}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(verb: api::ActionVerb, object: &str, id: &str, reason: &str, host: &str) -> api::Action {
        api::Action {
            verb: verb.into(),
            object: object.into(),
            id: id.into(),
            reason: reason.into(),
            host: host.into(),
        }
    }

    #[test]
    fn a_plan_is_read_at_a_glance() {
        let plan = api::Plan {
            actions: vec![
                action(api::ActionVerb::Create, "node", "r1", "", "local"),
                action(api::ActionVerb::Recreate, "node", "r2", "image changed", "local"),
                action(api::ActionVerb::Update, "node", "h1", "exec changed", ""),
                action(api::ActionVerb::Delete, "link", "r1:eth1--r2:eth1", "not in the file any more", ""),
            ],
            unplaced: vec![api::Unplaced {
                node: "big".into(),
                rejections: vec![api::HostRejection {
                    host: "local".into(),
                    code: "INSUFFICIENT_MEMORY".into(),
                    detail: "needs 65536 MiB memory, 1229 MiB of 16384 MiB free, 64307 MiB missing".into(),
                    resolvable: false,
                }],
            }],
            ..api::Plan::default()
        };
        let expected = "  + node r1                on local
-/+ node r2                on local, image changed
  ~ node h1                exec changed
  - link r1:eth1--r2:eth1  not in the file any more
  ! node big  fits on no host
           local: needs 65536 MiB memory, 1229 MiB of 16384 MiB free, 64307 MiB missing [INSUFFICIENT_MEMORY]; waiting does not help
Plan: 1 to make, 1 to make anew, 1 to change, 1 to remove, 1 that fit nowhere
";
        assert_eq!(text(Style::PLAIN, &plan), expected);
    }

    #[test]
    fn where_nodes_go_and_what_is_cut_is_told() {
        let other = |code: &str, detail: &str, resolvable| api::HostRejection {
            host: "h2".into(),
            code: code.into(),
            detail: detail.into(),
            resolvable,
        };
        let placed =
            |node: &str, other| api::Placement { node: node.into(), host: "h1".into(), others: vec![other] };
        let plan = api::Plan {
            placements: vec![
                placed("r1", other("NOT_CHOSEN", "has room, and is no better for the lab as a whole", true)),
                placed("r2", other("HOST_NOT_NAMED", "the node is to be on h1", false)),
            ],
            cut_links: (1..=12).map(|i| format!("r{i}:eth1--s:eth{i}")).collect(),
            ..api::Plan::default()
        };
        let told = placement(&plan, true);
        assert!(
            told.starts_with(
                "Node r1 goes to h1
  not to h2: has room, and is no better for the lab as a whole [NOT_CHOSEN]
Node r2 goes to h1
  not to h2: the node is to be on h1 [HOST_NOT_NAMED]; waiting does not help
Links between hosts: r1:eth1--s:eth1, "
            ) && told.ends_with(", r10:eth1--s:eth10 and 2 more\n"),
            "{told}"
        );
        assert!(placement(&plan, false).starts_with("Links between hosts: "));
        assert_eq!(placement(&api::Plan::default(), true), "");
    }

    #[test]
    fn nothing_to_do_is_nothing() {
        assert_eq!(text(Style::PLAIN, &api::Plan::default()), "");
    }
}
