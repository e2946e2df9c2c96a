//! Connecting to every address of a host at once.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::client::fault::{io_trouble, of_io};
use crate::examine::Trouble;
use crate::failure::span;

/// A host that takes longer to take a connection answers nobody in time.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

pub(super) struct Connected {
    pub(super) seen: String,
    pub(super) trouble: Option<Trouble>,
    /// To the address that was the first to take it.
    pub(super) stream: Option<TcpStream>,
}

/// What came of one address.
struct Tried {
    address: SocketAddr,
    /// None: connected.
    failed: Option<Failed>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Failed {
    Silent,
    Io(ErrorKind),
}

impl Failed {
    fn trouble(self) -> Trouble {
        match self {
            Self::Silent => Trouble::Filtered,
            Self::Io(kind) => io_trouble(kind).unwrap_or(Trouble::Unreachable),
        }
    }
}

pub(super) async fn connect(addresses: &[IpAddr], port: u16, bound: Duration) -> Connected {
    let mut tries = JoinSet::new();
    for (place, &address) in addresses.iter().enumerate() {
        let address = SocketAddr::new(address, port);
        tries.spawn(async move {
            let began = Instant::now();
            let outcome = timeout(bound, TcpStream::connect(address)).await;
            (place, address, began.elapsed(), outcome)
        });
    }
    let (mut all, mut words, mut stream) = (Vec::new(), Vec::new(), None);
    while let Some(joined) = tries.join_next().await {
        let Ok((place, address, took, outcome)) = joined else { continue };
        let (failed, text) = match outcome {
            Ok(Ok(connected)) => {
                stream.get_or_insert(connected);
                (None, span(took))
            }
            Ok(Err(error)) => (Some(Failed::Io(error.kind())), of_io(&error)),
            Err(_) => (Some(Failed::Silent), format!("no answer in {}", span(bound))),
        };
        all.push(Tried { address, failed });
        words.push((place, format!("{address} {text}")));
    }
    words.sort();
    let mut seen = words.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("; ");
    let trouble = judge(&all);
    if stream.is_some() && trouble.is_none() && all.iter().any(lacks_ipv6) {
        seen += " (this machine has no IPv6)";
    }
    Connected { seen, trouble, stream }
}

/// A machine without IPv6 is none with a fault.
fn lacks_ipv6(tried: &Tried) -> bool {
    tried.address.is_ipv6()
        && tried.failed.is_some_and(|failed| failed.trouble() == Trouble::Unreachable)
}

fn judge(all: &[Tried]) -> Option<Trouble> {
    let troubles = || all.iter().filter_map(|tried| tried.failed).map(Failed::trouble);
    if all.iter().any(|tried| tried.failed.is_none()) {
        let of_ipv6 = || all.iter().filter(|tried| tried.address.is_ipv6());
        let is_black_hole = of_ipv6().all(|tried| tried.failed.is_some())
            && of_ipv6().any(|tried| tried.failed == Some(Failed::Silent));
        return is_black_hole.then_some(Trouble::BlackHoledIpv6);
    }
    // An answer says more than none, and none more than that there is no way to ask.
    let ranked = [Trouble::Refused, Trouble::Reset, Trouble::Filtered];
    let found = ranked.into_iter().find(|&ranked| troubles().any(|trouble| trouble == ranked));
    Some(found.unwrap_or(Trouble::Unreachable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_addresses_prove() {
        use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
        const OK: Option<Failed> = None;
        const SILENT: Option<Failed> = Some(Failed::Silent);
        let io = |kind| Some(Failed::Io(kind));
        let check = |tried: &[(&str, Option<Failed>)], expected: Option<Trouble>| {
            let all: Vec<Tried> = tried
                .iter()
                .map(|&(address, failed)| Tried {
                    address: SocketAddr::new(address.parse().unwrap(), 443),
                    failed,
                })
                .collect();
            let shown: Vec<_> = tried.iter().map(|(address, _)| address).collect();
            assert_eq!(judge(&all), expected, "{shown:?}");
        };
        let (a, b, six, other_six) = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2");
        check(&[(a, OK)], None);
        check(&[(a, OK), (b, io(ConnectionRefused))], None);
        check(&[(a, OK), (b, SILENT)], None);
        check(&[(a, OK), (six, io(NetworkUnreachable))], None);
        check(&[(a, OK), (six, SILENT)], Some(Trouble::BlackHoledIpv6));
        check(&[(a, OK), (six, SILENT), (other_six, OK)], None);
        check(&[(a, SILENT), (six, OK)], None);
        check(&[(a, io(ConnectionRefused))], Some(Trouble::Refused));
        check(&[(a, io(ConnectionRefused)), (six, SILENT)], Some(Trouble::Refused));
        check(&[(a, SILENT), (six, io(NetworkUnreachable))], Some(Trouble::Filtered));
        check(
            &[(a, io(HostUnreachable)), (six, io(NetworkUnreachable))],
            Some(Trouble::Unreachable),
        );
    }
}
