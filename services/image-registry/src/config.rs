//! The section `[image_registry]` of the configuration.

use std::path::PathBuf;

use netloom_service::Endpoint;
use serde::Deserialize;

use crate::blob::s3::S3;

/// What can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where it listens, where `image_registry` of `[endpoints]` names several; else at the one that it names.
    pub listen: Option<Endpoint>,
    /// The database: a file of SQLite, or a URL of PostgreSQL; `<data_dir>/image-registry.db` when not set.
    pub database: Option<String>,
    /// Directory that images' bytes are kept in; `<data_dir>/image-registry` when not set. With `s3`, only for bytes that are on their way in.
    pub blobs: Option<PathBuf>,
    /// Bucket that images' bytes are kept in; the directory when not set.
    pub s3: Option<S3>,
    /// True forgets at each start which scheduler's tickets are good: the next one that asks is taken for it.
    pub new_scheduler: bool,
    /// Seconds after which an upload that nobody goes on with is given up; a day when not set.
    pub upload_keep_seconds: u64,
    /// Seconds after which whoever sends bytes of an upload and falls silent loses its turn, at least 1; a minute when not set.
    pub upload_silence_seconds: u64,
    /// File as `docker login` writes it, with what other registries are shown when images are pulled from them; none when not set.
    pub docker_config: Option<PathBuf>,
    /// Registries, as `host` or `host:port`, that are asked without TLS; those on this machine are anyway.
    pub plain_http_registries: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: None,
            database: None,
            blobs: None,
            s3: None,
            new_scheduler: false,
            upload_keep_seconds: 86_400,
            upload_silence_seconds: 60,
            docker_config: None,
            plain_http_registries: Vec::new(),
        }
    }
}
