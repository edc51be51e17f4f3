//! What is to carry a lab's links.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What is to carry links between two nodes of one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// Open vSwitch where it forwards in the kernel, else the kernel alone.
    #[default]
    Auto,
    /// Open vSwitch.
    Ovs,
    /// The kernel alone.
    Kernel,
}

/// The planes that can be asked for, in words.
pub const PLANES: &str = "auto, ovs or kernel";

impl Plane {
    /// Its name in files, configuration and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Plane::Auto => "auto",
            Plane::Ovs => "ovs",
            Plane::Kernel => "kernel",
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// It is no plane.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no plane: say {PLANES}")]
pub struct NoPlane(pub String);

impl FromStr for Plane {
    type Err = NoPlane;

    fn from_str(text: &str) -> Result<Plane, NoPlane> {
        let all = [Plane::Auto, Plane::Ovs, Plane::Kernel];
        all.into_iter().find(|plane| plane.as_str() == text).ok_or_else(|| NoPlane(text.to_owned()))
    }
}
