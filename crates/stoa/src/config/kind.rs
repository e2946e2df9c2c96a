//! The kinds of settings: how a value of each is read, checked, put into its field and shown.

use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use secrecy::SecretString;
use stoa_module::{Patterns, ProxyList};
use stoa_sumdb::GoSumDb;
use stoa_upstream::GoVcs;

use super::Config;
use super::credential::{check_secret, check_username};
use super::git::{self, SecretFile};
use super::listen::{Listen, TrustedProxies, path_prefix, unix_mode};
use super::places::Places;
use super::show::{quote, quote_list, redact};
use super::value::{Hedge, LogFormat, OnUnreachable, Raw, check_log_level};

/// How a value is written, what it is checked for, and the field it goes into.
pub(super) enum Kind {
    Listen(fn(&mut Config, Listen)),
    /// Empty is none.
    OptionalListen(fn(&mut Config, Option<Listen>)),
    UnixMode(fn(&mut Config, u32)),
    PathPrefix(fn(&mut Config, String)),
    TrustedProxies(fn(&mut Config, TrustedProxies)),
    Bool(fn(&mut Config, bool)),
    Count {
        least: u64,
        most: u64,
        set: fn(&mut Config, u64),
    },
    /// A count of threads; 0 is one for each core.
    Cores(fn(&mut Config, usize)),
    /// More than nothing and at most a day: every wait ends.
    Timeout(fn(&mut Config, Duration)),
    /// Up to a year; nothing is "not at all".
    Age(fn(&mut Config, Duration)),
    /// Bytes.
    Size {
        least: u64,
        most: u64,
        set: fn(&mut Config, u64),
    },
    DataDirectory(fn(&mut Config, PathBuf)),
    /// Files that must be there.
    Files(fn(&mut Config, Vec<PathBuf>)),
    /// A file that must be there; empty is none.
    OptionalFile(fn(&mut Config, Option<PathBuf>)),
    Netrc(fn(&mut Config, Option<PathBuf>)),
    ProxyList(fn(&mut Config, ProxyList)),
    Patterns(fn(&mut Config, Patterns)),
    GoVcs(fn(&mut Config, GoVcs)),
    /// Perhaps with a port; empty is none.
    Host(fn(&mut Config, Option<String>)),
    /// What HTTP can carry as one; empty is none.
    Username(fn(&mut Config, Option<String>)),
    /// Never shown; empty is none.
    Secret(fn(&mut Config, Option<SecretString>)),
    /// A file that holds one; empty is none.
    SecretFile(fn(&mut Config, Option<SecretFile>)),
    SumDb(fn(&mut Config, GoSumDb)),
    OnUnreachable(fn(&mut Config, OnUnreachable)),
    Hedge(fn(&mut Config, Hedge)),
    LogFormat(fn(&mut Config, LogFormat)),
    LogLevel(fn(&mut Config, String)),
}

const DAY: Duration = Duration::from_hours(24);
const YEAR: Duration = Duration::from_hours(365 * 24);
pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;
pub(super) const TIB: u64 = 1 << 40;

impl Kind {
    /// Checks a value, puts it into its field and returns it as it is shown: a TOML value without
    /// secrets. An error is the end of a sentence about the setting.
    pub(super) fn apply(
        &self,
        raw: &Raw,
        places: &mut Places<'_>,
        config: &mut Config,
    ) -> Result<String, String> {
        match self {
            Self::Listen(set) => {
                let listen = Listen::parse(&raw.text()?, places)?;
                let shown = quote(&listen.to_string());
                set(config, listen);
                Ok(shown)
            }
            Self::OptionalListen(set) => {
                let text = raw.text()?;
                let listen = match text.as_str() {
                    "" => None,
                    text => Some(Listen::parse(text, places)?),
                };
                let shown = quote(&listen.as_ref().map(ToString::to_string).unwrap_or_default());
                set(config, listen);
                Ok(shown)
            }
            Self::UnixMode(set) => {
                let mode = unix_mode(&raw.text()?)?;
                set(config, mode);
                Ok(quote(&format!("{mode:04o}")))
            }
            Self::PathPrefix(set) => {
                let prefix = path_prefix(&raw.text()?)?;
                let shown = quote(&prefix);
                set(config, prefix);
                Ok(shown)
            }
            Self::TrustedProxies(set) => {
                let proxies = TrustedProxies::parse(&raw.list()?)?;
                let shown = quote_list(proxies.items());
                set(config, proxies);
                Ok(shown)
            }
            Self::Bool(set) => {
                let value = raw.bool()?;
                set(config, value);
                Ok(value.to_string())
            }
            Self::Count { least, most, set } => {
                let value = within(raw.integer()?, *least, *most)?;
                set(config, value);
                Ok(value.to_string())
            }
            Self::Cores(set) => {
                let value = match within(raw.integer()?, 0, 1024)? {
                    0 => thread::available_parallelism().map_or(1, NonZero::get),
                    value => value as usize,
                };
                set(config, value);
                Ok(value.to_string())
            }
            Self::Timeout(set) => {
                let value = raw.duration()?;
                if value.is_zero() || value > DAY {
                    return Err(format!("{} is not between 1ms and 1d", text_of(raw)));
                }
                set(config, value);
                Ok(text_of(raw))
            }
            Self::Age(set) => {
                let value = raw.duration()?;
                if value > YEAR {
                    return Err(format!("{} is more than 365d", text_of(raw)));
                }
                set(config, value);
                Ok(text_of(raw))
            }
            Self::Size { least, most, set } => {
                let value = raw.size()?;
                if value < *least || value > *most {
                    return Err(format!(
                        "{} is not between {} and {}",
                        text_of(raw),
                        show_size(*least),
                        show_size(*most)
                    ));
                }
                set(config, value);
                Ok(text_of(raw))
            }
            Self::DataDirectory(set) => {
                let path = places.path(&raw.text()?)?;
                let shown = quote(&path.to_string_lossy());
                set(config, path);
                Ok(shown)
            }
            Self::Files(set) => {
                let (mut paths, mut problems) = (Vec::new(), Vec::new());
                for item in raw.list()? {
                    match places.readable_file(&item) {
                        Ok(path) => paths.push(path),
                        Err(problem) => problems.push(problem),
                    }
                }
                if !problems.is_empty() {
                    return Err(problems.join("; "));
                }
                let shown = quote_list(paths.iter().map(|path| path.to_string_lossy()));
                set(config, paths);
                Ok(shown)
            }
            Self::OptionalFile(set) => {
                let text = raw.text()?;
                let path = match text.as_str() {
                    "" => None,
                    text => Some(places.readable_file(text)?),
                };
                let shown =
                    quote(&path.as_ref().map(|path| path.to_string_lossy()).unwrap_or_default());
                set(config, path);
                Ok(shown)
            }
            Self::Netrc(set) => {
                let path = places.netrc(&raw.text()?)?;
                let shown =
                    path.as_ref().map_or(quote("off"), |path| quote(&path.to_string_lossy()));
                set(config, path);
                Ok(shown)
            }
            Self::ProxyList(set) => {
                let list = proxy_list(&raw.text()?)?;
                let shown = quote(&list.to_string());
                set(config, list);
                Ok(shown)
            }
            Self::Patterns(set) => {
                let patterns = patterns(&raw.list()?.join(","))?;
                let shown = quote(&patterns.to_string());
                set(config, patterns);
                Ok(shown)
            }
            Self::GoVcs(set) => {
                let text = match raw {
                    Raw::List(items) => items.join(","),
                    raw => raw.text()?,
                };
                set(config, GoVcs::parse(&text).map_err(|err| err.to_string())?);
                Ok(quote(&text))
            }
            Self::Host(set) => {
                let text = raw.text()?;
                let host = if text.is_empty() { None } else { Some(git::host(&text)?) };
                let shown = quote(host.as_deref().unwrap_or_default());
                set(config, host);
                Ok(shown)
            }
            Self::Username(set) => {
                let text = raw.text()?;
                let name = if text.is_empty() { None } else { Some(check_username(text)?) };
                let shown = quote(name.as_deref().unwrap_or_default());
                set(config, name);
                Ok(shown)
            }
            Self::Secret(set) => {
                // Not `Raw::text`, which trims: spaces may be part of it.
                let Raw::Text(text) = raw else { return Err("must be text in quotes".to_owned()) };
                // As in a file: what is made with echo ends with one.
                let text = text.strip_suffix('\n').unwrap_or(text);
                let secret = if text.is_empty() { None } else { Some(check_secret(text)?) };
                let shown = quote(if secret.is_some() { "***" } else { "" });
                set(config, secret);
                Ok(shown)
            }
            Self::SecretFile(set) => {
                let text = raw.text()?;
                let file = if text.is_empty() {
                    None
                } else {
                    let content = check_secret(&places.secret(&text)?)?;
                    Some(SecretFile { path: places.path(&text)?, content })
                };
                let shown = file.as_ref().map(|file| file.path.to_string_lossy());
                let shown = quote(&shown.unwrap_or_default());
                set(config, file);
                Ok(shown)
            }
            Self::SumDb(set) => {
                let text = raw.text()?;
                let database = GoSumDb::parse(&text).map_err(|err| redact(&err.to_string()))?;
                set(config, database);
                Ok(quote(&redact(&text)))
            }
            Self::OnUnreachable(set) => {
                let text = raw.text()?;
                set(config, OnUnreachable::parse(&text)?);
                Ok(quote(&text))
            }
            Self::Hedge(set) => {
                let text = raw.text()?;
                set(config, Hedge::parse(text.trim())?);
                Ok(quote(&text))
            }
            Self::LogFormat(set) => {
                let text = raw.text()?;
                set(config, LogFormat::parse(&text)?);
                Ok(quote(&text))
            }
            Self::LogLevel(set) => {
                let text = raw.text()?;
                check_log_level(&text)?;
                set(config, text.clone());
                Ok(quote(&text))
            }
        }
    }

    /// What may be written there, for the reference.
    pub(super) fn form(&self) -> String {
        match self {
            Self::Listen(_) => "address, or unix:path".to_owned(),
            Self::OptionalListen(_) => "address, unix:path or nothing".to_owned(),
            Self::UnixMode(_) => "permissions".to_owned(),
            Self::PathPrefix(_) => "URL path".to_owned(),
            Self::TrustedProxies(_) => "list of addresses, networks and unix".to_owned(),
            Self::Bool(_) => "true or false".to_owned(),
            Self::Count { least, most, .. } => format!("{least} to {most}"),
            Self::Cores(_) => "0 to 1024".to_owned(),
            Self::Timeout(_) => "duration, 1ms to 1d".to_owned(),
            Self::Age(_) => "duration, 0s to 365d".to_owned(),
            Self::Size { least, most, .. } => {
                format!("size, {} to {}", show_size(*least), show_size(*most))
            }
            Self::DataDirectory(_) | Self::OptionalFile(_) | Self::SecretFile(_) => {
                "path".to_owned()
            }
            Self::Files(_) => "list of paths".to_owned(),
            Self::Netrc(_) => "path, auto or off".to_owned(),
            Self::ProxyList(_) => "GOPROXY list".to_owned(),
            Self::Patterns(_) => "GOPRIVATE list".to_owned(),
            Self::GoVcs(_) => "GOVCS".to_owned(),
            Self::Host(_) => "host".to_owned(),
            Self::Username(_) => "text".to_owned(),
            Self::Secret(_) => "secret".to_owned(),
            Self::SumDb(_) => "GOSUMDB".to_owned(),
            Self::OnUnreachable(_) => "refuse or serve".to_owned(),
            Self::Hedge(_) => "off, auto or a duration".to_owned(),
            Self::LogFormat(_) => "text or json".to_owned(),
            Self::LogLevel(_) => "log filter".to_owned(),
        }
    }

    /// A value written as text, as it stands in a TOML file.
    pub(super) fn literal(&self, text: &str) -> String {
        match self {
            Self::Bool(_) | Self::Count { .. } | Self::Cores(_) => text.to_owned(),
            Self::Files(_) | Self::TrustedProxies(_) => {
                quote_list(text.split(',').filter(|item| !item.is_empty()))
            }
            _ => quote(text),
        }
    }
}

/// Go's list of sources; a problem never shows a password.
pub(super) fn proxy_list(text: &str) -> Result<ProxyList, String> {
    ProxyList::parse(text).map_err(|err| redact(&err.to_string()))
}

/// Go's list of patterns.
pub(super) fn patterns(text: &str) -> Result<Patterns, String> {
    Patterns::parse(text).map_err(|err| err.to_string())
}

fn within(value: i128, least: u64, most: u64) -> Result<u64, String> {
    u64::try_from(value)
        .ok()
        .filter(|value| (least..=most).contains(value))
        .ok_or_else(|| format!("{value} is not between {least} and {most}"))
}

fn text_of(raw: &Raw) -> String {
    match raw {
        Raw::Integer(value) => value.to_string(),
        raw => quote(&raw.text().unwrap_or_default()),
    }
}

fn show_size(bytes: u64) -> String {
    [(TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
}
