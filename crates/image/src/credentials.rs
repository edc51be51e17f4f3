//! What a registry of container images is shown, from a file as `docker login` writes it (`config.json`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// The registry of references that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// How the file calls it.
const DEFAULT_KEY: &str = "https://index.docker.io/v1/";

/// A user's name and password. It is never shown: it has no `Debug` of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The name.
    pub username: String,
    /// The password.
    pub password: String,
}

/// Why a file has no credentials that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// It is not such a file.
    #[error("it is not a config.json as `docker login` writes it: {0}")]
    Format(String),
    /// An entry does not hold a name and a password.
    #[error("what it has for {0} is no name and password; log in again")]
    Entry(String),
    /// A program keeps them.
    #[error(
        "a program keeps the credentials of {0} (credsStore or credHelpers), which is not asked; log in with a file of its own: docker --config DIR login"
    )]
    Helper(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct File {
    auths: BTreeMap<String, Entry>,
    creds_store: String,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
}

/// The registry that a reference is of.
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => match first {
            "index.docker.io" => DEFAULT_REGISTRY,
            other => other,
        },
        _ => DEFAULT_REGISTRY,
    }
}

/// What the file has for a registry; none when it has nothing.
pub fn find(text: &str, registry: &str) -> Result<Option<Credentials>, CredentialsError> {
    let file: File = serde_json::from_str(text).map_err(|e| CredentialsError::Format(e.to_string()))?;
    let is_meant = |key: &str| {
        key == registry
            || registry == DEFAULT_REGISTRY && key == DEFAULT_KEY
            || key.trim_start_matches("https://").trim_start_matches("http://").split('/').next()
                == Some(registry)
    };
    let entry = file.auths.into_iter().find(|(key, _)| is_meant(key)).map(|(_, entry)| entry);
    let Some(entry) = entry else {
        let is_kept = file.cred_helpers.keys().any(|key| is_meant(key));
        return if is_kept { Err(CredentialsError::Helper(registry.to_owned())) } else { Ok(None) };
    };
    if !entry.username.is_empty() {
        return Ok(Some(Credentials { username: entry.username, password: entry.password }));
    }
    // With a program that keeps credentials, an empty entry says that it has some.
    if entry.auth.is_empty() && !file.creds_store.is_empty() {
        return Err(CredentialsError::Helper(registry.to_owned()));
    }
    let wrong = || CredentialsError::Entry(registry.to_owned());
    let plain = STANDARD.decode(entry.auth.trim()).map_err(|_| wrong())?;
    let plain = String::from_utf8(plain).map_err(|_| wrong())?;
    let (username, password) = plain.split_once(':').ok_or_else(wrong)?;
    Ok(Some(Credentials { username: username.to_owned(), password: password.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, registry: &str) -> Result<Option<(String, String)>, CredentialsError> {
        find(text, registry).map(|found| found.map(|c| (c.username, c.password)))
    }

    #[test]
    fn a_reference_is_of_a_registry() {
        for (reference, registry) in [
            ("alpine", "docker.io"),
            ("library/alpine:3", "docker.io"),
            ("index.docker.io/library/alpine", "docker.io"),
            ("localhost/a", "localhost"),
            ("127.0.0.1:5000/a/b:1", "127.0.0.1:5000"),
            ("quay.io/a@sha256:ab", "quay.io"),
        ] {
            assert_eq!(registry_of(reference), registry, "{reference}");
        }
    }

    #[test]
    fn what_docker_login_wrote_is_read() {
        let text = format!(
            r#"{{"auths": {{"r.example:5000": {{"auth": "{}"}}, "https://index.docker.io/v1/": {{"auth": "{}"}},
               "https://old.example/v2/": {{"username": "u", "password": "p"}}, "bad.example": {{"auth": "???"}},
               "empty.example": {{}}}}, "credHelpers": {{"kept.example": "x"}}, "more": 1}}"#,
            STANDARD.encode("me:a:b"),
            STANDARD.encode("hub:secret"),
        );
        let some = |u: &str, p: &str| Ok(Some((u.to_owned(), p.to_owned())));
        assert_eq!(found(&text, "r.example:5000"), some("me", "a:b"));
        assert_eq!(found(&text, "docker.io"), some("hub", "secret"));
        assert_eq!(found(&text, "old.example"), some("u", "p"));
        assert_eq!(found(&text, "other.example"), Ok(None));
        assert_eq!(found(&text, "bad.example"), Err(CredentialsError::Entry("bad.example".into())));
        assert_eq!(found(&text, "empty.example"), Err(CredentialsError::Entry("empty.example".into())));
        assert_eq!(found(&text, "kept.example"), Err(CredentialsError::Helper("kept.example".into())));
        assert!(matches!(found("no json", "a"), Err(CredentialsError::Format(_))));
    }
}
