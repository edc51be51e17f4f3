//! `impairment` of a link, netloom's own key: what happens to frames on their way, in both directions alike or in each.

use netloom_model::spec::Impairment;

use crate::diagnostic::Report;
use crate::keys::{Section, known};
use crate::value;
use crate::yaml::{Entry, Node};

/// What happens from the first end to the second, and back.
pub(crate) fn read(node: &Node, report: &mut Report) -> [Impairment; 2] {
    let entries = known(Section::Impairment, value::map(node, report), report);
    let mut both = Impairment::default();
    let mut ways: [Option<&Entry>; 2] = [None, None];
    for (key, entry) in entries {
        match key {
            "a-to-b" => ways[0] = Some(entry),
            "b-to-a" => ways[1] = Some(entry),
            _ => set(&mut both, key, &entry.node, report),
        }
    }
    ways.map(|way| {
        let mut one = both;
        let Some(way) = way else { return one };
        for (key, entry) in known(Section::Impairment, value::map(&way.node, report), report) {
            match key {
                "a-to-b" | "b-to-a" => {
                    report.error(
                        entry.pos,
                        "KEY_NOT_HERE",
                        format!("{key} stands beside {}, not in it", way.key),
                    );
                }
                _ => set(&mut one, key, &entry.node, report),
            }
        }
        one
    })
}

fn set(impairment: &mut Impairment, key: &str, node: &Node, report: &mut Report) {
    let mut part = |field: &mut u32| {
        if let Some(part) = value::parsed(node, report, ppm) {
            *field = part.value;
        }
    };
    match key {
        "loss" => part(&mut impairment.loss_ppm),
        "corrupt" => part(&mut impairment.corrupt_ppm),
        "duplicate" => part(&mut impairment.duplicate_ppm),
        "reorder" => part(&mut impairment.reorder_ppm),
        "rate" => {
            if let Some(rate) = value::parsed(node, report, rate) {
                impairment.rate_bps = rate.value;
            }
        }
        "delay" | "jitter" => {
            let field = if key == "delay" { &mut impairment.delay_us } else { &mut impairment.jitter_us };
            if let Some(time) = value::parsed(node, report, microseconds) {
                *field = time.value;
            }
        }
        _ => unreachable!("{key} is in the table as done, and is not read here"),
    }
}

/// A number and its unit.
fn split(text: &str) -> Option<(f64, String)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

fn rate(text: &str) -> Result<u64, String> {
    let refused = || "is not a rate like 10mbit, 500kbit or 1gbit".to_owned();
    let (number, unit) = split(text).ok_or_else(refused)?;
    let scale = match unit.as_str() {
        "bit" => 1.0,
        "kbit" => 1e3,
        "mbit" => 1e6,
        "gbit" => 1e9,
        "" => return Err("has no unit: write 10mbit, 500kbit or 1gbit".into()),
        _ => return Err(refused()),
    };
    let bits = number * scale;
    if bits > 1e12 { Err("is more than 1000gbit".into()) } else { Ok(bits.round() as u64) }
}

fn microseconds(text: &str) -> Result<u32, String> {
    let refused = || "is not a time like 5ms, 200us or 1s".to_owned();
    let (number, unit) = split(text).ok_or_else(refused)?;
    let scale = match unit.as_str() {
        "us" | "µs" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        "" if number == 0.0 => 1.0,
        "" => return Err("has no unit: write 5ms, 200us or 1s".into()),
        _ => return Err(refused()),
    };
    let time = number * scale;
    if time > 60e6 { Err("is more than 60s".into()) } else { Ok(time.round() as u32) }
}

/// A part of all frames, in millionths.
fn ppm(text: &str) -> Result<u32, String> {
    let refused = || "is not a part of all frames like 1% or 0.05%".to_owned();
    let (number, unit) = split(text).ok_or_else(refused)?;
    if !matches!(unit.as_str(), "%" | "") {
        return Err(refused());
    }
    if number > 100.0 { Err("is more than 100%".into()) } else { Ok((number * 1e4).round() as u32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, is) in
            [("10mbit", 10_000_000), ("1.5Gbit", 1_500_000_000), ("64 kbit", 64_000), ("800bit", 800)]
        {
            assert_eq!(rate(text), Ok(is), "{text}");
        }
        for text in ["10", "10mbps", "fast", "-1mbit", "2000gbit", "", "1e3mbit", "."] {
            assert!(rate(text).is_err(), "{text}");
        }
        for (text, is) in [("5ms", 5_000), ("200us", 200), ("1.5s", 1_500_000), ("0", 0)] {
            assert_eq!(microseconds(text), Ok(is), "{text}");
        }
        for text in ["5", "5m", "61s", "-1ms", ""] {
            assert!(microseconds(text).is_err(), "{text}");
        }
        for (text, is) in [("1%", 10_000), ("0.05%", 500), ("100", 1_000_000), ("0", 0)] {
            assert_eq!(ppm(text), Ok(is), "{text}");
        }
        for text in ["101%", "1ppm", "-1%", ""] {
            assert!(ppm(text).is_err(), "{text}");
        }
    }
}
