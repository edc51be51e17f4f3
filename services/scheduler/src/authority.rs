//! The authority that signs certificates of hosts and of the controllers' programs. Where several schedulers lead in turn it is kept with the rows, and each controller has it in a file of its own,
//! which its gateway and its image registry read, too. Nobody believes another one, so a controller that has another says so and ends.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use netloom_service::tls::Authority;
use tokio::time::sleep;

use crate::store::{Database, Store, meta};

const KEY: &str = "authority";
/// How often one that stands by looks for it.
const LOOK: Duration = Duration::from_secs(1);

/// The authority, for the one that leads: made at the first start, by rows that several share before by a file, so that one that dies in between has made none of its own. Refused when hosts have joined already,
/// since none of them would believe another.
pub async fn open(store: &Store, data_dir: &Path, is_shared: bool) -> anyhow::Result<Authority> {
    let any_joined = store.any_joined().await?;
    let first = || match Authority::text(data_dir)? {
        Some(own) => Ok(own),
        None if any_joined => anyhow::bail!(
            "hosts have joined by this installation's authority, and {} is missing: restore authority.pem from the backup; or, to have a new one made, start without join_listen and with http:// or unix: in [endpoints], remove these hosts (netloom host remove), and let them join again",
            Authority::path(data_dir).display()
        ),
        None => Ok(Authority::make()?),
    };
    if !is_shared {
        return Authority::keep(data_dir, &first()?);
    }
    let mut tx = store.begin("scheduler.share-authority").await?;
    let kept = match tx.meta(KEY).await? {
        Some(kept) => kept,
        None => {
            let first = first()?;
            tx.set_meta(KEY, &first).await?;
            tx.commit().await?;
            first
        }
    };
    take(data_dir, &kept)
}

/// Fetches it as soon as it is there, while another one leads.
pub async fn fetch(database: &Database, data_dir: &Path) -> anyhow::Result<()> {
    loop {
        match meta(database, KEY).await {
            Ok(Some(kept)) => return take(data_dir, &kept).map(drop),
            Ok(None) => tracing::debug!("no scheduler has made the authority yet"),
            Err(e) => tracing::debug!("the authority cannot be fetched yet: {e}"),
        }
        sleep(LOOK).await;
    }
}

/// What is kept in the database, as the authority of this controller.
fn take(data_dir: &Path, kept: &str) -> anyhow::Result<Authority> {
    let own = Authority::keep(data_dir, kept)?;
    let kept = Authority::read(kept).context("the authority that the database keeps")?;
    anyhow::ensure!(
        own.fingerprint() == kept.fingerprint(),
        "the database keeps another authority than {}, and hosts and the other controllers believe the one that is kept there. Where that is the right database, move the file away and start again: it is fetched from there",
        Authority::path(data_dir).display()
    );
    Ok(own)
}
