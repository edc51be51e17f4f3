//! Resource names: `labs/{lab}`, `labs/{lab}/nodes/{node}`, and so on. Written and read here and nowhere else. What a call is about is noted on its span as
//! it is read.

use netloom_model::id::{HostId, LabId, NodeId, OperationId};
use netloom_service::telemetry::about;

use crate::error::Error;

/// `labs/{lab}`.
pub fn lab(lab: &str) -> String {
    format!("labs/{lab}")
}

/// `labs/{lab}/nodes/{node}`.
pub fn node(lab: &str, node: &str) -> String {
    format!("labs/{lab}/nodes/{node}")
}

/// `labs/{lab}/nodes/{node}/snapshots/{snapshot}`.
pub fn snapshot(lab: &str, node: &str, snapshot: &str) -> String {
    format!("labs/{lab}/nodes/{node}/snapshots/{snapshot}")
}

/// `labs/{lab}/links/{link}`.
pub fn link(lab: &str, link: &str) -> String {
    format!("labs/{lab}/links/{link}")
}

/// `hosts/{host}`.
pub fn host(host: &str) -> String {
    format!("hosts/{host}")
}

/// `quotas/{project}`.
pub fn quota(project: &str) -> String {
    format!("quotas/{project}")
}

/// `images/{reference}`.
pub fn image(reference: &str) -> String {
    format!("images/{reference}")
}

/// `uploads/{upload}`.
pub fn upload(upload: &str) -> String {
    format!("uploads/{upload}")
}

/// `kinds/{kind}`.
pub fn kind(kind: &str) -> String {
    format!("kinds/{kind}")
}

/// `operations/{operation}`.
pub fn operation(operation: &str) -> String {
    format!("operations/{operation}")
}

/// The name, or nothing where there is no object.
pub fn optional(name: fn(&str) -> String, id: &str) -> String {
    if id.is_empty() { String::new() } else { name(id) }
}

fn parts<'a, const N: usize>(
    field: &str,
    name: &'a str,
    form: &str,
    collections: [&str; N],
) -> Result<[&'a str; N], Error> {
    let refused = || Error::field(field, format!("\"{name}\" is not a name of the form {form}"));
    let mut pieces = name.split('/');
    let mut ids = [""; N];
    for (id, collection) in ids.iter_mut().zip(collections) {
        if pieces.next() != Some(collection) {
            return Err(refused());
        }
        *id = pieces.next().filter(|id| !id.is_empty()).ok_or_else(refused)?;
    }
    if pieces.next().is_some() { Err(refused()) } else { Ok(ids) }
}

fn id<T: std::str::FromStr>(field: &str, text: &str) -> Result<T, Error>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| Error::field(field, e.to_string()))
}

/// The lab in `labs/{lab}`.
pub fn read_lab(field: &str, name: &str) -> Result<LabId, Error> {
    let [lab] = parts(field, name, "labs/{lab}", ["labs"])?;
    about("netloom.lab", &lab);
    id(field, lab)
}

/// A lab's id by itself.
pub fn read_lab_id(field: &str, text: &str) -> Result<LabId, Error> {
    about("netloom.lab", &text);
    id(field, text)
}

/// The lab and the node in `labs/{lab}/nodes/{node}`.
pub fn read_node(field: &str, name: &str) -> Result<(LabId, NodeId), Error> {
    let [lab, node] = parts(field, name, "labs/{lab}/nodes/{node}", ["labs", "nodes"])?;
    about("netloom.lab", &lab);
    about("netloom.node", &node);
    Ok((id(field, lab)?, id(field, node)?))
}

/// The lab, the node and the snapshot in `labs/{lab}/nodes/{node}/snapshots/{snapshot}`.
pub fn read_snapshot(field: &str, name: &str) -> Result<(LabId, NodeId, String), Error> {
    let form = "labs/{lab}/nodes/{node}/snapshots/{snapshot}";
    let [lab, node, snapshot] = parts(field, name, form, ["labs", "nodes", "snapshots"])?;
    about("netloom.lab", &lab);
    about("netloom.node", &node);
    Ok((id(field, lab)?, id(field, node)?, snapshot.to_owned()))
}

/// A snapshot's id by itself: it is as a node's.
pub fn read_snapshot_id(field: &str, text: &str) -> Result<String, Error> {
    id::<NodeId>(field, text).map(|id| id.to_string())
}

/// The lab and the link in `labs/{lab}/links/{link}`.
pub fn read_link(field: &str, name: &str) -> Result<(LabId, String), Error> {
    let [lab, link] = parts(field, name, "labs/{lab}/links/{link}", ["labs", "links"])?;
    about("netloom.lab", &lab);
    Ok((id(field, lab)?, link.to_owned()))
}

/// The host in `hosts/{host}`.
pub fn read_host(field: &str, name: &str) -> Result<HostId, Error> {
    let [host] = parts(field, name, "hosts/{host}", ["hosts"])?;
    id(field, host)
}

/// The project in `quotas/{project}`.
pub fn read_quota<'a>(field: &str, name: &'a str) -> Result<&'a str, Error> {
    let [project] = parts(field, name, "quotas/{project}", ["quotas"])?;
    Ok(project)
}

/// The kind in `kinds/{kind}`.
pub fn read_kind<'a>(field: &str, name: &'a str) -> Result<&'a str, Error> {
    let [kind] = parts(field, name, "kinds/{kind}", ["kinds"])?;
    Ok(kind)
}

/// The operation in `operations/{operation}`.
pub fn read_operation(field: &str, name: &str) -> Result<OperationId, Error> {
    let [operation] = parts(field, name, "operations/{operation}", ["operations"])?;
    about("netloom.operation", &operation);
    id(field, operation)
}

/// The upload in `uploads/{upload}`.
pub fn read_upload<'a>(field: &str, name: &'a str) -> Result<&'a str, Error> {
    let [upload] = parts(field, name, "uploads/{upload}", ["uploads"])?;
    Ok(upload)
}

/// The reference in `images/{reference}`, which may hold slashes.
pub fn read_image<'a>(field: &str, name: &'a str) -> Result<&'a str, Error> {
    name.strip_prefix("images/").filter(|r| !r.is_empty()).ok_or_else(|| {
        Error::field(field, format!("\"{name}\" is not a name of the form images/{{reference}}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert_eq!(read_lab("name", &lab("a")).unwrap().as_str(), "a");
        let (l, n) = read_node("name", &node("a", "r1")).unwrap();
        assert_eq!((l.as_str(), n.as_str()), ("a", "r1"));
        assert_eq!(read_link("name", &link("a", "r1:eth1--r2:eth1")).unwrap().1, "r1:eth1--r2:eth1");
        assert_eq!(read_image("name", &image("netloom/frr:local")).unwrap(), "netloom/frr:local");
        assert_eq!(read_host("name", &host("local")).unwrap().as_str(), "local");
        assert_eq!(read_upload("name", &upload("u")).unwrap(), "u");
        assert_eq!(read_kind("name", &kind("frr")).unwrap(), "frr");
        assert_eq!(read_quota("name", &quota("p")).unwrap(), "p");
        let id = OperationId::new();
        assert_eq!(read_operation("name", &operation(&id.to_string())).unwrap(), id);
    }

    #[test]
    fn a_wrong_name_is_told_with_its_form() {
        for name in ["", "labs", "labs/", "lab/a", "labs/a/", "labs/a/b", "labs/a b", "/labs/a", "labs/../a"]
        {
            let said = read_lab("name", name).unwrap_err().to_string();
            assert!(said.starts_with("name: "), "{said}");
        }
        let said = read_node("name", "labs/a/links/b").unwrap_err().to_string();
        assert!(said.contains("labs/{lab}/nodes/{node}"), "{said}");
        assert!(read_operation("name", "operations/1").is_err());
        assert!(read_image("name", "images/").is_err());
    }
}
