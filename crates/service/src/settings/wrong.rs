//! What is wrong with a configuration, in words: which key, in which line, and what was meant. Pure.

use figment::Figment;
use figment::error::Kind;
use netloom_model::suggest::closest;

use super::File;

/// The keys and sections that stand outside of a section.
const TOP_LEVEL: [&str; 15] = [
    "data_dir",
    "run_dir",
    "host",
    "token",
    "endpoints",
    "metrics",
    "otlp_endpoint",
    "redis",
    "kinds_dir",
    "hosts",
    "gateway",
    "scheduler",
    "image_registry",
    "compute",
    "network",
];

/// Refuses keys and sections that nobody reads. What comes from the environment is not looked at: variables of the command line begin alike.
pub(super) fn top_level(file: &Figment, at: Option<&File>) -> anyhow::Result<()> {
    // A file that cannot be read is told when it is.
    let Ok(values) = file.extract::<figment::value::Dict>() else { return Ok(()) };
    match values.keys().find(|key| !TOP_LEVEL.contains(&key.as_str())) {
        Some(key) => anyhow::bail!("{}{}", place(at, &[key]), unknown(key, key, &TOP_LEVEL)),
        None => Ok(()),
    }
}

/// What an error is about that was found in a section, or outside of all for none.
pub(super) fn told(error: figment::Error, section: &str, at: Option<&File>) -> String {
    // The path of a section that was taken out begins with it, or not: the keys within it are what is sure.
    let within = error.path.iter().map(String::as_str).filter(|key| *key != section && *key != "default");
    let mut path: Vec<&str> = section.split('.').filter(|s| !s.is_empty()).chain(within).collect();
    match &error.kind {
        Kind::UnknownField(key, known) => {
            if path.last() != Some(&key.as_str()) {
                path.push(key);
            }
            format!("{}{}", place(at, &path), unknown(&path.join("."), key, known))
        }
        kind if path.is_empty() => match at {
            Some(file) => format!("{}: {kind}", file.path.display()),
            None => kind.to_string(),
        },
        kind => format!("{}{}: {kind}", place(at, &path), path.join(".")),
    }
}

fn unknown(called: &str, key: &str, known: &[&str]) -> String {
    match closest(key, known.iter().copied()) {
        Some(meant) => format!("there is no key {called}. Did you mean \"{meant}\"?"),
        None => format!("there is no key {called}; there are {}", known.join(", ")),
    }
}

/// `FILE:LINE: ` of a key, where it stands in the file.
fn place(at: Option<&File>, path: &[&str]) -> String {
    let Some((file, line)) = at.and_then(|file| Some((file, line(&file.text, path)?))) else {
        return String::new();
    };
    format!("{}:{line}: ", file.path.display())
}

/// The line that says this key: of its table, or with dots in it.
fn line(text: &str, path: &[&str]) -> Option<usize> {
    let wanted = path.join(".");
    let mut table = String::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            table = header.trim_matches(['[', ']', ' ']).split(']').next().unwrap_or_default().to_owned();
            if table == wanted {
                return Some(number + 1);
            }
            continue;
        }
        let Some((key, _)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let key = key.trim().replace([' ', '"'], "");
        let whole = if table.is_empty() { key } else { format!("{table}.{key}") };
        if whole == wanted {
            return Some(number + 1);
        }
    }
    None
}
