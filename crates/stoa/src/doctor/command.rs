//! `stoa doctor`: both ends of it, what the command socket answers, and the command that asks there or looks for itself.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use clap::Args;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use stoa_core::Subject;
use stoa_store::Places;
use tokio::sync::Semaphore;
use url::Url;

use super::report::{Report, SeenBy};
use super::text::{Style, render};
use super::{Asked, client, examine};
use crate::cli::Output;
use crate::command_socket::{ask_status, post_over};
use crate::config::Config;
use crate::http::App;

/// A little longer than an examination may take.
const PATIENCE: Duration = Duration::from_secs(75);
/// Examinations of a server at once.
static ONE: Semaphore = Semaphore::const_new(1);
/// Where the width of the terminal is not known.
const WIDTH: usize = 100;

/// The arguments of `stoa doctor`.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// What cannot be fetched, or takes too long; without it all that the settings name is looked at
    #[arg(value_name = "MODULE[@VERSION]", value_parser = Subject::parse)]
    pub subject: Option<Subject>,
    /// Compare this machine's own go settings with a stoa, by default the one that GOPROXY names
    #[arg(long, value_name = "URL", num_args = 0..=1, conflicts_with_all = ["subject", "here"])]
    pub client: Option<Option<Url>>,
    /// Print JSON, whose form is stable
    #[arg(long)]
    pub json: bool,
    /// Tell every step, also those that are as they should be
    #[arg(long, short)]
    pub verbose: bool,
    /// Look from this process, also where a server runs on the data directory
    #[arg(long)]
    pub here: bool,
}

/// What the running server is to look at.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Wanted {
    subject: Option<String>,
}

/// `POST /-/doctor`.
pub(crate) async fn doctor(
    axum::extract::State(app): State<Arc<App>>,
    Json(wanted): Json<Wanted>,
) -> Response {
    let refuse = |text: String| (StatusCode::BAD_REQUEST, text).into_response();
    let subject = match wanted.subject.as_deref().map(Subject::parse).transpose() {
        Ok(subject) => subject,
        Err(text) => return refuse(text),
    };
    // It writes to the disk and takes threads that hits take too.
    let Ok(_alone) = ONE.try_acquire() else {
        let text = "another examination is under way; it takes a minute at most\n";
        return (StatusCode::TOO_MANY_REQUESTS, text).into_response();
    };
    let asked = Asked {
        config: &app.config,
        subject,
        seen_by: SeenBy::Server,
        instance_id: Some(app.instance_id.clone()),
    };
    match examine(asked).await {
        Ok(report) => Json(report).into_response(),
        Err(text) => refuse(text),
    }
}

/// `stoa doctor` without `--client`: asks the server of these settings, or looks for itself where none runs.
pub async fn run(config: &Config, args: &DoctorArgs) -> Output {
    let mut stderr = String::new();
    let by_server = if args.here { Ok(None) } else { ask_server(config, args).await };
    let report = match by_server {
        Ok(Some(report)) => Ok(report),
        Ok(None) => look_here(config, args).await,
        Err(text) => {
            stderr = format!("stoa: {text}; this command looks by itself\n");
            look_here(config, args).await
        }
    };
    match report {
        Ok(report) => {
            let code = report.verdict.exit;
            let stdout = if args.json { json(&report) } else { render(&report, style(args)) };
            Output { stdout, stderr, code }
        }
        Err(text) => {
            Output { stdout: String::new(), stderr: format!("{stderr}stoa: {text}\n"), code: 1 }
        }
    }
}

/// `stoa doctor --client`. `url`: the stoa that is meant; without it the one that GOPROXY names.
pub async fn run_client(
    url: &Option<Url>,
    json: bool,
    env: &BTreeMap<String, String>,
    cwd: &Path,
) -> Output {
    let report = client::examine(url.clone(), env, cwd).await;
    let stdout = if json { report.to_json() } else { report.to_text(colors()) };
    Output { stdout, stderr: String::new(), code: report.exit() }
}

fn json(report: &impl Serialize) -> String {
    serde_json::to_string_pretty(report)
        .map_or_else(|error| format!("{{\"error\": \"{error}\"}}\n"), |text| text + "\n")
}

async fn look_here(config: &Config, args: &DoctorArgs) -> Result<Report, String> {
    let subject = args.subject.clone();
    examine(Asked { config, subject, seen_by: SeenBy::Command, instance_id: None }).await
}

/// None where no server runs.
async fn ask_server(config: &Config, args: &DoctorArgs) -> Result<Option<Report>, String> {
    let socket = Places::of(&config.store.dir).socket();
    let subject = args.subject.as_ref().map(ToString::to_string);
    let wanted = serde_json::to_string(&Wanted { subject }).map_err(|error| error.to_string())?;
    // A server that answers nothing is noticed sooner by this.
    match ask_status(&socket).await {
        Ok(_) => {}
        Err(error) if is_nobody(&error) => return Ok(None),
        Err(error) => return Err(format!("{}: {error}", socket.display())),
    }
    match post_over(&socket, "/-/doctor", &wanted, PATIENCE).await {
        Ok((200, body)) => match serde_json::from_str(&body) {
            Ok(report) => Ok(Some(report)),
            Err(error) => Err(format!("the running server's report cannot be read: {error}")),
        },
        Ok((404, _)) => {
            Err("the server that runs there is an older one, which knows no doctor".to_owned())
        }
        Ok((code, body)) => Err(format!(
            "the running server answered {code}: {}",
            body.lines().next().unwrap_or_default()
        )),
        Err(error) if is_nobody(&error) => Ok(None),
        Err(error) => Err(format!("{}: {error}", socket.display())),
    }
}

fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn style(args: &DoctorArgs) -> Style {
    let out = io::stdout();
    let width = rustix::termios::tcgetwinsize(&out).ok().map(|size| usize::from(size.ws_col));
    Style {
        color: colors(),
        width: width.filter(|width| *width > 0).unwrap_or(WIDTH),
        verbose: args.verbose,
    }
}

/// On a terminal, unless `NO_COLOR` says something (no-color.org), or it can do nothing.
pub fn colors() -> bool {
    let says_no = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
    io::stdout().is_terminal() && !says_no && !is_dumb
}
