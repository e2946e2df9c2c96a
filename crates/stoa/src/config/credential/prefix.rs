//! The URL that a credential is for.

use url::Url;

use super::super::file::Entry;
use super::super::mistakes::Collector;
use super::KEY;

/// The prefix of an entry. `None`: what is wrong with it has been reported.
pub(super) fn read(entry: &Entry, out: &mut Collector) -> Option<Url> {
    let key = format!("{KEY}.prefix");
    let Some((raw, origin)) = entry.fields.get("prefix") else {
        out.mistake(entry.origin.clone(), key, "is missing");
        return None;
    };
    let parsed = raw.text().and_then(|text| parse(&text));
    parsed.map_err(|problem| out.mistake(origin.clone(), key, problem)).ok()
}

/// The text is not repeated in a problem, since a password may stand in it.
fn parse(text: &str) -> Result<Url, String> {
    const HINT: &str = "write a URL like https://goproxy.example.com/path, or ssh://git@git.example.com/path for an ssh key";
    let mut url = Url::parse(text).map_err(|err| format!("is not a URL ({err}): {HINT}"))?;
    let is_ssh = url.scheme() == "ssh";
    if !is_ssh && !matches!(url.scheme(), "http" | "https") {
        return Err(format!("is none of http, https and ssh: {HINT}"));
    }
    if is_ssh && url.password().is_some() {
        return Err("holds a password, which ssh is not given: use ssh-key-file alone".to_owned());
    }
    if !is_ssh && (!url.username().is_empty() || url.password().is_some()) {
        return Err("holds a user or password: move it to username and password-file".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(format!("has more than a path behind its host: {HINT}"));
    }
    if is_ssh {
        // Of other schemes than the web's a host may be missing and keeps its capitals.
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() || url.set_host(Some(&host)).is_err() {
            return Err(format!("has no host: {HINT}"));
        }
    }
    Ok(url)
}

/// Whether two prefixes are for the same addresses; the user of a key is none of those.
pub(super) fn same(one: &Url, other: &Url) -> bool {
    const SSH_PORT: u16 = 22;
    if one.scheme() != "ssh" || other.scheme() != "ssh" {
        return one == other;
    }
    let place = |url: &Url| {
        let path = url.path().trim_matches('/').to_owned();
        (url.host_str().map(str::to_owned), url.port().unwrap_or(SSH_PORT), path)
    };
    place(one) == place(other)
}
