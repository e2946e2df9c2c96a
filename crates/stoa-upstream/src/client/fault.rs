//! Telling failures apart by the chain of errors that reqwest hands up from hyper, rustls and the system.

use std::error::Error as StdError;
use std::io::ErrorKind;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use stoa_module::ErrorClass;

use crate::breaker::state::Sign;
use crate::client::names::is_absence;
use crate::discovery::NotPublic;
use crate::examine::Trouble;
use crate::failure::{Fault, Stage, span};

const DAY: Duration = Duration::from_hours(24);

/// A shorter wait says nothing about the host: its caller was in a hurry.
const LEAST_SILENCE: Duration = Duration::from_millis(500);

/// Why no answer came.
pub(crate) fn of_send(error: &reqwest::Error, reached: Stage, connect_timeout: Duration) -> Fault {
    let causes = Causes::of(error);
    if error.is_connect() {
        if error.is_timeout() {
            let stage = if reached == Stage::Dns { Stage::Dns } else { Stage::Connect };
            let detail = format!("{stage}: timeout after {}", span(connect_timeout));
            let fault = Fault::new(ErrorClass::Timeout, stage, detail);
            // Where no name was looked up, it may have been the connection or the handshake.
            return if stage == Stage::Dns { fault.proves(Trouble::ResolverSilent) } else { fault };
        }
        let unavailable = |stage: Stage, words: &str| {
            Fault::new(ErrorClass::Unavailable, stage, format!("{stage}: {words}"))
        };
        if let Some(refused) = causes.find::<NotPublic>() {
            return refused.fault();
        }
        if error.is_dns() {
            // The resolver has tried for itself.
            let words = causes.words();
            return unavailable(Stage::Dns, &words).proves(if is_absence(&words) {
                Trouble::NameNotResolved
            } else {
                Trouble::ResolverSilent
            });
        }
        if let Some(error) = causes.find() {
            // A certificate does not become valid by asking again.
            let fault = unavailable(Stage::Tls, &of_tls(error)).proves(tls_trouble(error));
            let is_unknown = matches!(
                error,
                rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer)
            );
            return if is_unknown {
                fault.hint("name the host's authority in upstream.ca-files")
            } else {
                fault
            };
        }
        return match causes.io() {
            // Nothing but a handshake reads anything before the connection counts as made.
            Some(ErrorKind::UnexpectedEof) => {
                let words = "the connection was closed during the handshake";
                unavailable(Stage::Tls, words).passing().proves(Trouble::Reset)
            }
            Some(kind) => {
                let fault = unavailable(Stage::Connect, &causes.words()).passing();
                Fault { trouble: io_trouble(kind), ..fault }
            }
            // An outgoing proxy has refused.
            None => {
                let words = causes.words();
                let wants_password = words == "proxy authorization required";
                unavailable(Stage::Connect, &format!("outgoing proxy: {words}")).proves(
                    if wants_password {
                        Trouble::ProxyWantsPassword
                    } else {
                        Trouble::ProxyRefuses
                    },
                )
            }
        };
    }
    if error.is_builder() {
        return Fault::new(ErrorClass::Invalid, Stage::Local, causes.words());
    }
    let parse = causes.find::<hyper::Error>().filter(|error| error.is_parse());
    if let Some(error) = parse {
        let detail = "the answer is not http";
        let trouble = if error.is_parse_too_large() { Trouble::Endless } else { Trouble::NotHttp };
        return Fault::new(ErrorClass::Corrupt, Stage::Http, detail).proves(trouble);
    }
    // The connection was made, so that it can only have broken off.
    Fault::new(ErrorClass::Unavailable, Stage::Http, causes.words())
        .passing()
        .proves(Trouble::Reset)
}

/// What a failed connect proves.
pub(crate) fn io_trouble(kind: ErrorKind) -> Option<Trouble> {
    match kind {
        ErrorKind::ConnectionRefused => Some(Trouble::Refused),
        // The second by a filter of this machine's own.
        ErrorKind::TimedOut | ErrorKind::PermissionDenied => Some(Trouble::Filtered),
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => {
            Some(Trouble::Unreachable)
        }
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::UnexpectedEof => {
            Some(Trouble::Reset)
        }
        _ => None,
    }
}

/// What a failed handshake proves.
pub(crate) fn tls_trouble(error: &rustls::Error) -> Trouble {
    use rustls::CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => Trouble::CertificateExpired,
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => Trouble::CertificateNotYetValid,
            Bad::UnknownIssuer => Trouble::UnknownAuthority,
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => Trouble::WrongName,
            _ => Trouble::TlsFailed,
        },
        _ => Trouble::TlsFailed,
    }
}

/// What the status of an answer proves.
fn status_trouble(status: u16) -> Option<Trouble> {
    match status {
        401 => Some(Trouble::Unauthorized),
        403 => Some(Trouble::Forbidden),
        404 | 410 => Some(Trouble::NotFound),
        407 => Some(Trouble::ProxyWantsPassword),
        429 => Some(Trouble::RateLimited),
        500.. => Some(Trouble::ServerError),
        _ => None,
    }
}

/// Why a body broke off.
pub(crate) fn of_body(error: &reqwest::Error) -> Fault {
    let causes = Causes::of(error);
    let (class, detail) = match (causes.find::<hyper::Error>(), causes.io()) {
        (Some(_), Some(ErrorKind::UnexpectedEof)) => {
            (ErrorClass::Corrupt, "body: cut off".to_owned())
        }
        (Some(error), None) if error.is_incomplete_message() => {
            (ErrorClass::Corrupt, "body: cut off".to_owned())
        }
        (Some(_), Some(ErrorKind::InvalidInput | ErrorKind::InvalidData)) => {
            (ErrorClass::Corrupt, format!("body: malformed ({})", causes.words()))
        }
        (Some(_), _) => (ErrorClass::Unavailable, format!("body: {}", causes.words())),
        (None, _) => (ErrorClass::Corrupt, format!("body: bad gzip ({})", causes.words())),
    };
    Fault::new(class, Stage::Body, detail).passing()
}

/// What an answer other than 200 means, without the upstream's words.
pub(crate) fn of_status(status: StatusCode, retry_after: Option<Duration>) -> Fault {
    let class = match status.as_u16() {
        404 | 410 => ErrorClass::NotFound,
        401 | 403 => ErrorClass::Denied,
        // 1xx is not passed up, and redirects are followed before this.
        100..=399 => ErrorClass::Corrupt,
        _ => ErrorClass::Unavailable,
    };
    let mut fault = Fault::new(class, Stage::Http, format!("http {}", status.as_u16()));
    fault.retry_after = retry_after;
    fault.status = Some(status.as_u16());
    fault.trouble = status_trouble(status.as_u16());
    fault.passing = match status.as_u16() {
        502..=504 => true,
        // Without a date, asking again at once would only prove the upstream right.
        429 => retry_after.is_some(),
        _ => false,
    };
    fault
}

/// What a fault says about the source's host, after a wait of so long. Where a redirect led and failed, the host had
/// answered; and bytes that are no HTTP, or the wrong HTTP, came without a wait, which is all that a breaker saves.
pub(crate) fn sign(fault: &Fault, waited: Duration, connect_timeout: Duration) -> Sign {
    let is_timeout = fault.class == ErrorClass::Timeout;
    match (fault.stage, fault.status) {
        (Stage::Git | Stage::Local, _) => Sign::Nothing,
        _ if fault.given_up => Sign::Nothing,
        _ if fault.elsewhere => Sign::Answer,
        (_, Some(500..)) => Sign::Failing,
        (Stage::Body, _) | (_, Some(_)) => Sign::Answer,
        _ if is_timeout && waited < LEAST_SILENCE.min(connect_timeout) => Sign::Nothing,
        // Not the bound of the connection itself: with more patience there might have been one.
        (Stage::Connect, None) if is_timeout && waited < connect_timeout => Sign::Silence,
        (Stage::Dns | Stage::Connect | Stage::Tls, None) => Sign::Unreachable,
        (Stage::Http, None) if is_timeout => Sign::Silence,
        (Stage::Http, None) if fault.class == ErrorClass::Unavailable => Sign::Failing,
        (Stage::Http, None) => Sign::Answer,
    }
}

/// Why the downloaded file could not be written.
pub(crate) fn of_write(error: &std::io::Error) -> Fault {
    let class = match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::FileTooLarge => ErrorClass::Full,
        _ => ErrorClass::Internal,
    };
    Fault::new(class, Stage::Local, format!("cannot store it: {}", of_io(error)))
}

/// Reads `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
        Duration::try_from(date.duration_since(now)).unwrap_or_default()
    };
    Some(wait.min(DAY))
}

pub(crate) fn of_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let words = match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::UnknownIssuer => "the certificate is from an unknown authority",
            Bad::Expired | Bad::ExpiredContext { .. } => "the certificate has expired",
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => "the certificate is not valid yet",
            Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
                "the certificate is for another name"
            }
            _ => return error.to_string(),
        },
        rustls::Error::InvalidMessage(_) => "the server does not speak tls",
        _ => return error.to_string(),
    };
    words.to_owned()
}

/// An error and everything behind it.
struct Causes<'e>(Vec<&'e (dyn StdError + 'static)>);

impl<'e> Causes<'e> {
    fn of(error: &'e (dyn StdError + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut next = Some(error);
        while let Some(error) = next {
            causes.push(error);
            // An I/O error that wraps another one calls that one's source its own.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            next = match wrapped {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        Self(causes)
    }

    fn find<T: StdError + 'static>(&self) -> Option<&'e T> {
        self.0.iter().find_map(|cause| cause.downcast_ref())
    }

    /// The kind of the innermost I/O error.
    fn io(&self) -> Option<ErrorKind> {
        let errors = self.0.iter().rev();
        errors
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .map(std::io::Error::kind)
            .next()
    }

    /// The innermost error in words.
    fn words(&self) -> String {
        let Some(cause) = self.0.last() else { return String::new() };
        if let Some(error) = cause.downcast_ref() {
            return of_io(error);
        }
        let words = cause.to_string();
        let prefixes = ["failed to lookup address information: ", "tunnel error: "];
        let bare = prefixes.iter().find_map(|prefix| words.strip_prefix(prefix));
        bare.unwrap_or(&words).to_owned()
    }
}

/// An I/O error without the system's number and capitals.
pub(crate) fn of_io(error: &std::io::Error) -> String {
    if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_retry_after() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().unwrap();
        let check = |value: &str, expected: Option<u64>| {
            let wait = retry_after(value, now).map(|wait| wait.as_secs());
            assert_eq!(wait, expected, "{value:?}");
        };
        check("0", Some(0));
        check(" 120 ", Some(120));
        check("99999999999", Some(86_400));
        check("Sat, 21 Nov 2026 10:00:30 GMT", Some(30));
        check("Sat, 21 Nov 2026 09:00:00 GMT", Some(0));
        check("Fri, 21 Nov 2036 10:00:00 GMT", Some(86_400));
        check("", None);
        check("-1", None);
        check("1.5", None);
        check("99999999999999999999999", None);
        check("soon", None);
    }

    #[test]
    fn no_room_is_its_own_class() {
        let check = |kind: ErrorKind, expected| {
            let fault = of_write(&kind.into());
            assert_eq!((fault.class, fault.stage, fault.passing), (expected, Stage::Local, false));
        };
        check(ErrorKind::StorageFull, ErrorClass::Full);
        check(ErrorKind::QuotaExceeded, ErrorClass::Full);
        check(ErrorKind::ReadOnlyFilesystem, ErrorClass::Full);
        check(ErrorKind::FileTooLarge, ErrorClass::Full);
        check(ErrorKind::PermissionDenied, ErrorClass::Internal);
        assert_eq!(
            of_write(&std::io::Error::from_raw_os_error(28)).detail,
            "cannot store it: no storage space"
        );
    }
}
