//! The section `[gateway]` of the configuration.

use std::path::PathBuf;

use serde::Deserialize;

/// Where the gateway listens, and under which names it may be called.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// TCP address, `127.0.0.1:7600` by default; empty listens on the socket only.
    pub listen: String,
    /// Unix socket; `<run_dir>/api.sock` when not set.
    pub socket: Option<PathBuf>,
    /// Names that callers may use beyond 127.0.0.1, localhost and the address listened on, for instance behind a proxy.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages, other than the gateway's own, that may use it with the token: `https://host:port`. None by default.
    pub allowed_origins: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: "127.0.0.1:7600".to_owned(),
            socket: None,
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}
