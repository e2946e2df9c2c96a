//! `just bench`: starts the release `stoa` on an empty store in front of an upstream of its own, and
//! prints how much memory and time it takes and what it asks of the upstream. Fails when a figure that
//! is promised does not hold. Linux only: it reads `/proc`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "a report for a person is what this program is for")]

mod data;
mod direct;
mod history;
mod load;
mod measure;
mod random;
mod report;
mod server;
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
    /// Leave out nginx, which is measured beside stoa where it is installed
    #[arg(long)]
    no_nginx: bool,
    /// Only what comes straight from git
    #[arg(long)]
    only_direct: bool,
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
    let report = runtime.block_on(run(&arguments))?;
    println!("\n{}", report.terminal());
    if arguments.write {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
        fs_err::write(&file, report.markdown())?;
        println!("written: {}", file.display());
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn prepare(arguments: &Arguments) -> anyhow::Result<Data> {
    if let Some(dir) = &arguments.recording {
        return Data::recorded(dir);
    }
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
    let stoa = match &arguments.stoa {
        Some(file) => file.clone(),
        None => beside_the_build()?.join("release/stoa"),
    };
    if !stoa.is_file() {
        bail!("no server at {}; build it: cargo build --release -p stoa", stoa.display());
    }
    let proxied = if arguments.only_direct { None } else { Some(proxied(arguments, &stoa).await?) };
    let direct = if direct::is_possible() {
        Some(direct::measure(&stoa).await?)
    } else {
        println!("direct: left out, since there is no go and git to measure against");
        None
    };
    Ok(Report { proxied, direct })
}

/// In front of an upstream.
async fn proxied(arguments: &Arguments, stoa: &Path) -> anyhow::Result<Proxied> {
    let data = &Arc::new(prepare(arguments)?);
    let upstream = Upstream::start(&data.store_dir())?;
    println!("{}: {}", data.name(), data.summary());

    let passes =
        Passes { connections: arguments.connections, warm: Duration::from_secs(arguments.seconds) };
    let stoa = Kind::Stoa {
        program: stoa.to_owned(),
        gosumdb: data.gosumdb().to_owned(),
        environment: Vec::new(),
    };
    let mut peers = Vec::new();
    if !arguments.no_nginx
        && let Some(program) = server::find_nginx()
    {
        peers.push(("nginx".to_owned(), Kind::Nginx { program }));
    }
    for (name, command) in &arguments.peers {
        let kind = Kind::Command {
            name: name.clone(),
            command: command.clone(),
            gosumdb: data.gosumdb().to_owned(),
        };
        peers.push((name.clone(), kind));
    }

    let mut servers: Vec<(String, Figures)> = Vec::new();
    servers.push((
        "stoa".to_owned(),
        measure::figures("stoa", &stoa, data, &upstream, &passes).await?,
    ));
    let counts = measure::upstream_requests(&stoa, data, &upstream, &passes).await?;
    let hits = measure::hits_under_misses(&stoa, data, &upstream, &passes).await?;
    for (name, kind) in peers {
        // A peer that fails is reported; it is not what this run is about.
        match measure::figures(&name, &kind, data, &upstream, &passes).await {
            Ok(figures) => servers.push((name, figures)),
            Err(error) => println!("{name}: left out: {error:#}"),
        }
    }
    Ok(Proxied {
        data: format!("{}: {}", data.name(), data.summary()),
        passes,
        servers,
        counts,
        hits,
    })
}
