//! The handle that callers hold: which messages make up a request, and what their answers mean.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::BytesMut;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::connection::{self, Call, SILENCE};
use crate::error::{Code, Error};
use crate::flow::{Flow, FlowMod};
use crate::wire::{self, Bundle, Message, kind};

/// How many calls may wait for the connection task to take them up.
const CALLS: usize = 16;

/// How many actions surely fit in a message, which ends at 64 KiB.
const MAX_ACTIONS: usize = 2048;

/// How many bytes of a frame surely fit in a message.
const MAX_FRAME: usize = 65_000;

/// A handle on one connection to a bridge; clones share it, and it ends with the last of them.
///
/// A connection that is lost stays lost: every call gives [`Error::Disconnected`], and the caller connects anew.
/// Since ovs-vswitchd forgets all flows when it restarts, there is more to do then than to dial again.
#[derive(Clone, Debug)]
pub struct Switch {
    calls: mpsc::Sender<Call>,
    changes: watch::Receiver<u64>,
    next_xid: Arc<AtomicU32>,
}

impl Switch {
    /// Connects to a bridge's management socket, `<rundir>/<bridge>.mgmt`, agrees on OpenFlow 1.4 and asks to be
    /// told of flows that others change (the flow monitor of OpenFlow 1.4, which Open vSwitch 3 has).
    ///
    /// # Errors
    /// [`Error::Connect`] when there is no such socket, [`Error::Version`] when the bridge's `protocols` lack
    /// OpenFlow14.
    pub async fn connect(path: &Path) -> Result<Switch, Error> {
        let connect = |source| Error::Connect { path: path.to_owned(), source: Arc::new(source) };
        let mut stream = UnixStream::connect(path).await.map_err(connect)?;
        let mut received = BytesMut::new();
        let greeting = connection::greet(&mut stream, &mut received);
        timeout(SILENCE, greeting).await.map_err(|_| Error::Disconnected)??;

        let (calls, taken) = mpsc::channel(CALLS);
        let (count, changes) = watch::channel(0);
        tokio::spawn(connection::run(stream, received, taken, count, SILENCE));
        // Xid 0 is the switch's own.
        let switch = Switch { calls, changes, next_xid: Arc::new(AtomicU32::new(1)) };
        let xid = switch.reserve(1);
        let answers = switch.call(xid, xid, |out| wire::flow_monitor_request(out, xid)).await?;
        refusal(&answers)?
            .map_or(Ok(switch), |(_, code)| Err(Error::Refused { what: "the flow monitor", code }))
    }

    /// Does all of `mods`, in order and in one step that no packet sees half of, or none of them. Returns when
    /// the switch has done so.
    ///
    /// # Errors
    /// [`Error::FlowMod`] names the first one that was refused. After [`Error::Disconnected`] it is not known
    /// whether the bundle was done.
    pub async fn bundle(&self, mods: &[FlowMod]) -> Result<(), Error> {
        if let Some(index) = mods.iter().position(|flow_mod| flow_mod.actions.len() > MAX_ACTIONS) {
            return Err(Error::FlowMod { index, code: Code::TOO_MANY_ACTIONS });
        }
        let count = u32::try_from(mods.len()).expect("flow-mods in memory are fewer than 2^32");
        // One xid for each message: open, the flow-mods, close, barrier; then commit, barrier.
        let bundle = self.reserve(count + 5);
        let xid = |offset: u32| bundle.wrapping_add(offset);
        let check = |answers: &[Message]| match refusal(answers)? {
            None => Ok(()),
            Some((at, code)) => match at.wrapping_sub(xid(1)) {
                index if index < count => Err(Error::FlowMod { index: index as usize, code }),
                _ => Err(Error::Refused { what: "the bundle", code }),
            },
        };

        let added = self.call(bundle, xid(count + 2), |out| {
            wire::bundle_control(out, bundle, bundle, Bundle::Open);
            for (offset, flow_mod) in (1..).zip(mods) {
                wire::bundle_add(out, xid(offset), bundle, flow_mod);
            }
            wire::bundle_control(out, xid(count + 1), bundle, Bundle::Close);
            wire::barrier(out, xid(count + 2));
        });
        if let Err(error) = check(&added.await?) {
            // The switch would commit the rest.
            let (discard, barrier) = (xid(count + 3), xid(count + 4));
            self.call(discard, barrier, |out| {
                wire::bundle_control(out, discard, bundle, Bundle::Discard);
                wire::barrier(out, barrier);
            })
            .await?;
            return Err(error);
        }

        // What fails only now is told under the xid of the flow-mod: this call begins where the other did.
        let committed = self.call(bundle, xid(count + 4), |out| {
            wire::bundle_control(out, xid(count + 3), bundle, Bundle::Commit);
            wire::barrier(out, xid(count + 4));
        });
        let result = check(&committed.await?);
        tracing::debug!(flow_mods = count, done = result.is_ok(), "OpenFlow bundle");
        result
    }

    /// Hands a frame to the flows, as if it had come in by a port. Returns when the switch has taken it.
    ///
    /// # Errors
    /// [`Error::Refused`] when the switch does not take it: a frame may have 65,000 bytes.
    pub async fn packet_out(&self, port: u32, frame: &[u8]) -> Result<(), Error> {
        if frame.len() > MAX_FRAME {
            return Err(Error::Refused { what: "the packet-out", code: Code::BAD_LENGTH });
        }
        let xid = self.reserve(2);
        let last = xid.wrapping_add(1);
        let answers = self.call(xid, last, |out| {
            wire::packet_out(out, xid, port, frame);
            wire::barrier(out, last);
        });
        let refused = refusal(&answers.await?)?;
        refused.map_or(Ok(()), |(_, code)| Err(Error::Refused { what: "the packet-out", code }))
    }

    /// The flows of a table, or of [`crate::ALL_TABLES`].
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such table.
    pub async fn flows(&self, table: u8) -> Result<Vec<Flow>, Error> {
        let xid = self.reserve(1);
        let answers = self.call(xid, xid, |out| wire::flow_request(out, xid, table)).await?;
        if let Some((_, code)) = refusal(&answers)? {
            return Err(Error::Refused { what: "the flow dump", code });
        }
        let mut flows = Vec::new();
        for answer in answers {
            flows.extend(wire::flows(&answer.body)?);
        }
        Ok(flows)
    }

    /// A number that grows whenever anybody but this connection adds, removes or modifies flows: read them back
    /// then, and once after connecting. Closed when the connection is lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    /// Takes `count` xids; gives the first.
    fn reserve(&self, count: u32) -> u32 {
        self.next_xid.fetch_add(count, Ordering::Relaxed)
    }

    /// Sends messages with xids from `first` to `last` and gives all their answers.
    async fn call(
        &self,
        first: u32,
        last: u32,
        compose: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<Message>, Error> {
        let mut bytes = Vec::new();
        compose(&mut bytes);
        let (reply, answers) = oneshot::channel();
        self.calls.send(Call { bytes, first, last, reply }).await.map_err(|_| Error::Disconnected)?;
        answers.await.map_err(|_| Error::Disconnected)
    }
}

/// The first error among answers, and the xid it is about.
fn refusal(answers: &[Message]) -> Result<Option<(u32, Code)>, Error> {
    let error = answers.iter().find(|answer| answer.kind == kind::ERROR);
    error.map(|error| Ok((error.xid, wire::error_code(&error.body)?))).transpose()
}
