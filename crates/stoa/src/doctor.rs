//! `stoa doctor`: finds out by itself what people else find out with curl, dig, openssl and strace: whether it is the name, the
//! connection, TLS, a bound, a credential, the checksum database, the disk or the clock.
//!
//! What is seen of a host stage by stage is stoa-upstream's ([`stoa_upstream::examine`]); here is which hosts are in play for a
//! module ([`abroad`]), what is asked of them by the protocol ([`sources`], [`database`]), what is looked at on this machine
//! ([`local`]), and what all of it means together ([`judge`], [`verdict`], [`report`]). An examination changes nothing: it has a client of its own, and writes
//! nothing but temporary files. It runs in the command, or, where a server runs on the data directory, in that server
//! ([`command`]), so that it sees what the server sees.

mod abroad;
pub mod client;
pub mod command;
mod database;
mod judge;
mod local;
mod looked;
mod mask;
pub mod report;
mod signs;
mod sources;
mod text;
pub mod verdict;

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stoa_core::Subject;
use stoa_module::ModuleVersion;
use stoa_store::Places;
use stoa_upstream::examine::Limits;
use stoa_upstream::{Client, ProxyEnvironment};
use tempfile::TempDir;
use tokio::time::Instant as Deadline;

use crate::config::Config;
use crate::wiring;

use judge::{All, judge_clock};
use looked::Means;
use report::{FORM, Place, Report, SeenBy, State, Step, conclude};
use verdict::Verdict;

/// What one stage may take, and what all of it may; something is left for saying it.
const STEP: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(55);

/// What is to be examined, and as whom.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    pub config: &'a Config,
    pub subject: Option<Subject>,
    pub seen_by: SeenBy,
    /// The server's, so that a chain that leads back to it is noticed.
    pub instance_id: Option<String>,
}

/// Looks at everything that the module would take, or at everything that the settings name.
///
/// Takes at most a minute, whatever the hosts do.
///
/// # Errors
/// One line: the settings cannot be used.
pub async fn examine(asked: Asked<'_>) -> Result<Report, String> {
    let (began, started) = (jiff::Timestamp::now(), Instant::now());
    let Asked { config, subject, seen_by, instance_id } = asked;
    let policy = wiring::policy(config).map_err(|error| format!("{error:#}"))?;
    let mut all = All::default();
    let routed = subject.as_ref().map(|subject| abroad::routing(&policy, config, subject.path()));
    // Beside the rest, since a disk that hangs takes its time.
    let disk = local::disk(&config.store.dir, STEP);
    let elsewhere = async {
        if config.server.offline {
            all.find(Verdict::Offline, "server.offline", "it is set; no source was asked", true);
            return Ok(());
        }
        let (client, _repositories) = client(config, instance_id).await?;
        let limits = Limits { step: STEP, deadline: Deadline::now() + WHOLE };
        let scratch = local::scratch(&config.store.dir).await;
        let means = Means { client, limits, max_zip_bytes: config.limits.zip_size, scratch };
        let (subject, routed) = (subject.as_ref(), routed.as_ref());
        Box::pin(abroad::look(&means, config, &policy, subject, routed, &mut all)).await;
        Ok(())
    };
    let (disk, elsewhere): (_, Result<(), String>) = tokio::join!(disk, elsewhere);
    elsewhere?;
    let stored = match &subject {
        Some(Subject::Version(module)) => stored(&config.store.dir, module).await,
        _ => None,
    };
    at_home(config, subject.is_some(), disk, &mut all);
    if let Some(place) = stored {
        // It is served whatever the sources say.
        for finding in &mut all.findings {
            finding.stops &= finding.verdict == Verdict::TreeForked;
        }
        all.places.insert(0, place);
    }
    let (verdict, others) = conclude(all.findings);
    Ok(Report {
        stoa_doctor: FORM,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        subject: subject.map(|subject| subject.to_string()),
        seen_by,
        pid: std::process::id(),
        began,
        took_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        routed: routed.map(|routed| routed.words),
        places: all.places,
        verdict,
        others,
        ruled_out: all.ruled_out,
    })
}

/// As the server's, without its breakers and its patience, and with repositories that go with it.
async fn client(
    config: &Config,
    instance_id: Option<String>,
) -> Result<(Client, Option<TempDir>), String> {
    let mut settings = wiring::upstream::settings(config, None);
    (settings.breakers, settings.retries) = (false, 1);
    settings.connect_timeout = settings.connect_timeout.min(STEP);
    let git = &mut settings.git;
    for bound in [
        &mut git.queue_timeout,
        &mut git.stall_timeout,
        &mut git.fetch_timeout,
        &mut git.list_timeout,
        &mut git.local_timeout,
    ] {
        *bound = (*bound).min(STEP);
    }
    if let Some(id) = instance_id {
        settings.instance_id = id;
    }
    // It reads the system's authorities.
    let made = tokio::task::spawn_blocking(move || {
        let repositories = tempfile::Builder::new().prefix("stoa-doctor-").tempdir().ok();
        settings.git_dir = repositories.as_ref().map(|dir| dir.path().to_owned());
        let client = Client::new(settings).map_err(|error| error.to_string())?;
        Ok((client, repositories))
    });
    match tokio::time::timeout(STEP, made).await {
        Ok(Ok(client)) => client,
        Ok(Err(_)) | Err(_) => {
            Err("the system's certificates cannot be read within 10 s".to_owned())
        }
    }
}

/// What the store has of a version, if it has all of it.
async fn stored(dir: &Path, module: &ModuleVersion) -> Option<Place> {
    let files = Places::of(dir).whole(module).ok()?;
    let looking = files.iter().map(fs_err::tokio::metadata);
    let found = tokio::time::timeout(STEP, join_all(looking)).await.ok()?;
    let all_there = found.iter().all(|found| found.as_ref().is_ok_and(std::fs::Metadata::is_file));
    let step = Step::new(
        "stored",
        State::Ok,
        "all of it is stored, and is served whatever the sources say",
    );
    let place = Place { name: "the store".to_owned(), role: String::new(), steps: vec![step] };
    all_there.then_some(place)
}

/// This machine; `disk` is what was seen of it.
fn at_home(config: &Config, is_about_module: bool, disk: Vec<local::Seen>, all: &mut All) {
    let mut place =
        Place { name: "this machine".to_owned(), role: String::new(), steps: Vec::new() };
    judge_clock(all, &mut place);
    let mut seen = disk;
    seen.push(local::files());
    seen.push(local::proxies(&ProxyEnvironment::from_env()));
    seen.push(local::git(config, is_about_module));
    for (step, verdict) in seen {
        let what = step.step.clone();
        match verdict {
            Some(verdict) => {
                let evidence = format!("{what}: {}", step.seen);
                all.find(verdict, &place.name, evidence, verdict.stops());
            }
            None if step.state == State::Ok && what != "outgoing-proxy" => {
                all.ruled_out.push(format!("{what}: {}", step.seen));
            }
            None => {}
        }
        place.steps.push(step);
    }
    all.places.push(place);
}
