//! `stoa refresh`: has the running server look at modules anew. Both ends of it: what the command socket answers, and
//! the command that asks.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use stoa_core::{Error, Look, Refreshed, Subject};
use stoa_module::ErrorClass;
use stoa_store::Places;

use crate::command_socket::post_over;
use crate::config::Config;
use crate::http::{App, error_text};

/// What is to be looked at.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Wanted {
    /// `MODULE`, `MODULE@VERSION` or `MODULE@BRANCH`.
    subject: String,
}

/// What came of it.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Report {
    /// The sources have it.
    found: bool,
    looks: Vec<Looked>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Looked {
    /// `list`, `@latest`, `.info`, `.mod`, or a branch.
    asked: String,
    /// For people.
    outcome: String,
    /// No source gave an answer, not even that it is not there.
    failed: bool,
}

impl From<Refreshed> for Report {
    fn from(refreshed: Refreshed) -> Self {
        let looks = refreshed.looks.into_iter().map(Looked::from).collect();
        Self { found: refreshed.found, looks }
    }
}

impl From<Look> for Looked {
    fn from(look: Look) -> Self {
        let failed = |error: &Arc<Error>| error.class != ErrorClass::NotFound;
        Self {
            asked: look.asked,
            failed: look.outcome.as_ref().is_err_and(failed),
            outcome: match look.outcome {
                Ok(found) => found,
                Err(error) if !failed(&error) => "not found".to_owned(),
                Err(error) => error.to_string(),
            },
        }
    }
}

/// `POST /-/refresh`.
pub(crate) async fn refresh(
    State(app): State<Arc<App>>,
    Json(wanted): Json<Wanted>,
) -> Result<Json<Report>, Response> {
    let refuse = |error: &Error| error_text::respond(error, "-", true);
    let subject = Subject::parse(&wanted.subject).map_err(|text| {
        refuse(&Error {
            class: ErrorClass::Invalid,
            message: text,
            failures: Vec::new(),
            hint: None,
            retry_after: None,
        })
    })?;
    match app.mirror.refresh(&subject).await {
        Ok(refreshed) => Ok(Json(refreshed.into())),
        Err(error) => Err(refuse(&error)),
    }
}

/// How long the server may take for one module: longer than its own bounds on a few sources one after the other.
const PATIENCE: Duration = Duration::from_mins(5);

/// Has the server of these settings look at each of them, and writes a line for each. Answers whether all were found and
/// every source that was asked answered.
///
/// # Errors
/// One line: no server runs there, or it does not understand.
pub async fn command(
    config: &Config,
    subjects: &[Subject],
    out: &mut impl Write,
) -> Result<bool, String> {
    let socket = Places::of(&config.store.dir).socket();
    let mut all = true;
    for subject in subjects {
        let wanted = serde_json::to_string(&Wanted { subject: subject.to_string() });
        let wanted = wanted.map_err(|error| error.to_string())?;
        let answer = post_over(&socket, "/-/refresh", &wanted, PATIENCE).await;
        let (code, body) = answer.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                let dir = config.store.dir.display();
                format!("no server runs on {dir}: start one, or name its --data-dir")
            }
            _ => format!("{}: {error}", socket.display()),
        })?;
        let line = match (code, serde_json::from_str::<Report>(&body)) {
            (200, Ok(report)) => {
                all &= report.found && !report.looks.iter().any(|look| look.failed);
                let looks = report.looks.iter();
                let looks: Vec<_> =
                    looks.map(|look| format!("{} {}", look.asked, look.outcome)).collect();
                format!("{subject}: {}", looks.join("; "))
            }
            (200, Err(error)) => return Err(format!("{}: {error}", socket.display())),
            // An older server, which does not know the question.
            (404, _) if body.is_empty() => {
                return Err("the server that runs there cannot do this: is it an older one?".into());
            }
            _ => {
                all = false;
                body.lines().next().unwrap_or("refused").to_owned()
            }
        };
        // A closed pipe (`stoa refresh … | head`) is no fault.
        let _ = writeln!(out, "{line}");
    }
    Ok(all)
}
