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

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use stoa_core::{Policy, Rule, Subject};
use stoa_module::{ModulePath, ModuleVersion, Separator, latest_of};
use stoa_sumdb::GoSumDb;
use stoa_upstream::examine::Limits;
use stoa_upstream::{Chain, Client, Entry, ProxyEnvironment, Source};
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
    if config.server.offline {
        all.find(Verdict::Offline, "server.offline", "it is set; no source was asked", true);
    } else {
        // Bare repositories of this examination alone.
        let scratch = tempfile::tempdir().ok();
        let git_dir = scratch.as_ref().map(|dir| dir.path().to_owned());
        let mut settings = wiring::upstream::settings(config, git_dir);
        (settings.breakers, settings.retries) = (false, 1);
        settings.connect_timeout = settings.connect_timeout.min(STEP);
        if let Some(id) = instance_id {
            settings.instance_id = id;
        }
        let client = Client::new(settings).map_err(|error| error.to_string())?;
        let limits = Limits { step: STEP, deadline: Deadline::now() + WHOLE };
        let means = Means { client, limits, max_zip_bytes: config.limits.zip_size };
        abroad(&means, config, &policy, subject.as_ref(), &mut all).await;
    }
    at_home(config, &mut all).await;
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
        let (place, evidence) = (place.to_owned(), evidence.into());
        self.findings.push(Finding { verdict, place, evidence, stops });
    }

    /// Takes a place in, with what was found there.
    fn take(&mut self, looked: Looked, stops: bool) {
        if let Some((theirs, ours)) = looked.clocks {
            let ahead = theirs.duration_since(ours).as_secs();
            self.clocks.push((looked.place.name.clone(), ahead));
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
    let routed = subject.map(|subject| routing(policy, config, subject.path()));
    if let Some(subject) = subject
        && let Some(route) = policy.refusing_route(subject.path())
    {
        let text = format!("the route of {} is off", route.pattern);
        all.find(Verdict::RouteRefuses, "this server's routes", text, true);
        return;
    }
    let chains: Vec<(String, Chain)> = if let Some(routed) = &routed {
        vec![("for this module".to_owned(), routed.chain.clone())]
    } else {
        let routes = policy.routes.iter();
        let routes = routes.map(|it| (format!("for {}", it.pattern), it.chain.clone()));
        let default = ("upstream.goproxy".to_owned(), policy.default.clone());
        std::iter::once(default).chain(routes).collect()
    };
    let exempt = subject.is_some_and(|it| policy.exempting_pattern(it.path()).is_some());
    let database = match &config.sumdb.gosumdb {
        GoSumDb::Database { key, url } if !exempt => Some((key, url.is_some())),
        _ => None,
    };
    let mut chains_of_members: Vec<Vec<Member>> = Vec::new();
    for (whose, chain) in chains {
        let count = chain.entries.len();
        let member = |(index, entry): (usize, Entry)| Member {
            role: format!("source {} of {count}, {whose}", index + 1),
            entry,
        };
        chains_of_members.push(chain.entries.into_iter().enumerate().map(member).collect());
    }
    let name = database.map(|(key, _)| key.name());
    let looking = chains_of_members.iter().flatten().map(|member| {
        sources::look(means, &member.entry.source, member.role.clone(), subject, name)
    });
    // As the server does: what may be found in a repository alone is not told to the database before it is found.
    let is_told =
        |member: &Member| matches!(member.entry.source, Source::Http(_) | Source::File(_));
    let at_once = subject.is_none() || chains_of_members.iter().flatten().any(is_told);
    let reading = async {
        match database.filter(|_| at_once) {
            Some((key, direct_first)) => {
                let head = database::stored_head(&config.store.dir, key).await;
                let known = Known { key: key.clone(), head };
                read_database(means, config, &known, direct_first, subject, &chains_of_members)
                    .await
            }
            None => Vec::new(),
        }
    };
    let hosts = async {
        match subject {
            Some(_) => Vec::new(),
            None => git_hosts(means, policy).await,
        }
    };
    let (looked, mut read, hosts) = tokio::join!(join_all(looking), reading, hosts);

    let mut looked = looked.into_iter();
    let mut reached_any = false;
    let version = subject.and_then(|subject| version_of(subject, looked.as_slice()));
    let mut verified = Vec::new();
    let is_found = looked.as_slice().iter().any(|looked| looked.outcome == Outcome::Has);
    // The version is known only now, where none was named.
    if read.is_empty()
        && is_found
        && let (Some((key, direct_first)), Some(version)) = (database, &version)
    {
        let head = database::stored_head(&config.store.dir, key).await;
        let known = Known { key: key.clone(), head };
        let subject = Subject::Version(version.clone());
        let members = &chains_of_members;
        read = read_database(means, config, &known, direct_first, Some(&subject), members).await;
    }
    // What is not proven is no record.
    let mut proven = read.iter().filter(|read| read.looked.outcome == Outcome::Has);
    let record = proven.find_map(|read| read.record);
    for members in &chains_of_members {
        let mut results: Vec<Looked> = looked.by_ref().take(members.len()).collect();
        for (looked, member) in results.iter_mut().zip(members) {
            reached_any |= looked.outcome != Outcome::Failed
                && matches!(member.entry.source, Source::Http(_) | Source::File(_));
            note_loop(looked, &member.entry.source, config);
            if let Some(record) = &record {
                compare(looked, record, version.as_ref(), &mut verified);
            }
        }
        judge_chain(all, results, members, subject, routed.as_ref());
    }
    if is_found || subject.is_none() || read.iter().any(|read| is_forged(&read.looked)) {
        judge_database(all, read, reached_any, version.as_ref());
    } else {
        // There is nothing that it could vouch for.
        for mut read in read {
            read.looked.is_not_needed("there is nothing to verify");
            all.take(read.looked, false);
        }
    }
    for looked in hosts {
        all.places.push(looked.place);
    }
    all.ruled_out.extend(verified);
}

/// The version whose record is compared: the one that was named, or the one that a source has.
fn version_of(subject: &Subject, looked: &[Looked]) -> Option<ModuleVersion> {
    match subject {
        Subject::Version(module) => Some(module.clone()),
        Subject::Module(_) | Subject::Query(..) => {
            looked.iter().find_map(|looked| looked.version.clone())
        }
    }
}

/// Reads the database by every road there is. Nothing while the version is not known.
async fn read_database(
    means: &Means,
    config: &Config,
    known: &Known,
    direct_first: bool,
    subject: Option<&Subject>,
    chains: &[Vec<Member>],
) -> Vec<Read> {
    let module = match subject {
        Some(Subject::Version(module)) => Some(module),
        Some(_) => return Vec::new(),
        None => None,
    };
    let mut roads: Vec<Road> = Vec::new();
    for member in chains.iter().flatten() {
        let source = &member.entry.source;
        let is_new = roads.iter().all(|road| road.source.to_string() != source.to_string());
        if matches!(source, Source::Http(_)) && is_new {
            let prefix = format!("sumdb/{}/", known.key.name());
            roads.push(Road { source: source.clone(), prefix });
        }
    }
    if let Some(source) =
        config.sumdb.gosumdb.direct_url().and_then(|url| Source::from_url(&url).ok())
    {
        let road = Road { source, prefix: String::new() };
        if direct_first { roads.insert(0, road) } else { roads.push(road) }
    }
    let count = roads.len();
    let reading = roads.iter().enumerate().map(|(index, road)| {
        let role = format!("checksum database, road {} of {count}", index + 1);
        database::look(means, road, role, known, module)
    });
    join_all(reading).await
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
            // It may well be reached by ssh alone.
            for step in &mut looked.place.steps {
                if step.state == State::Bad {
                    step.state = State::Note;
                }
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
    let outcomes: Vec<Outcome> = results.iter().map(|looked| looked.outcome).collect();
    let mut at = 0;
    let mut has = false;
    // As the go command walks it.
    while let Some(outcome) = outcomes.get(at) {
        has |= *outcome == Outcome::Has;
        let ends = match outcome {
            Outcome::Has => subject.is_some(),
            Outcome::Absent => false,
            Outcome::Failed => members[at].entry.separator == Separator::Comma,
        };
        if ends {
            break;
        }
        at += 1;
    }
    let failed = outcomes.contains(&Outcome::Failed);
    let absent = !has && !failed && subject.is_some();
    if absent {
        note_absence(all, &results, subject, routed);
    }
    if has && let Some(index) = outcomes.iter().position(|outcome| *outcome == Outcome::Has) {
        let name = &results[index].place.name;
        all.ruled_out.push(match subject {
            Some(subject) => format!("{name} has {subject}"),
            None => format!("{name} can be reached and answers"),
        });
    }
    for (index, mut looked) in results.into_iter().enumerate() {
        // Where no module is named, each of them is asked about some.
        let is_asked = index <= at || subject.is_none();
        if !is_asked {
            looked.is_not_needed("it is not asked for this");
        }
        let ends_it = members[index].entry.separator == Separator::Comma;
        let stops = looked.outcome == Outcome::Failed
            && if subject.is_some() { !has && is_asked } else { !has || ends_it };
        all.take(looked, stops);
    }
}

/// Every source says that it is not there.
fn note_absence(
    all: &mut All,
    results: &[Looked],
    subject: Option<&Subject>,
    routed: Option<&Routing>,
) {
    let Some(subject) = subject else { return };
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
    let is_hidden = results
        .iter()
        .flat_map(|looked| &looked.place.steps)
        .any(|step| step.seen.contains("not public") || step.seen.contains("credential"));
    if !is_named
        && path.impossible().is_none()
        && (is_hidden || (!goes_direct && !is_public_host(host)))
    {
        let text = if is_hidden {
            format!(
                "{host} is in a private network, or asks for a credential, and no setting names {path}"
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

/// What no other road makes good.
fn is_forged(looked: &Looked) -> bool {
    looked.has_sign(Verdict::TreeForked) || looked.has_sign(Verdict::DatabaseUnproven)
}

/// The database counts as a whole: one road is enough.
fn judge_database(
    all: &mut All,
    read: Vec<Read>,
    reached_any: bool,
    version: Option<&ModuleVersion>,
) {
    let works = read.iter().any(|read| read.looked.outcome == Outcome::Has);
    let no_record = !works && read.iter().any(|read| read.no_record);
    if works {
        let by = read.iter().find(|read| read.looked.outcome == Outcome::Has);
        if let Some(read) = by {
            all.ruled_out.push(format!(
                "{}: signed, proven, and one history with what is known here",
                read.looked.place.name
            ));
        }
    } else if no_record {
        let what = version.map_or("it".to_owned(), ToString::to_string);
        let place = read
            .iter()
            .find(|read| read.no_record)
            .map_or("", |read| &read.looked.place.name)
            .to_owned();
        all.find(Verdict::NoRecord, &place, format!("no record of {what}"), true);
    }
    let is_outage = !works
        && !no_record
        && !read.is_empty()
        && !read.iter().any(|read| is_forged(&read.looked));
    if is_outage && reached_any {
        for read in &read {
            let why =
                read.looked.signs.first().map_or("it is not passed on", |(_, evidence)| evidence);
            let text = format!("{}: {why}", read.looked.place.name);
            all.find(Verdict::DatabaseBlocked, "the checksum database", text, true);
        }
    }
    for Read { mut looked, .. } in read {
        let is_forked = is_forged(&looked);
        if works && !is_forked {
            // Another road is enough, so this one is nobody's trouble.
            looked.is_not_needed("another road works");
        }
        let stops = is_forked || (is_outage && !reached_any);
        all.take(looked, stops);
    }
}

/// This machine.
async fn at_home(config: &Config, all: &mut All) {
    let mut place =
        Place { name: "this machine".to_owned(), role: String::new(), steps: Vec::new() };
    judge_clock(all, &mut place);
    let mut seen = local::disk(&config.store.dir, STEP).await;
    seen.push(local::files());
    seen.push(local::proxies(&ProxyEnvironment::from_env()));
    seen.push(git(config));
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

/// Whether there is a git command, where modules may need one.
fn git(config: &Config) -> local::Seen {
    let is_there = wiring::upstream::is_installed("git", std::env::var_os("PATH").as_deref());
    let text =
        if is_there { "there" } else { "none in PATH: modules that go direct cannot be fetched" };
    let needed = !config.upstream.gonoproxy.is_empty() || !config.upstream.goprivate.is_empty();
    match (is_there, needed) {
        (true, _) => (Step::new("git", State::Ok, text), None),
        (false, false) => (Step::new("git", State::Note, text), None),
        (false, true) => {
            let verdict = Verdict::GitMissing;
            (Step::new("git", State::Bad, text).of(verdict), Some(verdict))
        }
    }
}
