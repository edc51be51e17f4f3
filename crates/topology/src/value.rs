//! From a node of the tree to the value that a key wants, or a diagnostic at its place.

use std::net::{Ipv4Addr, Ipv6Addr};

use netloom_model::spec::{CAPABILITIES, is_capability};

use crate::diagnostic::{At, Report, quoted};
use crate::yaml::{Entry, Node, Value};

/// Most cores a node may ask for, which keeps thousandths of them in range.
const MAX_CORES: f64 = 4_096.0;
/// Docker refuses a lower memory limit.
const MIN_MEMORY: u64 = 6 << 20;

impl Value {
    fn what(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }
}

fn wrong_type(node: &Node, wanted: &str, report: &mut Report) {
    report.error(node.pos, "WRONG_TYPE", format!("expected {wanted}, found {}", node.value.what()));
}

/// The text; none when there is nothing, when it is empty, or when it is no text (which is told).
pub(crate) fn text(node: &Node, report: &mut Report) -> Option<At<String>> {
    match &*node.value {
        Value::Scalar(text) if text.is_empty() => None,
        Value::Scalar(text) => Some(At { value: text.clone(), pos: node.pos }),
        Value::Null => None,
        _ => {
            wrong_type(node, "text", report);
            None
        }
    }
}

/// The entries of a map; none of nothing.
pub(crate) fn map<'n>(node: &'n Node, report: &mut Report) -> &'n [Entry] {
    match &*node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        _ => {
            wrong_type(node, "a map of keys and values", report);
            &[]
        }
    }
}

/// The items of a list; none of nothing.
pub(crate) fn list<'n>(node: &'n Node, report: &mut Report) -> &'n [Node] {
    match &*node.value {
        Value::List(items) => items,
        Value::Null => &[],
        _ => {
            wrong_type(node, "a list: write each item on a line of its own behind a \"- \"", report);
            &[]
        }
    }
}

/// The texts of a list.
pub(crate) fn texts(node: &Node, report: &mut Report) -> Vec<At<String>> {
    list(node, report).iter().filter_map(|item| text(item, report)).collect()
}

/// A map of texts; a key without a value is the empty text.
pub(crate) fn text_map(node: &Node, report: &mut Report) -> Vec<(String, At<String>)> {
    let mut out = Vec::new();
    for entry in map(node, report) {
        match &*entry.node.value {
            Value::Scalar(value) => {
                out.push((entry.key.clone(), At { value: value.clone(), pos: entry.pos }))
            }
            Value::Null => out.push((entry.key.clone(), At { value: String::new(), pos: entry.pos })),
            _ => wrong_type(&entry.node, "text", report),
        }
        if entry.key.is_empty() {
            report.error(entry.pos, "INVALID_VALUE", "a name must not be empty");
        }
    }
    out
}

/// A value that a function accepts or says what is wrong with.
pub(crate) fn parsed<T>(
    node: &Node,
    report: &mut Report,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<At<T>> {
    let text = text(node, report)?;
    match read(text.value.trim()) {
        Ok(value) => Some(At { value, pos: text.pos }),
        Err(why) => {
            report.error(text.pos, "INVALID_VALUE", format!("{} {why}", quoted(&text.value)));
            None
        }
    }
}

/// The items of a list that a function accepts.
pub(crate) fn each<T>(
    node: &Node,
    report: &mut Report,
    read: impl Fn(&str) -> Result<T, String>,
) -> Vec<At<T>> {
    list(node, report).iter().filter_map(|item| parsed(item, report, &read)).collect()
}

/// Cores to thousandths of a core; 0 is no limit.
pub(crate) fn cpu(text: &str) -> Result<u32, String> {
    let cores: f64 = text.parse().map_err(|_| "is not a number of cores like 2 or 0.5".to_owned())?;
    if !(0.0..=MAX_CORES).contains(&cores) {
        return Err(format!("is not a number of cores from 0 to {MAX_CORES}"));
    }
    Ok((cores * 1_000.0).ceil() as u32)
}

/// A memory limit in bytes; 0 is no limit.
pub(crate) fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes @ 1..MIN_MEMORY => {
            Err(format!("is less than the 6 MiB that Docker needs: it is {bytes} bytes"))
        }
        bytes => Ok(bytes),
    }
}

/// A size in bytes.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let refused = || "is not a size like 512mb, 1gb or 1GiB".to_owned();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| refused())?;
    let unit: u64 = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        _ => return Err(refused()),
    };
    let bytes = number * unit as f64;
    if bytes > (1u64 << 50) as f64 {
        return Err("is more than there is".into());
    }
    Ok(bytes as u64)
}

/// A capability without `CAP_`, in upper case.
pub(crate) fn capability(item: &At<String>, report: &mut Report) -> Option<At<String>> {
    let upper = item.value.trim().to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" {
        let message = "no node gets all capabilities, which would give it the host: name those that it needs, one by one";
        report.error(item.pos, "ALL_CAPABILITIES", message);
        return None;
    }
    if !is_capability(name) {
        let meant = report.did_you_mean(name, CAPABILITIES);
        let message = format!("{} is not a Linux capability.{meant}", quoted(&item.value));
        report.error(item.pos, "UNKNOWN_CAPABILITY", message);
        return None;
    }
    Some(At { value: name.to_owned(), pos: item.pos })
}

/// A name that Docker accepts for a network or a host name accepts for itself.
pub(crate) fn label(text: &str) -> Result<String, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= 63 && text.bytes().all(good) {
        Ok(text.to_owned())
    } else {
        Err("is not a name of letters, digits, '-', '.' and '_' that begins with a letter or digit and has at most 63".into())
    }
}

/// A text without spaces or control characters.
pub(crate) fn one_word(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not hold spaces".into());
    }
    Ok(text.to_owned())
}

/// A number in a range.
pub(crate) fn number(text: &str, least: u32, most: u32) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|n| (least..=most).contains(n) && !text.starts_with('+'))
        .ok_or_else(|| format!("is not a whole number from {least} to {most}"))
}

/// A time in seconds: a number of them, or hours, minutes and seconds like 1h30m.
pub(crate) fn duration(text: &str) -> Result<u64, String> {
    let refused = || "is not a time like 90s, 15m or 8760h".to_owned();
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(seconds);
    }
    let mut sum = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let number: u64 = rest[..end].parse().map_err(|_| refused())?;
        let unit = rest[end..].chars().next().ok_or_else(refused)?;
        let seconds = match unit {
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            _ => return Err(refused()),
        };
        sum = number.checked_mul(seconds).and_then(|n| n.checked_add(sum)).ok_or_else(refused)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    if text.is_empty() { Err(refused()) } else { Ok(sum) }
}

/// A truth value as YAML 1.1 writes them.
pub(crate) fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" => Ok(true),
        "false" | "no" | "off" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// A command that splits into words.
pub(crate) fn command(text: &str) -> Result<String, String> {
    match netloom_model::words::split(text) {
        Err(netloom_model::words::SplitError::Empty) => Err("holds no command".into()),
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(format!("is not a command: {why}")),
    }
}

/// An address without a prefix length, in its canonical form.
pub(crate) fn address(text: &str, v6: bool) -> Result<String, String> {
    if v6 {
        text.parse::<Ipv6Addr>()
            .map(|a| a.to_string())
            .map_err(|_| "is not an IPv6 address without a prefix length".into())
    } else {
        text.parse::<Ipv4Addr>()
            .map(|a| a.to_string())
            .map_err(|_| "is not an IPv4 address without a prefix length".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_or_binary_as_written() {
        for (text, bytes) in [
            ("512mb", 512_000_000),
            ("1gb", 1_000_000_000),
            ("1GB", 1_000_000_000),
            ("1g", 1_000_000_000),
            ("1GiB", 1 << 30),
            ("64 Mi", 64 << 20),
            ("1.5gib", 3 << 29),
            ("8000000", 8_000_000),
            ("0", 0),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "gb", "1xb", "-1gb", "1..5gb", "1mb", "1e9", "99999999999tb", "NaN", "inf"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cores_are_rounded_up() {
        for (text, millis) in [("2", 2_000), ("0.5", 500), ("0.0001", 1), ("0", 0), ("1.25", 1_250)] {
            assert_eq!(cpu(text), Ok(millis), "{text}");
        }
        for text in ["", "-1", "NaN", "inf", "two", "1e9"] {
            assert!(cpu(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("1h", 3_600),
            ("1h30m", 5_400),
            ("8760h", 31_536_000),
            ("1m5s", 65),
        ] {
            assert_eq!(duration(text), Ok(seconds), "{text}");
        }
        for text in ["", "h", "1d", "1h5", "-1h", "5ms", "99999999999999999999h", "30000000000000000h", "1hh"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
