//! What `[image_registry.s3]` says, and the bucket that it means.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;

use super::bucket::Bucket;

/// How long the store may take to answer a connection, how long nothing may come from it, and how long one request may take in all.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(3_600);
/// How long a request that fails is tried again before the caller hears of it.
const RETRIED: Duration = Duration::from_secs(8);

/// The section. Credentials are those said here, else those of the file, else those of the environment (`AWS_ACCESS_KEY_ID` and the like), else the role of the
/// machine or container.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Name of the bucket. It is not made.
    pub bucket: String,
    /// What the keys of all objects begin with.
    #[serde(default = "prefix")]
    pub prefix: String,
    /// Where the store is, as a URL; Amazon's own when not set. `http://` is taken at its word.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Region.
    #[serde(default)]
    pub region: Option<String>,
    /// True for stores that want the bucket as a part of the host's name.
    #[serde(default)]
    pub virtual_hosted_style: bool,
    /// Id of the key.
    #[serde(default)]
    pub access_key_id: Option<String>,
    /// The key.
    #[serde(default)]
    pub secret_access_key: Option<Secret>,
    /// A file as `aws configure` writes it, with keys in its part `[default]`.
    #[serde(default)]
    pub credentials_file: Option<PathBuf>,
}

fn prefix() -> String {
    "netloom".to_owned()
}

/// A text that is not shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl S3 {
    /// The bucket. Nobody is asked yet.
    pub fn open(&self) -> anyhow::Result<Bucket> {
        let name = match &self.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.bucket),
            None => self.bucket.clone(),
        };
        let store = self.store().context("the section [image_registry.s3] cannot be used")?;
        Ok(Bucket::new(Arc::new(store), &name, &self.prefix))
    }

    fn store(&self) -> anyhow::Result<AmazonS3> {
        anyhow::ensure!(!self.bucket.is_empty(), "`bucket` is empty; say which one images are kept in");
        // A process has one; whoever installed another has it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let is_plain = self.endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
        let options = ClientOptions::new()
            .with_allow_http(is_plain)
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE)
            .with_timeout(LONGEST);
        let retry = RetryConfig { retry_timeout: RETRIED, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env()
            .with_client_options(options)
            .with_retry(retry)
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(self.virtual_hosted_style);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(keys) = self.keys()? {
            builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
            builder = match keys.token {
                Some(token) => builder.with_token(token),
                None => builder,
            };
        }
        Ok(builder.build()?)
    }

    fn keys(&self) -> anyhow::Result<Option<Keys>> {
        match (&self.access_key_id, &self.secret_access_key, &self.credentials_file) {
            (Some(id), Some(Secret(secret)), _) => {
                Ok(Some(Keys { id: id.clone(), secret: secret.clone(), token: None }))
            }
            (None, None, None) => Ok(None),
            (None, None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read credentials_file = {}", path.display()))?;
                let keys = Keys::read(&text);
                keys.map(Some).with_context(|| {
                    format!(
                        "{} has no aws_access_key_id and aws_secret_access_key in its part [default]",
                        path.display()
                    )
                })
            }
            _ => anyhow::bail!("access_key_id and secret_access_key go together; say both, or neither"),
        }
    }
}

struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
}

impl Keys {
    /// Those of the part `[default]` of a file as `aws configure` writes it.
    fn read(text: &str) -> Option<Keys> {
        let mut part = "";
        let (mut id, mut secret, mut token) = (None, None, None);
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                part = name.trim();
            } else if let Some((key, value)) = line.split_once('=').filter(|_| part == "default") {
                let value = Some(value.trim().to_owned());
                match key.trim() {
                    "aws_access_key_id" => id = value,
                    "aws_secret_access_key" => secret = value,
                    "aws_session_token" => token = value,
                    _ => {}
                }
            }
        }
        Some(Keys { id: id?, secret: secret?, token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(more: &str) -> S3 {
        let toml = format!("[image_registry.s3]\nbucket = \"b\"\n{more}\n");
        let settings = netloom_service::Settings::from_toml(&toml, "/d".as_ref(), "/r".as_ref()).unwrap();
        settings.section::<crate::config::Config>("image_registry").unwrap().s3.unwrap()
    }

    #[test]
    fn keys_are_the_ones_said_or_the_files_and_are_never_shown() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        let text = "[other]\naws_access_key_id = no\n\n[default]\naws_access_key_id = id\naws_secret_access_key=a=b\n";
        std::fs::write(&file, text).unwrap();
        let of_file = said(&format!("credentials_file = {file:?}"));
        let keys = of_file.keys().unwrap().unwrap();
        assert_eq!((keys.id.as_str(), keys.secret.as_str(), keys.token), ("id", "a=b", None));
        let both = said("access_key_id = \"me\"\nsecret_access_key = \"hidden\"");
        assert_eq!(both.keys().unwrap().unwrap().secret, "hidden");
        assert!(!format!("{both:?}").contains("hidden"));
        assert!(said("").keys().unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_used_is_said_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[other]\naws_access_key_id = id\n").unwrap();
        for (more, what) in [
            ("access_key_id = \"me\"", "go together"),
            ("secret_access_key = \"s\"", "go together"),
            ("credentials_file = \"/nonexistent/keys\"", "/nonexistent/keys"),
            (&format!("credentials_file = {file:?}"), "[default]"),
        ] {
            let refused = said(more).open().unwrap_err();
            let message = format!("{refused:#}");
            assert!(message.contains(what) && message.contains("[image_registry.s3]"), "{message}");
        }
        assert!(S3 { bucket: String::new(), ..said("") }.open().is_err());
    }
}
