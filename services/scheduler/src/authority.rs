//! The authority that signs the certificates of hosts, where several schedulers lead in turn: it is kept with the rows, and each controller has it in a file of its own, which its gateway
//! reads, too. Hosts believe no other one, so a controller that has another says so and does not lead.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use netloom_service::tls::Authority;
use tokio::time::sleep;

use crate::store::{Database, Store, meta};

const KEY: &str = "authority";
/// How often one that stands by looks for it.
const LOOK: Duration = Duration::from_secs(1);

/// Brings the file and the rows together: whichever has it gives it to the other.
pub async fn share(store: &Store, data_dir: &Path) -> anyhow::Result<()> {
    let of_file = Authority::text(data_dir)?;
    let mut tx = store.begin("scheduler.share-authority").await?;
    match (tx.meta(KEY).await?, of_file) {
        (Some(kept), Some(own)) => anyhow::ensure!(
            kept == own,
            "the database keeps another authority than authority.pem in {}: hosts believe the one that is kept there. Move the file away and start again, and it is fetched from the database",
            data_dir.display()
        ),
        (Some(kept), None) => Authority::keep(data_dir, kept)?,
        (None, Some(own)) => {
            tx.set_meta(KEY, &own).await?;
            tx.commit().await?;
        }
        (None, None) => {}
    }
    Ok(())
}

/// Fetches it as soon as it is there, while another one leads.
pub async fn fetch(database: &Database, data_dir: &Path) {
    while let Err(e) = try_to_fetch(database, data_dir).await {
        tracing::debug!("the authority of hosts is not here yet: {e:#}");
        sleep(LOOK).await;
    }
}

async fn try_to_fetch(database: &Database, data_dir: &Path) -> anyhow::Result<()> {
    if Authority::text(data_dir)?.is_none() {
        let kept = meta(database, KEY).await?.context("nobody made one")?;
        Authority::keep(data_dir, kept)?;
        tracing::info!("has the authority of hosts now");
    }
    Ok(())
}
