//! What must come of a fault: written from the table of error classes and the bounds in ARCHITECTURE.md and from the go
//! command's rules for chains, and from nothing that the server was seen to do.

use std::time::Duration;

use super::fault::Fault;
use super::target::{Document, Target};

/// Where the faulty source stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// `faulty,honest`
    BeforeComma,
    /// `faulty|honest`
    BeforePipe,
    /// `faulty` alone; the checksum database can be reached directly.
    Alone,
    /// It is the checksum database, which GOSUMDB names by its address; modules come from an honest source, which does
    /// not pass the database on.
    Database,
    /// The same, and the source of the modules passes the database on.
    DatabaseFirst,
}

impl Place {
    pub const ALL: [Self; 5] =
        [Self::BeforeComma, Self::BeforePipe, Self::Alone, Self::Database, Self::DatabaseFirst];

    pub fn is_database(self) -> bool {
        matches!(self, Self::Database | Self::DatabaseFirst)
    }
}

/// The bounds of the servers under test.
pub const CONNECT: Duration = Duration::from_millis(1200);
pub const FILE: Duration = Duration::from_millis(1500);
pub const LIST: Duration = Duration::from_millis(1300);
pub const ALTERNATIVE: Duration = Duration::from_secs(1);
pub const STALL: Duration = Duration::from_millis(700);
const DATABASE: Duration = Duration::from_secs(2);
/// Where the database's own host comes after the faulty source and is given no longer than that.
const DATABASE_AFTERWARDS: Duration = Duration::from_secs(4);
/// Of one source.
pub const TRIES: usize = 2;

/// What everything that is not waiting may take on a machine with other things to do.
const SLACK: Duration = Duration::from_secs(5);

/// What a look-up may take over one road.
pub fn database_bound(place: Place) -> Duration {
    if place == Place::Alone { DATABASE_AFTERWARDS } else { DATABASE }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    NotFound,
    Denied,
    Mismatch,
    Corrupt,
    Unavailable,
    Busy,
    Timeout,
}

#[derive(Clone, Debug)]
pub struct Expected {
    pub status: u16,
    /// What an error must name besides the source; nothing is asked of a 200.
    pub words: &'static str,
    /// Whether the source with something better is asked for the client's file.
    pub other_asked: bool,
    /// The answer is the faulty source's own, since the fault does no harm.
    pub harmless: bool,
    /// A whole body came that had to be rejected.
    pub quarantined: bool,
    pub not_before: Duration,
    pub not_after: Duration,
    /// Once the source is honest again it is not asked at once: the verdict is about the module and not the source.
    pub remembered: bool,
}

/// None where the combination does not exist.
pub fn expected(fault: Fault, target: Target, place: Place) -> Option<Expected> {
    let document = target.document();
    if !fault.concerns(document) {
        return None;
    }
    let at_database = place.is_database();
    // A database at its own address is not asked whether it passes itself on.
    if at_database
        && (document == Document::Supported
            || !(target.is_of_database() || target.is_behind_a_file()))
    {
        return None;
    }
    // One that fails for good in front of a comma fails as well alone.
    let of_file = target.is_behind_a_file() && fault.is_of_host() && !at_database;
    let of_module = of_file || !(target.is_of_database() || target.is_behind_a_file());
    let class = class(fault, document);
    // And a source without `@latest` is none that fails: its list says as much.
    if place == Place::Alone
        && of_module
        && (class != Some(Class::NotFound) || target == Target::Latest)
    {
        return None;
    }

    let wait = wait(fault, target, place, of_module);
    // For a tile the newest tree is looked for first, by the same road.
    let waits = if target == Target::Tile { 2 } else { 1 };
    let mut expected = Expected {
        status: 200,
        words: words(fault),
        other_asked: false,
        harmless: class.is_none(),
        quarantined: false,
        not_before: wait.mul_f64(0.8),
        not_after: wait * waits + SLACK,
        remembered: false,
    };
    let Some(class) = class else { return Some(expected) };
    expected.quarantined = of_module && is_rejected_whole(fault, target);
    expected.remembered = class == Class::Mismatch;
    if of_module {
        // The go command's own rule: only an absence goes on over a comma.
        let goes_on = match place {
            Place::BeforeComma => class == Class::NotFound,
            Place::BeforePipe => true,
            Place::Alone | Place::Database | Place::DatabaseFirst => false,
        };
        expected.other_asked = goes_on;
        if !goes_on {
            expected.status = status(class);
        }
        return Some(expected);
    }
    if at_database {
        let is_absent = class == Class::NotFound && document == Document::Lookup;
        if place == Place::DatabaseFirst && !is_absent {
            expected.other_asked = true;
            return Some(expected);
        }
        // There is no other road to it, and nothing is handed out without its word.
        expected.status = match (class, document) {
            // Only a record that is not there may look like "no record".
            (Class::NotFound, Document::Tile) => 502,
            // That its door is shut says nothing about the module.
            (Class::Denied, _) if target != Target::Tile => 502,
            _ => status(class),
        };
        // The database itself says that there is no such record.
        expected.remembered = is_absent;
        return Some(expected);
    }
    // What a road to the database brings proves itself, so any other road will do, whatever stands between them.
    expected.other_asked = place != Place::Alone;
    Some(expected)
}

fn status(class: Class) -> u16 {
    match class {
        Class::NotFound => 404,
        Class::Denied | Class::Mismatch => 403,
        Class::Corrupt | Class::Unavailable => 502,
        Class::Busy => 503,
        Class::Timeout => 504,
    }
}

/// None if the fault does no harm to that document.
fn class(fault: Fault, document: Document) -> Option<Class> {
    Some(match fault {
        Fault::NotFound | Fault::Gone => Class::NotFound,
        Fault::Unauthorized | Fault::Forbidden => Class::Denied,
        Fault::BusyForSeconds | Fault::BusyUntil => Class::Busy,
        Fault::ServerError
        | Fault::BadGateway
        | Fault::Refused
        | Fault::Reset
        | Fault::SelfSigned
        | Fault::ExpiredCertificate
        | Fault::CertificateOfAnother
        | Fault::NoTls => Class::Unavailable,
        Fault::SilentAtConnect
        | Fault::SilentAtHeaders
        | Fault::SilentInBody
        | Fault::DripsForEver
        | Fault::LengthTooLarge => Class::Timeout,
        Fault::Truncated
        | Fault::ChunksCutOff
        | Fault::TooLongAnnounced
        | Fault::TooLongUnannounced
        | Fault::NotHttp
        | Fault::GzipBomb
        | Fault::RedirectLoop
        | Fault::RedirectToHttp => Class::Corrupt,
        Fault::LoginPage => match document {
            // Its body says nothing; that there is one is the answer.
            Document::Supported => return None,
            _ => Class::Corrupt,
        },
        Fault::LengthTooSmall => match document {
            // The beginning of a list is a list, and nobody knows a longer one.
            Document::List | Document::Supported => return None,
            // The beginning of a go.mod is one too, but not the one that was published.
            Document::Mod => Class::Mismatch,
            _ => Class::Corrupt,
        },
        Fault::Forged => match document {
            Document::Mod | Document::Zip => Class::Mismatch,
            _ => Class::Corrupt,
        },
        Fault::Steady => return None,
    })
}

fn words(fault: Fault) -> &'static str {
    match fault {
        Fault::NotFound => "404",
        Fault::Gone => "410",
        Fault::Unauthorized => "401",
        Fault::Forbidden => "403",
        Fault::BusyForSeconds | Fault::BusyUntil => "429",
        Fault::ServerError => "500",
        Fault::BadGateway => "502",
        Fault::Refused => "connect: connection refused",
        Fault::Reset => "body: ",
        Fault::SilentAtConnect => "connect: timeout",
        Fault::SilentAtHeaders
        | Fault::SilentInBody
        | Fault::DripsForEver
        | Fault::LengthTooLarge => "timeout",
        Fault::Truncated | Fault::ChunksCutOff => "cut off",
        Fault::TooLongAnnounced | Fault::TooLongUnannounced | Fault::GzipBomb => {
            "larger than the limit"
        }
        Fault::NotHttp => "not http",
        Fault::RedirectLoop => "a redirect loop",
        Fault::RedirectToHttp => "from https to http",
        Fault::SelfSigned | Fault::ExpiredCertificate | Fault::CertificateOfAnother => {
            "tls: the certificate"
        }
        Fault::NoTls => "tls: the server does not speak tls",
        Fault::LoginPage | Fault::LengthTooSmall | Fault::Forged | Fault::Steady => "",
    }
}

/// How long the fault itself takes before the source is given up.
fn wait(fault: Fault, target: Target, place: Place, of_module: bool) -> Duration {
    let whole = match target {
        _ if !of_module => database_bound(place),
        Target::List | Target::Latest => LIST,
        _ => FILE,
    };
    // Over `|` there is something better to do than wait.
    let patience = if place == Place::BeforePipe { whole.min(ALTERNATIVE) } else { whole };
    match fault {
        Fault::SilentAtConnect => CONNECT.min(patience),
        // A tile is read for several proofs at once, within half of what a lookup may take.
        Fault::SilentAtHeaders if target.document() == Document::Tile => {
            patience.min(database_bound(place) / 2)
        }
        Fault::SilentAtHeaders => patience,
        Fault::SilentInBody | Fault::DripsForEver | Fault::LengthTooLarge => STALL,
        // Longer than the bound of anything but a body that gets on.
        Fault::Steady => FILE + STALL,
        _ => Duration::ZERO,
    }
}

fn is_rejected_whole(fault: Fault, target: Target) -> bool {
    matches!(fault, Fault::LoginPage | Fault::LengthTooSmall | Fault::Forged)
        && matches!(target, Target::Info | Target::Mod | Target::Zip)
}
