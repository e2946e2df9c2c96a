//! What the settings cannot tell: is anybody there, is it a stoa, and does it pass the checksum database on?

use std::time::{Duration, Instant};

use serde::Serialize;
use stoa_module::ErrorClass;
use stoa_upstream::{Bounds, Client, Failure, Settings, Source, Stage, Use};
use url::Url;

use super::Verdict;
use super::machine::Machine;
use super::settings::{database, outgoing};
use crate::doctor::mask::{cut, mask, printable};

/// For one question. They are asked at the same time.
const PATIENCE: Duration = Duration::from_secs(5);

/// How `/version` begins.
const GREETING: &str = "stoa ";

const MAX_BYTES: u64 = 64 << 10;

/// One question that was asked of the server, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Question {
    /// `version` or `sumdb`.
    pub question: &'static str,
    /// The address that was asked, without credentials.
    pub asked: String,
    pub verdict: Verdict,
    pub says: String,
    pub milliseconds: u64,
}

/// What came of all questions.
pub(super) struct Asked {
    pub(super) questions: Vec<Question>,
    /// Something else answers there.
    pub(super) is_other: bool,
}

/// Asks as the go command would: through the same outgoing proxy, with the same login, with the system's authorities.
pub(super) async fn ask(machine: &Machine, stoa: &Url) -> Asked {
    if !matches!(stoa.scheme(), "http" | "https") {
        return unasked(stoa, "a stoa is at an http or https address");
    }
    let mut settings = Settings {
        connect_timeout: PATIENCE,
        retries: 1,
        breakers: false,
        proxy: outgoing(machine),
        ..Settings::default()
    };
    if machine.setting("GOAUTH").value.split(';').any(|method| method.trim() == "netrc") {
        settings.netrc = machine.netrc();
    }
    let made = tokio::task::spawn_blocking(move || Client::new(settings)).await;
    let asker = match (made, Source::from_url(&without_open_login(stoa))) {
        (Ok(Ok(client)), Ok(source)) => Asker { client, source },
        (Ok(Err(error)), _) | (_, Err(error)) => {
            return unasked(stoa, &error.to_string());
        }
        (Err(error), _) => return unasked(stoa, &error.to_string()),
    };
    let database = database(machine);
    let supported = database.as_ref().map(|name| format!("sumdb/{name}/supported"));
    let (version, supported) = tokio::join!(asker.get(Use::Modules, "version"), async {
        let path = supported.as_deref()?;
        Some(asker.get(Use::Database, path).await)
    });
    let passes_on = supported.as_ref().is_some_and(|answer| answer.outcome.is_ok());
    let is_reached = version.is_reached();
    let is_other = version.is_other();
    let mut questions = vec![of_version(version, passes_on, machine, stoa)];
    if let (Some(answer), Some(database), true) = (supported, database, is_reached) {
        questions.push(of_supported(answer, &database));
    }
    Asked { questions, is_other }
}

fn unasked(stoa: &Url, says: &str) -> Asked {
    let asked = printable(&mask(stoa.as_str()));
    let (question, verdict, says) = ("version", Verdict::Defeats, printable(says));
    let questions = vec![Question { question, asked, verdict, says, milliseconds: 0 }];
    Asked { questions, is_other: false }
}

/// The go command sends no login in cleartext.
fn without_open_login(stoa: &Url) -> Url {
    let mut url = stoa.clone();
    if url.scheme() == "http" {
        // These fail only for addresses that cannot have credentials at all.
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    url
}

struct Asker {
    client: Client,
    source: Source,
}

struct Answer {
    asked: String,
    outcome: Result<String, Failure>,
    milliseconds: u64,
}

impl Asker {
    async fn get(&self, used_for: Use, path: &str) -> Answer {
        let begun = Instant::now();
        let bounds = Bounds { header: PATIENCE, max_bytes: MAX_BYTES };
        let getting = self.client.get(&self.source, used_for, path, &bounds, "");
        let outcome = tokio::time::timeout(PATIENCE, getting).await.unwrap_or_else(|_| {
            let detail = "timeout after 5 s";
            Err(Failure::new(ErrorClass::Timeout, Stage::Http, &self.source, detail))
        });
        let outcome = outcome.map(|body| String::from_utf8_lossy(&body).into_owned());
        let milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let asked = printable(&mask(&format!("{}/{path}", self.source)));
        Answer { asked, outcome, milliseconds }
    }
}

impl Answer {
    /// Whether anybody there speaks HTTP.
    fn is_reached(&self) -> bool {
        let is_status = |failure: &Failure| failure.detail.starts_with("http ");
        self.outcome.as_ref().map_or_else(is_status, |_| true)
    }

    /// Whether what answers says by no word that it is stoa.
    fn is_other(&self) -> bool {
        match &self.outcome {
            Ok(text) => !text.starts_with(GREETING),
            Err(failure) => failure.class == ErrorClass::NotFound && !is_own(failure),
        }
    }

    fn question(self, question: &'static str, verdict: Verdict, says: &str) -> Question {
        let Self { asked, milliseconds, .. } = self;
        Question { question, asked, verdict, says: printable(says), milliseconds }
    }
}

/// What a stoa says whose pages have an address of their own, and what one says whose path is another.
const PAGES_ELSEWHERE: &str = "server.admin-listen";
const BELOW: &str = "everything of this server is below";

fn is_own(failure: &Failure) -> bool {
    let words = failure.text.as_deref().unwrap_or_default();
    words.contains(PAGES_ELSEWHERE) || words.contains(BELOW)
}

/// Is it a stoa? With `server.admin-listen` its pages are elsewhere.
fn of_version(answer: Answer, passes_on: bool, machine: &Machine, stoa: &Url) -> Question {
    let (verdict, says) = match &answer.outcome {
        Ok(text) => match text.strip_prefix(GREETING) {
            Some(version) => (Verdict::Fine, format!("stoa {} answers", cut(version.trim(), 40))),
            None => (Verdict::Defeats, "something answers, but it is no stoa".to_owned()),
        },
        Err(failure) => of_failure(failure, passes_on, machine, stoa),
    };
    answer.question("version", verdict, &says)
}

pub(super) fn of_failure(
    failure: &Failure,
    passes_on: bool,
    machine: &Machine,
    stoa: &Url,
) -> (Verdict, String) {
    let words = failure.text.as_deref().unwrap_or_default();
    let said = match words {
        "" => failure.detail.clone(),
        words => format!("{}: {words}", failure.detail),
    };
    let is_tls = stoa.scheme() == "https";
    match (failure.class, failure.stage) {
        (ErrorClass::NotFound, _) if words.contains(PAGES_ELSEWHERE) => {
            (Verdict::Fine, "stoa answers; its pages are at another address".to_owned())
        }
        (ErrorClass::NotFound, _) if passes_on => (
            Verdict::Fine,
            "a proxy of modules answers that does not say whether it is stoa".to_owned(),
        ),
        // Its own words say which path it is.
        (ErrorClass::NotFound, _) if words.contains(BELOW) => (Verdict::Defeats, words.to_owned()),
        (ErrorClass::NotFound, _) => (Verdict::Defeats, format!("no stoa there: {said}")),
        (ErrorClass::Denied, Stage::Http) if is_tls => {
            let cure = match machine.setting("GOAUTH").value.trim() {
                "off" => "GOAUTH=off keeps the go command from sending a login".to_owned(),
                _ => format!(
                    "It wants a login that fits, in the netrc file: machine {} login … password …",
                    stoa.host_str().unwrap_or_default()
                ),
            };
            (Verdict::Defeats, format!("{said}. {cure}"))
        }
        (ErrorClass::Denied, Stage::Http) => {
            let cure = "The go command sends a login over https alone";
            (Verdict::Defeats, format!("{said}. {cure}"))
        }
        (_, Stage::Tls) if said.contains("does not speak tls") => {
            (Verdict::Defeats, format!("{said}: should it be http://?"))
        }
        (_, Stage::Tls) if said.contains("unknown authority") => {
            let cure = "The go command refuses it too: add the authority to the system's, or name it in SSL_CERT_FILE";
            (Verdict::Defeats, format!("{said}. {cure}"))
        }
        (ErrorClass::Corrupt, Stage::Http) if !is_tls => {
            (Verdict::Defeats, format!("{said}: should it be https://?"))
        }
        (ErrorClass::Timeout, _) => (Verdict::Defeats, format!("{said}: builds hang there")),
        _ => (Verdict::Defeats, said),
    }
}

/// Does it pass the database on? If it says no, the go command asks the database itself; if it fails, so do builds.
fn of_supported(answer: Answer, database: &str) -> Question {
    let (verdict, says) = match &answer.outcome {
        Ok(_) => (Verdict::Fine, format!("{database} is read through it")),
        Err(failure) if failure.class == ErrorClass::NotFound => (
            Verdict::Weakens,
            format!(
                "it does not pass {database} on, so the go command asks https://{database} itself; \
                 set GOSUMDB alike here and there{}",
                failure.text.as_ref().map(|text| format!(" ({text})")).unwrap_or_default()
            ),
        ),
        Err(failure) => (Verdict::Defeats, format!("no module can be verified: {failure}")),
    };
    answer.question("sumdb", verdict, &says)
}
