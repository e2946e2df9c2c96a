//! The program `stoa`: reads its arguments, does what they say, and ends with 0 (done), 1 (it found or met a fault) or
//! 2 (a wrong setting or argument).

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stoa::cli::{Cli, Command, Output, environment, run_config_command};
use stoa::config::Config;
use stoa::doctor::{self, command::DoctorArgs};
use stoa::healthcheck::healthcheck;
use stoa::log;
use stoa::systemd::Sockets;
use stoa::wiring::{Server, hangup_signal, stop_signal};
use tracing::{error, warn};

/// Threads for files and the resolver, made as they are needed. Misses can hold no more than their bounds together
/// allow (fetches, commits, name look-ups: some 110 by default), so that a hit always finds one.
const BLOCKING_THREADS: usize = 192;
/// How long what is given up at the end may take to end.
const STOPPING: Duration = Duration::from_secs(1);

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
        return say(&run_config_command(command, &settings, &env, &cwd));
    }
    // What is compared is another machine's business than the server's settings, which may not even be here.
    if let Command::Doctor(DoctorArgs { client: Some(url), json, .. }) = &command {
        return match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                say(&runtime.block_on(doctor::command::run_client(url, *json, &env, &cwd)))
            }
            Err(error) => fail(FAULT, &format!("the runtime cannot be started: {error}")),
        };
    }
    let mut config = match Config::load(&settings, &env, &cwd) {
        Ok(config) => config,
        Err(mistakes) => return fail(WRONG_SETTING, &mistakes.to_string()),
    };
    // A thread touches a few KiB of what the allocator takes for it; with huge pages that would be 2 MiB.
    _ = rustix::thread::disable_transparent_huge_pages(true);
    // Before there is any other thread.
    let sockets = match command {
        Command::Serve => Sockets::take(),
        _ => Ok(Sockets::default()),
    };
    let sockets = match sockets {
        Ok(sockets) => sockets,
        Err(text) => return fail(FAULT, &text),
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
        Command::Serve => runtime.block_on(serve(&mut config, sockets)),
        Command::Healthcheck => match runtime.block_on(healthcheck(&config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(text) => fail(FAULT, &text),
        },
        Command::Refresh { subjects } => {
            let mut out = std::io::stdout();
            match runtime.block_on(stoa::refresh::command(&config, &subjects, &mut out)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(FAULT),
                Err(text) => fail(FAULT, &text),
            }
        }
        Command::Doctor(args) => say(&runtime.block_on(doctor::command::run(&config, &args))),
        Command::Config { .. } => ExitCode::SUCCESS,
    };
    // Fetches that nobody waits for any more are given up, and git commands ended with them; what they had written is swept
    // at the next start. Only a look-up of a name, which nothing ends, takes longer.
    runtime.shutdown_timeout(STOPPING);
    code
}

async fn serve(config: &mut Config, sockets: Sockets) -> ExitCode {
    if let Err(error) = log::init(&config.log) {
        return fail(WRONG_SETTING, &format!("log.level: {error}"));
    }
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let (asked, files) = (config.server.max_connections, raise_file_limit());
    let each = match config.server.tls_cert {
        Some(_) => FILES_OF_A_TLS_CONNECTION,
        None => FILES_OF_A_CONNECTION,
    };
    config.server.max_connections = fitting_connections(asked, each, files);
    if config.server.max_connections < asked {
        warn!(
            open_files = files,
            needed = files_for(asked, each),
            max_connections = config.server.max_connections,
            "server.max-connections is more than the limit of open files allows (ulimit -Hn): fewer are taken at once"
        );
    }
    let (stop, hangup) = match stop_signal().and_then(|stop| Ok((stop, hangup_signal()?))) {
        Ok(signals) => signals,
        Err(error) => return fail(FAULT, &format!("signals cannot be received: {error}")),
    };
    let server = match Server::start(config, sockets).await {
        Ok(server) => server,
        Err(error) => return fail(FAULT, &format!("{error:#}")),
    };
    if server.run(stop, hangup).await {
        ExitCode::SUCCESS
    } else {
        error!("not everything was finished within server.drain-timeout");
        ExitCode::from(FAULT)
    }
}

/// Descriptors of one connection: its socket, and the file it is sent. Over TLS a connection may be sent several, as many
/// as there may be connections in all.
const FILES_OF_A_CONNECTION: u64 = 2;
const FILES_OF_A_TLS_CONNECTION: u64 = 3;
/// Descriptors of everything else: upstreams, downloads, the index, the log.
const OTHER_FILES: u64 = 256;

/// Raises the soft limit of open files, which many systems keep at 1024 for the sake of programs that use `select`, to
/// the hard one. Answers what holds; nothing is no limit.
fn raise_file_limit() -> Option<u64> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where this is refused the old one holds, and is what is answered.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    getrlimit(Resource::Nofile).current
}

fn files_for(connections: usize, each: u64) -> u64 {
    (connections as u64).saturating_mul(each).saturating_add(OTHER_FILES)
}

/// As many of these connections as that many open files are enough for, and at least one.
fn fitting_connections(asked: usize, each: u64, files: Option<u64>) -> usize {
    let Some(files) = files else { return asked };
    let fitting = files.saturating_sub(OTHER_FILES) / each;
    asked.min(usize::try_from(fitting).unwrap_or(usize::MAX)).max(1)
}

fn say(Output { stdout, stderr, code }: &Output) -> ExitCode {
    // A closed pipe (`stoa config show | head`) is no fault.
    let _ = std::io::stdout().write_all(stdout.as_bytes());
    let _ = std::io::stderr().write_all(stderr.as_bytes());
    ExitCode::from(*code)
}

fn fail(code: u8, text: &str) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "stoa: {text}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_fit_the_open_files() {
        let check = |asked, files, expected| {
            let fitting = fitting_connections(asked, FILES_OF_A_CONNECTION, files);
            assert_eq!(fitting, expected, "{asked} {files:?}");
        };
        check(4096, None, 4096);
        let enough = files_for(4096, FILES_OF_A_CONNECTION);
        check(4096, Some(enough), 4096);
        check(4096, Some(enough - 1), 4095);
        check(4096, Some(1024), 384);
        check(4096, Some(100), 1);
        check(1, Some(0), 1);
        check(10, Some(u64::MAX), 10);
    }
}
