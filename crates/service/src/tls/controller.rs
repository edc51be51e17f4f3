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
enum State {
    #[default]
    Unasked,
    /// It was said that it waits.
    Waits,
    /// Made from this text.
    Has(String, Arc<Identity>),
}

impl Controller {
    pub(crate) fn new(data_dir: PathBuf, names: Vec<String>) -> Controller {
        Controller { data_dir, names, state: Mutex::default() }
    }

    /// What is to be shown now.
    pub(crate) fn identity(&self) -> Result<Arc<Identity>, TlsError> {
        let mut state = self.state.lock().expect("no holder panics");
        let text = match (Authority::text(&self.data_dir), &*state) {
            (Ok(Some(text)), State::Has(of, identity)) if text == *of => return Ok(identity.clone()),
            (Ok(Some(text)), _) => text,
            // Somebody put it away: what was made from it is good as long as this program runs.
            (_, State::Has(_, identity)) => return Ok(identity.clone()),
            (Ok(None), before) => {
                let none = TlsError::NoAuthority(Authority::path(&self.data_dir));
                if matches!(before, State::Unasked) {
                    tracing::warn!("waits to talk over TLS: {none}");
                    *state = State::Waits;
                }
                return Err(none);
            }
            (Err(e), _) => return Err(TlsError::NoIdentity(format!("{e:#}"))),
        };
        let identity = Identity::controller(Arc::new(Authority::read(&text)?), self.names.clone())?;
        if matches!(*state, State::Waits) {
            tracing::info!("has the authority now, and talks over TLS");
        }
        *state = State::Has(text, identity.clone());
        Ok(identity)
    }
}
