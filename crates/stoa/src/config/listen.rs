//! Where to listen, below which path, and whose word about a client is taken.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::mistakes::Mistake;
use super::places::Places;
use super::value::ListenAddress;
use super::{Config, Server};
use crate::server::tls;

/// Longest path of a unix socket in bytes; Linux keeps 108 with the zero at the end.
const MAX_SOCKET_PATH: usize = 107;

/// Where a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    Tcp(ListenAddress),
    /// A unix socket in the file system.
    Unix(PathBuf),
}

impl Listen {
    /// An address, or `unix:` and a path.
    pub(super) fn parse(text: &str, places: &Places<'_>) -> Result<Self, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return ListenAddress::parse(text).map(Self::Tcp);
        };
        let path = places.path(path)?;
        let length = path.as_os_str().len();
        if length > MAX_SOCKET_PATH {
            return Err(format!(
                "{text:?}: the path of a socket has at most {MAX_SOCKET_PATH} bytes, not {length}"
            ));
        }
        Ok(Self::Unix(path))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The permissions of a socket's file, written as chmod has them: `0660`.
pub(super) fn unix_mode(text: &str) -> Result<u32, String> {
    let wrong = || format!("{text:?} are no permissions: write them in quotes, like \"0660\"");
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mode = u32::from_str_radix(text, 8).map_err(|_| wrong())?;
    if digits && mode <= 0o777 { Ok(mode) } else { Err(wrong()) }
}

/// The path below which everything is; empty, or like `/goproxy` or `/go/proxy`.
pub(super) fn path_prefix(text: &str) -> Result<String, String> {
    let wrong = |why: &str| Err(format!("{text:?} {why}: write /goproxy, or nothing"));
    if text.is_empty() {
        return Ok(String::new());
    }
    let Some(segments) = text.strip_prefix('/') else { return wrong("does not begin with /") };
    if segments.is_empty() || text.ends_with('/') {
        return wrong("ends with /");
    }
    for segment in segments.split('/') {
        if segment.is_empty() || segment == "." || segment == ".." {
            return wrong("has an empty segment or one of dots");
        }
        // What no client or proxy before us writes in two ways; an @ would be taken for the protocol's own.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
        if !segment.bytes().all(plain) {
            return wrong("has other characters than letters, digits, - . _ ~");
        }
    }
    Ok(text.to_owned())
}

/// What is wrong with settings that are each right by themselves.
pub(super) fn mistakes(config: &Config) -> Vec<Mistake> {
    let Server { listen, admin_listen, tls_cert, tls_key, .. } = &config.server;
    let mut found = Vec::new();
    let mut mistake = |key: &str, problem: String| {
        let origin = config.origin(key);
        found.push(Mistake { origin, key: key.to_owned(), problem });
    };
    match (tls_cert, tls_key) {
        (Some(cert), Some(key)) => {
            if let Err(problem) = tls::check(cert, key) {
                mistake("server.tls-cert", problem);
            }
        }
        (Some(_), None) => mistake("server.tls-cert", "needs server.tls-key too".to_owned()),
        (None, Some(_)) => mistake("server.tls-key", "needs server.tls-cert too".to_owned()),
        (None, None) => {}
    }
    let picked = matches!(listen, Listen::Tcp(address) if address.port == 0);
    if admin_listen.as_ref() == Some(listen) && !picked {
        mistake("server.admin-listen", "is the same as server.listen: leave it empty".to_owned());
    }
    found
}

/// Whose word about the client is taken: proxies of ours, by their addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Vec<IpNet>,
    /// Whoever comes over a unix socket.
    unix: bool,
}

impl TrustedProxies {
    /// Addresses, networks like `10.0.0.0/8`, and `unix`.
    pub fn parse(items: &[String]) -> Result<Self, String> {
        let mut proxies = Self::default();
        for item in items {
            let item = item.trim();
            if item == "unix" {
                proxies.unix = true;
                continue;
            }
            let network = item.parse().map(|address: IpAddr| IpNet::from(address.to_canonical()));
            match network.or_else(|_| item.parse::<IpNet>()) {
                Ok(network) => proxies.networks.push(network.trunc()),
                Err(_) => {
                    return Err(format!(
                        "{item:?} is no address: write 10.0.0.1, 10.0.0.0/8, fd00::/8 or unix"
                    ));
                }
            }
        }
        Ok(proxies)
    }

    /// As it is written, item by item.
    pub(super) fn items(&self) -> Vec<String> {
        let unix = self.unix.then(|| "unix".to_owned());
        self.networks.iter().map(ToString::to_string).chain(unix).collect()
    }

    /// `address` must be canonical: an IPv4 address is not written as an IPv6 one.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    pub fn trusts_unix(&self) -> bool {
        self.unix
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    #[test]
    fn listeners() {
        let env = BTreeMap::from([("HOME".to_owned(), "/home/gopher".to_owned())]);
        let places = Places::new(&env, Path::new("/work"));
        let check = |input: &str, expected: &str| {
            let listen = Listen::parse(input, &places);
            let shown = listen.map_or_else(|problem| problem, |listen| listen.to_string());
            assert!(shown.contains(expected), "{input}: {shown}");
        };
        check(":3000", ":3000");
        check("unix:/run/stoa.sock", "unix:/run/stoa.sock");
        check("unix:stoa.sock", "unix:/work/stoa.sock");
        check("unix:~/stoa.sock", "unix:/home/gopher/stoa.sock");
        check("unix:", "must be a path, not empty");
        check(&format!("unix:/{}", "x".repeat(107)), "at most 107 bytes, not 108");
        check("unix", "has no port");
    }

    #[test]
    fn modes() {
        for (input, expected) in [
            ("0660", Ok(0o660)),
            ("600", Ok(0o600)),
            ("0777", Ok(0o777)),
            ("1777", Err(())),
            ("0680", Err(())),
            ("432", Ok(0o432)),
            ("66", Err(())),
            ("+660", Err(())),
            ("rw-rw----", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(unix_mode(input).map_err(drop), expected, "{input:?}");
        }
    }

    #[test]
    fn prefixes() {
        for good in ["", "/goproxy", "/go/proxy", "/a.b-c_d~e"] {
            assert_eq!(path_prefix(good).as_deref(), Ok(good));
        }
        for (bad, why) in [
            ("goproxy", "begin with /"),
            ("/", "ends with /"),
            ("/goproxy/", "ends with /"),
            ("/a//b", "empty segment"),
            ("/a/../b", "of dots"),
            ("/.", "of dots"),
            ("/a@b", "other characters"),
            ("/a b", "other characters"),
            ("/a%20b", "other characters"),
            ("/a?b", "other characters"),
            ("/sch\u{f6}n", "other characters"),
        ] {
            let problem = path_prefix(bad).unwrap_err();
            assert!(problem.contains(why), "{bad}: {problem}");
        }
    }

    #[test]
    fn proxies_are_trusted_by_address() {
        let items = ["10.1.2.3/8", "192.168.0.1", "fd00::/8", "::ffff:172.16.0.9", "unix"];
        let proxies = TrustedProxies::parse(&items.map(str::to_owned)).unwrap();
        assert_eq!(
            proxies.items(),
            ["10.0.0.0/8", "192.168.0.1/32", "fd00::/8", "172.16.0.9/32", "unix"]
        );
        let trusts = |address: &str| proxies.trusts(address.parse().unwrap());
        for address in ["10.255.0.1", "192.168.0.1", "fd12::1", "172.16.0.9"] {
            assert!(trusts(address), "{address}");
        }
        for address in ["11.0.0.1", "192.168.0.2", "fe80::1", "::1"] {
            assert!(!trusts(address), "{address}");
        }
        assert!(proxies.trusts_unix() && !TrustedProxies::default().trusts_unix());
        for bad in ["10.0.0.0/33", "10.0.0", "localhost", "*", ""] {
            let problem = TrustedProxies::parse(&[bad.to_owned()]).unwrap_err();
            assert!(problem.contains("is no address"), "{problem}");
        }
    }
}
