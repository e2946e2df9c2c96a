//! The command line: what can be asked of `stoa`, and the settings that have a flag.
//!
//! Nothing here prints or exits. `main` parses [`Cli`], passes [`environment`] and the working
//! directory on as values, and prints what it is handed.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, Parser, Subcommand};
use stoa_core::Subject;

use crate::config::{self, Config};
use crate::doctor::command::DoctorArgs;

/// The whole command line. `Cli::parse()` leaves with status 2 on a wrong argument.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "stoa",
    version,
    about = "A caching GOPROXY server: Go modules, fetched once, verified, kept for offline use.",
    after_help = "Start with `stoa serve`, then set GOPROXY=http://localhost:3000 where you build.\n\
                  A setting is taken from its flag, else its STOA_ environment variable, else the \
                  settings file, else its default. `stoa config reference` lists all of them."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub settings: Settings,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run the server until SIGTERM or SIGINT
    Serve,
    /// Ask the running server whether it is ready; exit 0 if so, 1 if not
    Healthcheck,
    /// Have the running server ask its sources about modules now, whatever it remembers of them; exit 0 if all are
    /// there, 1 if not. Nothing that is stored is deleted
    Refresh {
        /// A module, a version or a branch of it
        #[arg(required = true, value_name = "MODULE[@VERSION]", value_parser = Subject::parse)]
        subjects: Vec<Subject>,
    },
    /// Find out why a module does not come, or takes long: names, connections, TLS, credentials, the checksum database, the
    /// disk. Exit 0 if all is well, else the status of the verdict (docs/troubleshooting.md)
    Doctor(DoctorArgs),
    /// Check, show or explain the settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Clone, Subcommand)]
pub enum ConfigCommand {
    /// Say `ok`, or list every mistake in the settings and exit 2
    Check,
    /// Print every setting as it is in effect and where it came from; secrets are masked
    Show,
    /// Explain every setting (Markdown)
    Reference {
        /// Print a settings file instead: every key, commented out, holding its default
        #[arg(long)]
        toml: bool,
    },
}

/// The settings that have a flag, as they were written: the configuration parses them, so that
/// their mistakes are reported together with all others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Settings")]
pub struct Settings {
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "The settings file [STOA_CONFIG; default: ./stoa.toml or /etc/stoa/stoa.toml, if there]"
    )]
    pub config: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        help = "Where to listen, like 127.0.0.1:3000, :3000 for every address or unix:/run/stoa/stoa.sock [STOA_LISTEN]"
    )]
    pub listen: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "DIRECTORY",
        help = "Where modules are kept [STOA_DATA_DIR]"
    )]
    pub data_dir: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "LIST",
        help = "Where modules come from, in the go command's GOPROXY form [STOA_GOPROXY]"
    )]
    pub goproxy: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "PATTERNS",
        help = "Modules whose names must not leave for a public host, like *.corp.example.com [STOA_GOPRIVATE]"
    )]
    pub goprivate: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "PATTERNS",
        help = "Modules that are not asked of a proxy; default: those of --goprivate [STOA_GONOPROXY]"
    )]
    pub gonoproxy: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "DATABASE",
        help = "The checksum database, or off [STOA_GOSUMDB]"
    )]
    pub gosumdb: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "PATTERNS",
        help = "Modules that are not compared with it; default: those of --goprivate [STOA_GONOSUMDB]"
    )]
    pub gonosumdb: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "PATTERNS",
        help = "Modules that may be fetched without TLS [STOA_GOINSECURE]"
    )]
    pub goinsecure: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "RULES",
        help = "Which version control systems may be used for which modules, in the go command's GOVCS form [STOA_GOVCS]"
    )]
    pub govcs: Option<String>,
    #[arg(
        long,
        global = true,
        value_name = "BOOL",
        help = "Serve what is stored and ask nobody else for anything [STOA_OFFLINE]",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub offline: Option<String>,
}

/// What a command has to say and how it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// For standard output; ends with a newline unless empty.
    pub stdout: String,
    /// For standard error; ends with a newline unless empty.
    pub stderr: String,
    /// The exit status.
    pub code: u8,
}

/// Runs `stoa config …`. `env` is the whole environment, `cwd` what relative paths start from.
pub fn run_config_command(
    command: &ConfigCommand,
    settings: &Settings,
    env: &BTreeMap<String, String>,
    cwd: &Path,
) -> Output {
    let show = match command {
        ConfigCommand::Reference { toml } => {
            let stdout = if *toml { config::template() } else { config::reference() };
            return Output { stdout, stderr: String::new(), code: 0 };
        }
        ConfigCommand::Check => false,
        ConfigCommand::Show => true,
    };
    match Config::load(settings, env, cwd) {
        Ok(config) => {
            let stdout = if show { config.show() } else { "ok\n".to_owned() };
            let warnings = config.warnings.iter();
            let stderr = warnings.flat_map(|warning| ["warning: ", warning, "\n"]).collect();
            Output { stdout, stderr, code: 0 }
        }
        Err(mistakes) => Output { stdout: String::new(), stderr: format!("{mistakes}\n"), code: 2 },
    }
}

/// The process's environment as values. What is not UTF-8 is kept in its lossy form, so that a
/// setting written in it is reported as a mistake and not overlooked.
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests;
