//! Everything outside of this machine: which sources, roads to the checksum database and git hosts are in play, and in which
//! order they are asked.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use stoa_core::{Policy, Rule, Subject};
use stoa_module::{ModulePath, ModuleVersion, Separator};
use stoa_sumdb::{GoSumDb, RecordHashes};
use stoa_upstream::{Chain, Entry, Source};
use url::Url;

use super::database::{self, Known, Read, Road};
use super::judge::{All, judge_chain, judge_database};
use super::looked::{Looked, Means, Outcome};
use super::sources;
use super::verdict::Verdict;
use crate::config::{Config, Listen};

/// Hosts of patterns that are looked at where no module is named.
const MOST_HOSTS: usize = 8;

/// How a module is routed.
pub(super) struct Routing {
    /// For people.
    pub(super) words: String,
    chain: Chain,
    /// Some setting names it.
    is_named: bool,
}

pub(super) fn routing(policy: &Policy, config: &Config, path: &ModulePath) -> Routing {
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
pub(super) struct Member {
    pub(super) entry: Entry,
    role: String,
}

/// Looks at everything outside of this machine that is in play.
pub(super) async fn look(
    means: &Means,
    config: &Config,
    policy: &Policy,
    subject: Option<&Subject>,
    routed: Option<&Routing>,
    all: &mut All,
) {
    if let Some(subject) = subject
        && let Some(route) = policy.refusing_route(subject.path())
    {
        let text = format!("the route of {} is off", route.pattern);
        all.find(Verdict::RouteRefuses, "this server's routes", text, true);
        return;
    }
    let chains = chains(policy, routed);
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
        judge_chain(all, results, members, subject, routed.is_some_and(|routed| routed.is_named));
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
    let (Source::Http(base), Listen::Tcp(listen)) = (source, &config.server.listen) else {
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
    record: &RecordHashes,
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
