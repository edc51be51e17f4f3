//! What can go wrong between a caller and a switch.

use std::path::PathBuf;
use std::sync::Arc;

/// Why a call to a switch failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The management socket cannot be opened: the bridge does not exist (yet), or ovs-vswitchd is not running.
    #[error("cannot open the management socket {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
    /// The connection is gone, and stays so; connect anew. What was under way may or may not have happened.
    #[error("the connection to the switch is gone; connect again and read the flows back")]
    Disconnected,
    /// The bridge does not speak OpenFlow 1.4.
    #[error("the bridge does not speak OpenFlow 1.4; add OpenFlow14 to its protocols")]
    Version,
    /// The switch refused a flow-mod; nothing of the bundle was done.
    #[error("the switch refused flow-mod {index} of the bundle: {code}")]
    FlowMod {
        /// Index in the list given to [`crate::Switch::bundle`].
        index: usize,
        /// Why.
        code: Code,
    },
    /// The switch refused something else.
    #[error("the switch refused {what}: {code}")]
    Refused {
        /// The request.
        what: &'static str,
        /// Why.
        code: Code,
    },
    /// A message from the switch does not follow OpenFlow 1.4.
    #[error("the switch sent a malformed message: {0}")]
    Malformed(&'static str),
}

/// An OpenFlow error: its type and its code within the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    /// The error's type, `OFPET_…`.
    pub kind: u16,
    /// The error's code within its type.
    pub code: u16,
}

impl Code {
    /// `OFPBAC_TOO_MANY`.
    pub(crate) const TOO_MANY_ACTIONS: Code = Code { kind: 2, code: 7 };
    pub(crate) const BAD_LENGTH: Code = Code { kind: 1, code: 6 };
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            0 => "hello failed",
            1 => "bad request",
            2 => "bad action",
            3 => "bad instruction",
            4 => "bad match",
            5 => "flow-mod failed",
            12 => "meter-mod failed",
            13 => "table features failed",
            16 => "flow monitor failed",
            17 => "bundle failed",
            _ => "error",
        };
        write!(f, "{kind} (OpenFlow error {}/{})", self.kind, self.code)
    }
}
