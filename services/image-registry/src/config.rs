//! The section `[image_registry]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// What can be set.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// File of the database; `<data_dir>/image-registry.db` when not set.
    pub database: Option<PathBuf>,
}
