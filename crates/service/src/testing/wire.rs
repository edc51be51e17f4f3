//! A wire of TCP that a test can make silent: connections stay, and nothing comes through any more, as where a machine or what is between two of them is gone.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// See the module. All that it carries ends when it is dropped.
pub struct Wire {
    /// Where its near end is.
    pub at: SocketAddr,
    silent: watch::Sender<bool>,
    task: AbortHandle,
}

impl Wire {
    /// A wire to what listens there.
    pub async fn to(address: String) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (silent, is_silent) = watch::channel(false);
        let at = listener.local_addr().expect("its address");
        let task = tokio::spawn(async move {
            let mut carried = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                carried.spawn(carry(near, address.clone(), is_silent.clone()));
            }
        });
        Wire { at, silent, task: task.abort_handle() }
    }

    /// From now on nothing comes through, also not of who connects later.
    pub fn silence(&self) {
        self.silent.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(mut near: TcpStream, to: String, mut silent: watch::Receiver<bool>) {
    let mut carried = std::pin::pin!(async move {
        let mut far = TcpStream::connect(to).await?;
        copy_bidirectional(&mut near, &mut far).await
    });
    let is_silent = tokio::select! {
        biased;
        told = silent.wait_for(|silent| *silent) => told.is_ok(),
        _ = carried.as_mut() => false,
    };
    if is_silent {
        // Both ends stay open.
        std::future::pending().await
    }
}
