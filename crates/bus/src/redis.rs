//! Between processes, over Redis: wake-ups are entries of streams, presences are keys that expire.
//!
//! ```text
//! wake    XADD netloom:wake:<topic> MAXLEN ~ 16 * by <pid>
//! listen  XREAD BLOCK … from the last entry there was; after each loss of the connection it wakes once, since something may have been missed
//! present SET netloom:present:<who> <what> PX …
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::streams::StreamReadReply;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, cmd};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};

use crate::{Presence, Wakes, Wakeups};

/// How long Redis may take for an answer, or to take a connection. Whoever calls goes on without it then.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a listener waits for entries before it asks again.
const BLOCK: Duration = Duration::from_secs(5);
/// Pause before a connection that was lost is made again.
const AGAIN: Duration = Duration::from_millis(200);
/// Entries of a topic that are kept: who listens reads them at once, and who comes later does not want them.
const KEPT: usize = 16;

/// See the module.
pub struct Redis {
    client: Client,
    /// For all that answers at once; none before it is used, and after it was lost.
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Redis {
    /// At this URL: `redis://[user:password@]host[:port][/database]`, or `unix:///path`. Nothing is connected yet.
    pub fn new(url: &str) -> anyhow::Result<Redis> {
        let client = Client::open(url).context(
            "redis is no URL of a Redis: write redis://host:6379/0, with user:password@ before the host where it asks for them",
        )?;
        Ok(Redis { client, connection: Mutex::new(None) })
    }

    /// What it answers; none when it does not in time. The connection is made again when it was lost.
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Option<T> {
        let mut held = self.connection.lock().await;
        let asked = async {
            let mut connection = match held.clone() {
                Some(connection) => connection,
                None => held.insert(connect(&self.client, ANSWER).await?).clone(),
            };
            command.query_async::<T>(&mut connection).await
        };
        let why = match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(e)) => e.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        *held = None;
        tracing::debug!("Redis does not answer, and it goes on without: {why}");
        None
    }
}

async fn connect(client: &Client, answer: Duration) -> RedisResult<MultiplexedConnection> {
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(answer));
    client.get_multiplexed_async_connection_with_config(&config).await
}

fn stream(topic: &str) -> String {
    format!("netloom:wake:{topic}")
}

const PRESENT: &str = "netloom:present:";

impl Wakes for Redis {
    fn wake<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, ()> {
        async move {
            let mut add = cmd("XADD");
            add.arg(stream(topic))
                .arg("MAXLEN")
                .arg("~")
                .arg(KEPT)
                .arg("*")
                .arg("by")
                .arg(std::process::id());
            self.ask::<String>(&add).await;
        }
        .boxed()
    }

    fn listen<'a>(&'a self, topic: &'a str) -> BoxFuture<'a, Wakeups> {
        async move {
            let (tell, count) = watch::channel(0);
            let (client, key) = (self.client.clone(), stream(topic));
            let begun = timeout(ANSWER * 2, Listening::begin(&client, &key)).await.ok().and_then(Result::ok);
            tokio::spawn(async move {
                tokio::select! {
                    () = listen(client, key, begun, &tell) => {}
                    () = tell.closed() => {}
                }
            });
            Wakeups { count }
        }
        .boxed()
    }
}

/// A connection that waits for entries after the last one.
struct Listening {
    connection: MultiplexedConnection,
    last: String,
}

impl Listening {
    async fn begin(client: &Client, key: &str) -> RedisResult<Listening> {
        // It blocks, so it is nobody else's.
        let mut connection = connect(client, BLOCK + ANSWER).await?;
        let newest: Vec<(String, Vec<String>)> = cmd("XREVRANGE")
            .arg(key)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(1)
            .query_async(&mut connection)
            .await?;
        let last = newest.into_iter().next().map_or("0-0".to_owned(), |(id, _)| id);
        Ok(Listening { connection, last })
    }

    /// True when there was one within the time that it waits.
    async fn next(&mut self, key: &str) -> RedisResult<bool> {
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(BLOCK.as_millis() as u64).arg("STREAMS").arg(key).arg(&self.last);
        let found: Option<StreamReadReply> = read.query_async(&mut self.connection).await?;
        let newest = found.and_then(|found| found.keys.into_iter().next()?.ids.pop());
        let is_new = newest.is_some();
        if let Some(newest) = newest {
            self.last = newest.id;
        }
        Ok(is_new)
    }
}

/// Wakes at each entry, for ever.
async fn listen(client: Client, key: String, mut begun: Option<Listening>, tell: &watch::Sender<u64>) {
    loop {
        if let Some(listening) = &mut begun {
            match listening.next(&key).await {
                Ok(true) => tell.send_modify(|count| *count += 1),
                Ok(false) => {}
                Err(e) => {
                    tracing::warn!(
                        "the connection to Redis was lost; what it would have told at once is found later: {e}"
                    );
                    begun = None;
                }
            }
            continue;
        }
        sleep(AGAIN).await;
        begun = Listening::begin(&client, &key).await.ok();
        if begun.is_some() {
            tell.send_modify(|count| *count += 1);
        }
    }
}

impl Presence for Redis {
    fn announce<'a>(&'a self, who: &'a str, what: &'a str, within: Duration) -> BoxFuture<'a, ()> {
        async move {
            let mut set = cmd("SET");
            set.arg(format!("{PRESENT}{who}")).arg(what).arg("PX").arg(within.as_millis() as u64);
            self.ask::<()>(&set).await;
        }
        .boxed()
    }

    fn present<'a>(&'a self, begin: &'a str) -> BoxFuture<'a, Option<BTreeMap<String, String>>> {
        async move {
            let (mut found, mut cursor) = (BTreeMap::new(), 0_u64);
            loop {
                let mut scan = cmd("SCAN");
                scan.arg(cursor).arg("MATCH").arg(format!("{PRESENT}{begin}*")).arg("COUNT").arg(200);
                let (next, keys): (u64, Vec<String>) = self.ask(&scan).await?;
                for key in keys {
                    // One may have gone since it was listed.
                    let what: Option<String> = self.ask(cmd("GET").arg(&key)).await?;
                    let who = key.trim_start_matches(PRESENT).to_owned();
                    found.extend(what.map(|what| (who, what)));
                }
                cursor = next;
                if cursor == 0 {
                    return Some(found);
                }
            }
        }
        .boxed()
    }
}
