//! `[[upstream.credential]]`: who the server is towards an upstream or a repository.

mod prefix;
mod ssh;

use std::collections::BTreeSet;
use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::file::Entry;
use super::mistakes::{Collector, Origin};
use super::places::Places;
use super::show::quote;
use super::value::Raw;

const KEY: &str = "upstream.credential";
const WAYS: [&str; 6] =
    ["password", "password-file", "password-env", "token", "token-file", "token-env"];

/// The fields of an `[[upstream.credential]]` and what they are.
pub(super) const FIELDS: &[(&str, &str)] = &[
    (
        "prefix",
        "The URLs it is for: a scheme, a host and perhaps a path; the longest match wins. \
         `ssh://[user@]host[:port][/path]` for a key",
    ),
    ("username", "With a password"),
    ("password", "The password itself"),
    ("password-file", "A file that holds it; one newline at its end is not part of it"),
    ("password-env", "The environment variable that holds it"),
    (
        "token",
        "A bearer token instead of a username and a password; to repositories and their go-import pages it is sent as \
         the password of `x-access-token`",
    ),
    ("token-file", "A file that holds it"),
    ("token-env", "The environment variable that holds it"),
    (
        "ssh-key-file",
        "A private key without a passphrase, with which repositories below the prefix are fetched over ssh, also where \
         they are named with https",
    ),
    (
        "known-hosts-file",
        "With `ssh-key-file`: the keys of hosts that are trusted, instead of those of the user and the system",
    ),
];

/// What is used for URLs below a prefix.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `http` or `https`, a host, perhaps a port and a path; no user, query or fragment. `ssh` with [`Secret::SshKey`] and
    /// only with it, then perhaps with a user.
    pub prefix: Url,
    pub secret: Secret,
    /// How the secret was given: `password-file = "/run/secrets/x"`, or `password = "***"`.
    shown: Vec<Shown>,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub enum Secret {
    Basic { username: String, password: SecretString },
    Bearer(SecretString),
    SshKey { key_file: PathBuf, known_hosts_file: Option<PathBuf> },
}

/// A field and its value in TOML.
type Shown = (&'static str, String);

impl Credential {
    /// One that other settings make, and which is shown as those.
    pub(super) fn new(prefix: Url, secret: Secret, origin: Origin) -> Self {
        Self { prefix, secret, shown: Vec::new(), origin }
    }

    /// The credential as it is written, the secret masked.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let mut shown = vec![("prefix", quote(self.prefix.as_str()))];
        if let Secret::Basic { username, .. } = &self.secret {
            shown.push(("username", quote(username)));
        }
        shown.extend(self.shown.iter().cloned());
        shown
    }
}

/// The environment variables that hold secrets: their names are the user's choice.
pub(super) fn variables(entries: &[Entry]) -> BTreeSet<String> {
    let named = |entry: &Entry, field| match entry.fields.get(field) {
        Some((Raw::Text(name), _)) => Some(name.trim().to_owned()),
        _ => None,
    };
    entries
        .iter()
        .flat_map(|entry| [named(entry, "password-env"), named(entry, "token-env")])
        .flatten()
        .collect()
}

pub(super) fn read(
    entries: &[Entry],
    places: &mut Places<'_>,
    out: &mut Collector,
) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    for entry in entries {
        let Some(credential) = credential(entry, places, out) else { continue };
        if let Some(first) =
            credentials.iter().find(|first| prefix::same(&first.prefix, &credential.prefix))
        {
            let problem = format!("this prefix has a credential already ({})", first.origin);
            out.mistake(entry.origin.clone(), format!("{KEY}.prefix"), problem);
        }
        credentials.push(credential);
    }
    credentials
}

fn credential(entry: &Entry, places: &mut Places<'_>, out: &mut Collector) -> Option<Credential> {
    let prefix = prefix::read(entry, out);
    let is_key = ssh::FIELDS.iter().any(|field| entry.fields.contains_key(field));
    let secret = if is_key { ssh::key(entry, places, out) } else { secret(entry, places, out) };
    let (prefix, (secret, shown)) = (prefix?, secret?);
    let problem = match (prefix.scheme(), is_key) {
        ("ssh", false) => {
            "is for ssh, which takes a key: give ssh-key-file, or write https:// for a password or token"
        }
        ("http" | "https", true) => {
            "is for a password or token: with ssh-key-file write ssh://git@HOST/"
        }
        _ => "",
    };
    if !problem.is_empty() {
        let origin = entry.fields.get("prefix").map_or(&entry.origin, |(_, origin)| origin);
        out.mistake(origin.clone(), format!("{KEY}.prefix"), problem);
        return None;
    }
    if prefix.scheme() == "http" {
        out.warn(format!(
            "{}: {KEY}.prefix: over http the secret for {prefix} can be read on its way; use https",
            entry.origin
        ));
    }
    Some(Credential { prefix, secret, shown, origin: entry.origin.clone() })
}

fn secret(
    entry: &Entry,
    places: &mut Places<'_>,
    out: &mut Collector,
) -> Option<(Secret, Vec<Shown>)> {
    let here = entry.origin.clone();
    let given: Vec<&'static str> =
        WAYS.into_iter().filter(|way| entry.fields.contains_key(way)).collect();
    let [way] = given[..] else {
        let given = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        let problem =
            format!("needs exactly one of {}, ssh-key-file; it has {given}", WAYS.join(", "));
        out.mistake(here, KEY, problem);
        return None;
    };
    let username = match entry.fields.get("username") {
        Some((raw, origin)) => match raw.text().and_then(check_username) {
            Ok(username) => Some(username),
            Err(problem) => {
                out.mistake(origin.clone(), format!("{KEY}.username"), problem);
                return None;
            }
        },
        None => None,
    };
    let (raw, origin) = entry.fields.get(way)?;
    let value = match reveal(way, raw, places) {
        Ok(value) => value,
        Err(problem) => {
            out.mistake(origin.clone(), format!("{KEY}.{way}"), problem);
            return None;
        }
    };
    let shown = if way.contains('-') { raw.text().unwrap_or_default() } else { "***".to_owned() };
    let secret = match (way.starts_with("password"), username) {
        (true, Some(username)) => Secret::Basic { username, password: value },
        (false, None) => Secret::Bearer(value),
        (true, None) => {
            out.mistake(here, format!("{KEY}.username"), "is missing: a password needs one");
            return None;
        }
        (false, Some(_)) => {
            let problem = "does not go with a token: give a password instead, or leave it out";
            out.mistake(here, format!("{KEY}.username"), problem);
            return None;
        }
    };
    Some((secret, vec![(way, quote(&shown))]))
}

/// A user as HTTP can carry it.
pub(super) fn check_username(username: String) -> Result<String, String> {
    if username.is_empty() {
        Err("is empty".to_owned())
    } else if username.contains(':') || username.chars().any(char::is_control) {
        Err("holds a colon or a control character, which HTTP cannot carry there".to_owned())
    } else {
        Ok(username)
    }
}

/// The secret that is given this way. A problem never holds it.
fn reveal(way: &str, raw: &Raw, places: &mut Places<'_>) -> Result<SecretString, String> {
    // Not `Raw::text`, which trims: spaces may be part of a password.
    let Raw::Text(text) = raw else { return Err("must be text in quotes".to_owned()) };
    let secret = if way.ends_with("-file") {
        places.secret(text)?
    } else if way.ends_with("-env") {
        let name = text.trim();
        let value = places.env(name);
        value.ok_or_else(|| format!("the environment variable {name} is not set"))?.to_owned()
    } else {
        text.clone()
    };
    check_secret(&secret)
}

/// A secret as HTTP can carry it. A problem never holds it.
pub(super) fn check_secret(secret: &str) -> Result<SecretString, String> {
    if secret.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    if secret.chars().any(char::is_control) {
        return Err("the secret holds a control character or more than one line".to_owned());
    }
    Ok(SecretString::from(secret))
}

#[cfg(test)]
mod tests;
