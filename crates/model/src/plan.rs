//! The shape of a plan: what a deploy does to each node and link, and why; and why a node fits nowhere.

use serde::{Deserialize, Serialize};

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verb {
    /// It is made.
    Create,
    /// It is removed and made anew.
    Recreate,
    /// It is changed in place.
    Update,
    /// It is removed.
    Delete,
    /// It is started.
    Start,
    /// It is stopped.
    Stop,
    /// It is stopped and started again.
    Restart,
    /// Its disk is thrown away, and it is made anew from its image.
    Wipe,
    /// It is started from a snapshot of its disk.
    Restore,
}

/// What an action is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Object {
    /// A node.
    Node,
    /// A link.
    Link,
}

impl Object {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Object::Node => "node",
            Object::Link => "link",
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// What is done.
    pub verb: Verb,
    /// To what.
    pub object: Object,
    /// Its id in its lab.
    pub id: String,
    /// Why, in words.
    pub reason: String,
    /// The host it is placed on; empty when it is not.
    pub host: String,
}

/// Why a host does not take a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The host.
    pub host: String,
    /// UPPER_SNAKE code.
    pub code: String,
    /// With figures, in words.
    pub detail: String,
    /// True when waiting for other nodes to end would help.
    pub resolvable: bool,
}

/// A node that no host has room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaced {
    /// The node.
    pub node: String,
    /// One reason a host.
    pub rejections: Vec<Rejection>,
}

/// A node that is placed anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The node.
    pub node: String,
    /// The host that it goes to.
    pub host: String,
    /// Why not to the other hosts; empty where there are too many of them to tell.
    pub others: Vec<Rejection>,
}

/// What a deploy does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The steps; none when there is nothing to do.
    pub actions: Vec<Action>,
    /// The nodes that fit nowhere.
    pub unplaced: Vec<Unplaced>,
    /// Where the nodes go that it places; of a dry run only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<Placement>,
    /// The links whose ends will be on two hosts; of a dry run only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
}

/// How far a node or link is during an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// A node or a link.
    pub object: Object,
    /// Its id in its lab.
    pub id: String,
    /// A node's or link's state, or "GONE".
    pub state: String,
    /// Why, or what is being done, in words.
    pub detail: String,
}
