//! One link of a lab: added, changed or removed by way of its spec, and plugged or unplugged beside it.

use netloom_model::failure::{Code, Failure, Violation};
use netloom_model::id::LabId;
use netloom_model::spec::{LabSpec, LinkSpec};
use netloom_model::state::Wanted;

use super::Change;
use super::refuse::{lab_not_found, refuse_if_busy};
use crate::error::Result;
use crate::rows::{LabRows, OperationKind};
use crate::scheduler::Scheduler;
use crate::store::LinkView;

/// What is done to a link of a spec.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// It is added.
    Create,
    /// It is replaced by one with the same ends.
    Update,
    /// It is removed.
    Delete,
}

/// A link to be changed.
#[derive(Debug, Clone)]
pub struct LinkEdit {
    /// What is done.
    pub change: LinkChange,
    /// Its id; empty for a new one.
    pub id: String,
    /// The link; of no matter when it is removed.
    pub link: LinkSpec,
    /// The version that the caller saw ([`LinkSpec::version`]); empty for any.
    pub version: String,
}

impl Change {
    /// The kind of the operation that brings it about.
    pub(super) fn kind(&self) -> OperationKind {
        match self {
            Change::Whole(_) => OperationKind::Deploy,
            Change::Link(_) => OperationKind::Edit,
        }
    }
}

/// Says that there is no such link.
pub fn link_not_found(lab: &LabId, link: &str) -> Failure {
    let message =
        format!("there is no link \"{link}\" in lab \"{lab}\"; list its links to see those there are");
    Failure::new(Code::NotFound, "LINK_NOT_FOUND", message).with("link", link)
}

impl Scheduler {
    /// The spec of a lab with one link changed.
    pub(super) fn edited(&self, rows: &LabRows, edit: &LinkEdit) -> Result<LabSpec> {
        let mut spec = LabSpec::clone(&rows.lab.spec);
        // As ends are spelled in specs that were applied, whatever other spelling the kind has for them.
        let only =
            LabSpec { nodes: spec.nodes.clone(), links: vec![edit.link.clone()], ..LabSpec::default() };
        let link = self.catalogue.canonical(only).links.pop().unwrap_or_default();
        let edit = LinkEdit { link, ..edit.clone() };
        let id = match edit.change {
            LinkChange::Create => edit.link.id(),
            LinkChange::Update | LinkChange::Delete => edit.id.clone(),
        };
        let place = spec.links.iter().position(|l| l.id() == id);
        match (edit.change, place) {
            (LinkChange::Create, Some(_)) => {
                let message =
                    format!("lab \"{}\" has a link {id} already; update it to change it", rows.lab.id);
                let failure = Failure::new(Code::AlreadyExists, "LINK_EXISTS", message);
                return Err(failure.with("link", id).into());
            }
            (LinkChange::Create, None) => spec.links.push(edit.link.clone()),
            (_, None) => return Err(link_not_found(&rows.lab.id, &id).into()),
            (change, Some(at)) => {
                let version = spec.links[at].version();
                if !edit.version.is_empty() && edit.version != version {
                    let message =
                        format!("link {id} of lab \"{}\" was changed meanwhile; read it again", rows.lab.id);
                    let failure = Failure::new(Code::Aborted, "ETAG_MISMATCH", message);
                    return Err(failure.with("lab", rows.lab.id.to_string()).with("link", id).into());
                }
                if change == LinkChange::Delete {
                    spec.links.remove(at);
                    return Ok(spec);
                }
                if edit.link.id() != id {
                    let what =
                        format!("is between {}, not {id}: ends are not changed in place", edit.link.id());
                    return Err(Failure::invalid(
                        format!("link {id} keeps its ends; remove it and add another one"),
                        vec![Violation { field: "link".into(), description: what }],
                    )
                    .into());
                }
                spec.links[at] = edit.link.clone();
            }
        }
        let at = place.unwrap_or(spec.links.len() - 1);
        self.check_link(&spec, at, &id)?;
        Ok(spec)
    }

    /// Refuses what is wrong with one link of a spec that was right before.
    fn check_link(&self, spec: &LabSpec, at: usize, id: &str) -> Result<()> {
        let mut wrong = spec.check();
        wrong.extend(self.catalogue.check(spec));
        if wrong.is_empty() {
            return Ok(());
        }
        let place = format!("links[{at}]");
        for violation in &mut wrong {
            violation.field = match violation.field.strip_prefix(&place) {
                Some(rest) => format!("link{rest}"),
                None => format!("spec.{}", violation.field),
            };
        }
        Err(Failure::invalid(format!("link {id} cannot be as asked for"), wrong).into())
    }

    /// Plugs or unplugs a link; the spec stays.
    pub async fn set_link_enabled(&self, lab: &LabId, link: &str, enabled: bool) -> Result<LinkView> {
        let mut tx = self.store.begin("scheduler.plug").await?;
        let Some(before) = self.store.rows_of(&lab.folded()) else {
            return Err(lab_not_found(lab.as_str()).into());
        };
        let found = before.link(link).filter(|l| l.wanted != Wanted::Absent);
        let Some(uid) = found.map(|l| l.uid) else { return Err(link_not_found(&before.lab.id, link).into()) };
        if before.lab.wanted == Wanted::Absent {
            refuse_if_busy(&before)?;
        }
        let mut after = (*before).clone();
        if let Some(row) = after.links.get_mut(&uid) {
            row.enabled = enabled;
        }
        self.refresh(&tx, &mut after);
        let view = after.links.get(&uid).map(|row| LinkView::new(&after, row, &after.mtus()));
        if tx.save(Some(&before), after).await? {
            tracing::info!(lab = %before.lab.id, link, enabled, "link plugged or unplugged");
            tx.commit().await?;
        }
        view.ok_or_else(|| link_not_found(&before.lab.id, link).into())
    }
}
