//! How long many small commits at once take, with everybody waiting for the disk and with batches; side by side, since a
//! disk is another one each minute. `cargo run --release -p stoa-store --example commits [DIR]`
#![expect(clippy::print_stdout, reason = "figures for a person are what it is for")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use stoa_module::{Artifact, ModuleVersion, Sha256};
use stoa_store::{ArtifactRecord, Error, Options, State, Store};
use tokio::{io::AsyncWriteExt, task::JoinSet};

const COMMITS: usize = 1500;
const AT_ONCE: usize = 32;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    // All are removed at the end: letting go of files is work for the disk, too.
    let dir = tempfile::tempdir_in(dir)?;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let place = |name: &str| dir.path().join(format!("{name}{round}"));
        let (waiting, _) = measure(&place("waiting"), Duration::ZERO).await?;
        let (batched, flush) = measure(&place("batched"), Duration::from_secs(5)).await?;
        ratios.push(waiting.as_secs_f64() / batched.as_secs_f64());
        println!(
            "round {round}: {COMMITS} commits by {AT_ONCE}: {} ms synced at once, {} ms batched (and {} ms behind them)",
            waiting.as_millis(),
            batched.as_millis(),
            flush.as_millis()
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median: {:.1} times as fast", ratios[ROUNDS / 2]);
    Ok(())
}

/// Of all commits, and of what is then left to be flushed.
async fn measure(dir: &Path, flush_interval: Duration) -> Result<(Duration, Duration), Error> {
    let options = Options { flush_interval, ..Options::new(dir) };
    let store = Store::open(options).await?;
    store.index_completed().await;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for task in 0..AT_ONCE {
        let store = store.clone();
        tasks.spawn(async move {
            for number in (task..COMMITS).step_by(AT_ONCE) {
                commit(&store, number).await?;
            }
            Ok::<_, Error>(())
        });
    }
    for done in tasks.join_all().await {
        done?;
    }
    let commits = begun.elapsed();
    let begun = Instant::now();
    store.flush().await?;
    let flush = begun.elapsed();
    store.close().await;
    Ok((commits, flush))
}

/// Of a trace: each a version of its own, half of them in modules of their own.
async fn commit(store: &Store, number: usize) -> Result<(), Error> {
    let name = format!("example.com/owner{}/module{}@v1.{number}.0", number % 40, number / 2);
    let Ok(module) = ModuleVersion::parse(&name) else { return Ok(()) };
    let body = format!("module {name}\n").repeat(20).into_bytes();
    let mut temporary = store.temporary(1 << 20, Duration::ZERO).await?;
    temporary.file().write_all(&body).await?;
    let record = ArtifactRecord {
        size: body.len() as u64,
        sha256: Sha256::of(&body),
        h1: None,
        state: State::Verified { database: "sum.example.com".to_owned() },
        source: "proxy.example.com".to_owned(),
        first_seen: jiff::Timestamp::now(),
    };
    store.commit(&module, Artifact::Mod, temporary, record).await?;
    Ok(())
}
