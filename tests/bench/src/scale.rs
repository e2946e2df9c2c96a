//! `--scale N`: what a store of N versions costs beside one of a thousand. The store is made up, as a server would have left it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};
use stoa_module::{Artifact, H1, ModuleVersion, Sha256, Version, render_list};

use crate::load::{self, Until};
use crate::random::Random;

/// Counts up when what is made changes.
const EDITION: &str = "1";
/// Versions of the one large module, and of each of the others.
const LARGE: usize = 5000;
const SMALL: usize = 20;
/// One in so many has a zip.
const ZIPS: usize = 50;
/// What hits are compared over: as many as a warm cache holds.
const HOT: usize = 900;
const CONNECTIONS: usize = 32;
const PASS: Duration = Duration::from_secs(3);
/// Until a server listens, and until it has looked at every version.
const TO_START: Duration = Duration::from_mins(1);
const TO_LOOK: Duration = Duration::from_hours(1);

/// Prints the figures.
pub(crate) async fn run(stoa: &Path, dir: &Path, versions: usize) -> anyhow::Result<()> {
    let mut figures = Vec::new();
    for count in [1000, versions] {
        let store = dir.join(format!("store-{count}"));
        let begun = Instant::now();
        make(&store, count)?;
        println!("{count} versions are there after {:.0} s", begun.elapsed().as_secs_f64());
        figures.push(measure(stoa, &store, count).await?);
    }
    for (name, of) in FIGURES {
        let row: Vec<String> = figures.iter().map(of).collect();
        println!("{name:<50} {:>16} {:>16}", row[0], row[1]);
    }
    Ok(())
}

#[derive(Debug)]
struct Figures {
    versions: usize,
    /// Without an index: until everything was looked at.
    looked: Duration,
    /// With one, until it listens.
    start: Duration,
    hits: f64,
    hits_p99: Duration,
    /// Of files that were not asked for since the start.
    anywhere: f64,
    /// From the disk and from memory.
    list: (Duration, Duration),
    /// The first, for which each version is looked at, and the next.
    offline: (Duration, Duration),
    /// After the start, and after all of that.
    resident: (f64, f64),
}

type Figure = (&'static str, fn(&Figures) -> String);

const FIGURES: [Figure; 10] = [
    ("versions", |it| it.versions.to_string()),
    ("start without an index, all looked at", |it| format!("{:.1} s", it.looked.as_secs_f64())),
    ("start with an index", |it| millis(it.start)),
    ("hits, the same few, per second", |it| format!("{:.0}", it.hits)),
    ("hits, the same few, p99", |it| millis(it.hits_p99)),
    ("hits, anywhere, per second", |it| format!("{:.0}", it.anywhere)),
    ("list of the large module, from disk and memory", |it| both(it.list)),
    ("the same offline, first and again", |it| both(it.offline)),
    ("resident, idle and after that", |it| {
        format!("{:.0} {:.0} MiB", it.resident.0, it.resident.1)
    }),
    ("versions of the large module", |it| large(it.versions).to_string()),
];

fn both((first, again): (Duration, Duration)) -> String {
    format!("{} {}", millis(first), millis(again))
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// One module has many versions, the others few.
fn large(count: usize) -> usize {
    LARGE.min(count / 2)
}

fn name(count: usize, number: usize) -> String {
    let large = large(count);
    if number < large {
        return format!("scale.example/large@v1.{}.{}", number / 100, number % 100);
    }
    let (module, version) = ((number - large) / SMALL, (number - large) % SMALL);
    format!("scale.example/owner{}/module{module}@v1.{version}.0", module % 997)
}

fn go_mod(name: &str) -> String {
    format!("module {}\n\ngo 1.24\n", name.split('@').next().unwrap_or_default())
}

/// Makes a store, unless it is there.
fn make(dir: &Path, count: usize) -> anyhow::Result<()> {
    let edition = dir.join("stoa.edition");
    if fs_err::read_to_string(&edition).is_ok_and(|it| it == EDITION) {
        return Ok(());
    }
    if dir.exists() {
        fs_err::remove_dir_all(dir)?;
    }
    let download = dir.join("cache/download");
    fs_err::create_dir_all(&download)?;
    fs_err::write(dir.join("VERSION"), "1\n")?;
    let modules = 1 + (count - large(count)).div_ceil(SMALL);
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        loop {
            let module = next.fetch_add(1, Ordering::Relaxed);
            if module >= modules {
                return Ok(());
            }
            let numbers = match module.checked_sub(1) {
                None => 0..large(count),
                Some(small) => {
                    let first = large(count) + small * SMALL;
                    first..(first + SMALL).min(count)
                }
            };
            make_module(&download, count, numbers)?;
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("making a store failed")))
        })
    })?;
    Ok(fs_err::write(edition, EDITION)?)
}

fn make_module(
    download: &Path,
    count: usize,
    numbers: std::ops::Range<usize>,
) -> anyhow::Result<()> {
    let mut versions: Vec<Version> = Vec::new();
    let mut place = PathBuf::new();
    for number in numbers {
        let name = name(count, number);
        let module = ModuleVersion::parse(&name).with_context(|| name.clone())?;
        let file = |artifact| download.join(module.escaped_file(artifact));
        let stem = file(Artifact::Info).with_extension("");
        if versions.is_empty() {
            stem.parent().context("a directory")?.clone_into(&mut place);
            fs_err::create_dir_all(&place)?;
        }
        let info = format!("{{\"Version\":\"{}\"}}", module.version());
        let go_mod = go_mod(&name);
        let mut sidecar = String::from("{\"stoa\":1");
        record(&mut sidecar, "info", info.as_bytes(), "\"state\":\"uncovered\"");
        let verified = "\"state\":\"verified\",\"database\":\"sum.scale.example\"";
        let h1 = format!("\"h1\":\"{}\",{verified}", H1::of_go_mod(go_mod.as_bytes()));
        record(&mut sidecar, "mod", go_mod.as_bytes(), &h1);
        if number.is_multiple_of(ZIPS) {
            // Nobody unpacks it.
            let zip = name.repeat(4);
            record(&mut sidecar, "zip", zip.as_bytes(), &h1);
            fs_err::write(file(Artifact::Zip), zip)?;
            let hash = H1::of_go_mod(go_mod.as_bytes()).to_string();
            fs_err::write(file(Artifact::Zip).with_extension("ziphash"), hash)?;
        }
        sidecar.push_str("}\n");
        fs_err::write(file(Artifact::Info), info)?;
        fs_err::write(file(Artifact::Mod), go_mod)?;
        fs_err::write(file(Artifact::Info).with_extension("stoa"), sidecar)?;
        versions.push(module.version().clone());
    }
    versions.sort();
    Ok(fs_err::write(place.join("list"), render_list(&versions))?)
}

fn record(sidecar: &mut String, artifact: &str, body: &[u8], more: &str) {
    _ = write!(
        sidecar,
        ",\"{artifact}\":{{\"size\":{},\"sha256\":\"{}\",{more},\"source\":\"proxy.scale.example\",\"first_seen\":\"2026-01-02T03:04:05Z\"}}",
        body.len(),
        Sha256::of(body)
    );
}

async fn measure(stoa: &Path, store: &Path, versions: usize) -> anyhow::Result<Figures> {
    // The first has no index, or finds the one of an earlier run; it leaves one. The last of what it counts comes a little
    // before the end of its look at everything.
    let mut looked = Duration::ZERO;
    for rest in [1, 10, 60] {
        let server = Server::start(stoa, store, Network::None).await?;
        looked = looked.max(server.wait_until_counted(versions).await?);
        tokio::time::sleep(Duration::from_secs(rest)).await;
        server.stop()?;
        if store.join("stoa.db.clean").exists() {
            break;
        }
    }

    let server = Server::start(stoa, store, Network::None).await?;
    let start = server.started_in;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = server.resident();
    let path = "/scale.example/large/@v/list";
    let offline = (server.time(path).await?, server.time(path).await?);
    let mut random = Random::new(versions as u64);
    let mut paths = |most: usize, count: usize| -> anyhow::Result<Arc<[String]>> {
        let mut each = || -> anyhow::Result<String> {
            let module = ModuleVersion::parse(&name(versions, random.below(most)))?;
            Ok(format!("/{}", module.escaped_file(Artifact::Mod)))
        };
        (0..count).map(|_| each()).collect()
    };
    let anywhere = paths(versions, 20_000.min(versions * 4))?;
    let first = load::pass(&server.url, anywhere, CONNECTIONS, Until::Once, None).await?;
    let hot = paths(versions, HOT)?;
    load::pass(&server.url, Arc::clone(&hot), CONNECTIONS, Until::Once, None).await?;
    let hits = load::pass(&server.url, hot, CONNECTIONS, Until::Over(PASS), None).await?;
    if first.failed + hits.failed > 0 {
        bail!("{} and {} requests failed: {:?}", first.failed, hits.failed, first.wrong);
    }
    let resident = (idle, server.resident());
    server.stop()?;

    // With sources that do not answer, and are known not to by then, the list is the stored one.
    let mut list = [Duration::ZERO; 2];
    for (memory, time) in ["0", "24MiB"].into_iter().zip(&mut list) {
        let server = Server::start(stoa, store, Network::Dead { memory }).await?;
        server.time(path).await?;
        *time = server.time(path).await?.min(server.time(path).await?);
        server.stop()?;
    }
    let list = (list[0], list[1]);
    Ok(Figures {
        versions,
        looked,
        start,
        hits: hits.requests_per_second(),
        hits_p99: hits.percentile(99),
        anywhere: first.requests_per_second(),
        list,
        offline,
        resident,
    })
}

/// What a server has for sources.
#[derive(Debug, Clone, Copy)]
enum Network {
    None,
    /// One where nobody listens; with so much memory for what is asked for often.
    Dead {
        memory: &'static str,
    },
}

/// A server on a store that stays.
#[derive(Debug)]
struct Server {
    child: Child,
    url: String,
    started: Instant,
    started_in: Duration,
}

impl Server {
    async fn start(stoa: &Path, store: &Path, network: Network) -> anyhow::Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(stoa);
        command.env_clear().env("HOME", store).arg("serve");
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--gosumdb", "off"]);
        command.args(["--goproxy", "http://127.0.0.1:9"]).arg("--data-dir").arg(store);
        command.env("STOA_LOG_LEVEL", "error").env("STOA_CACHE_NEGATIVE_TTL", "1h");
        match network {
            Network::None => command.arg("--offline"),
            Network::Dead { memory } => command.env("STOA_STORE_MEMORY", memory),
        };
        let started = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let url = format!("http://127.0.0.1:{port}");
        let mut server = Self { child, url, started, started_in: Duration::ZERO };
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            if server.child.try_wait()?.is_some() || started.elapsed() > TO_START {
                bail!("the server does not listen");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.started_in = started.elapsed();
        Ok(server)
    }

    async fn wait_until_counted(&self, versions: usize) -> anyhow::Result<Duration> {
        let line = format!("\nstoa_stored_versions {versions}\n");
        while self.started.elapsed() < TO_LOOK {
            let (_, page) = load::get(&self.url, "/metrics").await?;
            if String::from_utf8_lossy(&page).contains(&line) {
                return Ok(self.started.elapsed());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        bail!("it has not looked at every version");
    }

    /// Of one answer.
    async fn time(&self, path: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let (status, body) = load::get(&self.url, path).await?;
        if !status.is_success() {
            bail!("{path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(begun.elapsed())
    }

    /// In MiB.
    fn resident(&self) -> f64 {
        let status = fs_err::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
        kib.unwrap_or_default() / 1024.0
    }

    fn stop(mut self) -> anyhow::Result<()> {
        // What was looked at must be in the index, and the stop clean.
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            kill_process(pid, Signal::TERM)?;
        }
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
