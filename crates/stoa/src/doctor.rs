//! `stoa doctor`: finds out by itself what people else find out with curl, dig, openssl and strace: whether it is the name, the
//! connection, TLS, a bound, a credential, the checksum database, the disk or the clock.
//!
//! What is seen of a host stage by stage is stoa-upstream's ([`stoa_upstream::Examined`]); here is which hosts are in play for a
//! module, what is asked of them by the protocol ([`sources`], [`database`]), what is looked at on this machine ([`local`]), and
//! what all of it means together ([`verdict`], [`report`]). An examination changes nothing: it has a client of its own, and writes
//! nothing but temporary files. It runs in the command, or, where a server runs on the data directory, in that server
//! ([`command`]), so that it sees what the server sees.

pub mod client;
pub mod command;
mod database;
mod local;
pub mod report;
mod signs;
mod sources;
mod text;
pub mod verdict;

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stoa_core::{Policy, Rule, Subject};
use stoa_module::{
    Artifact, ModulePath, ModuleVersion, ProxyList, ProxySource, Separator, latest_of,
};
use stoa_sumdb::GoSumDb;
use stoa_upstream::examine::{Limits, line};
use stoa_upstream::{Chain, Client, Entry, ProxyEnvironment, Source};
use tempfile::TempDir;
use tokio::time::Instant as Deadline;
use url::Url;

use crate::config::Config;
use crate::wiring;

use database::{Known, Read, Road};
use report::{FORM, Finding, Place, Report, SeenBy, State, Step, conclude};
use sources::{Looked, Means, Outcome};
use verdict::Verdict;

/// What one stage may take, and what all of it may; something is left for saying it.
const STEP: Duration = Duration::from_secs(10);
const WHOLE: Duration = Duration::from_secs(55);
/// By which a clock may be wrong without doing harm.
const CLOCK: Duration = Duration::from_mins(5);
/// Hosts of patterns that are looked at where no module is named.
const MOST_HOSTS: usize = 8;

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
    let routed = subject.as_ref().map(|subject| routing(&policy, config, subject.path()));
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
        Box::pin(abroad(&means, config, &policy, subject.as_ref(), &mut all)).await;
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
    let cache = dir.join("cache").join("download");
    let files = [Artifact::Info, Artifact::Mod, Artifact::Zip].map(|it| module.escaped_file(it));
    let sidecar = files[2].strip_suffix("zip").map(|stem| format!("{stem}stoa"))?;
    let looking =
        files.iter().chain([&sidecar]).map(|file| fs_err::tokio::metadata(cache.join(file)));
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

#[derive(Default)]
struct All {
    places: Vec<Place>,
    findings: Vec<Finding>,
    ruled_out: Vec<String>,
    /// By how many seconds each host's clock is ahead of ours.
    clocks: Vec<(String, i64)>,
}

impl All {
    fn find(&mut self, verdict: Verdict, place: &str, evidence: impl Into<String>, stops: bool) {
        let (place, evidence) = (place.to_owned(), line(&evidence.into()));
        self.findings.push(Finding { verdict, place, evidence, stops });
    }

    /// Takes a place in, with what was found there.
    fn take(&mut self, looked: Looked, stops: bool) {
        if let Some((theirs, ours)) = looked.clocks {
            let ahead = theirs.duration_since(ours).as_secs();
            // One host is one witness, also where it is several things.
            if self.clocks.iter().all(|(name, _)| *name != looked.place.name) {
                self.clocks.push((looked.place.name.clone(), ahead));
            }
        }
        for (verdict, evidence) in looked.signs {
            // What only costs time stops nothing by itself.
            let stops = stops && verdict.stops();
            self.find(verdict, &looked.place.name, evidence, stops);
        }
        self.places.push(looked.place);
    }
}

/// How a module is routed.
struct Routing {
    words: String,
    chain: Chain,
    /// Some setting names it.
    is_named: bool,
}

fn routing(policy: &Policy, config: &Config, path: &ModulePath) -> Routing {
    let rule = policy.rule(path);
    let words = match rule {
        Rule::Route(_, route) => format!("by the route of {}", route.pattern),
        Rule::NoProxy(pattern) => format!("direct, by GONOPROXY {pattern}"),
        Rule::Private(pattern) => format!("direct, by GOPRIVATE {pattern}"),
        Rule::Default => "by upstream.goproxy, as no route or pattern names it".to_owned(),
    };
    let is_named = !matches!(rule, Rule::Default);
    let database = match (&config.sumdb.gosumdb, policy.exempting_pattern(path)) {
        (_, Some(pattern)) => format!("no checksum database is asked about it, by {pattern}"),
        (GoSumDb::Off, None) => "sumdb.gosumdb is off".to_owned(),
        (GoSumDb::Database { key, .. }, None) => format!("verified by {}", key.name()),
    };
    let chain = policy.careful_chain(path);
    Routing { words: format!("{words}; {database}"), chain, is_named }
}

/// A source with what it is called in the report.
struct Member {
    entry: Entry,
    role: String,
}

/// Everything outside of this machine.
async fn abroad(
    means: &Means,
    config: &Config,
    policy: &Policy,
    subject: Option<&Subject>,
    all: &mut All,
) {
    if let Some(subject) = subject
        && let Some(route) = policy.refusing_route(subject.path())
    {
        let text = format!("the route of {} is off", route.pattern);
        all.find(Verdict::RouteRefuses, "this server's routes", text, true);
        return;
    }
    let routed = subject.map(|subject| routing(policy, config, subject.path()));
    let chains = chains(policy, routed.as_ref());
    let exempt = subject.is_some_and(|it| policy.exempting_pattern(it.path()).is_some());
    let asks_nobody =
        chains.iter().flatten().all(|member| matches!(member.entry.source, Source::Off));
    let database = match &config.sumdb.gosumdb {
        GoSumDb::Database { key, url } if !exempt && !asks_nobody => Some((key, url.is_some())),
        _ => None,
    };
    // The ways there, all at once; nobody is told a module's name.
    let name = database.map(|(key, _)| key.name());
    let reaching = chains
        .iter()
        .flatten()
        .map(|member| sources::reach(means, &member.entry.source, member.role.clone(), name));
    let reading = async {
        let (key, direct_first) = database?;
        let head = database::stored_head(&config.store.dir, key).await;
        let known = Known { key: key.clone(), head };
        let roads = roads(config, &known, direct_first, &chains);
        let count = roads.len();
        let looking = roads.iter().enumerate().map(|(index, road)| {
            let role = format!("checksum database, road {} of {count}", index + 1);
            database::look(means, road, role, &known)
        });
        let read = join_all(looking).await;
        Some((known, roads, read))
    };
    let hosts = async {
        match subject {
            Some(_) => Vec::new(),
            None => git_hosts(means, policy).await,
        }
    };
    let (reached, read, hosts) = tokio::join!(join_all(reaching), reading, hosts);

    let mut reached = reached.into_iter();
    let (mut has_version, mut reached_any, mut results) = (None, false, Vec::new());
    for members in &chains {
        let reached: Vec<(Looked, bool)> = reached.by_ref().take(members.len()).collect();
        let looked = walk(means, config, members, reached, subject).await;
        for (looked, member) in looked.iter().zip(members) {
            reached_any |= looked.outcome == Outcome::Has
                || (looked.outcome == Outcome::Absent && member.entry.source.is_remote());
            if looked.outcome == Outcome::Has && has_version.is_none() {
                has_version = version_of(subject, looked);
            }
        }
        results.push(looked);
    }
    let is_found = results.iter().flatten().any(|looked| looked.outcome == Outcome::Has);
    let mut verified = Vec::new();
    let mut looked_up = None;
    if let Some((known, roads, mut read)) = read {
        if let Some(version) = has_version.as_ref().filter(|_| is_found) {
            let direct_first = database.is_some_and(|(_, direct_first)| direct_first);
            look_up(means, &known, &roads, &mut read, version, direct_first).await;
        }
        if let Some(record) = read.iter().find_map(|read| read.record) {
            for looked in results.iter_mut().flatten() {
                compare(looked, &record, has_version.as_ref(), &mut verified);
            }
        }
        looked_up = Some(read);
    }
    for (members, results) in chains.iter().zip(results) {
        judge_chain(all, results, members, subject, routed.as_ref());
    }
    if let Some(read) = looked_up {
        let is_needed = is_found || subject.is_none();
        judge_database(all, read, is_needed, reached_any, has_version.as_ref());
    }
    for looked in hosts {
        all.take(looked, false);
    }
    all.ruled_out.extend(verified);
}

/// Every source in play, by chains; each only once where several have it.
fn chains(policy: &Policy, routed: Option<&Routing>) -> Vec<Vec<Member>> {
    let chains: Vec<(String, Chain)> = if let Some(routed) = routed {
        vec![("for this module".to_owned(), routed.chain.clone())]
    } else {
        let routes = policy.routes.iter();
        let routes = routes.map(|it| (format!("for {}", it.pattern), it.chain.clone()));
        let default = ("upstream.goproxy".to_owned(), policy.default.clone());
        std::iter::once(default).chain(routes).collect()
    };
    let mut known = HashSet::new();
    let chains = chains.into_iter().map(|(whose, chain)| {
        let count = chain.entries.len();
        let member = |(index, entry): (usize, Entry)| Member {
            role: format!("source {} of {count}, {whose}", index + 1),
            entry,
        };
        let members = chain.entries.into_iter().enumerate().map(member);
        let is_new = |it: &Member| routed.is_some() || known.insert(it.entry.source.to_string());
        members.filter(is_new).collect()
    });
    chains.collect()
}

/// Asks along a chain as the go command does, and nobody who would not be asked.
async fn walk(
    means: &Means,
    config: &Config,
    members: &[Member],
    reached: Vec<(Looked, bool)>,
    subject: Option<&Subject>,
) -> Vec<Looked> {
    let mut all: Vec<Looked> = Vec::new();
    let mut ended_by: Option<String> = None;
    for ((mut looked, usable), member) in reached.into_iter().zip(members) {
        let source = &member.entry.source;
        note_loop(&mut looked, source, config);
        let usable = usable && !looked.has_sign(Verdict::Loop);
        match (subject, &ended_by) {
            (None, _) if usable => sources::without_module(source, &mut looked),
            (None, _) => {}
            (Some(_), Some(before)) => {
                looked.outcome = Outcome::Unasked;
                looked.is_not_needed("it is not asked for this");
                looked.skip("list", format!("not asked: {before} decides"));
            }
            (Some(subject), None) => {
                if usable {
                    sources::ask(means, source, subject, &mut looked).await;
                } else {
                    looked.skip("list", "not asked");
                }
                let ends = match looked.outcome {
                    Outcome::Has | Outcome::Unasked => true,
                    Outcome::Absent => false,
                    Outcome::Failed => member.entry.separator == Separator::Comma,
                };
                ended_by = ends.then(|| looked.place.name.clone());
            }
        }
        all.push(looked);
    }
    all
}

/// By every road in its order, until one has the record or speaks for the database.
async fn look_up(
    means: &Means,
    known: &Known,
    roads: &[Road],
    read: &mut [Read],
    version: &ModuleVersion,
    direct_first: bool,
) {
    for (road, read) in roads.iter().zip(read) {
        if read.looked.outcome != Outcome::Has {
            continue;
        }
        database::look_up(means, road, known, version, read).await;
        let is_final = road.is_direct() && direct_first && read.no_record;
        if read.looked.outcome == Outcome::Has || is_final {
            return;
        }
    }
}

/// The version whose record is compared: the one that was named, or the one that this source has.
fn version_of(subject: Option<&Subject>, looked: &Looked) -> Option<ModuleVersion> {
    match subject? {
        Subject::Version(module) => Some(module.clone()),
        Subject::Module(_) | Subject::Query(..) => looked.version.clone(),
    }
}

/// Every road to the database, in the order in which the server takes them.
fn roads(config: &Config, known: &Known, direct_first: bool, chains: &[Vec<Member>]) -> Vec<Road> {
    let mut roads: Vec<Road> = Vec::new();
    for member in chains.iter().flatten() {
        let source = &member.entry.source;
        let is_new = roads.iter().all(|road| road.source.to_string() != source.to_string());
        if source.is_remote() && is_new {
            let prefix = format!("sumdb/{}/", known.key.name());
            roads.push(Road { source: source.clone(), prefix });
        }
    }
    let url = config.sumdb.gosumdb.direct_url();
    if let Some(source) = url.and_then(|url| Source::from_url(&url).ok()) {
        let road = Road { source, prefix: String::new() };
        if direct_first { roads.insert(0, road) } else { roads.push(road) }
    }
    roads
}

/// The hosts that the patterns for private modules name.
async fn git_hosts(means: &Means, policy: &Policy) -> Vec<Looked> {
    let mut hosts: Vec<&str> =
        policy.goprivate.literal_hosts().chain(policy.gonoproxy.literal_hosts()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    let looking = hosts.into_iter().take(MOST_HOSTS).filter_map(|host| {
        let url = Url::parse(&format!("https://{host}/")).ok()?;
        Some(async move {
            let role = "named for private modules; which port and which credential count depends on the module".to_owned();
            let mut looked = Looked::new(host.to_owned(), role);
            looked.reached(means.client.examine(&url, &means.limits).await);
            // It may well be reached by ssh alone; but not without an address.
            let is_lost = looked.has_sign(Verdict::NameNotResolved)
                || looked.has_sign(Verdict::ResolverSilent);
            if !is_lost {
                looked.is_not_needed("it may be reached by ssh alone");
            }
            looked
        })
    });
    join_all(looking).await
}

/// A source at an address of this very server.
fn note_loop(looked: &mut Looked, source: &Source, config: &Config) {
    let (Source::Http(base), crate::config::Listen::Tcp(listen)) = (source, &config.server.listen)
    else {
        return;
    };
    let is_here = match base.url().host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    let port = base.url().port_or_known_default();
    let is_ours = listen.candidates().iter().any(|(_, ours)| Some(*ours) == port && *ours != 0);
    if is_here && is_ours && !looked.has_sign(Verdict::Loop) {
        let text = format!("{source} is where this server listens itself");
        looked.outcome = Outcome::Failed;
        looked.sign("address", Verdict::Loop, text, Duration::ZERO);
    }
}

/// What came from a source against what is on record.
fn compare(
    looked: &mut Looked,
    record: &stoa_sumdb::RecordHashes,
    version: Option<&ModuleVersion>,
    verified: &mut Vec<String>,
) {
    if looked.version.as_ref() != version {
        return;
    }
    let pairs = [("mod", looked.go_mod, record.go_mod), ("zip", looked.zip, record.zip)];
    for (what, got, wanted) in pairs {
        let (Some(got), Some(wanted)) = (got, wanted) else { continue };
        if got == wanted {
            verified.push(format!("the .{what} of {} is the one on record", looked.place.name));
        } else {
            let text = format!("the .{what} here is {got}, on record is {wanted}");
            looked.outcome = Outcome::Failed;
            looked.sign("verified", Verdict::RecordContradicts, text, Duration::ZERO);
        }
    }
}

/// Whether the chain as a whole gives what was asked for, and which of its sources keep it from that.
fn judge_chain(
    all: &mut All,
    results: Vec<Looked>,
    members: &[Member],
    subject: Option<&Subject>,
    routed: Option<&Routing>,
) {
    let with = |outcome: Outcome| results.iter().find(|looked| looked.outcome == outcome);
    let has = with(Outcome::Has).map(|looked| looked.place.name.clone());
    let is_absent = has.is_none() && with(Outcome::Failed).is_none();
    if let Some(subject) = subject.filter(|_| is_absent && with(Outcome::Absent).is_some()) {
        note_absence(all, &results, subject, routed);
    }
    if let Some(name) = &has {
        all.ruled_out.push(match subject {
            Some(subject) => format!("{name} has {subject}"),
            None => format!("{name} can be reached and answers"),
        });
    }
    for (looked, member) in results.into_iter().zip(members) {
        let ends_it = subject.is_none() && member.entry.separator == Separator::Comma;
        let stops = looked.outcome == Outcome::Failed && (has.is_none() || ends_it);
        all.take(looked, stops);
    }
}

/// Every source says that it is not there.
fn note_absence(all: &mut All, results: &[Looked], subject: &Subject, routed: Option<&Routing>) {
    let place = "the chain of sources";
    let newest = results.iter().find_map(|looked| latest_of(&looked.versions));
    let asks_for_one = !matches!(subject, Subject::Module(_));
    if let (Some(newest), true) = (newest, asks_for_one) {
        let text = format!("its sources have other versions, the newest is {newest}");
        all.find(Verdict::VersionAbsent, place, text, true);
        return;
    }
    let path = subject.path();
    let host = path.as_str().split('/').next().unwrap_or_default();
    let is_named = routed.is_some_and(|routed| routed.is_named);
    let goes_direct = results.iter().any(|looked| looked.place.name == "direct");
    // Its host is in this network, or wants to know who asks.
    let is_hidden = results.iter().any(|looked| {
        let of_git = looked.place.steps.iter().filter(|step| step.step == "git");
        looked.has_sign(Verdict::NoRoute)
            || of_git.map(|step| &step.seen).any(|seen| seen.contains("credential"))
    });
    let is_likely = !is_public_host(host) && (is_hidden || !goes_direct);
    if !is_named && path.impossible().is_none() && is_likely {
        let text = if is_hidden {
            format!(
                "{host} is in a private network or asks for a credential, and no setting names {path}"
            )
        } else {
            format!("no source has it, none of them is direct, and no setting names {path}")
        };
        all.find(Verdict::NoRoute, place, text, true);
        return;
    }
    let text = match path.impossible() {
        Some(why) => format!("{path} can be no module: {why}"),
        None => "each of them says that there is nothing under this path".to_owned(),
    };
    all.find(Verdict::ModuleAbsent, place, text, true);
}

/// Whether anybody may have modules there, so that a module that is not found is most likely a slip.
fn is_public_host(host: &str) -> bool {
    const PUBLIC: [&str; 9] = [
        "github.com",
        "gitlab.com",
        "bitbucket.org",
        "golang.org",
        "google.golang.org",
        "gopkg.in",
        "k8s.io",
        "go.uber.org",
        "codeberg.org",
    ];
    PUBLIC.contains(&host)
}

/// The database counts as a whole: one road is enough. `is_needed`: there is something that it is to vouch for.
fn judge_database(
    all: &mut All,
    read: Vec<Read>,
    is_needed: bool,
    reached_any: bool,
    version: Option<&ModuleVersion>,
) {
    let works = read.iter().find(|read| read.looked.outcome == Outcome::Has);
    let works = works.map(|read| read.looked.place.name.clone());
    let no_record = read.iter().find(|read| read.no_record).filter(|_| works.is_none());
    let no_record = no_record.map(|read| read.looked.place.name.clone());
    if let Some(name) = &works {
        let text = "signed, proven, and one history with what is known here";
        all.ruled_out.push(format!("{name}: {text}"));
    } else if let Some(name) = &no_record {
        let what = version.map_or("it".to_owned(), ToString::to_string);
        all.find(Verdict::NoRecord, name, format!("no record of {what}"), true);
    }
    let is_forked = read.iter().any(|read| read.looked.has_sign(Verdict::TreeForked));
    let unproven = read.iter().any(|read| read.looked.has_sign(Verdict::DatabaseUnproven));
    let is_outage = is_needed && works.is_none() && no_record.is_none() && !is_forked && !unproven;
    if is_outage && reached_any {
        for read in &read {
            let why = read.looked.signs.first().map_or("it is not passed on", |(_, text)| text);
            let text = format!("{}: {why}", read.looked.place.name);
            all.find(Verdict::DatabaseBlocked, "the checksum database", text, true);
        }
    }
    for Read { mut looked, .. } in read {
        // What no other road makes good.
        let is_final = looked.has_sign(Verdict::TreeForked);
        if !is_final && !is_needed {
            looked.is_not_needed("there is nothing to verify");
        } else if !is_final && (works.is_some() || no_record.is_some()) {
            looked.is_not_needed("another road works");
        }
        let stops =
            is_final || looked.has_sign(Verdict::DatabaseUnproven) || (is_outage && !reached_any);
        all.take(looked, stops);
    }
}

/// This machine; `disk` is what was seen of it.
fn at_home(config: &Config, is_about_module: bool, disk: Vec<local::Seen>, all: &mut All) {
    let mut place =
        Place { name: "this machine".to_owned(), role: String::new(), steps: Vec::new() };
    judge_clock(all, &mut place);
    let mut seen = disk;
    seen.push(local::files());
    seen.push(local::proxies(&ProxyEnvironment::from_env()));
    seen.push(git(config, is_about_module));
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

fn judge_clock(all: &mut All, place: &mut Place) {
    let limit = i64::try_from(CLOCK.as_secs()).unwrap_or(i64::MAX);
    let (off, right): (Vec<_>, Vec<_>) =
        all.clocks.iter().cloned().partition(|(_, ahead)| ahead.abs() > limit);
    let told = |(name, ahead): &(String, i64)| {
        let word = if *ahead > 0 { "behind" } else { "ahead of" };
        format!("{} s {word} {name}", ahead.abs())
    };
    let certificates = [Verdict::CertificateExpired, Verdict::CertificateNotYetValid];
    let doubted = all.findings.iter().any(|finding| certificates.contains(&finding.verdict));
    let (step, verdict) = match (off.first(), right.first()) {
        (None, None) => (Step::new("clock", State::Skipped, "no host told the time"), None),
        (None, Some((name, ahead))) => {
            let text = format!("{} s from that of {name}", ahead.abs());
            all.ruled_out.push(format!("clock: {text}"));
            (Step::new("clock", State::Ok, text), None)
        }
        // One host alone may itself be wrong.
        (Some(first), None) if off.len() > 1 || doubted => {
            let all_of_them: Vec<String> = off.iter().map(told).collect();
            let text = if off.len() > 1 { all_of_them.join(", ") } else { told(first) };
            (Step::new("clock", State::Bad, text), Some(Verdict::ClockWrong))
        }
        (Some(first), _) => (
            Step::new("clock", State::Note, format!("{}; one of the two is wrong", told(first))),
            None,
        ),
    };
    if let Some(verdict) = verdict {
        all.find(verdict, &place.name, format!("clock: {}", step.seen), doubted);
        place.steps.push(step.of(verdict));
    } else {
        place.steps.push(step);
    }
}

/// Whether there is a git command. Of a module that needs one it is told by its own source.
fn git(config: &Config, is_about_module: bool) -> local::Seen {
    let is_there = wiring::upstream::is_installed("git", std::env::var_os("PATH").as_deref());
    let text =
        if is_there { "there" } else { "none in PATH: modules that go direct cannot be fetched" };
    let direct = |list: &ProxyList| list.items.iter().any(|it| it.source == ProxySource::Direct);
    let needed = !is_about_module
        && (!config.upstream.gonoproxy.is_empty()
            || !config.upstream.goprivate.is_empty()
            || config.routes.iter().any(|route| direct(&route.goproxy)));
    match (is_there, needed) {
        (true, _) => (Step::new("git", State::Ok, text), None),
        (false, false) if !direct(&config.upstream.goproxy) => {
            (Step::new("git", State::Skipped, "none in PATH; nothing here goes direct"), None)
        }
        (false, false) => (Step::new("git", State::Note, text), None),
        (false, true) => {
            let verdict = Verdict::GitMissing;
            (Step::new("git", State::Bad, text).of(verdict), Some(verdict))
        }
    }
}
