//! What git's own words mean.
//!
//! git tells why it failed only in sentences. They are asked for in English (`LC_ALL=C`); the first line of the table
//! below that fits decides.

use std::ffi::OsString;

use stoa_module::ErrorClass;
use url::Url;

use crate::direct::access::RemoteEnv;
use crate::examine::Trouble;
use crate::failure::{Fault, Stage};
use crate::source::redacted;

struct Meaning {
    /// Any of these, in lower case.
    words: &'static [&'static str],
    class: ErrorClass,
    says: Says,
    /// Another try may well succeed.
    passing: bool,
    trouble: Trouble,
}

/// What is said after `git: `, and what can be done about it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Says(&'static str, &'static str);

const fn meaning(
    words: &'static [&'static str],
    class: ErrorClass,
    says: Says,
    passing: bool,
    trouble: Trouble,
) -> Meaning {
    Meaning { words, class, says, passing, trouble }
}

use ErrorClass::{Denied, NotFound, Timeout, Unavailable};

const AUTHENTICATION: Says = Says(
    "authentication failed",
    "look at the server's credential for this host: upstream.credential, or git.token",
);

/// One line for what a host does not have and for what it hides: who asks here must not be able to tell the one from the
/// other. What the host itself said is in the log only.
const NOT_SEEN: Says = Says(
    "no such repository, or the server's credential may not see it",
    "look at the path, and at the server's credential for this host",
);

const TRANSPORT: Says = Says(
    "this transport is not allowed",
    "https and ssh are; http where GOINSECURE names the module; others by GIT_ALLOW_PROTOCOL",
);

/// What can be done about a name that cannot be resolved.
pub(super) const LOOK_AT_DNS: &str = "look at the server's dns, or at the module's path";
const UNRESOLVED: Says = Says("the host's name cannot be resolved", LOOK_AT_DNS);
/// What can be done about a host that cannot be reached.
pub(super) const LOOK_AT_NETWORK: &str =
    "look at the server's network; an outgoing proxy is named by https_proxy";
const UNREACHABLE: Says = Says("the host cannot be reached", LOOK_AT_NETWORK);
const TOO_SLOW: Says =
    Says("the host is too slow", "ask again later; git.stall-timeout can be longer");

/// From the more to the less special.
const TABLE: &[Meaning] = &[
    meaning(
        &["host key verification failed", "remote host identification has changed"],
        Unavailable,
        Says(
            "the ssh host key is not known, or not the one that is known",
            "compare it with what the host publishes, and put it into the server's known_hosts",
        ),
        false,
        Trouble::HostKeyUnknown,
    ),
    // Hosts say this for repositories that do not exist as well, and of both kinds it is all that they will say.
    meaning(
        &["could not read username", "could not read password", "terminal prompts disabled"],
        NotFound,
        Says(
            "no such repository, or it needs a credential that the server does not have",
            "give the server a credential for this host: upstream.credential, or git.token",
        ),
        false,
        Trouble::Unauthorized,
    ),
    // The host then refuses whoever comes without the key.
    meaning(
        &["load key", "bad permissions", "no such identity", "error in libcrypto"],
        Denied,
        Says(
            "the ssh key cannot be used",
            "look at the server's key file and its permissions; it must need no passphrase",
        ),
        false,
        Trouble::KeyRefused,
    ),
    meaning(
        &[
            "permission denied (",
            "too many authentication failures",
            "no supported authentication methods",
        ],
        Denied,
        AUTHENTICATION,
        false,
        Trouble::KeyRefused,
    ),
    meaning(
        &[
            "authentication failed",
            "http basic: access denied",
            "invalid username or password",
            "invalid credentials",
            "returned error: 401",
            "support for password authentication was removed",
        ],
        Denied,
        AUTHENTICATION,
        false,
        Trouble::Unauthorized,
    ),
    meaning(
        &["returned error: 403", "access denied", "you do not have permission", "not authorized"],
        NotFound,
        NOT_SEEN,
        false,
        Trouble::Forbidden,
    ),
    meaning(
        &[
            "could not resolve host",
            "could not resolve hostname",
            "couldn't resolve host",
            "name or service not known",
            "temporary failure in name resolution",
            "could not resolve proxy",
        ],
        Unavailable,
        UNRESOLVED,
        true,
        Trouble::NameNotResolved,
    ),
    meaning(
        &["certificate subject name", "no alternative certificate subject name"],
        Unavailable,
        Says("the host's certificate is for another name", "tell those who run that host"),
        false,
        Trouble::WrongName,
    ),
    meaning(
        &[
            "ssl certificate problem",
            "server certificate verification failed",
            "certificate verify failed",
            "self-signed certificate",
            "self signed certificate",
            "unable to get local issuer certificate",
            "ssl: certificate",
            "error setting certificate",
        ],
        Unavailable,
        Says("the host's certificate is not trusted", "name its authority in upstream.ca-files"),
        false,
        // Why it is not, not every one says.
        Trouble::TlsFailed,
    ),
    meaning(
        &[
            "ssl_error_syscall",
            "gnutls_handshake",
            "tls connection was non-properly",
            "ssl_connect",
        ],
        Unavailable,
        Says("the tls connection failed", "ask again; something between may break connections off"),
        true,
        Trouble::TlsFailed,
    ),
    // Of what came; that the connection then broke off is git's own doing.
    meaning(
        &["attempting to allocate"],
        ErrorClass::Corrupt,
        Says(
            "the repository holds what git needs more memory for than it may have",
            "GIT_ALLOC_LIMIT in the server's environment is the bound, in bytes; 1 GiB if not set",
        ),
        false,
        Trouble::GitRefused,
    ),
    meaning(&["transport '", "protocol '"], Denied, TRANSPORT, false, Trouble::GitRefused),
    meaning(
        &["connect tunnel failed", "from proxy after connect", "proxy connect aborted"],
        Unavailable,
        Says(
            "the outgoing proxy does not connect to the host",
            "look at the module's path, and at what the proxy lets through",
        ),
        true,
        Trouble::ProxyRefuses,
    ),
    meaning(
        &["returned error: 429"],
        Unavailable,
        Says(
            "the host asks for fewer requests",
            "ask again later; a credential may have a higher limit",
        ),
        true,
        Trouble::RateLimited,
    ),
    meaning(
        &["returned error: 5"],
        Unavailable,
        Says("the host has an error", "ask again later, and tell those who run that host"),
        true,
        Trouble::ServerError,
    ),
    meaning(
        &[
            "repository not found",
            "repository '",
            "project you were looking for could not be found",
            "does not appear to be a git repository",
            "repository does not exist",
            "requested repository either does not exist",
            "cannot find repository",
            "no such project",
            "returned error: 404",
            "returned error: 410",
            "not found: did you run git update-server-info",
            "does not exist",
        ],
        NotFound,
        NOT_SEEN,
        false,
        Trouble::NotFound,
    ),
    meaning(
        &[
            "connection refused",
            "connection reset",
            "connection closed by",
            "failed to connect",
            "couldn't connect",
            "no route to host",
            "network is unreachable",
            "connection timed out",
            "operation timed out",
            "broken pipe",
        ],
        Unavailable,
        UNREACHABLE,
        true,
        Trouble::Unreachable,
    ),
    meaning(&["operation too slow", "timed out"], Timeout, TOO_SLOW, true, Trouble::Slow),
    meaning(
        &[
            "early eof",
            "the remote end hung up",
            "unexpected disconnect",
            "rpc failed",
            "invalid index-pack output",
            "bad band",
            "protocol error",
        ],
        Unavailable,
        Says("the connection broke off", "ask again"),
        true,
        Trouble::Reset,
    ),
    meaning(
        &["no space left on device", "disk quota exceeded"],
        ErrorClass::Full,
        Says("no room on the server's disk", "free some space in the server's data directory"),
        false,
        Trouble::GitRefused,
    ),
];

/// Words by which git says that what it has here is broken.
const BROKEN: &[&str] = &[
    "not a git repository",
    "bad object",
    "corrupt",
    "is empty",
    "unable to read",
    "could not parse",
    "failed to read",
    "cannot read",
    "missing blob",
    "missing tree",
    "missing commit",
    "broken link",
    "inflate:",
    "index file",
    "packfile",
    "bad config",
    "fatal: bad",
    "shallow file has changed",
    "mismatched algorithms",
    "did not receive expected object",
    "missing necessary objects",
    "revision walk setup failed",
    "unresolved deltas",
];

/// The remote's name of the ref that is not there any more.
pub(super) fn missing_ref(words: &str) -> Option<&str> {
    words.lines().find_map(|line| {
        let (_, after) = line.split_once("couldn't find remote ref ")?;
        Some(after.trim())
    })
}

/// Whether a repository of ours seems to be broken, so that only fetching it anew can help.
pub(super) fn is_broken(words: &str) -> bool {
    let lower = words.to_ascii_lowercase();
    // A remote's own trouble is not ours, and its branches may have any name.
    let says = |line: &&str| {
        ["fatal: ", "error: ", "warning: "].iter().any(|beginning| line.starts_with(beginning))
    };
    let mut lines = lower.split(['\n', '\r']).filter(says).map(without_names);
    lines.any(|line| BROKEN.iter().any(|word| line.contains(word)))
}

/// What git itself says in a line: not what it quotes, nor addresses, nor paths, all of which may be anything.
fn without_names(line: &str) -> String {
    let ends = [':', ',', '.', ';', ')'];
    let mut said = String::with_capacity(line.len());
    let mut quoted = false;
    for word in line.split(' ') {
        let bare = word.trim_end_matches(ends);
        // An apostrophe within a word is none.
        quoted |= word.starts_with(['\'', '"']);
        if !quoted && !bare.contains(['/', ':']) {
            said.push_str(word);
            said.push(' ');
        }
        quoted &= !(bare.len() > 1 && bare.ends_with(['\'', '"']));
    }
    said
}

/// Whether the words leave no doubt that asking in another way would not help.
pub(super) fn is_final(words: &str) -> bool {
    recognise(words).is_some()
}

/// Whether the host answered with a redirect, which git is told not to follow.
pub(super) fn is_redirect(words: &str) -> bool {
    ["301", "302", "303", "307", "308"]
        .iter()
        .any(|status| words.contains(&format!("returned error: {status}")))
}

/// Whether nobody answers at the host, whichever repository is asked for.
pub(super) fn is_unreachable(words: &str) -> bool {
    recognise(words)
        .is_some_and(|meaning| matches!(meaning.says, UNRESOLVED | UNREACHABLE | TOO_SLOW))
}

/// The fault that git's words about a remote tell of. What git says when a host refuses a credential that was sent with
/// the first request is that it had nobody to ask for another, which would only mislead.
pub(super) fn of_remote(words: &str, env: &RemoteEnv) -> Fault {
    let lower = words.to_ascii_lowercase();
    let asked =
        lower.contains("could not read username") || lower.contains("could not read password");
    let is_header = |(name, value): &(OsString, OsString)| {
        name.as_encoded_bytes().starts_with(b"GIT_CONFIG_KEY_")
            && value.as_encoded_bytes().ends_with(b".extraHeader")
    };
    if !asked || !env.envs.iter().any(is_header) {
        let mut fault = fault(words);
        if recognise(words).is_some_and(|meaning| meaning.says == NOT_SEEN) {
            let said = fault.text.take();
            tracing::info!(git.host = env.host, git.words = said, "a repository cannot be seen");
        }
        return fault;
    }
    AUTHENTICATION.fault(Denied).proves(Trouble::Unauthorized)
}

/// What git would say of an address that it may not use.
pub(super) fn transport_not_allowed() -> Fault {
    TRANSPORT.fault(Denied)
}

/// The fault that git's words tell of.
pub(super) fn fault(words: &str) -> Fault {
    let mut fault = match recognise(words) {
        Some(meaning) => {
            let fault = meaning.says.fault(meaning.class).proves(meaning.trouble);
            if meaning.passing { fault.passing() } else { fault }
        }
        None => Fault::new(ErrorClass::Unavailable, Stage::Git, "git: the command failed")
            .proves(Trouble::GitRefused),
    };
    fault.text = own_words(words);
    fault
}

impl Says {
    fn fault(self, class: ErrorClass) -> Fault {
        Fault::new(class, Stage::Git, format!("git: {}", self.0)).hint(self.1)
    }
}

fn recognise(words: &str) -> Option<&'static Meaning> {
    let lower = words.to_ascii_lowercase();
    TABLE.iter().find(|meaning| meaning.words.iter().any(|word| lower.contains(word)))
}

/// The line that says most, without credentials, at most 200 characters.
pub(super) fn own_words(words: &str) -> Option<String> {
    let lines: Vec<&str> =
        words.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    let rank = |line: &&&str| {
        let lower = line.to_ascii_lowercase();
        // The line that decided is the one to show; else git's own conclusion.
        let decisive = TABLE.iter().any(|m| m.words.iter().any(|word| lower.contains(word)));
        (decisive, lower.starts_with("fatal:") || lower.starts_with("error:"))
    };
    // Of equals the last: that is where git concludes.
    let line = lines.iter().max_by_key(rank)?;
    let shown: String =
        without_credentials(line).chars().filter(|c| !c.is_control()).take(200).collect();
    (!shown.is_empty()).then_some(shown)
}

/// Replaces each address in a line by one without user, password and query.
fn without_credentials(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let is_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let start = rest[..at]
            .rfind(|c| !is_scheme(c))
            .map_or(0, |before| before + rest[before..].chars().next().map_or(1, char::len_utf8));
        let ends = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '<' | '>');
        let end = rest[at..].find(ends).map_or(rest.len(), |end| at + end);
        shown.push_str(&rest[..start]);
        match Url::parse(&rest[start..end]) {
            Ok(url) => shown.push_str(&redacted(&url)),
            // What cannot be read cannot be shown without risk.
            Err(_) => shown.push_str("(address)"),
        }
        rest = &rest[end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests;
