//! One case: its server and its sources, what it is asked, and what is looked at.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use stoa_testkit::{FakeSumdb, FakeUpstream, TlsFront};
use tokio::sync::Semaphore;

use super::Common;
use super::fault::Fault;
use super::rule::{self, Expected, Place};
use super::target::{Document, Target, VERSION};
use crate::stoa::{Setup, Stoa};

/// Longest wait for an answer of a server that has lost its bounds.
const LOST: Duration = Duration::from_secs(30);
/// Until a source that is well again must be asked again.
const HEALED: Duration = Duration::from_secs(6);
/// What the server may need of memory, whatever it is sent.
const MEMORY_KIB: u64 = 100 << 10;

/// Servers that start at the same time.
static STARTING: Semaphore = Semaphore::const_new(4);

#[derive(Clone, Debug)]
pub struct Case {
    pub fault: Fault,
    pub target: Target,
    pub place: Place,
    pub expected: Expected,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} × {:?} × {:?}", self.fault, self.target, self.place)
    }
}

/// The sources of one case.
pub struct World {
    pub sumdb: FakeSumdb,
    pub faulty: FakeUpstream,
    /// What is before the faulty source, if its address is `https:`.
    front: Option<TlsFront>,
    honest: FakeUpstream,
    setup: Setup,
}

impl World {
    fn new(case: &Case, common: &Common) -> Self {
        let start = || FakeUpstream::start(common.modules.clone());
        let (faulty, honest) = (start().with_sumdb(&common.sumdb), start());
        if case.place != Place::Database {
            honest.set_sumdb(&common.sumdb);
        }
        let mut front = None;
        let url = match case.fault.certificate() {
            Some(kind) => {
                let front = front.insert(TlsFront::start(&faulty, &common.authority, kind));
                format!("https://{}", front.address())
            }
            None if case.fault == Fault::NoTls => format!("https://{}", faulty.address()),
            None => faulty.url(),
        };
        let key = common.sumdb.verifier_key();
        let (goproxy, gosumdb) = match case.place {
            Place::BeforeComma => (format!("{url},{}", honest.url()), key),
            Place::BeforePipe => (format!("{url}|{}", honest.url()), key),
            Place::Alone => (url, key),
            Place::Database | Place::DatabaseFirst => {
                (honest.url(), format!("{key} {url}/sumdb/{}", common.sumdb.name()))
            }
        };
        // Short where they are what ends the fault, and long where only an honest answer is waited for: this machine
        // may have other things to do.
        let millis = |bound: Duration| {
            let bound = if case.waits() { bound } else { LOST / 2 };
            format!("{}ms", bound.as_millis())
        };
        let connect = if case.fault == Fault::SilentAtConnect { rule::CONNECT } else { LOST / 2 };
        let alternative =
            if case.place == Place::BeforePipe { rule::ALTERNATIVE } else { LOST / 2 };
        let setup = Setup::in_memory()
            .goproxy(goproxy)
            .gosumdb(gosumdb)
            .env("STOA_UPSTREAM_CA_FILES", common.authority_file.path().display())
            .env("STOA_UPSTREAM_CONNECT_TIMEOUT", millis(connect))
            .env("STOA_UPSTREAM_LIST_TIMEOUT", millis(rule::LIST))
            .env("STOA_UPSTREAM_FILE_TIMEOUT", millis(rule::FILE))
            .env("STOA_UPSTREAM_ALTERNATIVE_TIMEOUT", millis(alternative))
            .env("STOA_UPSTREAM_STALL_TIMEOUT", millis(rule::STALL))
            .env("STOA_SUMDB_TIMEOUT", millis(rule::database_bound(case.place)))
            .env("STOA_UPSTREAM_TRIES", rule::TRIES)
            // What is absent is asked for again at once.
            .env("STOA_CACHE_NEGATIVE_TTL", "0s")
            .env("STOA_CACHE_NEGATIVE_VERSION_TTL", "0s")
            .env("STOA_LIMITS_LIST_SIZE", "64KiB")
            .env("STOA_LIMITS_INFO_SIZE", "32KiB")
            .env("STOA_LIMITS_MOD_SIZE", "64KiB")
            .env("STOA_LIMITS_ZIP_SIZE", "1MiB");
        Self { sumdb: common.sumdb.clone(), faulty, front, honest, setup }
    }

    fn commit(&mut self, case: &Case) {
        match case.fault {
            Fault::Refused => self.faulty.stop(),
            Fault::SilentAtConnect => self.faulty.mute(),
            fault => {
                if let Some(fault) = fault.of(case.target.document(), self) {
                    self.faulty.fault(case.target.pattern(), fault);
                }
            }
        }
    }

    /// False if it cannot be put right.
    fn heal(&mut self, case: &Case) -> bool {
        match case.fault {
            Fault::Refused | Fault::SilentAtConnect => self.faulty.resume(),
            fault if fault.is_of_host() => return false,
            _ => self.faulty.clear_faults(),
        }
        true
    }

    /// How the faulty source is named in an error.
    fn faulty_name(&self) -> String {
        self.front.as_ref().map_or(self.faulty.address(), TlsFront::address).to_string()
    }

    fn below(&self, path: &str) -> PathBuf {
        self.setup.data_dir().join(path)
    }

    fn names_in(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs_err::read_dir(self.below(path)) else { return Vec::new() };
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// Where the client's file came from by its sidecar; for what has none, whether it is there.
    fn stored(&self, target: Target) -> Option<String> {
        let there = |path: &str| self.below(path).exists().then(String::new);
        match target {
            Target::List => there("cache/answers/ex.com/lib/@v/list"),
            Target::Latest => there("cache/answers/ex.com/lib/@latest"),
            Target::Lookup | Target::Tile | Target::Supported => {
                there(&format!("cache/download/{}", target.path(self.sumdb.name())))
            }
            _ => {
                let path = target.path(self.sumdb.name());
                let extension = path.rsplit('.').next()?;
                let blob = self.below(&format!("cache/download/{path}"));
                let sidecar = format!("cache/download/ex.com/lib/@v/{VERSION}.stoa");
                let sidecar = fs_err::read(self.below(&sidecar)).ok();
                let sidecar: Option<serde_json::Value> =
                    sidecar.map(|text| serde_json::from_slice(&text).expect("a sidecar is JSON"));
                let record = sidecar.as_ref().and_then(|sidecar| sidecar.get(extension));
                match (blob.exists(), record) {
                    (false, None) => None,
                    (true, Some(record)) => Some(record["source"].as_str()?.to_owned()),
                    (blob, record) => {
                        Some(format!("torn (blob {blob}, record {})", record.is_some()))
                    }
                }
            }
        }
    }
}

fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<reqwest::Client> = OnceLock::new();
    CLIENT.get_or_init(|| {
        // Tests have runtimes of their own; a connection must not outlive the one it was made in.
        let builder = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0);
        builder.timeout(LOST).build().expect("a client")
    })
}

struct Reply {
    status: u16,
    retry_after: bool,
    body: Vec<u8>,
}

async fn ask(stoa: &Stoa, path: &str) -> Result<Reply, String> {
    let reply = client().get(format!("{}/{path}", stoa.url)).send().await;
    let reply = reply.map_err(|error| format!("no answer: {error}"))?;
    let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
    let body = reply.bytes().await.map_err(|error| format!("a torn answer: {error}"))?;
    let retry_after = headers.contains_key("retry-after");
    Ok(Reply { status, retry_after, body: body.to_vec() })
}

impl Case {
    /// Whether it is a short bound that ends its fault.
    pub fn waits(&self) -> bool {
        !self.expected.not_before.is_zero()
    }

    /// What is wrong, nothing if all is as it must be.
    pub async fn run(&self, common: &'static Common) -> Vec<String> {
        let prepared = {
            let case = self.clone();
            let few = STARTING.acquire().await;
            tokio::task::spawn_blocking(move || {
                let _few = few;
                let mut world = World::new(&case, common);
                world.commit(&case);
                let stoa = world.setup.start();
                (world, stoa)
            })
        };
        let (mut world, stoa) = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return vec![format!("cannot be set up: {error}")],
        };
        let mut problems = Vec::new();
        self.under_the_fault(&world, &stoa, common, &mut problems).await;
        self.once_it_is_over(&mut world, &stoa, &mut problems).await;
        if !self.emptied(&world).await {
            problems.push(format!("left in tmp: {:?}", world.names_in("cache/tmp")));
        }
        if stoa.log().contains("panicked") {
            problems.push("something panicked".to_owned());
        }
        let peak = peak_kib(stoa.pid());
        if peak > MEMORY_KIB {
            problems.push(format!("{peak} KiB of memory"));
        }
        if !problems.is_empty() {
            let log: Vec<String> = stoa.log().lines().map(|line| format!("    {line}")).collect();
            problems.push(format!("the log:\n{}", log.join("\n")));
        }
        // Ending it and its upstreams waits for threads.
        let _ = tokio::task::spawn_blocking(move || drop((stoa, world))).await;
        problems
    }

    async fn under_the_fault(
        &self,
        world: &World,
        stoa: &Stoa,
        common: &Common,
        problems: &mut Vec<String>,
    ) {
        let Expected { status, other_asked, .. } = self.expected;
        let (target, path) = (self.target, self.target.path(world.sumdb.name()));
        let mut wrong = |problem: String| problems.push(problem);
        let began = Instant::now();
        let reply = match ask(stoa, &path).await {
            Ok(reply) => reply,
            Err(error) => return wrong(error),
        };
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        if reply.status != status {
            let text = if reply.status == 200 { "" } else { &text };
            wrong(format!("{} instead of {status}: {text}", reply.status));
        }
        if took < self.expected.not_before || took > self.expected.not_after {
            let (from, to) = (self.expected.not_before, self.expected.not_after);
            wrong(format!("took {took:?}, not between {from:?} and {to:?}"));
        }
        if reply.status == 200 {
            if let Some(honest) = self.honest_body(common)
                && reply.body != honest
            {
                wrong("not the honest body".to_owned());
            }
        } else {
            for words in [self.expected.words, &world.faulty_name()] {
                if !text.contains(words) {
                    wrong(format!("does not say {words:?}: {text}"));
                }
            }
            if text.len() > 600 || text.lines().count() > 8 || text.contains("\n\n") {
                wrong(format!("the go command would not print this: {text}"));
            }
        }
        if reply.retry_after != (status == 503) {
            wrong(format!("Retry-After: {}", reply.retry_after));
        }

        // Who was asked.
        let of_host = self.fault.is_of_host();
        let asked = world.faulty.count(target.pattern());
        if of_host != (asked == 0) {
            wrong(format!("the faulty source was asked {asked} times"));
        }
        let hops = if self.fault == Fault::RedirectLoop { 2 } else { 1 };
        // A proof needs several tiles, and a source that stays silent is probed by asking what it supports.
        let is_once = !matches!(target.document(), Document::Tile | Document::Supported);
        if is_once && asked > rule::TRIES * hops {
            wrong(format!("the faulty source was asked {asked} times"));
        }
        if world.faulty.count("/elsewhere") > 0 {
            wrong("the redirect was followed".to_owned());
        }
        let of_chain = of_host && !self.place.is_database();
        let at_other = if of_chain { target.own_pattern() } else { target.pattern() };
        let other = world.honest.count(at_other);
        let other_may_be_asked = other_asked || self.place.is_database();
        if (other_asked && other == 0) || (!other_may_be_asked && other > 0) {
            wrong(format!("the other source was asked {other} times"));
        }

        // What is in the store.
        let stored = world.stored(target);
        match &stored {
            _ if (status == 200) != stored.is_some() => wrong(format!("stored: {stored:?}")),
            Some(source) if !source.is_empty() => {
                let other = (target.is_behind_a_file() && self.place.is_database())
                    || (other_asked && (!target.is_behind_a_file() || of_host));
                let from =
                    if other { world.honest.address().to_string() } else { world.faulty_name() };
                if !source.contains(&from) {
                    wrong(format!("stored from {source} instead of {from}"));
                }
            }
            _ => {}
        }
        let lookup = world.stored(Target::Lookup).is_some();
        // Where the host is at fault the record may well have come from another.
        if target.is_behind_a_file() && !of_host && lookup != (status == 200) {
            wrong(format!("a record of the database is stored: {lookup}"));
        }
        let rejected = world.names_in("quarantine");
        let notes = rejected.iter().filter(|name| has_extension(name, "json")).count();
        if notes != usize::from(self.expected.quarantined) {
            wrong(format!("in quarantine: {rejected:?}"));
        }
    }

    /// None where the fault may change it without harm.
    fn honest_body(&self, common: &Common) -> Option<Vec<u8>> {
        let module = format!("ex.com/lib@{VERSION}");
        let path = self.target.path(common.sumdb.name());
        match self.target {
            Target::List if self.expected.harmless => None,
            Target::List => Some(b"v1.0.0\nv1.1.0\n".to_vec()),
            Target::Latest => Some(common.modules.info("ex.com/lib@v1.1.0").into()),
            Target::Info => Some(common.modules.info(&module).into()),
            Target::Lookup | Target::Supported => common.sumdb.lookup(&module).map(Into::into),
            Target::Tile => {
                let tile = path.split_once("/tile").map(|(_, tile)| format!("tile{tile}"))?;
                common.sumdb.tile(stoa_sumdb::Tile::parse(&tile).ok()?)
            }
            _ if has_extension(&path, "zip") => Some(common.modules.zip(&module).to_vec()),
            _ => Some(common.modules.go_mod(&module).to_vec()),
        }
    }

    async fn once_it_is_over(&self, world: &mut World, stoa: &Stoa, problems: &mut Vec<String>) {
        if !world.heal(self) {
            return;
        }
        let path = self.target.path(world.sumdb.name());
        let counts = |world: &World| {
            let pattern = self.target.pattern();
            (world.faulty.count(pattern), world.honest.count(pattern))
        };
        let before = counts(world);
        let began = Instant::now();
        let status = loop {
            let status = match ask(stoa, &path).await {
                Ok(reply) => reply.status,
                Err(error) => return problems.push(format!("afterwards {error}")),
            };
            if status == 200 || self.expected.remembered || began.elapsed() > HEALED {
                break status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        if self.expected.status == 200 || self.expected.remembered {
            if status != self.expected.status {
                problems.push(format!("afterwards {status}"));
            }
            // It is a hit, or a verdict about what the source sent.
            // One of several tiles that were asked for at once may still have been tried again.
            if counts(world) != before && self.target.document() != Document::Tile {
                problems.push(format!("asked again: {before:?}, {:?}", counts(world)));
            }
        } else if status != 200 {
            problems.push(format!("{status} though its source is well again for {HEALED:?}"));
        } else if world.stored(self.target).is_none() {
            problems.push("not stored though it was served".to_owned());
        }
    }

    /// Whether nothing is left of downloads; those of small files behind a zip may still be under way.
    async fn emptied(&self, world: &World) -> bool {
        let until = Instant::now() + HEALED;
        while !world.names_in("cache/tmp").is_empty() {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|it| it == extension)
}

/// The most that a process ever had in memory.
fn peak_kib(pid: u32) -> u64 {
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
