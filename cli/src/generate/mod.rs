//! Topology files of well-known shapes. Pure: [`shape`] says which nodes and links a shape has, [`mod@write`] makes the file's text of it, with interface
//! names as the kinds have them and addresses when they are asked for.

mod address;
pub mod shape;
mod write;

#[cfg(test)]
mod tests;

pub use address::Plan;
pub use write::write;

/// Nodes, and which of them are linked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Shape {
    /// What it is, in words.
    pub title: String,
    /// The nodes.
    pub nodes: Vec<Member>,
    /// Pairs of linked nodes, by their number, in the order in which interfaces are counted.
    pub links: Vec<(usize, usize)>,
}

/// A node of a shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// What it is there for.
    pub part: Part,
}

/// What a node of a shape is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It forwards.
    Network,
    /// It is where packets come from and go to.
    Host,
    /// It is in the middle of a star.
    Hub,
}

impl Shape {
    fn titled(title: String) -> Shape {
        Shape { title, ..Shape::default() }
    }

    /// Adds a node; its number is returned.
    fn add(&mut self, id: String, part: Part) -> usize {
        self.nodes.push(Member { id, part });
        self.nodes.len() - 1
    }

    fn link(&mut self, a: usize, b: usize) {
        self.links.push((a, b));
    }
}

/// What the nodes of a file are.
#[derive(Debug, Clone)]
pub struct Kinds {
    /// Of nodes that forward.
    pub network: Choice,
    /// Of hosts.
    pub host: Choice,
    /// Of the middle of a star.
    pub hub: Choice,
}

/// A kind, and its image where it is not the kind's own.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Name of the kind.
    pub kind: String,
    /// The image; empty takes the kind's.
    pub image: String,
}

impl Kinds {
    /// The choice for a node.
    pub fn of(&self, part: Part) -> &Choice {
        match part {
            Part::Network => &self.network,
            Part::Host => &self.host,
            Part::Hub => &self.hub,
        }
    }
}
