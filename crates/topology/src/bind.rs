//! `binds`: `source:target[:mode]`, and which sources a lab may name at all.

use netloom_model::spec::BindSource;

use crate::diagnostic::quoted;

/// Directory of a lab's files that are made from the topology file.
pub const MADE: &str = ".netloom";

/// A bind as written, split into its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BindText {
    /// None is a volume of the node's own.
    pub source: Option<String>,
    pub target: String,
    pub read_only: bool,
}

impl BindText {
    /// Splits a bind and checks what can be checked without knowing the node.
    pub fn parse(text: &str) -> Result<BindText, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts[..] {
            [target] if target.starts_with('/') => (None, target, ""),
            ["", _] | ["", _, _] | [_] => return Err("names no source: write source:target".into()),
            [source, target] => (Some(source.to_owned()), target, ""),
            [source, target, mode] => (Some(source.to_owned()), target, mode),
            _ => return Err("is not of the form source:target or source:target:ro".into()),
        };
        let mut read_only = false;
        for mode in mode.split(',') {
            match mode {
                "ro" => read_only = true,
                // The lab's copy needs no relabelling for SELinux.
                "rw" | "" | "z" | "Z" => {}
                other => return Err(format!("has the mode {}: write ro or rw", quoted(other))),
            }
        }
        Ok(BindText { source, target: self::target(target)?, read_only })
    }
}

/// A place inside a node where something can be mounted, in normal form.
pub(crate) fn target(text: &str) -> Result<String, String> {
    let below = text.trim_end_matches('/');
    let good = text.starts_with('/')
        && !below.is_empty()
        && !text.contains('\0')
        && text.split('/').all(|p| p != "..");
    if good {
        Ok(below.to_owned())
    } else {
        Err("needs a target that is an absolute path in the node, not \"/\" and without \"..\"".into())
    }
}

/// Why a path may not be used: a code and a message.
pub(crate) type Refusal = (&'static str, String);

/// Where a bind's source lies.
pub(crate) fn source(path: &str) -> Result<BindSource, Refusal> {
    if !path.starts_with('/') {
        return relative(path).map(BindSource::Bundle);
    }
    if path.split('/').any(|p| p == "..") {
        return Err((
            "PATH_OUTSIDE",
            format!("{} must be without \"..\": write the path that is meant", quoted(path)),
        ));
    }
    let normal = format!("/{}", normal(path).unwrap_or_default());
    if reaches_docker(&normal) {
        return Err((
            "DOCKER_SOCKET",
            format!(
                "{} gives the node Docker's socket, and with it the whole host; netloom never mounts it",
                quoted(path)
            ),
        ));
    }
    Ok(BindSource::Host(normal))
}

/// A path relative to the topology file, in normal form.
pub(crate) fn relative(path: &str) -> Result<String, Refusal> {
    if path.starts_with('~') {
        return Err((
            "PATH_OUTSIDE",
            format!(
                "{} lies in a home directory: put the file beside the topology file and write a relative path",
                quoted(path)
            ),
        ));
    }
    if path.starts_with('/') {
        return Err(("PATH_OUTSIDE", format!("{} must be relative to the topology file", quoted(path))));
    }
    match normal(path) {
        Some(path) if path.is_empty() => {
            Err(("PATH_OUTSIDE", "the directory of the topology file itself cannot be used: put what is needed into a directory below it".into()))
        }
        Some(path) if path == MADE || path.starts_with(".netloom/") => Err((
            "PATH_RESERVED",
            format!("{} is reserved for files that netloom makes: choose another directory", quoted(&path)),
        )),
        Some(path) if path.contains('\0') => Err(("PATH_OUTSIDE", format!("{} holds a NUL", quoted(&path)))),
        Some(path) => Ok(path),
        None => Err((
            "PATH_OUTSIDE",
            format!("{} leads out of the directory of the topology file: files of a lab lie beside it or below", quoted(path)),
        )),
    }
}

/// The path without ".", ".." and empty parts; none when it leads above where it begins.
fn normal(path: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// True for Docker's socket and for every directory that holds it.
fn reaches_docker(path: &str) -> bool {
    let holds = |socket: &str| {
        path == "/" || socket == path || socket.strip_prefix(path).is_some_and(|r| r.starts_with('/'))
    };
    path.ends_with("/docker.sock") || holds("/var/run/docker.sock") || holds("/run/docker.sock")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_split() {
        let bind = |source: &str, target: &str, read_only| BindText {
            source: (!source.is_empty()).then(|| source.into()),
            target: target.into(),
            read_only,
        };
        for (text, is) in [
            ("r1/frr.conf:/etc/frr/frr.conf", bind("r1/frr.conf", "/etc/frr/frr.conf", false)),
            ("a:/b/:ro", bind("a", "/b", true)),
            ("a:/b:rw", bind("a", "/b", false)),
            ("a:/b:ro,Z", bind("a", "/b", true)),
            ("/data", bind("", "/data", false)),
        ] {
            assert_eq!(BindText::parse(text), Ok(is), "{text}");
        }
        for text in ["data", "a:b", "a:/b:shared", ":/b", "a:/", "a:/b/../c", "a:/b:ro:x", ""] {
            assert!(BindText::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sources_stay_where_they_may() {
        for (text, is) in [
            ("./r1//x/../frr.conf", BindSource::Bundle("r1/frr.conf".into())),
            ("a/..b", BindSource::Bundle("a/..b".into())),
            ("/srv//lab/./x", BindSource::Host("/srv/lab/x".into())),
            ("/running/x", BindSource::Host("/running/x".into())),
        ] {
            assert_eq!(source(text), Ok(is), "{text}");
        }
        for (text, code) in [
            ("../../etc/shadow", "PATH_OUTSIDE"),
            ("a/../../b", "PATH_OUTSIDE"),
            ("/srv/../etc/shadow", "PATH_OUTSIDE"),
            ("~/x", "PATH_OUTSIDE"),
            (".", "PATH_OUTSIDE"),
            ("x/../.netloom/y", "PATH_RESERVED"),
            ("a/..", "PATH_OUTSIDE"),
            ("/var/run/docker.sock", "DOCKER_SOCKET"),
            ("/run//docker.sock", "DOCKER_SOCKET"),
            ("/var/run", "DOCKER_SOCKET"),
            ("/var", "DOCKER_SOCKET"),
            ("/", "DOCKER_SOCKET"),
            ("/home/me/docker.sock", "DOCKER_SOCKET"),
        ] {
            assert_eq!(source(text).map_err(|r| r.0), Err(code), "{text}");
        }
    }
}
