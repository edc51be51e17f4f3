//! Links and nodes that are changed: what a request asks for, as the scheduler is asked for it.

use netloom_api::v1;
use netloom_model::failure::{Code, Failure};
use netloom_model::spec::LinkSpec;
use netloom_proto::scheduler::v1 as ps;
use prost_types::FieldMask;

use crate::apply::with_lab;
use crate::client::Peers;
use crate::error::Error;
use crate::etag;

/// The fields of a link that can be changed, as an update mask names them.
const FIELDS: [&str; 10] =
    ["mtu", "labels", "a_to_b", "b_to_a", "a.mac", "a.ipv4", "a.ipv6", "b.mac", "b.ipv4", "b.ipv6"];

/// Changes nodes of a lab.
pub async fn nodes(peers: &Peers, request: ps::ChangeNodesRequest) -> Result<v1::Operation, Error> {
    let answer = peers.scheduler().change_nodes(request).await.map_err(peers.scheduler_error())?;
    let operation = answer.into_inner().operation.ok_or_else(|| Error::missing("operation"))?;
    with_lab(peers, operation, Vec::new()).await
}

/// Moves nodes of a lab to other hosts.
pub async fn moves(peers: &Peers, request: ps::MoveNodesRequest) -> Result<v1::Operation, Error> {
    let answer = peers.scheduler().move_nodes(request).await.map_err(peers.scheduler_error())?;
    let operation = answer.into_inner().operation.ok_or_else(|| Error::missing("operation"))?;
    with_lab(peers, operation, Vec::new()).await
}

/// Changes a link of a lab's spec.
pub async fn link(peers: &Peers, request: ps::ChangeLinkRequest) -> Result<v1::Operation, Error> {
    let answer = peers.scheduler().change_link(request).await.map_err(peers.scheduler_error())?;
    let operation = answer.into_inner().operation.ok_or_else(|| Error::missing("operation"))?;
    with_lab(peers, operation, Vec::new()).await
}

/// The link that a request describes.
pub fn described(link: v1::Link) -> Result<v1::LinkSpec, Error> {
    Ok(v1::LinkSpec {
        mtu: mtu(link.mtu)?,
        a: link.a,
        b: link.b,
        labels: link.labels,
        a_to_b: link.a_to_b,
        b_to_a: link.b_to_a,
    })
}

fn mtu(mtu: i32) -> Result<u32, Error> {
    u32::try_from(mtu).map_err(|_| Error::field("link.mtu", format!("{mtu} is negative")))
}

/// The fields of a link that have a value, of those that can be changed.
fn populated(wish: &v1::Link) -> Vec<String> {
    let end = |end: &Option<v1::Endpoint>, field: &str| {
        end.as_ref().is_some_and(|end| match field {
            "mac" => !end.mac.is_empty(),
            "ipv4" => !end.ipv4.is_empty(),
            _ => !end.ipv6.is_empty(),
        })
    };
    let has_value = |path: &&str| match path.split_once('.') {
        Some(("a", field)) => end(&wish.a, field),
        Some((_, field)) => end(&wish.b, field),
        None => match *path {
            "mtu" => wish.mtu != 0,
            "labels" => !wish.labels.is_empty(),
            "a_to_b" => wish.a_to_b.is_some(),
            _ => wish.b_to_a.is_some(),
        },
    };
    FIELDS.iter().filter(|path| has_value(path)).map(|path| (*path).to_owned()).collect()
}

/// The link as it is, with the fields of the mask as in the request; without a mask those that the request gives a value.
pub fn masked(now: v1::LinkSpec, wish: v1::Link, mask: Option<FieldMask>) -> Result<v1::LinkSpec, Error> {
    let mut paths = mask.map(|m| m.paths).unwrap_or_default();
    if paths.is_empty() {
        paths = populated(&wish);
    } else if paths.iter().any(|p| p == "*") {
        paths = FIELDS.map(str::to_owned).to_vec();
    }
    let mut link = now;
    let mtu = mtu(wish.mtu)?;
    let (a, b) = (wish.a.unwrap_or_default(), wish.b.unwrap_or_default());
    for path in &paths {
        let (side, field) = path.split_once('.').unwrap_or(("", path));
        let ends = match side {
            "a" => link.a.as_mut().map(|end| (end, &a)),
            "b" => link.b.as_mut().map(|end| (end, &b)),
            _ => None,
        };
        match (field, ends) {
            ("mtu", None) => link.mtu = mtu,
            ("labels", None) => link.labels.clone_from(&wish.labels),
            ("a_to_b", None) => link.a_to_b = wish.a_to_b,
            ("b_to_a", None) => link.b_to_a = wish.b_to_a,
            ("mac", Some((end, from))) => end.mac.clone_from(&from.mac),
            ("ipv4", Some((end, from))) => end.ipv4.clone_from(&from.ipv4),
            ("ipv6", Some((end, from))) => end.ipv6.clone_from(&from.ipv6),
            _ => {
                let what = format!("\"{path}\" cannot be changed; what can is {}", FIELDS.join(", "));
                return Err(Error::field("update_mask", what));
            }
        }
    }
    Ok(link)
}

/// The version of a link's spec to hold the scheduler to, from the etag that the caller sent; the one that was read when none was sent.
pub fn version(facts: &ps::LinkFacts, sent: &str) -> Result<String, Error> {
    let spec = LinkSpec::from(facts.spec.clone().unwrap_or_default());
    let version = spec.version();
    if sent.is_empty() || sent == etag::of(&facts.uid, &version) {
        return Ok(version);
    }
    let message = format!("link {} of lab \"{}\" was changed meanwhile; read it again", facts.id, facts.lab);
    let failure = Failure::new(Code::Aborted, "ETAG_MISMATCH", message);
    Err(Error::Behind(failure.with("lab", facts.lab.clone()).with("link", facts.id.clone())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> v1::LinkSpec {
        let end = |node: &str| {
            Some(v1::Endpoint { node: node.into(), interface: "eth1".into(), ..v1::Endpoint::default() })
        };
        v1::LinkSpec { a: end("r1"), b: end("r2"), mtu: 9_500, ..v1::LinkSpec::default() }
    }

    fn mask(paths: &[&str]) -> Option<FieldMask> {
        Some(FieldMask { paths: paths.iter().map(|p| (*p).to_owned()).collect() })
    }

    #[test]
    fn only_what_the_mask_names_is_changed() {
        let end =
            v1::Endpoint { node: "other".into(), ipv4: "10.0.0.1/24".into(), ..v1::Endpoint::default() };
        let wish = v1::Link { mtu: 1_500, a: Some(end), ..v1::Link::default() };
        let changed = masked(link(), wish.clone(), mask(&["a.ipv4"])).unwrap();
        let a = changed.a.unwrap();
        assert_eq!((changed.mtu, a.ipv4.as_str(), a.node.as_str()), (9_500, "10.0.0.1/24", "r1"));
        for wrong in ["a.node", "b.interface", "state", "a", "x.mac"] {
            let said = masked(link(), wish.clone(), mask(&[wrong])).unwrap_err().to_string();
            assert!(said.contains(wrong) && said.contains("b.ipv6"), "{said}");
        }
        let negative = v1::Link { mtu: -1, ..wish };
        assert!(masked(link(), negative, None).is_err());
    }

    #[test]
    fn without_a_mask_only_what_has_a_value_is_changed() {
        let mut now = link();
        now.labels = [("k".to_owned(), "v".to_owned())].into();
        now.a_to_b = Some(v1::Impairment { delay_us: 5, ..v1::Impairment::default() });
        now.b.as_mut().unwrap().mac = "02:00:00:00:00:01".into();
        let end = v1::Endpoint { node: "other".into(), ipv4: "10.0.0.1/24".into(), ..Default::default() };
        let wish = v1::Link { a: Some(end), ..v1::Link::default() };
        for absent in [None, mask(&[])] {
            let mut expected = now.clone();
            expected.a.as_mut().unwrap().ipv4 = "10.0.0.1/24".into();
            assert_eq!(masked(now.clone(), wish.clone(), absent).unwrap(), expected);
        }
        let every = v1::Link {
            mtu: 1_500,
            labels: [("l".to_owned(), "w".to_owned())].into(),
            b_to_a: now.a_to_b,
            ..v1::Link::default()
        };
        let changed = masked(now.clone(), every.clone(), None).unwrap();
        assert_eq!((changed.mtu, changed.labels, changed.b_to_a), (1_500, every.labels, every.b_to_a));
        assert_eq!(changed.a_to_b, now.a_to_b);
        // A star means all fields, also those without a value.
        let changed = masked(now, wish, mask(&["*"])).unwrap();
        assert_eq!((changed.mtu, changed.labels.len(), changed.a_to_b), (0, 0, None));
        assert_eq!((changed.b.unwrap().mac.as_str(), changed.a.unwrap().ipv4.as_str()), ("", "10.0.0.1/24"));
    }

    #[test]
    fn an_etag_is_held_against_what_is_there() {
        let facts = ps::LinkFacts { uid: "u".into(), spec: Some(link()), ..ps::LinkFacts::default() };
        let version = LinkSpec::from(link()).version();
        assert_eq!(super::version(&facts, "").unwrap(), version);
        assert_eq!(super::version(&facts, &etag::of("u", &version)).unwrap(), version);
        let refused = Failure::from(super::version(&facts, &etag::of("v", &version)).unwrap_err());
        let promised = netloom_model::reason::find(&refused.reason).unwrap().facts;
        assert!(promised.iter().all(|(key, _)| refused.metadata.contains_key(*key)), "{refused:?}");
    }
}
