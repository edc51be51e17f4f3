//! Images, for people.

use std::time::Duration;

use netloom_api::v1 as api;

use super::progress::seconds;
use super::style::{Style, one_line};
use super::table::{Columns, cell, dash};
use super::words::{bytes, last};

/// What bytes are, in a word.
pub fn format(format: api::ImageFormat) -> &'static str {
    match format {
        api::ImageFormat::Unspecified => "",
        api::ImageFormat::Docker => "docker",
        api::ImageFormat::Qcow2 => "qcow2",
        api::ImageFormat::Raw => "raw",
        api::ImageFormat::Iso => "iso",
        api::ImageFormat::Iol => "iol",
        api::ImageFormat::DockerArchive => "docker-archive",
        api::ImageFormat::OciArchive => "oci-archive",
    }
}

/// All that is known of one.
pub fn describe(image: &api::Image) -> String {
    let mut rows: Vec<(&str, String)> = vec![("Image", image.reference.clone())];
    match &image.stored {
        None => rows.push(("Store", "has nothing of it".to_owned())),
        Some(stored) => {
            rows.push(("Format", format(stored.format()).to_owned()));
            rows.push(("Size", bytes(stored.size_bytes)));
            if stored.virtual_size_bytes != stored.size_bytes {
                rows.push(("Disk of a guest", bytes(stored.virtual_size_bytes)));
            }
            if !stored.architecture.is_empty() {
                rows.push(("Architecture", stored.architecture.clone()));
            }
            rows.push(("SHA-256", stored.digest.trim_start_matches("sha256:").to_owned()));
            if !stored.problem.is_empty() {
                rows.push(("Problem", stored.problem.clone()));
            }
        }
    }
    for kind in &image.kinds {
        let version = if kind.version.is_empty() { String::new() } else { format!(" {}", kind.version) };
        let preferred = if kind.preferred { ", preferred" } else { "" };
        rows.push(("For kind", format!("{}{version}{preferred}", kind.kind)));
    }
    for presence in image.presences.iter().filter(|p| p.present) {
        let what = format!("{}, {}", format(presence.format()), bytes(presence.size_bytes));
        rows.push(("On host", format!("{}: {what}", last(&presence.host))));
    }
    rows.into_iter().map(|(what, said)| format!("{what:<16}{}\n", one_line(&said))).collect()
}

/// What a push came to.
pub fn pushed(image: &api::Image, sent: u64, elapsed: Duration) -> String {
    let stored = image.stored.clone().unwrap_or_default();
    let how = match (sent, u64::try_from(stored.size_bytes).unwrap_or_default()) {
        (0, _) => "the store had its bytes already".to_owned(),
        (sent, size) if sent == size => format!("{} in {}", bytes(stored.size_bytes), seconds(elapsed)),
        (sent, _) => {
            let sent = bytes(i64::try_from(sent).unwrap_or(i64::MAX));
            format!("the last {sent} of {} in {}", bytes(stored.size_bytes), seconds(elapsed))
        }
    };
    format!("Pushed {}, {}: {how}\n{}\n", one_line(&image.reference), format(stored.format()), stored.digest)
}

/// What a pull came to.
pub fn pulled(image: &api::Image, elapsed: Duration) -> String {
    let stored = image.stored.clone().unwrap_or_default();
    let (size, elapsed) = (bytes(stored.size_bytes), seconds(elapsed));
    let (name, format) = (one_line(&image.reference), format(stored.format()));
    format!("Pulled {name}, {format}: {size} in {elapsed}\n{}\n", stored.digest)
}

/// True of what somebody has to see to, or that was not as it should have been.
pub fn is_wrong(result: api::ImageCheckResult) -> bool {
    !matches!(result, api::ImageCheckResult::Right | api::ImageCheckResult::Absent)
}

/// What came of comparing an image in the store and on hosts.
pub fn checks(style: Style, stored: Option<&api::Image>, checks: &[api::ImageCheck]) -> String {
    use api::ImageCheckResult as R;
    let mut columns = Columns::new(style, &["WHERE", "RESULT", "SIZE", "WHAT"]);
    if let Some(stored) = stored.and_then(|image| image.stored.as_ref()) {
        let result = if stored.problem.is_empty() { "right" } else { "set aside" };
        columns.row(vec![
            cell("the store"),
            cell(result),
            cell(bytes(stored.size_bytes)),
            dash(&stored.problem),
        ]);
    }
    for check in checks {
        let result = match check.result() {
            R::Right => "right",
            R::Absent => "not there",
            R::SetAside if check.fetched => "fetched again",
            R::SetAside => "set aside",
            R::Unreadable => "unreadable",
            R::Unreachable => "no answer",
            R::Unspecified => "unknown",
        };
        let size = if check.size_bytes > 0 { bytes(check.size_bytes) } else { "-".to_owned() };
        columns.row(vec![
            cell(format!("host {}", last(&check.host))),
            cell(result),
            cell(size),
            dash(&check.message),
        ]);
    }
    columns.text()
}

/// What goes, or would go.
pub fn garbage(style: Style, found: &api::CollectGarbageResponse, would: bool) -> String {
    if found.garbage.is_empty() {
        return "There is nothing that nothing needs\n".to_owned();
    }
    let mut columns = Columns::new(style, &["WHAT", "SIZE", "WHY"]);
    for garbage in &found.garbage {
        columns.row(vec![cell(&garbage.name), cell(bytes(garbage.size_bytes)), dash(&garbage.reason)]);
    }
    let said = if would { "Removing this would make" } else { "Removed, which makes" };
    format!("{}{said} {} of room\n", columns.text(), bytes(found.freed_bytes))
}

/// `sends [=====>    ] 45% 123.4 MiB of 270.0 MiB, 88.1 MiB/s`, in so many columns.
pub fn bar(does: &str, far: u64, size: u64, elapsed: Duration, columns: usize) -> String {
    let whole = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let share = if size == 0 { 1.0 } else { (far as f64 / size as f64).min(1.0) };
    let speed = far as f64 / elapsed.as_secs_f64().max(0.001);
    let said = format!(
        "{:3.0}% {} of {}, {}/s",
        share * 100.0,
        bytes(whole(far)),
        bytes(whole(size)),
        bytes(speed as i64)
    );
    let room = columns.saturating_sub(does.len() + said.len() + 5).min(40);
    if room < 8 {
        return format!("{does} {said}");
    }
    let filled = (share * room as f64) as usize;
    format!("{does} [{}{}] {said}", "=".repeat(filled), " ".repeat(room - filled))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fits_into_the_terminal() {
        let at = |far, columns| bar("sends", far, 200 << 20, Duration::from_secs(2), columns);
        assert_eq!(
            at(100 << 20, 80),
            "sends [===============                ]  50% 100.0 MiB of 200.0 MiB, 50.0 MiB/s"
        );
        assert_eq!(at(0, 30), "sends   0% 0 B of 200.0 MiB, 0 B/s");
        for columns in 0..200 {
            assert!(at(1 << 20, columns).len() <= columns.max(50), "{columns}");
        }
        assert!(bar("reads", 0, 0, Duration::ZERO, 80).contains("100%"));
    }

    #[test]
    fn what_was_sent_is_said() {
        let stored = api::StoredImage {
            digest: "sha256:ab".into(),
            size_bytes: 4 << 20,
            format: api::ImageFormat::Qcow2.into(),
            ..api::StoredImage::default()
        };
        let image = api::Image { reference: "a:1".into(), stored: Some(stored), ..api::Image::default() };
        let said = |sent| pushed(&image, sent, Duration::from_secs(1));
        assert_eq!(said(0), "Pushed a:1, qcow2: the store had its bytes already\nsha256:ab\n");
        assert_eq!(said(4 << 20), "Pushed a:1, qcow2: 4.0 MiB in 1.0s\nsha256:ab\n");
        assert_eq!(said(1 << 20), "Pushed a:1, qcow2: the last 1.0 MiB of 4.0 MiB in 1.0s\nsha256:ab\n");
    }
}
