//! Which addresses a name has, and who says so.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::Resolve;

use crate::client::names::is_absence;
use crate::discovery::{is_public, literal_address};
use crate::examine::Trouble;
use crate::failure::span;

/// Addresses that are looked at.
const MOST: usize = 16;
/// Of a file of the system's; what is beyond is not looked at.
const MAX_FILE: u64 = 1 << 20;
/// Which the C library asks, too.
const NAMESERVERS: usize = 3;

pub(super) struct Resolver {
    pub(super) resolver: Arc<dyn Resolve>,
    /// Whether it is the system's, which tells whom it asks.
    pub(super) is_system: bool,
}

pub(super) struct Found {
    pub(super) seen: String,
    pub(super) trouble: Option<Trouble>,
    pub(super) addresses: Vec<IpAddr>,
}

/// Looks a name up. `public_only` is the address filter.
pub(super) async fn look_up(
    resolver: &Resolver,
    host: &str,
    bound: Duration,
    public_only: bool,
) -> Found {
    let failed = |seen, trouble| Found { seen, trouble: Some(trouble), addresses: Vec::new() };
    let (mut addresses, from) = if let Some(address) = literal_address(host) {
        (vec![address], "literal address".to_owned())
    } else {
        let asked = resolver.asked().await;
        let Ok(name) = host.parse() else {
            return failed(format!("{host} is no name of a host"), Trouble::NameNotResolved);
        };
        match tokio::time::timeout(bound, resolver.resolver.resolve(name)).await {
            Err(_) => {
                let seen = format!("no answer about {host} in {} ({asked})", span(bound));
                return failed(seen, Trouble::ResolverSilent);
            }
            Ok(Err(error)) => {
                let words = error.to_string();
                let bare = words.strip_prefix("failed to lookup address information: ");
                let bare = bare.unwrap_or(&words);
                // Whoever is asked has not said that there is no such name.
                let trouble = if is_absence(bare) {
                    Trouble::NameNotResolved
                } else {
                    Trouble::ResolverSilent
                };
                return failed(format!("{host}: {bare} ({asked})"), trouble);
            }
            Ok(Ok(found)) => {
                let found = unique(found.map(|address: SocketAddr| address.ip()));
                let from = if resolver.is_system && is_in_hosts(host, &found).await {
                    "hosts file".to_owned()
                } else {
                    asked
                };
                (found, from)
            }
        }
    };
    if addresses.is_empty() {
        return failed(format!("{host} has no address ({from})"), Trouble::NameNotResolved);
    }
    let text = list(&addresses);
    if public_only {
        addresses.retain(|&address| is_public(address));
    }
    if addresses.is_empty() {
        let seen = format!(
            "{text} ({from}): not public; if the host is one of yours, name it in GOPRIVATE, GONOPROXY \
             or a route"
        );
        return failed(seen, Trouble::NotPublic);
    }
    Found { seen: format!("{text} ({from})"), trouble: None, addresses }
}

/// The resolver may say one several times, for each kind of socket.
fn unique(found: impl Iterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
        if addresses.len() == MOST {
            break;
        }
    }
    addresses
}

fn list(addresses: &[IpAddr]) -> String {
    let mut text = addresses.iter().take(4).map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if addresses.len() > 4 {
        _ = write!(text, " and {} more", addresses.len() - 4);
    }
    text
}

impl Resolver {
    /// Whom a name is asked of, for a person.
    async fn asked(&self) -> String {
        if !self.is_system {
            return "a resolver of this program".to_owned();
        }
        let text = read("/etc/resolv.conf").await.unwrap_or_default();
        match nameservers(&text).as_slice() {
            [] => "system resolver, no nameserver in /etc/resolv.conf".to_owned(),
            [one] => format!("system resolver, nameserver {one}"),
            several => format!("system resolver, nameservers {}", several.join(", ")),
        }
    }
}

fn nameservers(resolv_conf: &str) -> Vec<&str> {
    let servers = resolv_conf.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    servers.filter(|server| server.len() <= 64).take(NAMESERVERS).collect()
}

async fn is_in_hosts(host: &str, found: &[IpAddr]) -> bool {
    let text = read("/etc/hosts").await.unwrap_or_default();
    found.iter().any(|address| says(&text, host, *address))
}

/// Whether a hosts file gives a name this address.
fn says(hosts: &str, host: &str, address: IpAddr) -> bool {
    hosts.lines().any(|line| {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        words.next().and_then(|word| word.parse::<IpAddr>().ok()) == Some(address)
            && words.any(|name| name.eq_ignore_ascii_case(host))
    })
}

async fn read(path: &'static str) -> Option<String> {
    let read = move || {
        let mut text = Vec::new();
        let file = fs_err::File::open(path).ok()?;
        std::io::Read::read_to_end(&mut std::io::Read::take(file, MAX_FILE), &mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    };
    tokio::task::spawn_blocking(read).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_of_a_file() {
        let text = "# nameserver 1.1.1.1\nsearch corp\nnameserver 10.0.0.2\n\tnameserver\t::1 # x\n\
                    nameserver\nnameserver 3\nnameserver 4\n";
        assert_eq!(nameservers(text), ["10.0.0.2", "::1", "3"]);
        assert!(nameservers("").is_empty());
    }

    #[test]
    fn hosts_of_a_file() {
        let text =
            "127.0.0.1 localhost\n10.0.0.7\tProxy.corp alias # other\n#10.0.0.8 proxy.corp\nx y\n";
        let check = |host: &str, address: &str, expected| {
            assert_eq!(says(text, host, address.parse().unwrap()), expected, "{host} {address}");
        };
        check("proxy.corp", "10.0.0.7", true);
        check("alias", "10.0.0.7", true);
        check("other", "10.0.0.7", false);
        check("proxy.corp", "10.0.0.8", false);
        check("y", "127.0.0.1", false);
    }
}
