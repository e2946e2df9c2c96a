//! A mixed load for a given time, and what the server holds meanwhile: memory, open files, errors.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hyper::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::data::Data;
use crate::load::{self, Until};
use crate::random::Random;
use crate::server::{Kind, Server};
use crate::upstream::Upstream;

/// Clients of each kind.
const READERS: usize = 16;
const LEAVERS: usize = 4;
const STRANGERS: usize = 4;
const SLOW: usize = 8;
const FRESH: usize = 2;

/// Of what is asked for and is nowhere: so many names, and no rest between two.
const NAMES: u64 = 5_000_000;

/// What may be held more at the end than in the middle, since caches fill for a while: MiB and open files.
const MORE_MEMORY: f64 = 8.0;
const MORE_FILES: usize = 64;

/// What each kind of client counts.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    left: AtomicU64,
    absent: AtomicU64,
    slow: AtomicU64,
    fresh: AtomicU64,
    errors: AtomicU64,
}

#[derive(Debug, Clone)]
struct World {
    url: String,
    data: Arc<Data>,
    counts: Arc<Counts>,
    over: Arc<AtomicBool>,
}

/// Answers whether nothing failed and nothing grew.
pub(crate) async fn soak(stoa: &Path, data: &Arc<Data>, time: Duration) -> anyhow::Result<bool> {
    let upstream = Upstream::start(&data.store_dir())?;
    let server = Server::start(&Kind::stoa(stoa, data), upstream.url()).await?;
    println!("{}: {}; {time:?} of mixed load", data.name(), data.summary());
    let world = World {
        url: server.url().to_owned(),
        data: Arc::clone(data),
        counts: Arc::default(),
        over: Arc::default(),
    };
    // Cold first, so that what is held later is held by the load.
    let all = data.paths.clone().into();
    let cold = load::pass(server.url(), all, READERS, Until::Once, Some(Arc::clone(data))).await?;
    let mut clients = tokio::task::JoinSet::new();
    clients.spawn(readers(world.clone(), time));
    for seed in 0..LEAVERS {
        clients.spawn(leaver(world.clone(), seed as u64));
    }
    for seed in 0..STRANGERS {
        clients.spawn(stranger(world.clone(), seed as u64));
    }
    for _ in 0..SLOW {
        clients.spawn(slow_reader(world.clone()));
    }
    for seed in 0..FRESH {
        clients.spawn(fresh(world.clone(), seed as u64));
    }
    let (started, mut samples) = (Instant::now(), Vec::new());
    println!("{:>6}  {:>8}  {:>6}  {:>10}  {:>7}", "s", "MiB", "files", "hits", "errors");
    let step = (time / 20).max(Duration::from_secs(1));
    while started.elapsed() < time {
        tokio::time::sleep(step.min(time.saturating_sub(started.elapsed()))).await;
        let (memory, files) = (server.resident(), server.open_files());
        samples.push((memory, files));
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (hits, errors) = (of(&world.counts.hits), of(&world.counts.errors));
        println!(
            "{:6.0}  {memory:8.1}  {files:6}  {hits:10}  {errors:7}",
            started.elapsed().as_secs_f64()
        );
    }
    world.over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client?;
    }
    let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let Counts { hits, left, absent, slow, fresh, errors } = &*world.counts;
    println!(
        "\n{} whole answers, {} broken off by the client, {} of what is nowhere, {} read slowly, {} asked anew",
        of(hits),
        of(left),
        of(absent),
        of(slow),
        of(fresh)
    );
    let (middle, end) = (samples[samples.len() / 2], *samples.last().context("no sample")?);
    let (memory, files) = (end.0 - middle.0, end.1.saturating_sub(middle.1));
    let wrong = of(errors) + cold.failed + cold.different;
    println!(
        "{wrong} errors; from the middle to the end {memory:+.1} MiB and {files} open files more; peak {:.1} MiB",
        server.peak()
    );
    let holds = wrong == 0 && memory <= MORE_MEMORY && files <= MORE_FILES;
    println!("{}", if holds { "PASS" } else { "FAIL" });
    Ok(holds)
}

impl World {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn count(&self, what: &AtomicU64, is_right: bool) {
        let counted = if is_right { what } else { &self.counts.errors };
        counted.fetch_add(1, Ordering::Relaxed);
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        TcpStream::connect(self.url.trim_start_matches("http://")).await
    }
}

/// Everything, again and again.
async fn readers(world: World, time: Duration) {
    let until = Until::Over(time.min(Duration::from_secs(2)));
    while world.goes_on() {
        let paths = world.data.paths.clone().into();
        match load::pass(&world.url, paths, READERS, until, Some(Arc::clone(&world.data))).await {
            Ok(pass) => {
                world.counts.hits.fetch_add(pass.ok, Ordering::Relaxed);
                world.counts.errors.fetch_add(pass.failed + pass.different, Ordering::Relaxed);
            }
            Err(_) => world.count(&world.counts.hits, false),
        }
    }
}

/// Leaves in the middle of a zip, or of its own request.
async fn leaver(world: World, seed: u64) {
    let mut random = Random::new(seed);
    let zips: Vec<_> = world.data.zips().collect();
    while world.goes_on() {
        let Ok(mut stream) = world.connect().await else { continue };
        let request = format!("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", zips[random.below(zips.len())]);
        let sent = random.below(request.len() * 2).min(request.len());
        let written = stream.write_all(&request.as_bytes()[..sent]).await;
        if written.is_ok() && sent == request.len() {
            let mut some = vec![0; 1 + random.below(100_000)];
            _ = stream.read(&mut some).await;
        }
        drop(stream);
        world.count(&world.counts.left, true);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks for what is nowhere.
async fn stranger(world: World, seed: u64) {
    let mut random = Random::new(seed);
    while world.goes_on() {
        let name = random.next() % NAMES;
        let path = format!("/nowhere.example/m{name}/@v/list");
        let answer = load::get(&world.url, &path).await;
        world.count(&world.counts.absent, matches!(answer, Ok((StatusCode::NOT_FOUND, _))));
    }
}

/// Takes a zip in small sips.
async fn slow_reader(world: World) {
    let Ok(zip) = world.data.largest_zip().cloned() else { return };
    let length = world.data.file(&zip).ok().and_then(|file| fs_err::metadata(file).ok());
    let length = length.map_or(0, |it| it.len());
    while world.goes_on() {
        let Ok(mut stream) = world.connect().await else { continue };
        let request = format!("GET {zip} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (mut got, mut sip) = (0, vec![0; 64 << 10]);
        let mut is_right = stream.write_all(request.as_bytes()).await.is_ok();
        while is_right && world.goes_on() {
            match stream.read(&mut sip).await {
                Ok(0) => {
                    is_right = got >= length;
                    break;
                }
                Ok(bytes) => got += bytes as u64,
                Err(_) => is_right = false,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.count(&world.counts.slow, is_right);
    }
}

/// Lists, each of another module.
async fn fresh(world: World, seed: u64) {
    let mut random = Random::new(seed);
    let go_mods: Vec<_> = world.data.go_mods().collect();
    while world.goes_on() {
        let path = go_mods[random.below(go_mods.len())];
        let Some((module, _)) = path.split_once("/@v/") else { continue };
        // The upstream has no lists: what is stored is the answer.
        let answer = load::get(&world.url, &format!("{module}/@v/list")).await;
        world.count(&world.counts.fresh, answer.is_ok_and(|(status, _)| status.is_success()));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
