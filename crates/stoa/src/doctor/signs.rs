//! Which verdict a single sign points to.

use stoa_module::ErrorClass;
use stoa_upstream::examine::Trouble;
use stoa_upstream::{Failure, Stage};

use super::verdict::Verdict;

/// None for what is nobody's fault: there is nothing at that address.
pub(crate) fn of_trouble(trouble: Trouble) -> Option<Verdict> {
    Some(match trouble {
        Trouble::NameNotResolved => Verdict::NameNotResolved,
        Trouble::ResolverSilent => Verdict::ResolverSilent,
        Trouble::Refused => Verdict::Refused,
        Trouble::Filtered => Verdict::Filtered,
        Trouble::Unreachable => Verdict::Unreachable,
        Trouble::BlackHoledIpv6 => Verdict::BlackHoledIpv6,
        Trouble::Reset => Verdict::Reset,
        Trouble::TlsIntercepted => Verdict::TlsIntercepted,
        Trouble::CertificateExpired => Verdict::CertificateExpired,
        Trouble::CertificateNotYetValid => Verdict::CertificateNotYetValid,
        Trouble::UnknownAuthority => Verdict::UnknownAuthority,
        Trouble::WrongName => Verdict::WrongName,
        Trouble::NotTls => Verdict::NotTls,
        Trouble::TlsFailed => Verdict::TlsFailed,
        Trouble::NoAuthorities => Verdict::NoAuthorities,
        Trouble::ProxyRefuses => Verdict::ProxyRefuses,
        Trouble::ProxyWantsPassword => Verdict::ProxyWantsPassword,
        Trouble::NotHttp => Verdict::NotHttp,
        Trouble::HeaderTimeout => Verdict::HeaderTimeout,
        Trouble::Endless => Verdict::Endless,
        Trouble::Slow => Verdict::Slow,
        Trouble::Unauthorized => Verdict::Unauthorized,
        Trouble::Forbidden => Verdict::Forbidden,
        Trouble::RateLimited => Verdict::RateLimited,
        Trouble::ServerError => Verdict::ServerError,
        Trouble::HostKeyUnknown => Verdict::HostKeyUnknown,
        Trouble::KeyRefused => Verdict::KeyRefused,
        Trouble::GitMissing => Verdict::GitMissing,
        Trouble::GitRefused => Verdict::GitRefused,
        // An author can write any address into a page; only whom a setting names is asked there.
        Trouble::NotPublic => Verdict::NoRoute,
        Trouble::NotFound => return None,
    })
}

/// What one failed question says of its source; nothing for an absence.
pub(crate) fn of_failure(failure: &Failure) -> Option<Verdict> {
    let is_timeout = failure.class == ErrorClass::Timeout;
    let says = |words: &str| failure.text.as_ref().is_some_and(|text| text.contains(words));
    Some(match (failure.stage, failure.status) {
        _ if failure.class == ErrorClass::NotFound => return None,
        (_, Some(403)) if says("loop: this request began") => Verdict::Loop,
        (_, Some(401)) => Verdict::Unauthorized,
        (_, Some(403)) => Verdict::Forbidden,
        (_, Some(429)) => Verdict::RateLimited,
        (_, Some(500..)) => Verdict::ServerError,
        (_, Some(_)) => Verdict::NotAProxy,
        (Stage::Dns, None) if is_timeout => Verdict::ResolverSilent,
        (Stage::Dns, None) => Verdict::NameNotResolved,
        (Stage::Connect, None) if is_timeout => Verdict::Filtered,
        (Stage::Connect, None) => Verdict::Refused,
        (Stage::Tls, None) => Verdict::TlsFailed,
        (Stage::Http, None) if is_timeout => Verdict::HeaderTimeout,
        (Stage::Http, None) => match failure.class {
            ErrorClass::Corrupt => Verdict::NotHttp,
            ErrorClass::Denied => Verdict::Forbidden,
            _ => Verdict::Reset,
        },
        (Stage::Body, None) if is_timeout => Verdict::Slow,
        (Stage::Body, None) => match failure.class {
            ErrorClass::Corrupt => Verdict::Malformed,
            _ => Verdict::Reset,
        },
        (Stage::Git, None) => Verdict::GitRefused,
        (Stage::Local, None) => match failure.class {
            ErrorClass::Full => Verdict::DiskFull,
            ErrorClass::Denied => Verdict::Forbidden,
            _ => Verdict::ServerError,
        },
    })
}

/// What keeps the next stage from being of any use.
pub(crate) fn ends_it(verdict: Verdict) -> bool {
    !matches!(
        verdict,
        Verdict::BlackHoledIpv6
            | Verdict::Slow
            | Verdict::Unauthorized
            | Verdict::Forbidden
            | Verdict::RateLimited
            | Verdict::ServerError
    )
}
