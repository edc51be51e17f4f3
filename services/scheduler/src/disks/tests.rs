use netloom_model::kind::Catalogue;
use netloom_model::observed::{Observed, Phase};
use netloom_model::spec::{LabSpec, NodeSpec};
use netloom_model::state::Wanted;

use super::*;
use crate::plan::{Context, plan};

/// A lab whose machine moved from h1 to h2: what was, and what is to be.
fn moved() -> (LabRows, NodeUid, NodeUid) {
    let vm = NodeSpec { id: "vm".into(), kind: "tcl".into(), image: "i".into(), ..NodeSpec::default() };
    let spec = LabSpec { nodes: vec![vm], ..LabSpec::default() };
    let catalogue = Catalogue::embedded();
    let ctx = Context { catalogue: &catalogue, rooms: &[], asked: true, revive: true, now: 1 };
    let mut rows = plan(&LabRows::new("l".parse().unwrap(), 1), &spec, ctx).rows;
    let (_, planned) = std::mem::take(&mut rows.nodes).into_iter().next().unwrap();
    let of = |host: &str| NodeRow {
        uid: NodeUid::new(),
        host: Some(host.parse().unwrap()),
        image_step: ImageStep::Ready,
        ..NodeRow::clone(&planned)
    };
    let mut former = NodeRow { replaced: true, wanted: Wanted::Aside, ..of("h1") };
    let seen = Observed { phase: Phase::Aside, ..Observed::absent(former.uid, rows.lab.uid) };
    former.observed = Some(seen.into());
    let new = NodeRow { disk_of: Some(former.uid), disk_due: true, ..of("h2") };
    let uids = (former.uid, new.uid);
    rows.nodes.extend([former, new].map(|n| (n.uid, n)));
    (rows, uids.0, uids.1)
}

#[test]
fn a_disk_is_copied_once_what_has_it_is_out_of_the_way() {
    let (mut rows, former, new) = moved();
    let is_due = Due { from: (former, "h1".parse().unwrap()), to: (new, "h2".parse().unwrap()) };
    assert_eq!(due_of(&rows, new), Some(Ok(is_due)));
    assert_eq!(due_of(&rows, former), None);
    for (phase, is_there) in [(Phase::Running, false), (Phase::Stopping, false), (Phase::Absent, true)] {
        rows.nodes.get_mut(&former).unwrap().observed.as_mut().unwrap().phase = phase;
        assert_eq!(due_of(&rows, new).is_some(), is_there, "{phase:?}");
    }
    // What had it is gone: it must not begin with an empty one.
    let mut gone = rows.clone();
    gone.nodes.remove(&former);
    assert!(due_of(&gone, new).unwrap().is_err());
    // It is taken back.
    rows.nodes.get_mut(&new).unwrap().wanted = Wanted::Absent;
    assert_eq!(due_of(&rows, new), None);
}
