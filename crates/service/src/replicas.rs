//! Several programs that stand for one, and a channel to the one of them that answers, or leads.
//!
//! ```text
//! first call, or the connection is lost ─► ask all at once for their health ─► the first that serves ─► connect
//!                       ▲                              │ none: another one is about to take over
//!                       └────────── a moment later ────┘ at most for [`PATIENCE`], then the call fails with what each one said
//! ```
//!
//! A scheduler that stands by says of itself that it does not serve, and one that does not lead any more ends: so a connection goes to the one that leads, or breaks. Without this a call
//! that comes between two leaders would fail although the next one leads a moment later.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::time::{Instant, timeout};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::channel::{EndpointError, Io};
use crate::status::cause;
use crate::{Connector, Endpoint};

/// How long calls wait for one that serves, since there was one last. A takeover takes less than five seconds.
pub const PATIENCE: Duration = Duration::from_secs(6);
/// Pause before all are asked again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long one may take to answer.
const ANSWER: Duration = Duration::from_secs(1);

/// Where a program is reached: at one endpoint, or at one of several. There is always one at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas(Vec<Endpoint>);

impl Replicas {
    /// All endpoints, in the order in which they were written.
    pub fn all(&self) -> &[Endpoint] {
        &self.0
    }

    /// The endpoint, where it is the only one.
    pub fn only(&self) -> Option<&Endpoint> {
        match &self.0[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Where one of these programs listens itself: as its section says, or at the only endpoint.
    pub fn own(&self, listen: Option<&Endpoint>, section: &str) -> anyhow::Result<Endpoint> {
        let own = listen.or(self.only()).cloned().ok_or_else(|| {
            anyhow::anyhow!(
                "[endpoints] {section} names several, {self}: say in [{section}] where this one listens, as listen = \"{}\"",
                self.0[0]
            )
        })?;
        let is_tls = |e: &Endpoint| e.tls_name().is_some();
        anyhow::ensure!(
            self.0.iter().any(|e| is_tls(e) == is_tls(&own)),
            "[{section}] listen is {own}, and nobody would dial it so: [endpoints] {section} names {self}. Write https:// in both, or in neither"
        );
        Ok(own)
    }
}

impl From<Endpoint> for Replicas {
    fn from(only: Endpoint) -> Replicas {
        Replicas(vec![only])
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, endpoint) in self.0.iter().enumerate() {
            write!(f, "{}{endpoint}", if n == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Replicas {
    type Err = EndpointError;

    /// Endpoints with commas between them.
    fn from_str(text: &str) -> Result<Replicas, EndpointError> {
        text.split(',').map(|one| one.trim().parse()).collect::<Result<_, _>>().map(Replicas)
    }
}

impl Serialize for Replicas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.only() {
            Some(only) => only.serialize(serializer),
            None => self.0.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Replicas, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Replicas;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an endpoint, or a list of endpoints")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Replicas, E> {
                text.parse::<Endpoint>().map(Replicas::from).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Replicas, A::Error> {
                let mut all = Vec::new();
                while let Some(endpoint) = list.next_element()? {
                    all.push(endpoint);
                }
                if all.is_empty() { Err(de::Error::invalid_length(0, &self)) } else { Ok(Replicas(all)) }
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// Whom of several a channel goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Whichever takes the connection; the same one as long as it does.
    Any,
    /// The one that says that it serves this service: of schedulers, the one that leads.
    Serving(&'static str),
}

/// A search for one that serves.
pub(crate) struct Search {
    connector: Connector,
    to: Replicas,
    whom: Whom,
    /// Which of them took the last connection.
    last: AtomicUsize,
    /// Since when there is none; none while there is one.
    lost: Mutex<Option<Instant>>,
}

impl Search {
    pub(crate) fn new(connector: Connector, to: Replicas, whom: Whom) -> Search {
        Search { connector, to, whom, last: AtomicUsize::new(0), lost: Mutex::new(None) }
    }

    /// A connection to one that serves. Waits for it, but all who wait together no longer than [`PATIENCE`].
    pub(crate) async fn connect(&self) -> io::Result<Io> {
        let end = *self.lost.lock().expect("no holder panics").get_or_insert_with(Instant::now) + PATIENCE;
        loop {
            let failed = match self.round().await {
                Ok(io) => {
                    *self.lost.lock().expect("no holder panics") = None;
                    return Ok(io);
                }
                Err(failed) => failed,
            };
            if Instant::now() >= end {
                return Err(io::Error::new(io::ErrorKind::NotConnected, failed.join("; ")));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Tries each once; what each said when none would do.
    async fn round(&self) -> Result<Io, Vec<String>> {
        let (all, first) = (self.to.all(), self.last.load(Ordering::Relaxed));
        let mut failed = Vec::new();
        let mut tried: Vec<usize> = (0..all.len()).map(|n| (first + n) % all.len()).collect();
        if let Whom::Serving(service) = self.whom {
            let mut asked: FuturesUnordered<_> =
                tried.drain(..).map(|n| async move { (n, self.serves(&all[n], service).await) }).collect();
            while let Some((n, answer)) = asked.next().await {
                match answer {
                    Ok(()) => {
                        tried.push(n);
                        break;
                    }
                    Err(why) => failed.push(format!("{} {why}", all[n])),
                }
            }
        }
        for n in tried {
            match timeout(ANSWER, self.connector.connect(&all[n])).await {
                Ok(Ok(io)) => {
                    self.last.store(n, Ordering::Relaxed);
                    return Ok(io);
                }
                Ok(Err(e)) => failed.push(format!("{} cannot be reached: {e}", all[n])),
                Err(_) => failed.push(format!("{} does not answer", all[n])),
            }
        }
        Err(failed)
    }

    async fn serves(&self, endpoint: &Endpoint, service: &str) -> Result<(), String> {
        let mut health = HealthClient::new(self.connector.channel(endpoint));
        let asked = HealthCheckRequest { service: service.to_owned() };
        match timeout(ANSWER, health.check(asked)).await {
            Ok(Ok(answer)) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
            Ok(Ok(_)) => Err("stands by".to_owned()),
            Ok(Err(status)) => Err(format!("cannot be asked: {}", cause(&status))),
            Err(_) => Err("does not answer".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    /// What the configuration makes of a value.
    #[expect(clippy::result_large_err, reason = "a test's")]
    fn of(value: &str) -> Result<Replicas, figment::Error> {
        Figment::from(Toml::string(&format!("at = {value}"))).extract_inner("at")
    }

    #[test]
    fn one_endpoint_or_several_are_read_and_nonsense_is_named() {
        let one = of("\"mem:a\"").unwrap();
        assert_eq!((one.to_string().as_str(), one.only().is_some()), ("mem:a", true));
        let two = of("[\"mem:a\", \"http://b:1\"]").unwrap();
        assert_eq!((two.all().len(), two.only()), (2, None));
        assert_eq!(two.to_string().parse::<Replicas>().unwrap(), two);
        assert!(of("[]").is_err());
        assert!(of("[\"mem:a\", \"b\"]").unwrap_err().to_string().contains("\"b\" is not an endpoint"));
        assert!(of("\"b\"").unwrap_err().to_string().contains("\"b\" is not an endpoint"));
    }

    #[test]
    fn one_of_several_has_to_be_told_where_it_listens() {
        let (one, two) = (of("\"mem:a\"").unwrap(), of("[\"mem:a\", \"mem:b\"]").unwrap());
        let b: Endpoint = "mem:b".parse().unwrap();
        assert_eq!(one.own(None, "scheduler").unwrap().to_string(), "mem:a");
        assert_eq!(two.own(Some(&b), "scheduler").unwrap(), b);
        let said = two.own(None, "scheduler").unwrap_err().to_string();
        assert!(said.contains("listen = \"mem:a\""), "{said}");
        let tls: Endpoint = "https://a:1".parse().unwrap();
        let said = two.own(Some(&tls), "scheduler").unwrap_err().to_string();
        assert!(said.contains("[scheduler] listen is https://a:1") && said.contains("mem:a,mem:b"), "{said}");
    }
}
