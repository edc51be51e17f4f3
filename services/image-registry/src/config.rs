//! The section `[image_registry]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// What can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// File of the database; `<data_dir>/image-registry.db` when not set.
    pub database: Option<PathBuf>,
    /// Directory that images' bytes are kept in; `<data_dir>/image-registry` when not set.
    pub blobs: Option<PathBuf>,
    /// Seconds after which an upload that nobody goes on with is given up; a day when not set.
    pub upload_keep_seconds: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { database: None, blobs: None, upload_keep_seconds: 86_400 }
    }
}
