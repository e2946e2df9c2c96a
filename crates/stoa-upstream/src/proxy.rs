//! Which outgoing proxy a request takes: the rules of Go's golang.org/x/net/http/httpproxy, not reqwest's own, which
//! also read `ALL_PROXY`, let loopback go through the proxy, and know neither ports nor `*.` in `NO_PROXY`.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

use crate::error::Error;
use crate::source::{redacted, without_credentials};

/// The values of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. `Debug` shows no password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyEnvironment {
    /// For `http:` addresses: a URL (`http`, `https`, `socks5`, `socks5h`) or `host[:port]`.
    pub http: Option<String>,
    /// For `https:` addresses.
    pub https: Option<String>,
    /// What is asked without a proxy: `*`, or names (with their subdomains), `.names` (subdomains only), addresses and
    /// CIDR blocks, each but the last with a port if wanted, separated by commas.
    pub no: Option<String>,
}

impl ProxyEnvironment {
    /// Reads the variables of this process; an upper-case one wins over its lower-case twin.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    /// The same of other variables.
    pub fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |names: [&str; 2]| {
            let mut values = names.into_iter().filter_map(&variable);
            values.find(|value| !value.is_empty())
        };
        Self {
            http: named(["HTTP_PROXY", "http_proxy"]),
            https: named(["HTTPS_PROXY", "https_proxy"]),
            no: named(["NO_PROXY", "no_proxy"]),
        }
    }

    /// The proxy that a request to this address takes, without its credentials; none if it takes none.
    ///
    /// # Errors
    /// A proxy, this or another, whose address cannot be used.
    pub fn proxy_of(&self, target: &Url) -> Result<Option<Url>, Error> {
        Ok(Proxies::new(self)?.find(target).map(without_credentials))
    }
}

impl fmt::Debug for ProxyEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| {
            value.as_ref().map(|value| match address(value) {
                Ok(url) => redacted(&url),
                Err(_) => "(invalid)".to_owned(),
            })
        };
        f.debug_struct("ProxyEnvironment")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("no", &self.no)
            .finish()
    }
}

/// The rules, ready to be asked. `Debug` shows no password.
#[derive(Clone)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Vec<Exception>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Exception {
    Everything,
    Block {
        network: IpAddr,
        bits: u8,
    },
    Address {
        ip: IpAddr,
        port: Option<String>,
    },
    /// `suffix` begins with a dot; `itself` tells whether the name without the dot is meant as well.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<String>,
    },
}

impl Proxies {
    pub(crate) fn new(environment: &ProxyEnvironment) -> Result<Self, Error> {
        let proxy = |variable, value: &Option<String>| match value.as_deref() {
            None | Some("") => Ok(None),
            Some(value) => match address(value) {
                Ok(url) => Ok(Some(url)),
                Err(reason) => Err(Error::InvalidProxy { variable, reason }),
            },
        };
        let no = environment.no.as_deref().unwrap_or_default();
        Ok(Self {
            http: proxy("HTTP_PROXY", &environment.http)?,
            https: proxy("HTTPS_PROXY", &environment.https)?,
            exceptions: no.split(',').filter_map(exception).collect(),
        })
    }

    /// The proxy for an address, or none if it is to be reached directly.
    pub(crate) fn find(&self, target: &Url) -> Option<&Url> {
        let proxy = match target.scheme() {
            "https" => self.https.as_ref(),
            "http" => self.http.as_ref(),
            _ => None,
        }?;
        let port = target.port_or_known_default()?;
        let direct = match target.host()? {
            Host::Domain("localhost") => true,
            Host::Domain(name) => {
                self.exceptions.iter().any(|exception| exception.covers_name(name, port))
            }
            Host::Ipv4(ip) => self.is_direct(ip.into(), port),
            Host::Ipv6(ip) => self.is_direct(ip.into(), port),
        };
        (!direct).then_some(proxy)
    }

    fn is_direct(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.exceptions.iter().any(|exception| exception.covers_ip(ip, port))
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.as_ref().map(redacted))
            .field("https", &self.https.as_ref().map(redacted))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

impl Exception {
    fn covers_name(&self, name: &str, at: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Domain { suffix, itself, port } => {
                (name.ends_with(suffix.as_str()) || *itself && name == &suffix[1..])
                    && is_port(port.as_deref(), at)
            }
            Self::Block { .. } | Self::Address { .. } => false,
        }
    }

    fn covers_ip(&self, target: IpAddr, at: u16) -> bool {
        match self {
            Self::Everything => true,
            Self::Block { network, bits } => is_within(target, *network, *bits),
            Self::Address { ip, port } => *ip == target && is_port(port.as_deref(), at),
            Self::Domain { .. } => false,
        }
    }
}

fn is_port(wanted: Option<&str>, port: u16) -> bool {
    wanted.is_none_or(|wanted| wanted == port.to_string())
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |ip: u128, network: u128, width: u8| {
        let host_bits = u32::from(width - bits);
        ip.checked_shr(host_bits) == network.checked_shr(host_bits)
    };
    match (ip, network) {
        (IpAddr::V4(ip), IpAddr::V4(network)) => {
            same(u128::from(ip.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(network)) => same(ip.to_bits(), network.to_bits(), 128),
        _ => false,
    }
}

/// A proxy's address; a bare `host[:port]` means `http:`.
fn address(value: &str) -> Result<Url, &'static str> {
    let has_host = |url: &Url| url.host_str().is_some_and(|host| !host.is_empty());
    let url = match Url::parse(value) {
        Ok(url) if has_host(&url) => url,
        _ => Url::parse(&format!("http://{value}")).map_err(|_| "it is no URL and no host:port")?,
    };
    if !has_host(&url) {
        return Err("it names no host");
    }
    match url.scheme() {
        "http" | "https" | "socks5h" => Ok(url),
        // Go lets a SOCKS proxy resolve the names under either scheme, reqwest only under this one.
        "socks5" => {
            Url::parse(&url.as_str().replacen("socks5", "socks5h", 1)).map_err(|_| "it is no URL")
        }
        _ => Err("its scheme must be http, https, socks5 or socks5h"),
    }
}

/// One item of `NO_PROXY`; what cannot be understood is skipped, as everybody else does.
fn exception(item: &str) -> Option<Exception> {
    let item = item.trim().to_lowercase();
    if item == "*" {
        return Some(Exception::Everything);
    }
    if let Some((network, bits)) = item.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u8>())
        && bits <= if network.is_ipv4() { 32 } else { 128 }
    {
        return Some(Exception::Block { network, bits });
    }
    let (host, port) = split_port(&item);
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Some(Exception::Address { ip: ip.to_canonical(), port });
    }
    let host = if host.starts_with("*.") { &host[1..] } else { host };
    let (itself, name) = match host.strip_prefix('.') {
        Some(name) => (false, name),
        None => (true, host),
    };
    if name.is_empty() {
        return None;
    }
    // Names in a parsed address are in their ASCII form already.
    let name = match Host::parse(name) {
        Ok(Host::Domain(name)) => name,
        _ => name.to_owned(),
    };
    Some(Exception::Domain { suffix: format!(".{name}"), itself, port })
}

/// Splits `host:port` and `[ip]:port`. An IPv6 address without brackets has no port.
fn split_port(item: &str) -> (&str, Option<String>) {
    if let Some(rest) = item.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':').map(str::to_owned));
    }
    match item.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port.to_owned())),
        _ => (item, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: &str = "http://proxy.test:3128/";

    fn proxies(http: &str, https: &str, no: &str) -> Proxies {
        let given = |value: &str| Some(value.to_owned());
        let environment =
            ProxyEnvironment { http: given(http), https: given(https), no: given(no) };
        Proxies::new(&environment).unwrap()
    }

    #[test]
    fn variables() {
        let check = |variables: &[(&str, &str)], http, https, no| {
            let environment = ProxyEnvironment::from_variables(|wanted| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| (*value).to_owned())
            });
            let ProxyEnvironment { http: a, https: b, no: c } = &environment;
            assert_eq!((a.as_deref(), b.as_deref(), c.as_deref()), (http, https, no));
        };
        check(&[], None, None, None);
        check(&[("HTTP_PROXY", "a"), ("http_proxy", "b")], Some("a"), None, None);
        check(&[("HTTP_PROXY", ""), ("http_proxy", "b")], Some("b"), None, None);
        check(&[("https_proxy", "a"), ("no_proxy", "b")], None, Some("a"), Some("b"));
        check(&[("HTTPS_PROXY", "a"), ("NO_PROXY", "b")], None, Some("a"), Some("b"));
        check(&[("ALL_PROXY", "a"), ("all_proxy", "b")], None, None, None);
    }

    #[test]
    fn each_scheme_has_its_proxy() {
        let check = |http: &str, https: &str, target: &str, expected: Option<&str>| {
            let proxies = proxies(http, https, "");
            let found = proxies.find(&Url::parse(target).unwrap()).map(Url::as_str);
            assert_eq!(found, expected, "{http} {https} {target}");
        };
        check("", "", "http://a.org", None);
        check("one.test", "two.test", "http://a.org", Some("http://one.test/"));
        check("one.test", "two.test", "https://a.org", Some("http://two.test/"));
        check("one.test", "", "https://a.org", None);
        check("", "two.test", "http://a.org", None);
        check("one.test:8080", "", "http://a.org", Some("http://one.test:8080/"));
        check("10.0.0.1:8080", "", "http://a.org", Some("http://10.0.0.1:8080/"));
        check("[::1]:8080", "", "http://a.org", Some("http://[::1]:8080/"));
        check("u:p@one.test:8080", "", "http://a.org", Some("http://u:p@one.test:8080/"));
        check("https://one.test", "", "http://a.org", Some("https://one.test/"));
        check("socks5://one.test", "", "http://a.org", Some("socks5h://one.test"));
        check("", "socks5h://u:p@one.test:1", "https://a.org", Some("socks5h://u:p@one.test:1"));
    }

    #[test]
    fn the_proxy_of_an_address_without_its_login() {
        let environment = |http: &str| ProxyEnvironment {
            http: Some(http.to_owned()),
            https: None,
            no: Some("b.org".to_owned()),
        };
        let check = |http: &str, target: &str, expected: Result<Option<&str>, ()>| {
            let found = environment(http).proxy_of(&Url::parse(target).unwrap()).map_err(|_| ());
            let found = found.map(|found| found.map(|url| url.to_string()));
            assert_eq!(found, expected.map(|url| url.map(str::to_owned)), "{http} {target}");
        };
        check("u:p@one.test", "http://a.org", Ok(Some("http://one.test/")));
        check("u:p@one.test", "http://b.org", Ok(None));
        check("u:p@one.test", "https://a.org", Ok(None));
        check("ftp://one.test", "https://a.org", Err(()));
    }

    #[test]
    fn exceptions() {
        let check = |no: &str, target: &str, proxied: bool| {
            let proxies = proxies(PROXY, PROXY, no);
            let found = proxies.find(&Url::parse(target).unwrap());
            assert_eq!(found.is_some(), proxied, "NO_PROXY={no} {target}");
        };
        // This machine is always reached directly.
        check("", "http://localhost:3000", false);
        check("", "https://localhost", false);
        check("", "http://LOCALHOST", false);
        check("", "http://127.0.0.1", false);
        check("", "http://127.9.9.9:80", false);
        check("", "http://[::1]", false);
        check("", "http://[::ffff:127.0.0.1]", false);
        check("", "http://localhost.example.com", true);
        check("", "http://128.0.0.1", true);
        check("*", "http://a.org", false);
        check("b.org,*", "http://10.0.0.1", false);
        check("a.*", "http://a.org", true);
        // Names cover what is below them.
        check("a.org", "https://a.org", false);
        check("a.org", "https://b.a.org", false);
        check("a.org", "https://ba.org", true);
        check("a.org", "https://a.org.uk", true);
        check("A.org", "https://a.ORG", false);
        check(" b.org , a.org ", "https://a.org", false);
        check(".a.org", "https://a.org", true);
        check(".a.org", "https://b.a.org", false);
        check("*.a.org", "https://a.org", true);
        check("*.a.org", "https://b.c.a.org", false);
        check("bücher.example", "https://xn--bcher-kva.example", false);
        // Ports.
        check("a.org:443", "https://a.org", false);
        check("a.org:443", "http://a.org", true);
        check("a.org:8080", "http://a.org:8080", false);
        check("10.0.0.1:80", "http://10.0.0.1", false);
        check("10.0.0.1:81", "http://10.0.0.1", true);
        check("[2001:db8::1]:80", "http://[2001:db8::1]", false);
        check("[2001:db8::1]:81", "http://[2001:db8::1]", true);
        check("[2001:db8::1]", "http://[2001:db8::1]", false);
        check("2001:db8::1", "http://[2001:db8::1]", false);
        // Addresses and blocks.
        check("10.0.0.1", "http://10.0.0.1", false);
        check("10.0.0.1", "http://10.0.0.2", true);
        check("10.0.0.1", "http://[::ffff:10.0.0.1]", false);
        check("10.0.0.0/8", "http://10.255.0.1", false);
        check("10.0.0.0/8", "http://11.0.0.1", true);
        check("0.0.0.0/0", "http://11.0.0.1", false);
        check("10.0.0.1/32", "http://10.0.0.1", false);
        check("10.0.0.1/32", "http://10.0.0.0", true);
        check("2001:db8::/32", "http://[2001:db8:ffff::1]", false);
        check("2001:db8::/32", "http://[2001:db9::1]", true);
        check("::/0", "http://[2001:db9::1]", false);
        check("10.0.0.0/8", "http://a.org", true);
        check("10.0.0.0/8", "http://[2001:db8::1]", true);
        // What cannot be understood covers nothing.
        check("10.0.0.0/33", "http://10.0.0.1", true);
        check(",, ,:80,.", "http://a.org", true);
    }
}
