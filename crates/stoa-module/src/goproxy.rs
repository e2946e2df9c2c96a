//! GOPROXY lists.

use std::fmt;
use std::path::Path;

use url::Url;

/// The sources of modules in the order in which they are asked.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyList {
    /// At least one. `direct` and `off` can only be the last.
    pub items: Vec<ProxyItem>,
}

/// One source and what follows it.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyItem {
    /// Whom to ask.
    pub source: ProxySource,
    /// When to go on to the next one; a comma for the last.
    pub separator: Separator,
}

/// Where modules come from. Neither `Display` nor `Debug` shows a password.
#[derive(Clone, PartialEq, Eq)]
pub enum ProxySource {
    /// A proxy: `http`, `https` or `file`. It may hold credentials.
    Url(Url),
    /// The version control systems themselves.
    Direct,
    /// Nothing.
    Off,
}

/// When the next source is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// Only after 404 and 410.
    Comma,
    /// After any failure.
    Pipe,
}

/// A list that names no sources. The texts show no password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProxyList {
    /// There are only separators and spaces, or nothing.
    #[error("the list of proxies has no entries")]
    Empty,
    /// One item is no URL.
    #[error("proxy {item:?} is no URL: {problem}")]
    Url {
        /// The item without its user and password.
        item: String,
        /// What is wrong with it.
        problem: url::ParseError,
    },
    /// A control character, such as a newline inside an item.
    #[error("proxy {0:?} contains a control character")]
    Control(String),
    /// A single word that is neither `direct` nor `off`, or a path of a file.
    #[error("proxy {0:?} has no scheme: expected a URL, direct or off")]
    NoScheme(String),
    /// Another scheme.
    #[error("proxy {0:?} must be an http, https or file URL")]
    Scheme(String),
    /// A `file` URL with more than a path.
    #[error("proxy {0:?} must have nothing but a path behind file://")]
    File(String),
}

impl ProxyList {
    /// Reads a list by the go command's rules: items are trimmed, empty ones skipped, whatever follows `direct` or
    /// `off` is ignored, and `https://` is put in front of a host without a scheme.
    pub fn parse(list: &str) -> Result<Self, InvalidProxyList> {
        let mut items = Vec::new();
        let mut rest = list;
        while !rest.is_empty() {
            let end = rest.find([',', '|']).unwrap_or(rest.len());
            let (item, after) = rest.split_at(end);
            let separator = if after.starts_with('|') { Separator::Pipe } else { Separator::Comma };
            rest = after.get(1..).unwrap_or_default();
            let source = match item.trim() {
                "" => continue,
                "direct" => ProxySource::Direct,
                "off" => ProxySource::Off,
                url => ProxySource::Url(parse_url(url)?),
            };
            let last = !matches!(source, ProxySource::Url(_));
            items.push(ProxyItem { source, separator });
            if last {
                break;
            }
        }
        match items.last_mut() {
            None => Err(InvalidProxyList::Empty),
            Some(last) => {
                last.separator = Separator::Comma;
                Ok(Self { items })
            }
        }
    }
}

fn parse_url(item: &str) -> Result<Url, InvalidProxyList> {
    // The parser would drop some of them silently.
    if item.contains(char::is_control) {
        return Err(InvalidProxyList::Control(redact(item)));
    }
    // A word without any of these is kept free for a meaning like that of `direct`.
    let bare_host =
        item.contains(['.', ':', '/']) && !item.contains(":/") && !Path::new(item).is_absolute();
    let text = if bare_host { format!("https://{item}") } else { item.to_owned() };
    let url = Url::parse(&text).map_err(|problem| match problem {
        url::ParseError::RelativeUrlWithoutBase => InvalidProxyList::NoScheme(redact(item)),
        problem => InvalidProxyList::Url { item: redact(item), problem },
    })?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        "file" => {
            // The text is looked at, because the parser drops the host `localhost`.
            let rest = text.get("file:".len()..).unwrap_or_default();
            let no_host = !rest.starts_with("//") || rest.starts_with("///");
            let only_path =
                url.host().is_none() && url.query().is_none() && url.fragment().is_none();
            if no_host && only_path { Ok(url) } else { Err(InvalidProxyList::File(redact(item))) }
        }
        _ => Err(InvalidProxyList::Scheme(redact(item))),
    }
}

/// Takes the user and the password out of a text that may not even be a URL.
fn redact(item: &str) -> String {
    let start = item.find("//").map_or(0, |at| at + 2);
    let (scheme, rest) = item.split_at(start);
    if let Some(at) = rest.rfind('@') {
        return format!("{scheme}xxxxx{}", &rest[at..]);
    }
    // What stands for a port may be a password whose end was cut off with its separator.
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{scheme}{host}:xxxxx{}", &rest[authority.len()..])
        }
        _ => item.to_owned(),
    }
}

impl fmt::Display for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A lone user name is usually a token.
            Self::Url(url) => f.write_str(&redact_url(url)),
            Self::Direct => f.write_str("direct"),
            Self::Off => f.write_str("off"),
        }
    }
}

fn redact_url(url: &Url) -> String {
    if url.username().is_empty() && url.password().is_none() {
        return url.as_str().to_owned();
    }
    let mut shown = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let hidden = match url.password() {
        Some(_) => shown.set_password(Some("xxxxx")),
        None => shown.set_username("xxxxx"),
    };
    if hidden.is_ok() { shown.into() } else { redact(url.as_str()) }
}

impl fmt::Display for ProxyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, item) in self.items.iter().enumerate() {
            write!(f, "{}", item.source)?;
            if n + 1 < self.items.len() {
                f.write_str(match item.separator {
                    Separator::Comma => ",",
                    Separator::Pipe => "|",
                })?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

impl fmt::Debug for ProxyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} then {:?}", self.source, self.separator)
    }
}

impl fmt::Debug for ProxyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}
