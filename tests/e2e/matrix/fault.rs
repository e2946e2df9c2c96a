//! The faults, and how a fake upstream commits them.

use std::sync::OnceLock;
use std::time::Duration;

use stoa_testkit as kit;

use super::target::{Document, VERSION};

/// What a source does wrong, once for each way that the rules tell apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    NotFound,
    Gone,
    Unauthorized,
    Forbidden,
    BusyForSeconds,
    BusyUntil,
    ServerError,
    BadGateway,
    Refused,
    Reset,
    SilentAtConnect,
    SilentAtHeaders,
    SilentInBody,
    DripsForEver,
    /// Slow, but it gets on; of a zip alone.
    Steady,
    LengthTooLarge,
    LengthTooSmall,
    Truncated,
    ChunksCutOff,
    TooLongAnnounced,
    TooLongUnannounced,
    NotHttp,
    LoginPage,
    GzipBomb,
    Forged,
    RedirectLoop,
    RedirectToHttp,
    SelfSigned,
    ExpiredCertificate,
    CertificateOfAnother,
    NoTls,
}

/// More than any limit of the servers under test.
const TOO_LONG: usize = 2 << 20;
const BOMB: u64 = 1 << 30;
/// A year from now would be cut to a day; this date is past that, whenever the test runs.
const FAR_OFF: &str = "Fri, 31 Dec 2100 23:59:59 GMT";

impl Fault {
    /// Nothing is heard of the source at all: not one path but the host is at fault.
    pub fn is_of_host(self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::SilentAtConnect
                | Self::SelfSigned
                | Self::ExpiredCertificate
                | Self::CertificateOfAnother
                | Self::NoTls
        )
    }

    /// What the source shows, where it is behind TLS.
    pub fn certificate(self) -> Option<kit::Certificate> {
        match self {
            Self::RedirectToHttp => Some(kit::Certificate::Good),
            Self::SelfSigned => Some(kit::Certificate::SelfSigned),
            Self::ExpiredCertificate => Some(kit::Certificate::Expired),
            Self::CertificateOfAnother => Some(kit::Certificate::OtherName),
            _ => None,
        }
    }

    /// Whether the document can have it.
    pub fn concerns(self, document: Document) -> bool {
        match self {
            Self::Steady => document == Document::Zip,
            // Nobody covers a list or `@latest`, and `supported` says nothing.
            Self::Forged => {
                !matches!(document, Document::List | Document::Latest | Document::Supported)
            }
            _ => true,
        }
    }

    /// What the source then does with a request for the document; none if the source is not asked at all.
    pub fn of(self, document: Document, world: &super::World) -> Option<kit::Fault> {
        use kit::Fault as Kit;

        // What says nothing when it is whole cannot be cut or held back either.
        let of_body = |delivery: Kit| {
            if document == Document::Supported {
                Kit::replace("this database is known here\n").with(delivery)
            } else {
                delivery
            }
        };
        let with_length = |length: usize| {
            if document == Document::Supported {
                Kit::replace("this database is known here\n")
                    .header("Content-Length", length.to_string())
            } else {
                Kit::content_length(length)
            }
        };
        Some(match self {
            Self::NotFound => Kit::status(404),
            Self::Gone => Kit::status(410),
            Self::Unauthorized => Kit::status(401),
            Self::Forbidden => Kit::status(403),
            Self::BusyForSeconds => Kit::status(429).retry_after(77),
            Self::BusyUntil => Kit::status(429).header("Retry-After", FAR_OFF),
            Self::ServerError => Kit::status(500),
            Self::BadGateway => Kit::status(502),
            Self::Reset => of_body(Kit::reset_after(5)),
            Self::SilentAtHeaders => Kit::hang(),
            Self::SilentInBody => of_body(Kit::hang_after(5)),
            Self::DripsForEver => of_body(Kit::drip(1, Duration::from_millis(100))),
            Self::Steady => Kit::drip(4096, Duration::from_millis(150)),
            // More than there is and less than a limit.
            Self::LengthTooLarge if document == Document::Zip => with_length(200_000),
            Self::LengthTooLarge => with_length(16_000),
            Self::LengthTooSmall => with_length(12),
            Self::Truncated => of_body(Kit::truncate(5)),
            Self::ChunksCutOff => of_body(Kit::cut_chunked(5)),
            Self::TooLongAnnounced => Kit::replace("v1.0.0\n".repeat(TOO_LONG / 7)),
            Self::TooLongUnannounced => {
                Kit::replace("v1.0.0\n".repeat(TOO_LONG / 7)).with(Kit::chunked())
            }
            Self::NotHttp => Kit::raw(&b"SSH-2.0-OpenSSH_9.2p1\r\n"[..]),
            Self::LoginPage => Kit::replace("<html>please log in</html>\n"),
            Self::GzipBomb => {
                static MADE: OnceLock<Kit> = OnceLock::new();
                MADE.get_or_init(|| Kit::gzip_bomb(BOMB)).clone()
            }
            Self::Forged => forged(document, world),
            // To itself, seen from where it is.
            Self::RedirectLoop => Kit::redirect("?again"),
            Self::RedirectToHttp => {
                let plain = world.faulty.url();
                Kit::redirect(format!("{plain}/elsewhere"))
            }
            Self::Refused
            | Self::SilentAtConnect
            | Self::SelfSigned
            | Self::ExpiredCertificate
            | Self::CertificateOfAnother
            | Self::NoTls => return None,
        })
    }
}

/// Well-formed, and not what was published.
fn forged(document: Document, world: &super::World) -> kit::Fault {
    let go_mod = "module ex.com/lib\n\ngo 1.99\n";
    match document {
        Document::Mod => kit::Fault::replace(go_mod),
        Document::Zip => {
            let name = |file: &str| format!("ex.com/lib@{VERSION}/{file}");
            let files = [(name("go.mod"), go_mod), (name("lib.go"), "package evil\n")];
            kit::Fault::replace(kit::zip_of(files))
        }
        Document::Info => kit::Fault::version("v1.1.0"),
        Document::Lookup => {
            let lying = world.sumdb.fork(world.sumdb.size());
            lying.misbehave(kit::Misbehaviour::AlteredRecords);
            let lie = lying.lookup(&format!("ex.com/lib@{VERSION}"));
            kit::Fault::replace(lie.expect("the module has a record"))
        }
        _ => kit::Fault::flip_byte(40),
    }
}
