//! What is seen of a host, stage by stage: for a person who wants to know why nothing comes.
//!
//! An examination goes by the means that requests use (the outgoing proxy of the settings, the system's resolver, the
//! authorities and the credentials), but over connections of its own, past the pool, the names that are kept and the
//! breakers: it shall see what is so now, and change nothing for others.
//!
//! # Decisions
//!
//! - A certificate that is not accepted ends it, after one `HEAD /` for the host's date: a clock that is wrong is why most
//!   certificates of known hosts are not valid. Nothing else is sent over such a connection.
//! - A stage for which too little time is left is not begun, so that our own deadline never passes for silence.
//! - SOCKS proxies are left to reqwest: that they can be reached is seen, and then what came of the one request.
//! - What is trusted is read anew. A server that was started before its authorities changed says otherwise in the stage
//!   [`Step::Http`], whose request is made as all are.

mod certificate;
mod direct;
mod http;
mod name;
mod outgoing;
mod reach;
mod tcp;
mod tls;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use stoa_module::ModulePath;
use tokio::time::Instant;
use url::Url;

use crate::Client;
use crate::client::words::is_shown;
pub(crate) use crate::examine::reach::Means;
use crate::source::Base;

/// Characters of [`Observed::seen`].
const LONGEST: usize = 300;

/// One stage of reaching a host, as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    pub stage: Step,
    /// One line for a person, printable, at most 300 characters, without secrets:
    /// `93.184.215.14, 2606:2800::1 (system resolver, nameserver 10.0.0.2)`.
    pub seen: String,
    /// Milliseconds.
    pub took_ms: u64,
    /// None: as it should be.
    pub trouble: Option<Trouble>,
}

/// A stage of an [`Observed`], in the order in which they are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Looking up the name of the host, or of the outgoing proxy.
    Name,
    /// Connecting to every address that was found.
    Tcp,
    /// The outgoing proxy's word on the connection behind it.
    OutgoingProxy,
    /// The handshake, and the certificates in it.
    Tls,
    /// Which credential is sent, and from where it is.
    Credential,
    /// One question, and the header and the beginning of its answer.
    Http,
    /// The `git` command, and what it says.
    Git,
}

/// What is wrong, as the evidence proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trouble {
    /// The resolver says that there is no such name, or that it has no address.
    NameNotResolved,
    /// The resolver gave no answer.
    ResolverSilent,
    /// The host is one of this network, and no setting names it: the address filter lets nobody ask it.
    NotPublic,
    /// An address refuses the connection, and none takes it.
    Refused,
    /// No address answers to a connect.
    Filtered,
    /// No route, or the network is down.
    Unreachable,
    /// IPv6 addresses do not answer, IPv4 ones do.
    BlackHoledIpv6,
    /// The connection was reset, or closed without a word.
    Reset,
    /// Somebody else than the host shows a certificate for it.
    TlsIntercepted,
    CertificateExpired,
    CertificateNotYetValid,
    UnknownAuthority,
    /// The certificate is for another name.
    WrongName,
    /// Something else is spoken where TLS should be.
    NotTls,
    /// The handshake failed in some other way, or nobody answered it.
    TlsFailed,
    /// This system trusts nobody.
    NoAuthorities,
    /// The outgoing proxy does not connect to the host.
    ProxyRefuses,
    /// The outgoing proxy asks for a password, or for another one (407).
    ProxyWantsPassword,
    /// Something else is spoken where HTTP should be.
    NotHttp,
    /// No header within the bound.
    HeaderTimeout,
    /// A header without end.
    Endless,
    /// The body comes too slowly.
    Slow,
    /// 401.
    Unauthorized,
    /// 403.
    Forbidden,
    /// 429.
    RateLimited,
    /// 5xx.
    ServerError,
    /// The host's ssh key is not known, or another than the one that is known.
    HostKeyUnknown,
    /// The host does not accept the ssh key or the credential.
    KeyRefused,
    /// There is no git command.
    GitMissing,
    /// git failed, in other words.
    GitRefused,
    /// There is no repository, or none that may be seen.
    NotFound,
}

impl Step {
    /// As serde writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Tcp => "tcp",
            Self::OutgoingProxy => "outgoing-proxy",
            Self::Tls => "tls",
            Self::Credential => "credential",
            Self::Http => "http",
            Self::Git => "git",
        }
    }
}

impl Trouble {
    /// As serde writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NameNotResolved => "name-not-resolved",
            Self::ResolverSilent => "resolver-silent",
            Self::NotPublic => "not-public",
            Self::Refused => "refused",
            Self::Filtered => "filtered",
            Self::Unreachable => "unreachable",
            Self::BlackHoledIpv6 => "black-holed-ipv6",
            Self::Reset => "reset",
            Self::TlsIntercepted => "tls-intercepted",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotYetValid => "certificate-not-yet-valid",
            Self::UnknownAuthority => "unknown-authority",
            Self::WrongName => "wrong-name",
            Self::NotTls => "not-tls",
            Self::TlsFailed => "tls-failed",
            Self::NoAuthorities => "no-authorities",
            Self::ProxyRefuses => "proxy-refuses",
            Self::ProxyWantsPassword => "proxy-wants-password",
            Self::NotHttp => "not-http",
            Self::HeaderTimeout => "header-timeout",
            Self::Endless => "endless",
            Self::Slow => "slow",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate-limited",
            Self::ServerError => "server-error",
            Self::HostKeyUnknown => "host-key-unknown",
            Self::KeyRefused => "key-refused",
            Self::GitMissing => "git-missing",
            Self::GitRefused => "git-refused",
            Self::NotFound => "not-found",
        }
    }
}

/// What came of an examination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// What was gone through; the last is where it ended.
    pub steps: Vec<Observed>,
    /// What the host says the time is (`Date` of HTTP), also over a connection whose certificate is not accepted.
    pub date: Option<Timestamp>,
    /// What our own clock said then.
    pub date_at: Option<Timestamp>,
    /// Who signed the last of the certificates that the host sent, as a short name.
    pub issuer: Option<String>,
    /// Whether the certificate is accepted; nothing without TLS.
    pub trusted: Option<bool>,
}

impl Examined {
    /// What was seen to be wrong, in the order of the stages.
    pub fn troubles(&self) -> impl Iterator<Item = Trouble> {
        self.steps.iter().filter_map(|observed| observed.trouble)
    }
}

/// How long an examination may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Each stage.
    pub step: Duration,
    /// All of them.
    pub deadline: Instant,
}

impl Default for Limits {
    /// 10 s for each stage and 60 s from now on for all of them.
    fn default() -> Self {
        Self { step: Duration::from_secs(10), deadline: Instant::now() + Duration::from_mins(1) }
    }
}

impl Client {
    /// Reaches the host of an `http:` or `https:` address, asks GET of it once, and follows nothing. A credential in the
    /// address is used. The address tells no module's name unless the caller means it to.
    ///
    /// It ends after the first stage that makes the next one impossible, and at the latest at the deadline.
    pub async fn examine(&self, url: &Url, limits: &Limits) -> Examined {
        let mut course = Course::new(*limits);
        reach::host(self, url, &mut course).await;
        course.examined
    }

    /// [`Client::examine`] of a source, with the credential of its address; `path` is that of a file below it, or nothing.
    pub async fn examine_source(&self, base: &Base, path: &str, limits: &Limits) -> Examined {
        let mut course = Course::new(*limits);
        // A path that leads out of the source is none of ours.
        let url = base.join(path).ok().filter(|_| !path.is_empty());
        reach::source(self, base, &url.unwrap_or_else(|| base.root()), &mut course).await;
        course.examined
    }

    /// Finds out what becomes of a module that comes from its own repository: where that is, whether its host can be
    /// reached, with what credential or key, and what git says about it. Only what the address filter and the rules for
    /// private modules allow is asked. It needs no directory for repositories, and makes none.
    pub async fn examine_direct(&self, path: &ModulePath, limits: &Limits) -> Examined {
        let mut course = Course::new(*limits);
        direct::module(self, path, &mut course).await;
        course.examined
    }
}

/// An examination under way.
struct Course {
    examined: Examined,
    limits: Limits,
}

/// A stage under way.
#[derive(Clone, Copy)]
struct Begun {
    stage: Step,
    at: Instant,
    /// How long it may take.
    bound: Duration,
}

impl Begun {
    /// How long to wait for the main thing, so that there is time for a look at what came instead.
    fn patience(self) -> Duration {
        self.bound * 7 / 10
    }

    /// What is left of the bound.
    fn left(self) -> Duration {
        self.bound.saturating_sub(self.at.elapsed())
    }
}

impl Course {
    fn new(limits: Limits) -> Self {
        Self { examined: Examined::default(), limits }
    }

    /// Begins a stage that takes at most so long; says so if there is no time left that would prove anything.
    fn begin(&mut self, stage: Step, most: Duration) -> Option<Begun> {
        let at = Instant::now();
        let wanted = self.limits.step.min(most);
        let left = self.limits.deadline.saturating_duration_since(at);
        if left < wanted.min(LEAST) {
            let begun = Begun { stage, at, bound: left };
            self.end(begun, "not looked at: the time for all stages is over", None);
            return None;
        }
        Some(Begun { stage, at, bound: wanted.min(left) })
    }

    fn end(&mut self, begun: Begun, seen: &str, trouble: impl Into<Option<Trouble>>) {
        let took_ms = u64::try_from(begun.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (stage, seen, trouble) = (begun.stage, line(seen), trouble.into());
        self.examined.steps.push(Observed { stage, seen, took_ms, trouble });
    }

    /// Takes down what the host says the time is.
    fn dated(&mut self, date: Option<Timestamp>) {
        if date.is_some() {
            (self.examined.date, self.examined.date_at) = (date, Some(Timestamp::now()));
        }
    }
}

/// Less time than this proves nothing about anybody.
const LEAST: Duration = Duration::from_secs(1);

/// What others say, for people: printable, in one line, and at most 300 characters.
pub fn line(text: &str) -> String {
    let shown = |c: char| if c.is_whitespace() || !is_shown(c) { ' ' } else { c };
    let text: String = text.trim().chars().map(shown).take(LONGEST + 1).collect();
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST - 1).chain(['…']).collect()
}

/// The beginning of what somebody said who was expected to say something else.
fn banner(bytes: &[u8]) -> String {
    let shown = |&byte: &u8| if (b' '..=b'~').contains(&byte) { char::from(byte) } else { '.' };
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    bytes.iter().take(end).map(shown).take(60).collect()
}
