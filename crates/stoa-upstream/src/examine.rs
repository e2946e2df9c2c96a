//! What is seen of a host, stage by stage: for a person who wants to know why nothing comes.
//!
//! An examination goes by the means that requests use (the outgoing proxy of the settings, the system's resolver, the
//! authorities and the credentials), but over connections of its own, past the pool, the names that are kept and the
//! breakers: it shall see what is so now, and change nothing for others.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

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
    /// Every address refuses the connection.
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
