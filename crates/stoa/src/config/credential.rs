//! `[[upstream.credential]]`: who the server is towards an upstream.

use std::collections::BTreeSet;

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
    ("prefix", "The URLs it is for: a scheme, a host and perhaps a path; the longest match wins"),
    ("username", "With a password"),
    ("password", "The password itself"),
    ("password-file", "A file that holds it; one newline at its end is not part of it"),
    ("password-env", "The environment variable that holds it"),
    ("token", "A bearer token instead of a username and a password"),
    ("token-file", "A file that holds it"),
    ("token-env", "The environment variable that holds it"),
];

/// What is sent to URLs below a prefix.
#[derive(Debug, Clone)]
pub struct Credential {
    /// `http` or `https`, a host, perhaps a port and a path; no user, query or fragment.
    pub prefix: Url,
    pub secret: Secret,
    /// How the secret was given: `password-file = "/run/secrets/x"`, or `password = "***"`.
    shown: (&'static str, String),
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub enum Secret {
    Basic { username: String, password: SecretString },
    Bearer(SecretString),
}

impl Credential {
    /// The credential as it is written, the secret masked.
    pub(super) fn shown(&self) -> Vec<(&'static str, String)> {
        let mut shown = vec![("prefix", quote(self.prefix.as_str()))];
        if let Secret::Basic { username, .. } = &self.secret {
            shown.push(("username", quote(username)));
        }
        shown.push(self.shown.clone());
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
        if let Some(first) = credentials.iter().find(|first| first.prefix == credential.prefix) {
            let problem = format!("this prefix has a credential already ({})", first.origin);
            out.mistake(entry.origin.clone(), format!("{KEY}.prefix"), problem);
        }
        credentials.push(credential);
    }
    credentials
}

fn credential(entry: &Entry, places: &mut Places<'_>, out: &mut Collector) -> Option<Credential> {
    let prefix = prefix(entry, out);
    let secret = secret(entry, places, out);
    let (prefix, (secret, shown)) = (prefix?, secret?);
    if prefix.scheme() == "http" {
        out.warn(format!(
            "{}: {KEY}.prefix: over http the secret for {prefix} can be read on its way; use https",
            entry.origin
        ));
    }
    Some(Credential { prefix, secret, shown, origin: entry.origin.clone() })
}

fn prefix(entry: &Entry, out: &mut Collector) -> Option<Url> {
    let key = format!("{KEY}.prefix");
    let Some((raw, origin)) = entry.fields.get("prefix") else {
        out.mistake(entry.origin.clone(), key, "is missing");
        return None;
    };
    let parsed = raw.text().and_then(|text| parse_prefix(&text));
    parsed.map_err(|problem| out.mistake(origin.clone(), key, problem)).ok()
}

/// The text is not repeated in a problem, since a password may stand in it.
fn parse_prefix(text: &str) -> Result<Url, String> {
    const HINT: &str = "write a URL like https://goproxy.example.com/path";
    let url = Url::parse(text).map_err(|err| format!("is not a URL ({err}): {HINT}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is neither http nor https: {HINT}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or password: move it to username and password-file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has more than a path behind its host: {HINT}"));
    }
    Ok(url)
}

type Shown = (&'static str, String);

fn secret(entry: &Entry, places: &mut Places<'_>, out: &mut Collector) -> Option<(Secret, Shown)> {
    let here = entry.origin.clone();
    let given: Vec<&'static str> =
        WAYS.into_iter().filter(|way| entry.fields.contains_key(way)).collect();
    let [way] = given[..] else {
        let given = if given.is_empty() { "none".to_owned() } else { given.join(" and ") };
        let problem = format!("needs exactly one of {}; it has {given}", WAYS.join(", "));
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
    let value = SecretString::from(value);
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
    Some((secret, (way, quote(&shown))))
}

fn check_username(username: String) -> Result<String, String> {
    if username.is_empty() {
        Err("is empty".to_owned())
    } else if username.contains(':') || username.chars().any(char::is_control) {
        Err("holds a colon or a control character, which HTTP cannot carry there".to_owned())
    } else {
        Ok(username)
    }
}

/// The secret that is given this way. A problem never holds it.
fn reveal(way: &str, raw: &Raw, places: &mut Places<'_>) -> Result<String, String> {
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
    if secret.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    if secret.chars().any(char::is_control) {
        return Err("the secret holds a control character or more than one line".to_owned());
    }
    Ok(secret)
}

#[cfg(test)]
mod tests;
