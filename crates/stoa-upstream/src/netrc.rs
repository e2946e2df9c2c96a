//! The netrc file, by the go command's rules (cmd/go's auth package), which differ from curl's: a machine needs login
//! and password, a port is part of its name, `default` is not supported, and the first of two entries wins.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use secrecy::SecretString;
use url::Url;

use crate::error::Error;
use crate::settings::Secret;

/// A netrc file that is larger is not one.
const MAX_BYTES: u64 = 1 << 20;

/// `host[:port][/path]` to login and password.
type Logins = HashMap<String, Secret>;

/// An entry of the file.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// `host[:port][/path]`.
    pub(crate) machine: String,
    pub(crate) secret: Secret,
}

/// What tells that the file is another one now.
type Stamp = Option<(SystemTime, u64)>;

#[derive(Debug)]
pub(crate) struct Netrc {
    path: Option<PathBuf>,
    read: Mutex<(Stamp, Arc<Logins>)>,
}

impl Netrc {
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, Error> {
        let read = match &path {
            Some(path) => read(path).map_err(Error::ReadNetrc)?,
            None => (None, Arc::default()),
        };
        Ok(Self { path, read: Mutex::new(read) })
    }

    /// The login for an `https:` address. The file is read again when its time or size changed; while it cannot be
    /// read, what was read last stays in use.
    pub(crate) async fn find(&self, url: &Url) -> Option<Login> {
        let path = self.path.as_ref()?;
        if url.scheme() != "https" {
            return None;
        }
        let now = match fs_err::tokio::metadata(path).await {
            Ok(metadata) => metadata.modified().ok().map(|time| (time, metadata.len())),
            Err(_) => None,
        };
        if now != self.state().0 {
            let path = path.clone();
            match tokio::task::spawn_blocking(move || read(&path)).await {
                Ok(Ok(read)) => *self.state() = read,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot read the netrc file again, its old logins stay in use");
                    // So that it is said once, not at every request.
                    self.state().0 = now;
                }
                Err(_) => {}
            }
        }
        let logins = Arc::clone(&self.state().1);
        lookup(&logins, url)
    }

    /// Where the file is, or would be.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    fn state(&self) -> MutexGuard<'_, (Stamp, Arc<Logins>)> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the go command would find a login for this `https:` address in this netrc file. It need not exist.
///
/// # Errors
/// It cannot be read, or is larger than 1 MiB.
pub fn netrc_has_login(netrc: &Path, url: &Url) -> std::io::Result<bool> {
    let (_, logins) = read(netrc)?;
    Ok(lookup(&logins, url).is_some())
}

fn read(path: &Path) -> std::io::Result<(Stamp, Arc<Logins>)> {
    let metadata = match fs_err::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok((None, Arc::default())),
        Err(error) => return Err(error),
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        let message = format!("{}: not a netrc file", path.display());
        return Err(std::io::Error::new(ErrorKind::InvalidData, message));
    }
    let text = fs_err::read(path)?;
    let stamp = metadata.modified().ok().map(|time| (time, metadata.len()));
    Ok((stamp, Arc::new(parse(&String::from_utf8_lossy(&text)))))
}

fn parse(text: &str) -> Logins {
    let mut logins = Logins::new();
    let (mut machine, mut login, mut password) = ("", "", "");
    let mut in_macro = false;
    for line in text.split('\n') {
        if in_macro {
            in_macro = !line.is_empty();
            continue;
        }
        let mut fields = line.split_whitespace();
        while let Some(name) = fields.next() {
            let Some(value) = fields.next() else {
                // `default` stands alone and must be the last entry.
                if name == "default" {
                    return logins;
                }
                break;
            };
            match name {
                "machine" => (machine, login, password) = (value, "", ""),
                "login" => login = value,
                "password" => password = value,
                "macdef" => in_macro = true,
                _ => {}
            }
            if !machine.is_empty() && !login.is_empty() && !password.is_empty() {
                let prefix = machine.strip_prefix("https://").unwrap_or(machine);
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                logins.entry(prefix.to_owned()).or_insert_with(|| Secret::Basic {
                    username: login.to_owned(),
                    password: SecretString::from(password),
                });
                (machine, login, password) = ("", "", "");
            }
        }
    }
    logins
}

fn lookup(logins: &Logins, url: &Url) -> Option<Login> {
    let text = url.as_str().strip_prefix("https://")?;
    let mut prefix = text.strip_suffix('/').unwrap_or(text);
    loop {
        if let Some(secret) = logins.get(prefix) {
            return Some(Login { machine: prefix.to_owned(), secret: secret.clone() });
        }
        prefix = &prefix[..prefix.rfind('/')?];
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    /// The entries as `machine login password`, sorted.
    fn entries(text: &str) -> Vec<String> {
        let logins = parse(text);
        let mut entries: Vec<String> =
            logins.iter().map(|(name, secret)| show(name, secret)).collect();
        entries.sort();
        entries
    }

    fn show(name: &str, secret: &Secret) -> String {
        match secret {
            Secret::Basic { username, password } => {
                format!("{name} {username} {}", password.expose_secret())
            }
            Secret::Bearer(_) => panic!("netrc knows no tokens"),
        }
    }

    #[test]
    fn parses_as_the_go_command_does() {
        let check = |text: &str, expected: &[&str]| assert_eq!(entries(text), expected, "{text:?}");
        check("", &[]);
        check("machine a login b password c", &["a b c"]);
        check("machine a\nlogin b\n\n  password c\n", &["a b c"]);
        check("machine a password c login b account d", &["a b c"]);
        check("machine a login b", &[]);
        check("machine a password b", &[]);
        check("login b password c", &[]);
        check("machine a login b machine d password e", &[]);
        check("machine a login b password c machine d login e password f", &["a b c", "d e f"]);
        check("machine a login 1 password 1\nmachine a login 2 password 2", &["a 1 1"]);
        check(
            "machine a:8443 login b password c\nmachine a/x/ login d password e",
            &["a/x d e", "a:8443 b c"],
        );
        check("machine https://a/ login b password c", &["a b c"]);
        // What stands behind `default` on a line of its own is not read.
        check(
            "machine a login b password c\ndefault\nlogin x password y\nmachine z login z password z",
            &["a b c"],
        );
        // On one line it is a pair of words like another.
        check("default login x password y\nmachine z login z password z", &["z z z"]);
        check(
            "machine a login b password c\nmacdef init\nmachine x login x password x\n\nmachine d login e password f",
            &["a b c", "d e f"],
        );
        check("macdef init\nmachine x login x password x", &[]);
        check(
            "machine a login b password c\r\nmachine d login e password f\r\n",
            &["a b c", "d e f"],
        );
        check("machine", &[]);
        check("machine a login b password", &[]);
    }

    #[test]
    fn tells_whether_there_is_a_login() {
        let dir = tempfile::tempdir().unwrap();
        let check = |file: &str, expected| {
            let url = Url::parse("https://a.org/x").unwrap();
            assert_eq!(netrc_has_login(&dir.path().join(file), &url).ok(), expected, "{file}");
        };
        fs_err::write(dir.path().join("a"), "machine a.org login l password p").unwrap();
        fs_err::write(dir.path().join("b"), "machine b.org login l password p").unwrap();
        check("a", Some(true));
        check("b", Some(false));
        check("none", Some(false));
        check("", None);
    }

    #[test]
    fn looks_up_by_prefix() {
        let logins = parse(
            "machine a.org login host password p\nmachine a.org/x/y login deep password p\n\
             machine a.org:8443 login port password p",
        );
        let check = |url: &str, expected: Option<&str>| {
            let login = lookup(&logins, &Url::parse(url).unwrap());
            let expected = expected.map(|login| format!(" {login} p"));
            assert_eq!(login.map(|login| show("", &login.secret)), expected, "{url}");
        };
        check("https://a.org", Some("host"));
        check("https://a.org/", Some("host"));
        check("https://a.org:443/x", Some("host"));
        check("https://a.org/x/y", Some("deep"));
        check("https://a.org/x/y/z", Some("deep"));
        check("https://a.org/x/yz", Some("host"));
        check("https://a.org:8443/x/y", Some("port"));
        check("https://a.org:8444/x/y", None);
        check("https://b.a.org/", None);
        check("http://a.org/", None);
    }
}
