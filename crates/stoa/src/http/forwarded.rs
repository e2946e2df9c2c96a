//! What proxies before this server say of a request: who asked, and under which URL. Only those of
//! `server.trusted-proxies` are believed, and what is strange is passed over.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, header};
use stoa_core::Asker;

use crate::config::TrustedProxies;
use crate::server::{Peer, Way};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Longest host or prefix that goes into a page, in bytes.
const MAX_WORD: usize = 255;

/// Who asked: the peer, or the nearest address that no trusted proxy has.
///
/// Each proxy appends the address of whom it was asked by, so that the list is read from its end; what is before the
/// first address that nobody vouches for is that client's own invention.
pub fn client(trusted: &TrustedProxies, peer: Peer, headers: &HeaderMap) -> Peer {
    if !is_trusted(trusted, peer) {
        return peer;
    }
    let mut client = peer;
    let lists = headers.get_all(FOR).iter().rev();
    // From its end, value by value; one that is no text ends the chain of those who can be believed.
    for address in lists.map_while(|list| list.to_str().ok()).flat_map(|list| list.rsplit(',')) {
        let Some(address) = address_in(address.trim()) else { break };
        client = Peer::Address(address);
        if !trusted.trusts(address) {
            break;
        }
    }
    client
}

/// The client as rates count it.
pub fn asker(trusted: &TrustedProxies, way: Option<&Way>, headers: &HeaderMap) -> Asker {
    match way.map(|way| client(trusted, way.peer, headers)) {
        Some(Peer::Address(address)) => address.into(),
        Some(Peer::Unix) | None => Asker::Local,
    }
}

fn is_trusted(trusted: &TrustedProxies, peer: Peer) -> bool {
    match peer {
        Peer::Address(address) => trusted.trusts(address),
        Peer::Unix => trusted.trusts_unix(),
    }
}

/// An address, which some proxies write with a port.
fn address_in(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|address: SocketAddr| address.ip()));
    address.map(|address| address.to_canonical())
}

/// The URL under which the reader of a page reached this server, without `server.path-prefix` and without a slash at
/// its end. What clients send goes into a page, so it must look like what it should be.
pub fn origin<B>(trusted: &TrustedProxies, request: &Request<B>, otherwise: &str) -> String {
    let headers = request.headers();
    let way = request.extensions().get::<Way>();
    let believed = way.is_some_and(|way| is_trusted(trusted, way.peer));
    // Of several values, the first is what the first proxy saw.
    let said = |name: &HeaderName| -> Option<&str> {
        let value = headers.get(name).filter(|_| believed)?.to_str().ok()?;
        value.split(',').next().map(str::trim)
    };
    let tls = match said(&PROTO) {
        Some(proto) if proto.eq_ignore_ascii_case("https") => true,
        Some(proto) if proto.eq_ignore_ascii_case("http") => false,
        _ => way.is_some_and(|way| way.tls),
    };
    let own = || {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.or_else(|| request.uri().authority().map(Authority::as_str))
    };
    let host = said(&HOST).filter(|host| is_host(host)).or_else(|| own().filter(|h| is_host(h)));
    let prefix = said(&PREFIX).filter(|prefix| is_prefix(prefix)).unwrap_or("");
    let scheme = if tls { "https" } else { "http" };
    format!("{scheme}://{}{}", host.unwrap_or(otherwise), prefix.trim_end_matches('/'))
}

/// A host and perhaps a port.
fn is_host(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    !text.is_empty() && text.len() <= MAX_WORD && text.bytes().all(known)
}

fn is_prefix(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    text.starts_with('/')
        && !text.starts_with("//")
        && text.len() <= MAX_WORD
        && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> TrustedProxies {
        let items = ["10.0.0.0/8", "fd00::/8", "unix"].map(str::to_owned);
        TrustedProxies::parse(&items).unwrap()
    }

    fn peer(text: &str) -> Peer {
        text.parse().map_or(Peer::Unix, Peer::Address)
    }

    #[test]
    fn the_client_is_the_nearest_whom_no_trusted_proxy_is() {
        let check = |from: &str, lists: &[&str], expected: &str| {
            let mut headers = HeaderMap::new();
            for list in lists {
                headers.append(FOR, list.parse().unwrap());
            }
            let found = client(&trusted(), peer(from), &headers).to_string();
            assert_eq!(found, expected, "{from} {lists:?}");
        };
        check("10.0.0.1", &[], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.7"], "198.51.100.7");
        check("unix", &["198.51.100.7"], "198.51.100.7");
        check("unix", &[], "unix");
        check("fd00::1", &["2001:db8::7"], "2001:db8::7");
        // Nobody else is believed.
        check("198.51.100.1", &["198.51.100.7"], "198.51.100.1");
        // What the client itself had written is not looked at.
        check("10.0.0.1", &["203.0.113.9, 198.51.100.7"], "198.51.100.7");
        check("10.0.0.1", &["203.0.113.9, 198.51.100.7, 10.9.9.9"], "198.51.100.7");
        check("10.0.0.1", &["203.0.113.9", "198.51.100.7", "10.9.9.9"], "198.51.100.7");
        // All of them are ours: the first in the chain.
        check("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        // With ports, in brackets, in the other family's form.
        check("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7");
        check("10.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7");
        check("10.0.0.1", &["[2001:db8::7]"], "2001:db8::7");
        check("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7");
        // Strange words end the chain.
        check("10.0.0.1", &["unknown"], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.7, unknown, 10.0.0.2"], "10.0.0.2");
        check("10.0.0.1", &["", ","], "10.0.0.1");
        check("10.0.0.1", &["198.51.100.7", "\u{f6}"], "10.0.0.1");
    }

    #[test]
    fn the_url_is_the_one_that_the_proxy_was_asked_for() {
        let check = |from: &str, tls: bool, given: &[(&str, &str)], expected: &str| {
            let mut request = Request::new(());
            for (name, value) in given {
                request
                    .headers_mut()
                    .append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
            }
            request.extensions_mut().insert(Way { peer: peer(from), tls });
            assert_eq!(origin(&trusted(), &request, "127.0.0.1:3000"), expected, "{given:?}");
        };
        let (host, fhost) = ("host", "x-forwarded-host");
        let (proto, prefix) = ("x-forwarded-proto", "x-forwarded-prefix");
        check("unix", false, &[], "http://127.0.0.1:3000");
        check("192.0.2.1", false, &[(host, "stoa:3000")], "http://stoa:3000");
        check("192.0.2.1", true, &[(host, "stoa")], "https://stoa");
        check("192.0.2.1", true, &[(host, "<b>")], "https://127.0.0.1:3000");
        let all = [(host, "up"), (fhost, "go.example.com"), (proto, "https"), (prefix, "/go/")];
        check("10.0.0.1", false, &all, "https://go.example.com/go");
        check("192.0.2.1", false, &all, "http://up");
        check("10.0.0.1", true, &[(host, "up"), (proto, "http, https")], "http://up");
        check("10.0.0.1", false, &[(host, "up"), (proto, "HTTPS")], "https://up");
        for (name, strange) in [
            (fhost, "a b"),
            (fhost, ""),
            (proto, "ftp"),
            (prefix, "//evil"),
            (prefix, "x"),
            (prefix, "/\""),
        ] {
            check("10.0.0.1", false, &[(host, "up"), (name, strange)], "http://up");
        }
    }
}
