//! The kinds of values that are written as text: durations, sizes, addresses, log filters.
//!
//! A problem is said as the end of a sentence that begins with the setting's name.

use std::fmt;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::suggest;

/// A value as a layer holds it: text from a flag or the environment, typed from the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Raw {
    Text(String),
    Integer(i128),
    Bool(bool),
    List(Vec<String>),
    /// What no setting can be: a table, a date, a list that does not hold only texts.
    Other(&'static str),
}

impl Raw {
    /// The value as one text, trimmed.
    pub(super) fn text(&self) -> Result<String, String> {
        match self {
            Self::Text(text) => Ok(text.trim().to_owned()),
            Self::List(_) => Err("must be text in quotes, not a list".to_owned()),
            Self::Integer(_) => Err("must be text in quotes, not a number".to_owned()),
            Self::Bool(_) => Err("must be text in quotes, not a truth value".to_owned()),
            Self::Other(what) => Err(format!("must be text in quotes, not {what}")),
        }
    }

    pub(super) fn bool(&self) -> Result<bool, String> {
        match self {
            Self::Bool(value) => Ok(*value),
            Self::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                other => Err(format!("{other:?} is neither true nor false")),
            },
            Self::Integer(_) | Self::List(_) | Self::Other(_) => {
                Err("must be true or false".to_owned())
            }
        }
    }

    pub(super) fn integer(&self) -> Result<i128, String> {
        match self {
            Self::Integer(value) => Ok(*value),
            Self::Text(text) => {
                text.trim().parse().map_err(|_| format!("{text:?} is not a whole number"))
            }
            Self::Bool(_) | Self::List(_) | Self::Other(_) => {
                Err("must be a whole number".to_owned())
            }
        }
    }

    /// The items of a list; a text is split at its commas.
    pub(super) fn list(&self) -> Result<Vec<String>, String> {
        match self {
            Self::List(items) => Ok(items.clone()),
            Self::Text(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()),
            Self::Integer(_) | Self::Bool(_) | Self::Other(_) => {
                Err("must be a list of texts, like [\"a\", \"b\"]".to_owned())
            }
        }
    }

    pub(super) fn duration(&self) -> Result<Duration, String> {
        match self {
            Self::Text(text) => duration(text.trim()),
            Self::Integer(value) => Err(format!("{value} has no unit: {DURATION_HINT}")),
            Self::Bool(_) | Self::List(_) | Self::Other(_) => {
                Err(format!("must be a duration: {DURATION_HINT}"))
            }
        }
    }

    /// Bytes.
    pub(super) fn size(&self) -> Result<u64, String> {
        match self {
            Self::Text(text) => size(text.trim()),
            Self::Integer(value) => {
                u64::try_from(*value).map_err(|_| format!("{value} is not a size: {SIZE_HINT}"))
            }
            Self::Bool(_) | Self::List(_) | Self::Other(_) => {
                Err(format!("must be a size: {SIZE_HINT}"))
            }
        }
    }
}

const DURATION_HINT: &str = "write 10s, 5m or 1h30m (units: ms, s, m, h, d)";
const SIZE_HINT: &str = "write 500MiB, 8KiB or a number of bytes (units: B, KiB, MiB, GiB, TiB)";

/// `1h30m`: whole numbers, each with its unit, added up.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: {DURATION_HINT}");
    if text.starts_with('-') {
        return Err(format!("{text:?} is negative: {DURATION_HINT}"));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("{text:?} has no unit: {DURATION_HINT}"));
    }
    let mut rest = text;
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(digits(rest));
        let unit = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(unit);
        let milliseconds: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            _ => return Err(wrong()),
        };
        let count: u64 = digits.parse().map_err(|_| wrong())?;
        sum = count
            .checked_mul(milliseconds)
            .and_then(|part| sum.checked_add(part))
            .ok_or_else(wrong)?;
        rest = after;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_millis(sum)) }
}

/// `500MiB`: a whole number and a unit; bytes without one.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: {SIZE_HINT}");
    let (digits, unit) = text.split_at(digits(text));
    let unit: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        "kb" => 1000,
        "mb" => 1000 * 1000,
        "gb" => 1000 * 1000 * 1000,
        "tb" => 1000 * 1000 * 1000 * 1000,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    count.checked_mul(unit).ok_or_else(wrong)
}

fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    /// A name or an IP address, an IPv6 one without its brackets; empty: every address.
    pub host: String,
    /// 0 lets the system pick one.
    pub port: u16,
}

impl ListenAddress {
    /// `127.0.0.1:3000`, `localhost:3000`, `[::1]:3000`, `:3000`. A name is not resolved here.
    pub fn parse(text: &str) -> Result<Self, String> {
        const HINT: &str =
            "write 127.0.0.1:3000, localhost:3000, [::1]:3000, :3000 or unix:/run/stoa/stoa.sock";
        let wrong = |why: &str| Err(format!("{text:?} {why}: {HINT}"));
        if text.contains("://") {
            return wrong("is a URL, not an address");
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return wrong("has no colon before its port");
        }
        let port = text.rsplit_once(':').filter(|_| !text.ends_with(']'));
        let Some((host, port)) = port else { return wrong("has no port") };
        let host = if let Some(inner) = host.strip_prefix('[') {
            let inner = inner.strip_suffix(']').filter(|inner| is_ipv6(inner));
            let Some(inner) = inner else { return wrong("has no IPv6 address in its brackets") };
            inner
        } else if host.contains(':') {
            return wrong("needs brackets around its IPv6 address");
        } else {
            host
        };
        let name = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !name && !is_ipv6(host) {
            return wrong("has no valid host");
        }
        if !port.bytes().all(|b| b.is_ascii_digit()) {
            return wrong("has a port that is not a number");
        }
        match port.parse() {
            Ok(port) => Ok(Self { host: host.to_owned(), port }),
            Err(_) if port.is_empty() => wrong("has no port"),
            Err(_) => wrong("has a port above 65535"),
        }
    }

    /// What to bind, to be tried in this order until one works: a machine without IPv6 cannot
    /// bind `::`, one with it accepts both families there.
    pub fn candidates(&self) -> Vec<(&str, u16)> {
        let hosts: &[&str] = if self.host.is_empty() { &["::", "0.0.0.0"] } else { &[&self.host] };
        hosts.iter().map(|host| (*host, self.port)).collect()
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<std::net::Ipv6Addr>().is_ok()
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

impl LogFormat {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not a log format: write text or json")),
        }
    }
}

/// What becomes of a module while the checksum database cannot be asked about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnreachable {
    Refuse,
    /// Unverified, and verified later.
    Serve,
}

impl OnUnreachable {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "refuse" => Ok(Self::Refuse),
            "serve" => Ok(Self::Serve),
            _ => Err(format!("{text:?} is neither: write refuse or serve")),
        }
    }
}

/// When the next source is asked beside one that has not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedge {
    Off,
    /// When it takes longer than it usually does.
    Auto,
    After(Duration),
}

impl Hedge {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => match duration(text) {
                Ok(after) if !after.is_zero() => Ok(Self::After(after)),
                Ok(_) => Err(format!("{text:?} is no wait at all: write off, auto or 2s")),
                Err(_) => Err(format!("{text:?} is none of these: write off, auto or 2s")),
            },
        }
    }
}

/// Checks a tracing filter. A word that is no level would be taken for the name of a part of the
/// program, and `inof` would silence the log: such a word is refused.
pub(super) fn check_log_level(text: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    if text.is_empty() {
        return Err(format!("must be one of {}", LEVELS.join(", ")));
    }
    for word in text.split(',').map(str::trim) {
        let bare = !word.contains(['=', '[', ']', '{', '}']);
        if bare && !LEVELS.iter().any(|level| level.eq_ignore_ascii_case(word)) {
            let meant = suggest::nearest(word, LEVELS)
                .map_or(String::new(), |level| format!("; did you mean {level}?"));
            return Err(format!(
                "{word:?} is not one of {}, nor like stoa_core=debug{meant}",
                LEVELS.join(", ")
            ));
        }
    }
    EnvFilter::try_new(text)
        .map(drop)
        .map_err(|err| format!("{text:?} is not a log filter like info,stoa_core=debug: {err}"))
}

#[cfg(test)]
mod tests;
