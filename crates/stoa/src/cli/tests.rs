use std::collections::BTreeSet;

use clap::CommandFactory;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

fn settings(line: &str) -> Settings {
    parse(line).unwrap().settings
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn settings_are_taken_before_and_after_the_subcommand() {
    let expected = Settings { listen: Some(":1".to_owned()), ..Settings::default() };
    for line in [
        "stoa --listen :1 serve",
        "stoa serve --listen :1",
        "stoa serve --listen=:1",
        "stoa healthcheck --listen :1",
        "stoa config --listen :1 show",
        "stoa config check --listen :1",
    ] {
        assert_eq!(settings(line), expected, "{line}");
    }
}

#[test]
fn offline_takes_a_value_only_with_an_equals_sign() {
    let check = |line: &str, expected: Option<&str>| {
        assert_eq!(settings(line).offline.as_deref(), expected, "{line}");
    };
    check("stoa serve", None);
    check("stoa serve --offline", Some("true"));
    check("stoa serve --offline=false", Some("false"));
    check("stoa --offline serve", Some("true"));
    // Nonsense is for the configuration to report, with everything else.
    check("stoa serve --offline=perhaps", Some("perhaps"));
}

#[test]
fn wrong_arguments_exit_with_2() {
    let check = |line: &str, kind: ErrorKind| {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}: {error}");
    };
    check("stoa", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    check("stoa config", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    check("stoa srve", ErrorKind::InvalidSubcommand);
    check("stoa refresh", ErrorKind::MissingRequiredArgument);
    check("stoa refresh example.com/m example.com/m@v2.0.0", ErrorKind::ValueValidation);
    check("stoa serve --lisen :1", ErrorKind::UnknownArgument);
    check("stoa serve --listen", ErrorKind::InvalidValue);
    check("stoa serve --listen :1 --listen :2", ErrorKind::ArgumentConflict);
    check("stoa serve extra", ErrorKind::UnknownArgument);
}

#[test]
fn version_and_help_exit_with_0() {
    let version = parse("stoa --version").unwrap_err();
    assert_eq!(version.exit_code(), 0);
    assert_eq!(version.to_string(), concat!("stoa ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = parse("stoa serve --help").unwrap_err();
    assert_eq!(help.exit_code(), 0);
    assert!(help.to_string().contains("--goproxy <LIST>"), "{help}");
}

/// A flag that the table does not know would be parsed and forgotten.
#[test]
fn the_flags_are_those_of_the_table() {
    let flags: BTreeSet<String> = Cli::command()
        .get_arguments()
        .filter_map(|argument| {
            let long = argument.get_long()?;
            let help = argument.get_help().unwrap().to_string();
            let env = help.split_once('[').unwrap().1.split([';', ']']).next().unwrap();
            Some(format!("--{long} {env}"))
        })
        .filter(|flag| flag != "--config STOA_CONFIG")
        .collect();
    assert_eq!(flags, config::flags());
}

#[test]
fn config_commands_say_ok_or_every_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap().to_owned();
    let env = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        let pairs = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        pairs.chain([("HOME".to_owned(), home.clone())]).collect()
    };
    let run = |command: ConfigCommand, pairs: &[(&str, &str)]| {
        run_config_command(&command, &Settings::default(), &env(pairs), dir.path())
    };
    let ok = Output { stdout: "ok\n".to_owned(), stderr: String::new(), code: 0 };
    assert_eq!(run(ConfigCommand::Check, &[]), ok);

    let warned = run(ConfigCommand::Check, &[("STOA_GOSUMDB", "off")]);
    assert_eq!((warned.stdout.as_str(), warned.code), ("ok\n", 0));
    assert!(warned.stderr.starts_with("warning: STOA_GOSUMDB: sumdb.gosumdb: off "), "{warned:?}");

    let wrong = &[("STOA_LISTEN", "3000"), ("STOA_OFFLINE", "perhaps")];
    for command in [ConfigCommand::Check, ConfigCommand::Show] {
        let output = run(command, wrong);
        assert_eq!((output.stdout.as_str(), output.code), ("", 2));
        let keys: Vec<&str> =
            output.stderr.lines().map(|line| line.split(": ").nth(1).unwrap()).collect();
        assert_eq!(keys, ["server.listen", "server.offline"]);
    }

    let shown = run(ConfigCommand::Show, &[("STOA_LISTEN", ":1")]);
    assert_eq!((shown.stderr.as_str(), shown.code), ("", 0));
    let line = shown.stdout.lines().find(|line| line.starts_with("listen")).unwrap();
    assert_eq!(
        line.split_whitespace().collect::<Vec<_>>().join(" "),
        "listen = \":1\" # STOA_LISTEN"
    );

    // The explanation needs no settings, so it is there for those whose settings are wrong.
    let reference = run(ConfigCommand::Reference { toml: false }, wrong);
    assert_eq!((reference.stdout, reference.code), (config::reference(), 0));
    let reference = run(ConfigCommand::Reference { toml: true }, wrong);
    assert_eq!((reference.stdout, reference.code), (config::template(), 0));
}
