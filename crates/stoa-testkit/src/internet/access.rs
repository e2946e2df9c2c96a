use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::host::is_under;
use crate::{Answer, Request};

/// Who may see what is below a path of a [`Host`](crate::Host), and what others are told.
///
/// ```
/// use stoa_testkit::Access;
///
/// // One token sees everything; another is told that there is no repository `/team/secret`.
/// let access = Access::token("all").or(Access::token("some").hiding("/team/secret", 404));
/// ```
#[derive(Debug, Clone)]
pub struct Access {
    accepted: Vec<Accepted>,
    refusal: u16,
}

#[derive(Debug, Clone)]
pub(super) struct Accepted {
    credential: Credential,
    hidden: Vec<(String, u16)>,
}

#[derive(Debug, Clone)]
enum Credential {
    Basic { user: String, password: String },
    Token(String),
}

impl Access {
    /// With this user and password, as `Authorization: Basic`.
    pub fn basic(user: &str, password: &str) -> Access {
        Access::with(Credential::Basic { user: user.to_owned(), password: password.to_owned() })
    }

    /// With this token, as `Authorization: Bearer` or as anybody's password in `Basic`.
    pub fn token(token: &str) -> Access {
        Access::with(Credential::Token(token.to_owned()))
    }

    fn with(credential: Credential) -> Access {
        Access { accepted: vec![Accepted { credential, hidden: Vec::new() }], refusal: 401 }
    }

    /// With the one or the other. What others are told is as it was.
    pub fn or(mut self, other: Access) -> Access {
        self.accepted.extend(other.accepted);
        self
    }

    /// Answers with this status (404, say, or 403) what is at a path and below it, although the credential is right.
    /// `/team/secret` means `/team/secret.git` too.
    pub fn hiding(mut self, path: &str, status: u16) -> Access {
        for accepted in &mut self.accepted {
            accepted.hidden.push((path.to_owned(), status));
        }
        self
    }

    /// What those are told who have no credential or a wrong one, instead of 401. Git sends its credential only to a
    /// host that answers 401.
    pub fn refusing_with(self, status: u16) -> Access {
        Access { refusal: status, ..self }
    }

    /// Which of those it accepts a header shows.
    pub(super) fn accepts(&self, shown: Option<&str>) -> Option<&Accepted> {
        let shows = |it: &&Accepted| shown.is_some_and(|header| it.credential.is_shown_by(header));
        self.accepted.iter().find(shows)
    }

    /// What is answered instead of what was asked for.
    pub(super) fn refuse(&self, request: &Request) -> Option<Answer> {
        let Some(accepted) = self.accepts(request.header("authorization")) else {
            let answer =
                Answer::text(self.refusal, "there is nothing to see here without a credential\n");
            let challenge = "Basic realm=\"stoa-testkit\"";
            return Some(match self.refusal {
                401 => answer.with_header("WWW-Authenticate", challenge),
                _ => answer,
            });
        };
        let hides = |path: &str| {
            is_under(&request.path, path) || is_under(&request.path, &format!("{path}.git"))
        };
        let hidden = accepted.hidden.iter().find(|(path, _)| hides(path));
        hidden.map(|&(_, status)| Answer::text(status, "this credential may not see it\n"))
    }
}

impl Credential {
    fn is_shown_by(&self, header: &str) -> bool {
        let Some((scheme, value)) = header.split_once(' ') else { return false };
        if scheme.eq_ignore_ascii_case("bearer") {
            return matches!(self, Credential::Token(token) if token == value);
        }
        let Ok(plain) = STANDARD.decode(value) else { return false };
        let plain = String::from_utf8_lossy(&plain);
        let Some((shown_user, shown_password)) = plain.split_once(':') else { return false };
        scheme.eq_ignore_ascii_case("basic")
            && match self {
                Credential::Basic { user, password } => {
                    user == shown_user && password == shown_password
                }
                Credential::Token(token) => token == shown_password,
            }
    }
}
