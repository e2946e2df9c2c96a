//! What is done to each server, and what comes of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper::StatusCode;

use crate::data::Data;
use crate::load::{self, Pass, Until};
use crate::server::{Kind, Server};
use crate::upstream::{Asked, Upstream};

/// How many ask for the same cold zip at once.
pub(crate) const CROWD: usize = 64;

/// How many cold misses hang while hits are measured, and over how many connections those come: few, so that it is the
/// server's time that is measured and not the queue of a machine that is busy.
pub(crate) const MISSES: usize = 200;
pub(crate) const HITS_AT_ONCE: usize = 2;

/// Fetches under way at one source, by default; the other misses wait for their turn.
const PLACES: u64 = 64;

/// A path of modules that hang, below which nothing else is.
const HANGING: &str = "/hanging.example/";

/// For what a server does by itself after it was asked: it cannot be awaited from outside.
const AFTERWARDS: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Passes {
    pub(crate) connections: usize,
    pub(crate) warm: Duration,
}

/// A pass, and the processor time that the server took for it.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) pass: Pass,
    pub(crate) cpu: Duration,
}

#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) start: Duration,
    /// MiB, as are the peaks.
    pub(crate) idle: f64,
    pub(crate) cold: Measured,
    pub(crate) asked: Asked,
    pub(crate) cold_peak: f64,
    pub(crate) all: Measured,
    pub(crate) zips: Measured,
    pub(crate) small: Measured,
    pub(crate) peak: f64,
}

pub(crate) async fn figures(
    name: &str,
    kind: &Kind,
    data: &Arc<Data>,
    upstream: &Upstream,
    passes: &Passes,
) -> anyhow::Result<Figures> {
    let server = Server::start(kind, upstream.url()).await?;
    tokio::time::sleep(AFTERWARDS).await;
    let idle = server.resident();

    upstream.forget().await?;
    println!("{name}: cold, {} connections", passes.connections);
    let connections = passes.connections;
    let all: Arc<[String]> = data.paths.clone().into();
    let cold = measured(&server, all.clone(), connections, Until::Once, Some(data)).await?;
    let asked = upstream.asked().await?;
    let cold_peak = server.peak();
    if cold.pass.ok == 0 {
        bail!("no answer was right: {:?}; its log:\n{}", cold.pass.wrong, server.log());
    }

    println!("{name}: warm, three passes of {:?}", passes.warm);
    let until = Until::Over(passes.warm);
    let all = measured(&server, all, connections, until, None).await?;
    let zips = measured(&server, data.zips().cloned().collect(), connections, until, None).await?;
    let small =
        measured(&server, data.small().cloned().collect(), connections, until, None).await?;
    let (start, peak) = (server.started_in, server.peak());
    Ok(Figures { start, idle, cold, asked, cold_peak, all, zips, small, peak })
}

async fn measured(
    server: &Server,
    paths: Arc<[String]>,
    connections: usize,
    until: Until,
    data: Option<&Arc<Data>>,
) -> anyhow::Result<Measured> {
    let before = server.cpu();
    let pass = load::pass(server.url(), paths, connections, until, data.cloned()).await?;
    Ok(Measured { pass, cpu: server.cpu().saturating_sub(before) })
}

/// The middle one of some; of an even number, the lower of the two in the middle.
pub(crate) fn median<T: PartialOrd + Copy>(mut all: Vec<T>) -> T {
    all.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    all[(all.len() - 1) / 2]
}

/// What the upstream is asked for, from a server with an empty store.
#[derive(Debug)]
pub(crate) struct Counts {
    /// How many `.mod` were asked of the server, and how many `.zip` that asked of the upstream.
    pub(crate) go_mods: u64,
    pub(crate) zips: u64,
    /// How many of the crowd got the one zip whole, and how often the upstream was asked for it.
    pub(crate) crowd: u64,
    pub(crate) crowd_requests: u64,
}

pub(crate) async fn upstream_requests(
    kind: &Kind,
    data: &Arc<Data>,
    upstream: &Upstream,
    passes: &Passes,
) -> anyhow::Result<Counts> {
    let server = Server::start(kind, upstream.url()).await?;
    println!("stoa: every .mod, no .zip");
    upstream.forget().await?;
    let go_mods = data.go_mods().cloned().collect();
    let pass =
        load::pass(server.url(), go_mods, passes.connections, Until::Once, Some(data.clone()))
            .await?;
    tokio::time::sleep(AFTERWARDS).await;
    if pass.failed + pass.different > 0 {
        bail!("of the .mod files not all were right: {:?}", pass.wrong);
    }
    let zips = upstream.asked().await?.zips();

    println!("stoa: {CROWD} clients, one cold .zip");
    let zip = data.largest_zip()?;
    let expected = fs_err::read(data.file(zip)?)?;
    upstream.hold(zip).await?;
    let clients: Vec<_> = (0..CROWD)
        .map(|_| {
            let (url, zip) = (server.url().to_owned(), zip.clone());
            tokio::spawn(async move { load::get(&url, &zip).await })
        })
        .collect();
    // All of them are to wait when the answer comes.
    tokio::time::sleep(AFTERWARDS).await;
    upstream.release().await?;
    let mut crowd = 0;
    for client in clients {
        let (status, body) = client.await??;
        crowd += u64::from(status == StatusCode::OK && body == expected);
    }
    let crowd_requests = upstream.asked().await?.of(zip);
    Ok(Counts { go_mods: pass.ok, zips, crowd, crowd_requests })
}

/// Warm passes while so many misses wait for an upstream that says nothing.
#[derive(Debug)]
pub(crate) struct Hits {
    /// Of the misses, those that still hung at the end.
    pub(crate) hanging: usize,
    pub(crate) small: Pass,
    pub(crate) zips: Pass,
    /// The same while nothing hangs, for comparison.
    pub(crate) calm: [Pass; 2],
}

pub(crate) async fn hits_under_misses(
    kind: &Kind,
    data: &Arc<Data>,
    upstream: &Upstream,
    passes: &Passes,
) -> anyhow::Result<Hits> {
    let server = Server::start(kind, upstream.url()).await?;
    println!("stoa: hits over {HITS_AT_ONCE} connections while {MISSES} misses hang");
    let all: Arc<[String]> = data.paths.clone().into();
    load::pass(server.url(), all, passes.connections, Until::Once, None).await?;
    // What is fetched behind a zip is not to be part of the measurement.
    tokio::time::sleep(AFTERWARDS).await;
    let until = Until::Over(passes.warm);
    let pass = async |paths: Vec<String>| {
        load::pass(server.url(), paths.into(), HITS_AT_ONCE, until, None).await
    };
    let small = || pass(data.small().cloned().collect());
    let zips = || pass(data.zips().cloned().collect());
    let calm = [small().await?, zips().await?];
    upstream.forget().await?;
    upstream.hold(HANGING).await?;
    let misses: Vec<_> = (0..MISSES)
        .map(|n| {
            let file = ["v1.0.0.info", "v1.0.0.mod", "v1.0.0.zip", "list"][n % 4];
            let (url, path) = (server.url().to_owned(), format!("{HANGING}m{n}/@v/{file}"));
            tokio::spawn(async move { load::get(&url, &path).await })
        })
        .collect();
    let hang = async {
        while upstream.asked().await?.below(HANGING) < PLACES {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(AFTERWARDS * 10, hang).await.context("the misses do not hang")??;
    let (small, zips) = (small().await?, zips().await?);
    let hanging = misses.iter().filter(|miss| !miss.is_finished()).count();
    upstream.release().await?;
    for miss in misses {
        miss.await??;
    }
    Ok(Hits { hanging, small, zips, calm })
}
