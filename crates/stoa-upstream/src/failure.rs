//! What went wrong with a source, and how it is told from other ways to go wrong.

use std::fmt;
use std::time::Duration;

use stoa_module::ErrorClass;

use crate::examine::Trouble;
use crate::source::Source;

/// How far a request had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Resolving the host's name.
    Dns,
    /// Opening the connection, through an HTTP proxy if there is one.
    Connect,
    /// The TLS handshake.
    Tls,
    /// From the request to the end of the answer's header.
    Http,
    /// Receiving the body.
    Body,
    /// The `git` command.
    Git,
    /// This machine: a file source, or the file that is written.
    Local,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Body => "body",
            Self::Git => "git",
            Self::Local => "local",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one source gave no answer, after all tries. `Display` is one line for a person, without secrets:
/// `goproxy.example.com: http 403: access needs a token`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: ErrorClass,
    pub stage: Stage,
    /// [`Source::name`].
    pub source: String,
    /// `http 403`, `http: timeout after 10 s`, `connect: connection refused`.
    pub detail: String,
    /// The upstream's own words: the first lines of a plain-text answer, joined to one line, printable, at most 200
    /// characters.
    pub text: Option<String>,
    /// From a `Retry-After` header, at most a day.
    pub retry_after: Option<Duration>,
    /// How often the source was asked; 0 if it was not.
    pub tries: u32,
    /// What somebody can do about it, where that is known.
    pub hint: Option<&'static str>,
    /// Of the answer, if there was one.
    pub status: Option<u16>,
    /// What it proves to be wrong, where it proves something.
    pub trouble: Option<Trouble>,
}

impl Failure {
    /// A failure without words of the upstream, met at the first try.
    pub fn new(
        class: ErrorClass,
        stage: Stage,
        source: &Source,
        detail: impl Into<String>,
    ) -> Self {
        Fault::new(class, stage, detail).at(source, 1)
    }
}

impl Failure {
    /// Whether a reader must be told the stage: the detail does not begin with it, and it means something. A source that was
    /// not asked has none, and what is wrong with the content was found out here.
    fn wants_stage(&self) -> bool {
        let begins = self.detail.strip_prefix(self.stage.as_str());
        let says_so = begins.is_some_and(|rest| rest.starts_with([':', ' ']));
        !says_so
            && self.tries > 0
            && self.stage != Stage::Local
            && self.class != ErrorClass::Mismatch
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if self.wants_stage() {
            write!(f, "{}: ", self.stage)?;
        }
        f.write_str(&self.detail)?;
        if self.tries > 1 {
            write!(f, " ({} tries)", self.tries)?;
        }
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

/// Bytes; longer details are cut.
const MAX_DETAIL: usize = 1024;

/// What went wrong in one try.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) class: ErrorClass,
    pub(crate) stage: Stage,
    pub(crate) detail: String,
    pub(crate) text: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// Another try may well succeed.
    pub(crate) passing: bool,
    /// Of the answer, if there was one.
    pub(crate) status: Option<u16>,
    /// Met at another host, to which the source's had redirected.
    pub(crate) elsewhere: bool,
    /// Not waited for any longer, because others were answered nothing either.
    pub(crate) given_up: bool,
    /// What somebody can do about it.
    pub(crate) hint: Option<&'static str>,
    /// What it proves to be wrong, where it proves something.
    pub(crate) trouble: Option<Trouble>,
}

impl Fault {
    pub(crate) fn new(class: ErrorClass, stage: Stage, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        // It is remembered and logged, and what others send may be in it.
        if detail.len() > MAX_DETAIL {
            let cut = (0..=MAX_DETAIL).rev().find(|&at| detail.is_char_boundary(at));
            detail.truncate(cut.unwrap_or(0));
            detail.push('…');
        }
        Self {
            class,
            stage,
            detail,
            text: None,
            retry_after: None,
            passing: false,
            status: None,
            elsewhere: false,
            given_up: false,
            hint: None,
            trouble: None,
        }
    }

    pub(crate) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    pub(crate) fn proves(mut self, trouble: Trouble) -> Self {
        self.trouble = Some(trouble);
        self
    }

    pub(crate) fn passing(mut self) -> Self {
        self.passing = true;
        self
    }

    /// Met in a body, and not in the header before it.
    pub(crate) fn is_body(&self) -> bool {
        self.stage == Stage::Body
    }

    /// A body that had begun stood still.
    pub(crate) fn is_stall(&self) -> bool {
        self.is_body() && self.class == ErrorClass::Timeout
    }

    /// Names the host, where the source does not.
    pub(crate) fn at_host(self, host: &str) -> Self {
        Self { detail: format!("{host}: {}", self.detail), ..self }
    }

    pub(crate) fn at(self, source: &Source, tries: u32) -> Failure {
        Failure {
            class: self.class,
            stage: self.stage,
            source: source.name(),
            detail: self.detail,
            text: self.text,
            retry_after: self.retry_after,
            tries,
            hint: self.hint,
            status: self.status,
            trouble: self.trouble,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ": {text}"))
    }
}

/// `15 s`, `1.5 s`, `300 ms`.
pub(crate) fn span(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", (duration.as_secs_f64() * 10.0).round() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_the_stage_once() {
        let check = |class, stage, tries, detail: &str, expected: &str| {
            let failure = Fault::new(class, stage, detail).at(&Source::Direct, tries);
            assert_eq!(failure.to_string(), format!("direct: {expected}"));
        };
        let down = ErrorClass::Unavailable;
        check(down, Stage::Http, 1, "http 503", "http 503");
        check(
            down,
            Stage::Connect,
            1,
            "connect: connection refused",
            "connect: connection refused",
        );
        check(down, Stage::Http, 1, "connection reset", "http: connection reset");
        check(
            ErrorClass::Corrupt,
            Stage::Http,
            2,
            "httpd said so",
            "http: httpd said so (2 tries)",
        );
        check(down, Stage::Dns, 0, "not asked: dns: no", "not asked: dns: no");
        check(ErrorClass::Full, Stage::Local, 1, "cannot store it", "cannot store it");
        check(ErrorClass::Mismatch, Stage::Body, 1, "sent h1:…", "sent h1:…");
    }

    #[test]
    fn spans() {
        let check =
            |millis, expected: &str| assert_eq!(span(Duration::from_millis(millis)), expected);
        check(0, "0 ms");
        check(300, "300 ms");
        check(1000, "1 s");
        check(1550, "1.6 s");
        check(15_000, "15 s");
    }
}
