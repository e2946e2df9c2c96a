//! Which secret goes with a request: the address's own, then the settings', then netrc's.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use url::Url;

use crate::error::Error;
use crate::netrc::{Login, Netrc};
use crate::settings::{Credential, Secret};
use crate::source::{Base, redacted, secret_of, without_credentials};

/// The user name that goes with a token where only the token counts; GitHub names it, GitLab and Gitea take any.
const TOKEN_USER: &str = "x-access-token";

#[derive(Debug)]
pub(crate) struct Credentials {
    settings: Vec<Credential>,
    netrc: Netrc,
}

impl Credentials {
    pub(crate) fn new(settings: Vec<Credential>, netrc: Netrc) -> Result<Self, Error> {
        for Credential { prefix, secret } in &settings {
            let invalid = |reason| Error::InvalidCredential { prefix: redacted(prefix), reason };
            if !matches!(prefix.scheme(), "http" | "https") || prefix.host_str().is_none() {
                return Err(invalid("its prefix must be an http or https address"));
            }
            if prefix.query().is_some() || prefix.fragment().is_some() {
                return Err(invalid("its prefix must have no query and no fragment"));
            }
            if !matches!(secret_of(prefix), Ok(None)) {
                return Err(invalid("its prefix must not hold another credential"));
            }
            if header(secret).is_none() {
                return Err(invalid("its token must be printable ASCII"));
            }
        }
        Ok(Self { settings, netrc })
    }

    /// The `Authorization` for an address on the host of `base`. Never to be asked for an address that a redirect to
    /// another host led to: an upstream must not be able to spend our credentials elsewhere.
    pub(crate) async fn find(&self, base: &Base, url: &Url) -> Option<HeaderValue> {
        if let Some(secret) = base.secret() {
            return header(secret);
        }
        header(&self.configured(url).await?.0)
    }

    /// [`Credentials::find`] for a host of repositories: those take a token as a password, and mostly in no other way.
    pub(crate) async fn find_for_git(&self, base: &Base, url: &Url) -> Option<HeaderValue> {
        // A name alone is whom git's own credential helper is asked about.
        let own = base.secret().filter(|secret| secret.is_whole()).cloned();
        let secret = match own {
            Some(secret) => secret,
            None => self.configured(url).await?.0,
        };
        match secret {
            Secret::Bearer(password) => {
                header(&Secret::Basic { username: TOKEN_USER.to_owned(), password })
            }
            secret @ Secret::Basic { .. } => header(&secret),
        }
    }

    /// Where the credential for an address is from, and whose it is; never what it is. `for_git` as for
    /// [`Credentials::find_for_git`].
    pub(crate) async fn origin(&self, base: &Base, url: &Url, for_git: bool) -> Option<String> {
        let own = base.secret().filter(|secret| !for_git || secret.is_whole()).cloned();
        let (secret, from) = match own {
            Some(secret) => (secret, "in the address itself".to_owned()),
            None => match self.configured(url).await? {
                (secret, Origin::Setting(prefix)) => {
                    (secret, format!("upstream.credential {}", redacted(&prefix)))
                }
                (secret, Origin::Netrc(machine)) => {
                    let file = self.netrc.path().unwrap_or(Path::new("netrc")).display();
                    (secret, format!("netrc {file} (machine {machine})"))
                }
            },
        };
        Some(match secret {
            // Not the user either: a lone one is usually a token.
            Secret::Basic { .. } => format!("a user and password, {from}"),
            Secret::Bearer(_) => format!("a token, {from}"),
        })
    }

    async fn configured(&self, url: &Url) -> Option<(Secret, Origin)> {
        let named = self.settings.iter().filter(|credential| covers(&credential.prefix, url));
        if let Some(credential) = named.max_by_key(|credential| path(&credential.prefix).len()) {
            let Credential { prefix, secret } = credential.clone();
            return Some((secret, Origin::Setting(prefix)));
        }
        let Login { machine, secret } = self.netrc.find(&without_credentials(url)).await?;
        Some((secret, Origin::Netrc(machine)))
    }
}

/// Where a credential is from, if it is not in the address.
enum Origin {
    /// `upstream.credential` for this prefix.
    Setting(Url),
    /// The entry of this machine.
    Netrc(String),
}

fn covers(prefix: &Url, url: &Url) -> bool {
    if !same_origin(prefix, url) {
        return false;
    }
    // What leads up again, or what some take for a slash and some do not, may be somebody else's.
    let raw = url.path().to_ascii_lowercase();
    if path(url).split('/').any(|element| element == "..")
        || raw.contains("%2f")
        || raw.contains("%5c")
    {
        return path(prefix).is_empty();
    }
    match path(url).strip_prefix(&path(prefix)) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

/// The path as it is meant, whichever of its characters are encoded, without a slash at its end.
fn path(url: &Url) -> String {
    let path = percent_decode_str(url.path().trim_end_matches('/'));
    path.decode_utf8_lossy().into_owned()
}

pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    one.scheme() == other.scheme()
        && one.host() == other.host()
        && one.port_or_known_default() == other.port_or_known_default()
}

/// None for a token that cannot stand in a header.
pub(crate) fn header(secret: &Secret) -> Option<HeaderValue> {
    let text = match secret {
        Secret::Basic { username, password } => {
            let pair = format!("{username}:{}", password.expose_secret());
            format!("Basic {}", STANDARD.encode(pair))
        }
        Secret::Bearer(token) => format!("Bearer {}", token.expose_secret()),
    };
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}
