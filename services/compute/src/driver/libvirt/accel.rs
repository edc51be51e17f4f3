//! What guests run on: the processor where the probe's guest boots on it, else they are emulated.

use std::path::Path;

use super::xml::Accel;

/// What guests run on here, and why it is not KVM, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What they run on.
    pub accel: Accel,
    /// Empty with KVM.
    pub why: String,
}

/// Finds out.
pub async fn find() -> Found {
    match netloom_kvm::works(Path::new(netloom_kvm::DEVICE)).await {
        Ok(()) => Found { accel: Accel::Kvm, why: String::new() },
        Err(why) => Found { accel: Accel::Tcg, why },
    }
}
