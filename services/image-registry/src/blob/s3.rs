//! What `[image_registry.s3]` says, and the bucket that it means.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use netloom_model::id::Owner;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
use object_store::{ClientOptions, RetryConfig};
use serde::Deserialize;

use super::bucket::Bucket;

/// How long the store may take to answer a connection, and how long nothing may come from it. What comes may take as long as it takes.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(60);
/// How long a request that fails is tried again before the caller hears of it.
const RETRIED: Duration = Duration::from_secs(8);

/// What counts of the environment where the configuration has no keys: who asks, and where it is told that.
const OF_ENVIRONMENT: &[Key] = &[
    Key::AccessKeyId,
    Key::SecretAccessKey,
    Key::Token,
    Key::ContainerCredentialsRelativeUri,
    Key::ContainerCredentialsFullUri,
    Key::ContainerAuthorizationTokenFile,
    Key::WebIdentityTokenFile,
    Key::RoleArn,
    Key::RoleSessionName,
    Key::StsEndpoint,
    Key::MetadataEndpoint,
    Key::ImdsV1Fallback,
    Key::Region,
    Key::DefaultRegion,
];

/// The section. Credentials are those said here, else those of the file, else those of the environment (`AWS_ACCESS_KEY_ID` and the like), else the role of the
/// machine or container. Where keys are said, nothing of the environment counts; where they are not, its keys, role and region do. The endpoint is said here alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// Name of the bucket. It is not made.
    pub bucket: String,
    /// What the keys of all objects begin with; `netloom/<owner>` when not set, with the installation's uuid, or that of the catalogue which several share.
    #[serde(default)]
    pub prefix: Option<String>,
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
    /// The bucket, as this installation has it. Nobody is asked yet.
    pub fn open(&self, owner: Owner) -> anyhow::Result<Bucket> {
        let name = match &self.endpoint {
            Some(endpoint) => format!("{} at {endpoint}", self.bucket),
            None => self.bucket.clone(),
        };
        let store = self.builder(std::env::vars_os()).and_then(|builder| Ok(builder.build()?));
        let store = store.context("the section [image_registry.s3] cannot be used")?;
        let prefix = self.prefix.clone().unwrap_or_else(|| format!("netloom/{owner}"));
        Ok(Bucket::new(Arc::new(store), &name, &prefix))
    }

    fn builder(
        &self,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> anyhow::Result<AmazonS3Builder> {
        anyhow::ensure!(!self.bucket.is_empty(), "`bucket` is empty; say which one images are kept in");
        // A process has one; whoever installed another has it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let is_plain = self.endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
        let options = ClientOptions::new()
            .with_allow_http(is_plain)
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE)
            .with_timeout_disabled();
        let retry = RetryConfig { retry_timeout: RETRIED, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new();
        match self.keys()? {
            Some(keys) => {
                builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
                if let Some(token) = keys.token {
                    builder = builder.with_token(token);
                }
            }
            None => {
                for (name, value) in environment {
                    let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
                    let key = name.starts_with("AWS_").then(|| name.to_ascii_lowercase().parse::<Key>());
                    if let Some(Ok(key)) = key
                        && OF_ENVIRONMENT.contains(&key)
                    {
                        builder = builder.with_config(key, value);
                    }
                }
            }
        }
        builder = builder
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
        Ok(builder)
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
    fn keys_that_are_said_are_not_mixed_with_the_environment_and_the_endpoint_is_said_here_alone() {
        let environment = [
            ("AWS_ACCESS_KEY_ID", "theirs"),
            ("AWS_SECRET_ACCESS_KEY", "theirs"),
            ("AWS_SESSION_TOKEN", "token"),
            ("AWS_REGION", "eu-west-1"),
            ("AWS_ENDPOINT_URL", "http://elsewhere"),
            ("AWS_SKIP_SIGNATURE", "true"),
        ];
        let of = |more: &str, key: Key| {
            let environment = environment.iter().map(|(n, v)| (OsString::from(n), OsString::from(v)));
            said(more).builder(environment).unwrap().get_config_value(&key)
        };
        let keys = "access_key_id = \"me\"\nsecret_access_key = \"s\"";
        assert_eq!(of(keys, Key::AccessKeyId).as_deref(), Some("me"));
        assert_eq!((of(keys, Key::Token), of(keys, Key::Region)), (None, None));
        for (key, value) in [(Key::AccessKeyId, "theirs"), (Key::Token, "token"), (Key::Region, "eu-west-1")]
        {
            assert_eq!(of("", key).as_deref(), Some(value), "{key:?}");
        }
        assert_eq!(of("region = \"here\"", Key::Region).as_deref(), Some("here"));
        for more in [keys, ""] {
            assert_eq!((of(more, Key::Endpoint), of(more, Key::S3Endpoint)), (None, None));
            assert_ne!(of(more, Key::SkipSignature).as_deref(), Some("true"));
        }
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
            let refused = said(more).open(Owner::new()).unwrap_err();
            let message = format!("{refused:#}");
            assert!(message.contains(what) && message.contains("[image_registry.s3]"), "{message}");
        }
        assert!(S3 { bucket: String::new(), ..said("") }.open(Owner::new()).is_err());
    }
}
