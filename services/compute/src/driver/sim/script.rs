//! What the labels of a node say of how it is played.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::error::Error;

/// The number that a label gives.
pub(super) fn number<T: FromStr>(labels: &BTreeMap<String, String>, name: &str) -> Option<T> {
    labels.get(name).and_then(|v| v.parse().ok())
}

/// Fails with the words that a label gives.
pub(super) fn fault(labels: &BTreeMap<String, String>, name: &str) -> Result<(), Error> {
    labels.get(name).map_or(Ok(()), |message| Err(Error::Refused(message.clone())))
}

/// Waits for the time that a label gives, or else for this one.
pub(super) async fn pause(labels: &BTreeMap<String, String>, name: &str, configured_ms: u64) {
    let ms = number(labels, name).unwrap_or(configured_ms);
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}
