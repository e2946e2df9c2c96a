use url::Url;

use crate::{InvalidVerifierKey, VerifierKey};

/// The databases whose keys the go command knows by name (cmd/go, `modfetch/key.go`).
const KNOWN: [(&str, &str); 1] =
    [("sum.golang.org", "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")];

/// A setting of GOSUMDB: which checksum database vouches for modules, if any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoSumDb {
    Off,
    Database {
        key: VerifierKey,
        /// Where to reach it, if the setting says so; it is then asked before any proxy.
        url: Option<Url>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidGoSumDb {
    #[error("empty GOSUMDB (to do without a checksum database say off)")]
    Empty,
    #[error("invalid GOSUMDB: more than a key and a URL")]
    TooManyFields,
    /// The text of the key is not repeated: it may be anything.
    #[error("invalid GOSUMDB: {0}")]
    Key(#[from] InvalidVerifierKey),
    #[error("invalid GOSUMDB: the database name {0:?} is not of the form host[/path]")]
    Name(String),
    /// The text of the URL is not repeated: it may hold a password.
    #[error("invalid GOSUMDB: the second field is not an http, https or file URL")]
    Url,
}

impl GoSumDb {
    /// Reads `NAME`, `KEY`, `NAME URL`, `KEY URL` or `off` by the go command's rules.
    pub fn parse(text: &str) -> Result<GoSumDb, InvalidGoSumDb> {
        let mut fields = text.split_whitespace();
        let (key, url) = match (fields.next(), fields.next(), fields.next()) {
            (None, ..) => return Err(InvalidGoSumDb::Empty),
            (Some("off"), None, _) => return Ok(GoSumDb::Off),
            // For those who can reach no other host of Google.
            (Some("sum.golang.google.cn"), None, _) => {
                ("sum.golang.org", Some("https://sum.golang.google.cn"))
            }
            (Some(key), url, None) => (key, url),
            (_, _, Some(_)) => return Err(InvalidGoSumDb::TooManyFields),
        };
        let key = KNOWN.iter().find(|(name, _)| *name == key).map_or(key, |(_, known)| known);
        let key = VerifierKey::parse(key)?;
        if direct_url(key.name()).is_none() {
            return Err(InvalidGoSumDb::Name(key.name().to_owned()));
        }
        let url = url.map(parse_url).transpose()?;
        Ok(GoSumDb::Database { key, url })
    }

    /// Where the database is when no proxy serves it: the URL of the setting, or `https://NAME`.
    pub fn direct_url(&self) -> Option<Url> {
        match self {
            GoSumDb::Off => None,
            GoSumDb::Database { url: Some(url), .. } => Some(url.clone()),
            GoSumDb::Database { key, url: None } => direct_url(key.name()),
        }
    }
}

fn parse_url(text: &str) -> Result<Url, InvalidGoSumDb> {
    match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https" | "file") => Ok(url),
        _ => Err(InvalidGoSumDb::Url),
    }
}

/// The URL of a name that is a host, perhaps with a path.
///
/// The name also becomes a path on disk and in our own routes, so elements that a path or a URL gives
/// a meaning to (`..`, `%2f`, a query) are refused.
fn direct_url(name: &str) -> Option<Url> {
    let plain = |element: &str| {
        !element.is_empty()
            && !element.bytes().all(|b| b == b'.')
            && element.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~:".contains(&b))
    };
    if !name.split('/').all(plain) {
        return None;
    }
    Url::parse(&format!("https://{name}")).ok().filter(|url| url.username().is_empty())
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;

    use super::*;

    #[test]
    fn reads_what_the_go_command_reads() {
        #[track_caller]
        fn check(text: &str, name: &str, url: Option<&str>, direct: &str) {
            let parsed = GoSumDb::parse(text).unwrap();
            assert_eq!(parsed.direct_url().unwrap().as_str(), direct, "{text:?}");
            let GoSumDb::Database { key, url: got } = parsed else { panic!("{text:?} is off") };
            assert_eq!(key.name(), name, "{text:?}");
            assert_eq!(got.as_ref().map(Url::as_str), url, "{text:?}");
        }
        let go = KNOWN[0].1;
        check("sum.golang.org", "sum.golang.org", None, "https://sum.golang.org/");
        check(go, "sum.golang.org", None, "https://sum.golang.org/");
        check(&format!(" {go}\n"), "sum.golang.org", None, "https://sum.golang.org/");
        check(
            "sum.golang.google.cn",
            "sum.golang.org",
            Some("https://sum.golang.google.cn/"),
            "https://sum.golang.google.cn/",
        );
        check(
            "sum.golang.org https://mirror.example/sumdb/",
            "sum.golang.org",
            Some("https://mirror.example/sumdb/"),
            "https://mirror.example/sumdb/",
        );
        check(
            &format!("{go} http://127.0.0.1:8080"),
            "sum.golang.org",
            Some("http://127.0.0.1:8080/"),
            "http://127.0.0.1:8080/",
        );
        check(
            &key_of("sum.example:8443/a/b"),
            "sum.example:8443/a/b",
            None,
            "https://sum.example:8443/a/b",
        );
        assert_eq!(GoSumDb::parse("off"), Ok(GoSumDb::Off));
        assert_eq!(GoSumDb::Off.direct_url(), None);
    }

    #[test]
    fn refuses_what_the_go_command_refuses() {
        #[track_caller]
        fn check(text: &str, expected: InvalidGoSumDb) {
            assert_eq!(GoSumDb::parse(text), Err(expected), "{text:?}");
        }
        let bad_key = InvalidGoSumDb::Key;
        check("", InvalidGoSumDb::Empty);
        check(" \t", InvalidGoSumDb::Empty);
        check("sum.golang.org https://a https://b", InvalidGoSumDb::TooManyFields);
        check("sum.example", bad_key(InvalidVerifierKey::Malformed));
        check("off https://a", bad_key(InvalidVerifierKey::Malformed));
        check("sum.golang.google.cn https://a", bad_key(InvalidVerifierKey::Malformed));
        check("sum.golang.org ftp://a", InvalidGoSumDb::Url);
        check("sum.golang.org mirror", InvalidGoSumDb::Url);
        for name in [
            "h/", "h//x", "/h", "h/../x", "h/.", "..", "h?q", "h#f", "h%2fx", "u@h", "h\\x", "h:x",
            "h:99999", "u:p@h",
        ] {
            check(&key_of(name), InvalidGoSumDb::Name(name.to_owned()));
        }
    }

    fn key_of(name: &str) -> String {
        let public = SigningKey::from_bytes(&[7; 32]).verifying_key();
        VerifierKey::new(name, public.as_bytes()).unwrap().to_string()
    }
}
