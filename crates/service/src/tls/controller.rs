//! What the controller's programs show: certificates made from the authority in their data directory. Which that is the scheduler says, who may be a moment later than the others.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::{Authority, Identity, TlsError};

/// See the module. It is looked at the file again for each connection, so that no program has to be started anew when the authority comes, or the right one in place of a wrong one.
pub(crate) struct Controller {
    data_dir: PathBuf,
    /// What its programs are dialled by.
    names: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was made, and from which text.
    has: Option<(String, Arc<Identity>)>,
    /// Why there is nothing newer, as it was last told in the log.
    told: String,
}

impl Controller {
    pub(crate) fn new(data_dir: PathBuf, names: Vec<String>) -> Controller {
        Controller { data_dir, names, state: Mutex::default() }
    }

    /// What is to be shown now. What was made once is good as long as this program runs, whatever becomes of the file.
    pub(crate) fn identity(&self) -> Result<Arc<Identity>, TlsError> {
        let mut state = self.state.lock().expect("no holder panics");
        let made = Authority::text(&self.data_dir)
            .map_err(|e| TlsError::NoIdentity(format!("{e:#}")))
            .and_then(|text| text.ok_or_else(|| TlsError::NoAuthority(Authority::path(&self.data_dir))))
            .and_then(|text| match &state.has {
                Some((of, identity)) if *of == text => Ok((text, identity.clone())),
                _ => {
                    let authority = Arc::new(Authority::read(&text)?);
                    Ok((text, Identity::controller(authority, self.names.clone())?))
                }
            });
        match made {
            Ok((text, identity)) => {
                if !std::mem::take(&mut state.told).is_empty() {
                    tracing::info!("has the authority now, and talks over TLS");
                }
                state.has = Some((text, identity.clone()));
                Ok(identity)
            }
            Err(why) => {
                let said = why.to_string();
                if state.told != said {
                    match state.has {
                        Some(_) => tracing::warn!("goes on by the authority that it had: {said}"),
                        None => tracing::warn!("waits to talk over TLS: {said}"),
                    }
                    state.told = said;
                }
                state.has.as_ref().map(|(_, identity)| identity.clone()).ok_or(why)
            }
        }
    }
}
