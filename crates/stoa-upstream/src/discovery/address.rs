//! The address filter: a module's path chooses the host that is asked about it, and whoever chooses a path must not be
//! able to make this server speak to its own network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use stoa_module::ErrorClass;
use url::Host;

use crate::examine::Trouble;
use crate::failure::{Fault, Stage};

/// A host whose addresses are all of the kind that only this network reaches.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("its address {0} is not a public one")]
pub(crate) struct NotPublic(pub(crate) IpAddr);

impl NotPublic {
    pub(crate) fn fault(&self) -> Fault {
        Fault::new(ErrorClass::Denied, Stage::Dns, self.to_string())
            .proves(Trouble::NotPublic)
            .hint("if the host is one of yours, name it in the server's GOPRIVATE, GONOPROXY or a route")
    }
}

/// The address that a host is given by, in any of its spellings, if it is given by one and not by a name.
pub(crate) fn literal_address(host: &str) -> Option<IpAddr> {
    match Host::parse(host) {
        Ok(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
        Ok(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
        _ => host.trim_matches(['[', ']']).parse().ok(),
    }
}

/// Whether everybody reads the same host in the address of a repository. git, curl, ssh and we have parsers of our own,
/// and where they differ the address filter would look at another host than git speaks to: a backslash, which is a slash
/// to browsers, a second `@`, a host with escapes.
pub(crate) fn names_one_host(address: &str) -> bool {
    let Some((scheme, rest)) = address.split_once("://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    let is_scheme = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
    !address.contains(|c: char| c == '\\' || c.is_whitespace() || c.is_control())
        && authority.matches('@').count() <= 1
        && scheme.bytes().all(is_scheme)
        && host.bytes().all(is_plain)
        && !host.starts_with('-')
}

/// Whether the address is one of the public internet: not of this machine, this link, a private network, a cloud's
/// metadata service, or a range that is set apart (IANA's special-purpose registries).
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, _, _)
            | (100, 64..=127, _)
            // Azure's platform, which every machine there reaches.
            | (168, 63, 129)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let low = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // An IPv4 address in another dress: mapped, translated (NAT64), 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, lower] | [0x64, 0xff9b, 0, 0, 0, 0, high, lower] => {
            low(high, lower)
        }
        [0x2002, high, lower, ..] => low(high, lower),
        // Documentation, Teredo, ORCHID and benchmarking.
        [0x2001, 0x0db8 | 0..=0x01ff, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Global unicast; everything else is local, set apart or not given out.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

/// A resolver that gives only public addresses.
pub(crate) struct PublicOnly(pub(crate) Arc<dyn Resolve>);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let resolving = self.0.resolve(name);
        Box::pin(async move {
            let mut refused = None;
            let mut public = Vec::new();
            for address in resolving.await? {
                if is_public(address.ip()) {
                    public.push(address);
                } else {
                    refused = Some(NotPublic(address.ip()));
                }
            }
            match (public.is_empty(), refused) {
                (true, Some(refused)) => Err(refused.into()),
                _ => Ok(Box::new(public.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn public_addresses() {
        let check = |address: &str, expected: bool| {
            assert_eq!(is_public(address.parse().unwrap()), expected, "{address}");
        };
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "140.82.121.4",
            "172.15.0.1",
            "172.32.0.1",
            "100.63.0.1",
            "100.128.0.1",
            "168.63.128.16",
            "169.253.1.1",
            "192.0.1.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "203.0.112.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00:1450::1",
            "2001:4860:4860::8888",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            check(public, true);
        }
        for other in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2001:20::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "5f00::1",
        ] {
            check(other, false);
        }
    }

    #[test]
    fn addresses_that_all_read_alike() {
        for address in [
            "https://git.ex.com/r",
            "https://me@git.ex.com:8443/a@b/r?x=1#y",
            "ssh://git@[2001:db8::1]:22/r",
            "git+ssh://git.ex.com/r",
            "http://127.0.0.1:80/r",
            "file:///srv/git/r",
        ] {
            assert!(names_one_host(address), "{address}");
        }
        for address in [
            r"https://evil.com\@127.0.0.1:8099/x",
            r"https://evil.com/\@127.0.0.1/x",
            "https://a@evil.com@127.0.0.1/x",
            "ssh://127.0.0.1%2fx.evil.com/r",
            "ssh://-oProxyCommand=x/r",
            "ssh://-x/r",
            "https://evil.com\t@127.0.0.1/x",
            "https://ev\u{ff49}l.com/x",
            "ext::sh://x/y",
            "git.ex.com:r",
            "",
        ] {
            assert!(!names_one_host(address), "{address}");
        }
    }

    #[derive(Debug)]
    struct Fixed(Vec<SocketAddr>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let found = self.0.clone();
            Box::pin(async move { Ok(Box::new(found.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn what_is_not_public_is_left_out() {
        let resolve = async |addresses: &[&str]| {
            let fixed = addresses.iter().map(|a| SocketAddr::new(a.parse().unwrap(), 0)).collect();
            let resolver = PublicOnly(Arc::new(Fixed(fixed)));
            let found = resolver.resolve("example.com".parse().unwrap()).await;
            found.map(|found| found.map(|one| one.ip().to_string()).collect::<Vec<_>>())
        };
        assert_eq!(resolve(&["10.0.0.1", "8.8.8.8", "::1"]).await.unwrap(), ["8.8.8.8"]);
        let error = resolve(&["10.0.0.1"]).await.unwrap_err();
        assert!(error.downcast_ref::<NotPublic>().is_some(), "{error}");
        assert!(resolve(&[]).await.unwrap().is_empty());
    }
}
