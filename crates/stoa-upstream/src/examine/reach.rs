//! The way to a host: its name, its addresses, the outgoing proxy before it, its certificates.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;
use url::Url;

use crate::Client;
use crate::credentials::Credentials;
use crate::discovery::{NotPublic, is_public, literal_address};
use crate::examine::http::{ask, date, first_words, status};
use crate::examine::name::{Resolver, look_up};
use crate::examine::outgoing::tunnel;
use crate::examine::tls::{Shaken, Trust, Wire, handshake};
use crate::examine::{Course, Step, Trouble, banner, tcp};
use crate::proxy::Proxies;
use crate::settings::Settings;
use crate::source::{Base, redacted, without_credentials};

/// What an examination goes by.
pub(crate) struct Means {
    pub(super) resolver: Resolver,
    pub(super) settings: Settings,
    pub(super) credentials: Arc<Credentials>,
    pub(super) proxies: Arc<Proxies>,
}

impl std::fmt::Debug for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Means").finish_non_exhaustive()
    }
}

impl Means {
    pub(crate) fn new(
        resolver: Arc<dyn reqwest::dns::Resolve>,
        is_system: bool,
        settings: Settings,
        credentials: Arc<Credentials>,
        proxies: Arc<Proxies>,
    ) -> Self {
        Self { resolver: Resolver { resolver, is_system }, settings, credentials, proxies }
    }
}

/// Whom a connection may be made to.
#[derive(Clone, Copy, Default)]
pub(super) struct Allowed {
    /// The address filter: nobody here has named the host.
    pub(super) public_only: bool,
    /// GOINSECURE: whatever the certificate is.
    pub(super) insecure: bool,
}

/// A host that can be asked something.
pub(super) struct Reached {
    /// A connection that nothing was said over yet. None through a proxy that takes no tunnel.
    pub(super) wire: Option<Box<dyn Wire>>,
}

/// All stages for an `http:` or `https:` address.
pub(super) async fn host(client: &Client, url: &Url, course: &mut Course) {
    let base = match url.scheme() {
        "http" | "https" => Base::new(url).map_err(|error| error.to_string()),
        _ => Err(format!("{} is no address of a host over http", redacted(url))),
    };
    let base = match base {
        Ok(base) => base,
        Err(why) => {
            if let Some(begun) = course.begin(Step::Name, Duration::MAX) {
                course.end(begun, &why, Trouble::NameNotResolved);
            }
            return;
        }
    };
    source(client, &base, &without_credentials(url), course).await;
}

/// All stages for an address of a source.
pub(super) async fn source(client: &Client, base: &Base, url: &Url, course: &mut Course) {
    let means = client.means();
    let Some(reached) = reach(means, url, Allowed::default(), course).await else { return };
    if let Some(begun) = course.begin(Step::Credential, Duration::MAX) {
        let origin = means.credentials.origin(base, url, false).await;
        course.end(begun, origin.as_deref().unwrap_or("none"), None);
    }
    ask(client, base, url, reached.wire, course).await;
}

/// The stages before anything is asked. None if the host cannot be asked. An address of another scheme than `http:` and
/// `https:` must have a port, and is connected to.
pub(super) async fn reach(
    means: &Means,
    url: &Url,
    allowed: Allowed,
    course: &mut Course,
) -> Option<Reached> {
    let proxy = means.proxies.find(url);
    let host = bare_host(url);
    let port = url.port_or_known_default()?;
    let target = format!("{}:{port}", url.host_str().unwrap_or_default());

    let begun = course.begin(Step::Name, Duration::MAX)?;
    let strange = literal_address(host).filter(|&address| !is_public(address));
    if let Some(address) = strange.filter(|_| allowed.public_only) {
        let fault = NotPublic(address).fault();
        let seen = format!("{host}: {fault}; {}", fault.hint.unwrap_or_default());
        course.end(begun, &seen, Trouble::NotPublic);
        return None;
    }
    let door = proxy.unwrap_or(url);
    let door_port = door.port_or_known_default().or_else(|| socks_port(door))?;
    let public_only = allowed.public_only && proxy.is_none();
    let found = look_up(&means.resolver, bare_host(door), begun.bound, public_only).await;
    let seen = match proxy {
        None => found.seen,
        Some(_) => format!("{} for the outgoing proxy, which looks {host} up itself", found.seen),
    };
    course.end(begun, &seen, found.trouble);
    if found.addresses.is_empty() {
        return None;
    }

    let begun = course.begin(Step::Tcp, tcp::PATIENCE)?;
    let connected = tcp::connect(&found.addresses, door_port, begun.bound).await;
    course.end(begun, &connected.seen, connected.trouble);
    let stream = connected.stream?;
    let peer = stream.peer_addr().ok();
    let is_tls = url.scheme() == "https";
    let Some(proxy) = proxy else {
        let wire: Box<dyn Wire> = Box::new(stream);
        if !is_tls {
            return Some(Reached { wire: Some(wire) });
        }
        return secure(means, url, allowed, wire, peer, course).await;
    };
    match through(means, proxy, &target, is_tls, stream, course).await? {
        Reached { wire: Some(wire) } => secure(means, url, allowed, wire, None, course).await,
        reached => Some(reached),
    }
}

/// Goes through the outgoing proxy, if there can be a tunnel.
async fn through(
    means: &Means,
    proxy: &Url,
    target: &str,
    is_tls: bool,
    stream: TcpStream,
    course: &mut Course,
) -> Option<Reached> {
    let name = format!(
        "{}:{}",
        proxy.host_str().unwrap_or_default(),
        proxy.port_or_known_default().or_else(|| socks_port(proxy)).unwrap_or_default()
    );
    let begun = course.begin(Step::OutgoingProxy, Duration::MAX)?;
    if !matches!(proxy.scheme(), "http" | "https") {
        let seen = format!("{name} speaks socks; what is behind it is seen by the one request");
        course.end(begun, &seen, None);
        return Some(Reached { wire: None });
    }
    if !is_tls {
        course.end(begun, &format!("{name} is asked for it, without a tunnel"), None);
        return Some(Reached { wire: None });
    }
    let mut wire: Box<dyn Wire> = Box::new(stream);
    if proxy.scheme() == "https" {
        let shaken = shake(means, bare_host(proxy), wire, begun.bound).await;
        let refused =
            shaken.trouble.or((shaken.trusted != Some(true)).then_some(Trouble::TlsFailed));
        match shaken.stream {
            Some(stream) if refused.is_none() => wire = Box::new(stream),
            _ => {
                course.end(begun, &format!("{name}: {}", shaken.seen), refused);
                return None;
            }
        }
    }
    let agent = &means.settings.user_agent;
    let (seen, trouble) = tunnel(&mut wire, proxy, target, agent, begun.left()).await;
    course.end(begun, &format!("{name}: {seen}"), trouble);
    trouble.is_none().then_some(Reached { wire: Some(wire) })
}

/// The handshake, and what the host says the time is where its certificate is not accepted. `peer` is where another
/// connection can be made to.
async fn secure(
    means: &Means,
    url: &Url,
    allowed: Allowed,
    wire: Box<dyn Wire>,
    peer: Option<SocketAddr>,
    course: &mut Course,
) -> Option<Reached> {
    let begun = course.begin(Step::Tls, Duration::MAX)?;
    let mut shaken = shake(means, bare_host(url), wire, begun.patience()).await;
    course.examined.issuer = shaken.issuer.take();
    course.examined.trusted = shaken.trusted;
    let fails = matches!(shaken.trouble, Some(Trouble::TlsFailed | Trouble::Reset));
    if shaken.is_mute
        && fails
        && let Some(peer) = peer
        && let Some(said) = plain(peer, url, begun.left()).await
    {
        let seen = format!("it speaks http without TLS: {said}");
        course.end(begun, &seen, Trouble::NotTls);
        return None;
    }
    if let Some(stream) = &mut shaken.stream
        && shaken.trouble.is_some()
    {
        // Nothing is told to whoever this is.
        let said = first_words(stream, url, begun.left()).await;
        course.dated(date(&said));
    }
    let Some(stream) = shaken.stream else {
        course.end(begun, &shaken.seen, shaken.trouble.or(Some(Trouble::TlsFailed)));
        return None;
    };
    if shaken.trouble.is_some() && allowed.insecure {
        let seen = format!("{}; taken all the same, as GOINSECURE says", shaken.seen);
        course.end(begun, &seen, None);
        return Some(Reached { wire: None });
    }
    course.end(begun, &shaken.seen, shaken.trouble);
    shaken.trouble.is_none().then(|| Reached { wire: Some(Box::new(stream)) })
}

async fn shake(
    means: &Means,
    host: &str,
    wire: Box<dyn Wire>,
    bound: Duration,
) -> Shaken<Box<dyn Wire>> {
    let ca_files = means.settings.ca_files.clone();
    let reading = tokio::task::spawn_blocking(move || Trust::read(&ca_files).map(Arc::new));
    let why = match reading.await {
        Ok(Ok(trust)) => return handshake(wire, host, &trust, bound).await,
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Shaken {
        seen: format!("the authorities cannot be read: {why}"),
        trouble: Some(Trouble::NoAuthorities),
        issuer: None,
        trusted: None,
        stream: None,
        is_mute: false,
    }
}

/// What a port that says nothing to a handshake says to plain HTTP.
async fn plain(peer: SocketAddr, url: &Url, bound: Duration) -> Option<String> {
    let asking = async {
        let mut stream = TcpStream::connect(peer).await.ok()?;
        // It may wait for more than a header, and has shown then what it is.
        Some(first_words(&mut stream, url, bound * 9 / 10).await)
    };
    let said = timeout(bound, asking).await.ok()??;
    status(&said).map(|_| banner(&said))
}

/// Without the brackets of an IPv6 address.
fn bare_host(url: &Url) -> &str {
    url.host_str().unwrap_or_default().trim_matches(['[', ']'])
}

/// The url crate knows no port of theirs.
fn socks_port(url: &Url) -> Option<u16> {
    url.scheme().starts_with("socks").then_some(1080)
}
