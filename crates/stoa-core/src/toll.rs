//! What one client may have looked for elsewhere in a second.
//!
//! A flood of names that nobody knows costs this server little, and its upstreams as many requests as there are names; for
//! the others it means flights and places at a source that are taken. So each client has a rate of its own for requests
//! that begin a flight. What is stored or remembered, and what others have fetched at the moment, costs nothing.
//!
//! A request carries its client along with it, as its task's own, and shows it where a flight begins ([`pay`]); what the
//! server does by itself has none. The rates are in a fixed room however many clients come: see [`Rate`].

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::flight::Grounded;
use crate::rate::Rate;

/// What may be asked for at once, in seconds of the rate: a build that finds nothing here asks for hundreds of files.
const BURST_SECONDS: u32 = 10;
/// So that a client is counted with others only where it falls on busy slots in all rows: 128 KiB.
const ROWS: usize = 4;
/// How often the log says that a client was refused.
const SAID_EVERY: Duration = Duration::from_secs(10);

tokio::task_local! {
    static ASKING: Asking;
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Asker {
    Address(IpAddr),
    /// The network that one customer of a provider has: the first 64 bits of an IPv6 address.
    Network(Ipv6Addr),
    /// Over a unix socket.
    Local,
}

impl From<IpAddr> for Asker {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => {
                let network = address.to_bits() >> 64 << 64;
                Self::Network(Ipv6Addr::from_bits(network))
            }
            address @ IpAddr::V4(_) => Self::Address(address),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Network(network) => write!(f, "{network}/64"),
            Self::Local => f.write_str("unix"),
        }
    }
}

/// The rate of every client.
#[derive(Debug)]
pub(crate) struct Toll {
    rate: Rate,
    per_second: u32,
    start: Instant,
    /// When the log was told last, in milliseconds since the start; 0 is never.
    said: AtomicU64,
}

struct Asking {
    toll: Arc<Toll>,
    asker: Asker,
    /// Whether this request has paid: it does so once, however many flights it needs.
    paid: Cell<Option<bool>>,
}

impl Toll {
    pub(crate) fn new(per_second: u32) -> Arc<Self> {
        let per_second = per_second.max(1);
        let every = Duration::from_secs(1) / per_second;
        let rate = Rate::with_rows(ROWS, per_second.saturating_mul(BURST_SECONDS), every);
        Arc::new(Self { rate, per_second, start: Instant::now(), said: AtomicU64::new(0) })
    }

    /// Works on a request of this client.
    pub(crate) async fn of<T>(self: &Arc<Self>, asker: Asker, work: impl Future<Output = T>) -> T {
        let asking = Asking { toll: Arc::clone(self), asker, paid: Cell::new(None) };
        ASKING.scope(asking, work).await
    }

    fn say(&self, asker: Asker) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let every = SAID_EVERY.as_millis() as u64;
        let due = |said: u64| (said == 0 || now >= said + every).then_some(now);
        if self.said.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok() {
            let per_second = self.per_second;
            warn!(client = %asker, per_second, "a client has more looked for elsewhere than server.misses-per-client allows");
        }
    }
}

/// Called where a flight begins that the present request waits for.
pub(crate) fn pay() -> Result<(), Grounded> {
    let paid = ASKING.try_with(|asking| {
        let paid = asking.paid.get().unwrap_or_else(|| asking.toll.rate.take(&asking.asker));
        asking.paid.set(Some(paid));
        if !paid {
            asking.toll.say(asking.asker);
        }
        paid
    });
    // What the server does by itself is nobody's.
    if paid.unwrap_or(true) { Ok(()) } else { Err(Grounded::Limited) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_pays_once_and_each_client_for_itself() {
        let toll = Toll::new(1);
        let one = Asker::from(IpAddr::from([192, 0, 2, 1]));
        let other = Asker::from(IpAddr::from([192, 0, 2, 2]));
        let asks = async |who| toll.of(who, async { (pay(), pay(), pay()) }).await;
        for _ in 0..BURST_SECONDS {
            assert_eq!(asks(one).await, (Ok(()), Ok(()), Ok(())));
        }
        let refused = Err(Grounded::Limited);
        assert_eq!(asks(one).await, (refused, refused, refused));
        assert_eq!(asks(other).await, (Ok(()), Ok(()), Ok(())));
        assert_eq!(pay(), Ok(()));
    }

    #[test]
    fn a_client_is_an_address_or_a_customers_network() {
        let check = |address: &str, expected: &str| {
            assert_eq!(Asker::from(address.parse::<IpAddr>().unwrap()).to_string(), expected);
        };
        check("192.0.2.1", "192.0.2.1");
        check("::ffff:192.0.2.1", "192.0.2.1");
        check("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64");
        check("2001:db8:1:2::", "2001:db8:1:2::/64");
    }
}
