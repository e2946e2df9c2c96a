//! `just bench`: starts the release `stoa` on an empty store in front of an upstream of its own, and
//! prints how much memory and time it takes and what it asks of the upstream. Fails when a figure that
//! is promised does not hold. Linux only: it reads `/proc`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report for a person is what this program is for")]

mod data;
mod direct;
mod history;
mod large;
mod load;
mod measure;
mod paced;
mod random;
mod record;
mod report;
mod scale;
mod server;
mod soak;
mod synthetic;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::data::Data;
use crate::measure::{Figures, Passes};
use crate::report::{Proxied, Report};
use crate::server::Kind;
use crate::upstream::Upstream;

/// Measure the release build of stoa, and other servers beside it, over the same requests.
#[derive(Debug, Parser)]
#[command(name = "stoa-bench")]
struct Arguments {
    /// The server to measure [default: the stoa beside this program]
    #[arg(long, value_name = "FILE")]
    stoa: Option<PathBuf>,
    /// Real answers in place of made ones: DIR/store/PATH, and the paths to ask for in DIR/paths.txt
    #[arg(long, value_name = "DIR")]
    recording: Option<PathBuf>,
    /// Where the made modules are kept between runs [default: bench-data beside the build]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Connections of the cold and the warm passes
    #[arg(long, value_name = "N", default_value_t = 32)]
    connections: usize,
    /// How long each warm pass takes
    #[arg(long, value_name = "N", default_value_t = 5)]
    seconds: u64,
    /// How often each server is measured, in turn; every figure is the median
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Leave out nginx, which is measured beside stoa where it is installed
    #[arg(long)]
    no_nginx: bool,
    /// Only what comes straight from git
    #[arg(long, conflicts_with = "only_proxied")]
    only_direct: bool,
    /// All but what comes straight from git
    #[arg(long)]
    only_proxied: bool,
    /// Record into --recording DIR what the go command asks for when it downloads all that this MODULE@VERSION needs
    #[arg(long, value_name = "MODULE@VERSION", requires = "recording")]
    record: Option<String>,
    /// A mixed load for so many seconds, and what stoa holds meanwhile; nothing else is measured
    #[arg(long, value_name = "SECONDS")]
    soak: Option<u64>,
    /// Only what a store of so many versions costs beside a small one
    #[arg(long, value_name = "N")]
    scale: Option<usize>,
    /// Write the figures to tests/bench/RESULTS.md
    #[arg(long)]
    write: bool,
    #[arg(
        value_name = "NAME=COMMAND",
        value_parser = parse_peer,
        help = "Other servers; a command gets PORT STORE_DIR UPSTREAM_URL and serves in the foreground"
    )]
    peers: Vec<(String, String)>,
    /// What the upstream's process is started with
    #[arg(long, value_name = "DIR", hide = true)]
    serve_upstream: Option<PathBuf>,
}

/// stoa as it is by default, with a line in the log for each request.
const LOGGING: &str = "stoa, logging";
/// What the machine can do at best.
pub(crate) const NGINX: &str = "nginx";

fn parse_peer(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, command)) if !name.is_empty() && !command.is_empty() => {
            Ok((name.to_owned(), command.to_owned()))
        }
        _ => Err("not of the form NAME=COMMAND".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(dir) = &arguments.serve_upstream {
        runtime.block_on(upstream::serve(dir))?;
        return Ok(ExitCode::SUCCESS);
    }
    // Every store stays until all is measured. For each file that it makes ext4 passes over the inodes of those that were
    // removed within the last minutes, one by one: the next server would pay for the removal of this one's store.
    let stores = tempfile::Builder::new().prefix("stoa-bench-").tempdir()?;
    if let Err(other) = tempfile::env::override_temp_dir(stores.path()) {
        bail!("temporary files belong in {} already", other.display());
    }
    if let (Some(module), Some(dir)) = (&arguments.record, &arguments.recording) {
        runtime.block_on(record::record(&arguments.stoa()?, dir, module))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(seconds) = arguments.soak {
        let data = Arc::new(prepare(&arguments)?);
        let time = Duration::from_secs(seconds);
        let soaked = runtime.block_on(soak::soak(&arguments.stoa()?, &data, time))?;
        return Ok(if soaked { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if let Some(versions) = arguments.scale {
        let dir = match &arguments.data {
            Some(dir) => dir.clone(),
            None => beside_the_build()?.join("bench-data"),
        };
        runtime.block_on(scale::run(&arguments.stoa()?, &dir, versions))?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = runtime.block_on(run(&arguments))?;
    println!("\n{}", report.terminal());
    if arguments.write {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        fs_err::write(&file, report.markdown())?;
        println!("written: {}", file.display());
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Arguments {
    fn stoa(&self) -> anyhow::Result<PathBuf> {
        let stoa = match &self.stoa {
            Some(file) => file.clone(),
            None => beside_the_build()?.join("release/stoa"),
        };
        if !stoa.is_file() {
            bail!("no server at {}; build it: cargo build --release -p stoa", stoa.display());
        }
        Ok(stoa)
    }
}

fn prepare(arguments: &Arguments) -> anyhow::Result<Data> {
    match &arguments.recording {
        Some(dir) => Data::recorded(dir),
        None => made(arguments),
    }
}

fn made(arguments: &Arguments) -> anyhow::Result<Data> {
    let dir = match &arguments.data {
        Some(dir) => dir.clone(),
        None => beside_the_build()?.join("bench-data"),
    };
    synthetic::make(&dir)?;
    Data::made(&dir)
}

/// The build's directory, of `TARGET/release/stoa-bench`.
fn beside_the_build() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe()?;
    let dir = this.ancestors().nth(2).context("this program is in no directory")?;
    Ok(dir.to_owned())
}

async fn run(arguments: &Arguments) -> anyhow::Result<Report> {
    let stoa = arguments.stoa()?;
    let (mut proxied, mut large) = (None, None);
    if !arguments.only_direct {
        proxied = Some(measure_proxied(arguments, &stoa).await?);
        large = Some(large::measure(&stoa, &Arc::new(made(arguments)?)).await?);
    }
    let direct = if arguments.only_proxied {
        None
    } else if direct::is_possible() {
        Some(direct::measure(&stoa).await?)
    } else {
        println!("direct: left out, since there is no go and git to measure against");
        None
    };
    Ok(Report { proxied, large, direct })
}

/// In front of an upstream.
async fn measure_proxied(arguments: &Arguments, stoa: &Path) -> anyhow::Result<Proxied> {
    let data = &Arc::new(prepare(arguments)?);
    let upstream = Upstream::start(&data.store_dir())?;
    println!("{}: {}", data.name(), data.summary());

    let passes =
        Passes { connections: arguments.connections, warm: Duration::from_secs(arguments.seconds) };
    let kind = Kind::stoa(stoa, data);
    let logging = Kind::stoa_logging(stoa, data, "info");
    let mut kinds = vec![("stoa".to_owned(), kind.clone()), (LOGGING.to_owned(), logging)];
    if !arguments.no_nginx
        && let Some(program) = server::find_nginx()
    {
        kinds.push((NGINX.to_owned(), Kind::Nginx { program }));
    }
    for (name, command) in &arguments.peers {
        let kind = Kind::Command {
            name: name.clone(),
            command: command.clone(),
            gosumdb: data.gosumdb().to_owned(),
        };
        kinds.push((name.clone(), kind));
    }

    let counts = measure::upstream_requests(&kind, data, &upstream, &passes).await?;
    let hits = measure::hits_under_misses(&kind, data, &upstream, &passes).await?;
    let mut servers: Vec<(String, Vec<Figures>)> =
        kinds.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
    // In turn, so that what the machine does besides meets all of them.
    for _ in 0..arguments.rounds.max(1) {
        for ((name, kind), (_, rounds)) in kinds.iter().zip(&mut servers) {
            match measure::figures(name, kind, data, &upstream, &passes).await {
                Ok(figures) => rounds.push(figures),
                Err(error) if matches!(kind, Kind::Stoa { .. }) => return Err(error),
                // A peer that fails is reported; it is not what this run is about.
                Err(error) => println!("{name}: left out: {error:#}"),
            }
        }
    }
    servers.retain(|(_, rounds)| !rounds.is_empty());
    Ok(Proxied {
        data: format!("{}: {}", data.name(), data.summary()),
        passes,
        servers,
        counts,
        hits,
    })
}
