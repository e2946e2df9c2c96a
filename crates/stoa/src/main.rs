//! The program `stoa`: reads its arguments, does what they say, and ends with 0 (done), 1 (it found or met a fault) or
//! 2 (a wrong setting or argument).

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use stoa::cli::{Cli, Command, Output, environment, run_config_command};
use stoa::config::Config;
use stoa::healthcheck::healthcheck;
use stoa::log;
use stoa::wiring::{Server, stop_signal};
use tracing::{error, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Threads for files and the resolver, made as they are needed. Misses can hold no more than their bounds together
/// allow (fetches, commits, name look-ups: some 110 by default), so that a hit always finds one.
const BLOCKING_THREADS: usize = 192;

const FAULT: u8 = 1;
const WRONG_SETTING: u8 = 2;

fn main() -> ExitCode {
    let Cli { command, settings } = Cli::parse();
    let env = environment();
    let cwd = match std::env::current_dir() {
        Ok(cwd) => cwd,
        Err(error) => return fail(WRONG_SETTING, &format!("the working directory: {error}")),
    };
    if let Command::Config { command } = &command {
        let Output { stdout, stderr, code } = run_config_command(command, &settings, &env, &cwd);
        // A closed pipe (`stoa config show | head`) is no fault.
        let _ = std::io::stdout().write_all(stdout.as_bytes());
        let _ = std::io::stderr().write_all(stderr.as_bytes());
        return ExitCode::from(code);
    }
    let config = match Config::load(&settings, &env, &cwd) {
        Ok(config) => config,
        Err(mistakes) => return fail(WRONG_SETTING, &mistakes.to_string()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(FAULT, &format!("the runtime cannot be started: {error}")),
    };
    let code = match command {
        Command::Serve => runtime.block_on(serve(&config)),
        Command::Healthcheck => match runtime.block_on(healthcheck(&config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => fail(FAULT, &text),
        },
        Command::Config { .. } => ExitCode::SUCCESS,
    };
    // Fetches that nobody waits for any more are given up; what they had written is swept at the next start.
    runtime.shutdown_background();
    code
}

async fn serve(config: &Config) -> ExitCode {
    if let Err(error) = log::init(&config.log) {
        return fail(WRONG_SETTING, &format!("log.level: {error}"));
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let stop = match stop_signal() {
        Ok(stop) => stop,
        Err(error) => return fail(FAULT, &format!("signals cannot be received: {error}")),
    };
    let server = match Server::start(config).await {
        Ok(server) => server,
        Err(error) => return fail(FAULT, &format!("{error:#}")),
    };
    if server.run(stop).await {
        ExitCode::SUCCESS
    } else {
        error!("not everything was finished within server.drain-timeout");
        ExitCode::from(FAULT)
    }
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "stoa: {text}");
    ExitCode::from(code)
}
