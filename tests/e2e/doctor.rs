//! `stoa doctor`: each verdict provoked for real, by the command itself and by the running server.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;
use stoa_testkit::{FakeSumdb, FakeUpstream, Fault, Misbehaviour, Modules, Port, require_git};

use crate::fixtures::{World, client, modules};
use crate::stoa::Setup;

const LIB: &str = "ex.com/lib@v1.0.0";

/// What `stoa doctor` says.
pub struct Diagnosis {
    pub exit: i32,
    pub report: Value,
}

impl Diagnosis {
    #[track_caller]
    pub fn of(output: &Output) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}:\n{stdout}\n{stderr}"));
        Self { exit: output.status.code().expect("an exit status"), report }
    }

    pub fn code(&self) -> &str {
        self.report["verdict"]["code"].as_str().unwrap()
    }

    fn place(&self) -> &str {
        self.report["verdict"]["place"].as_str().unwrap_or_default()
    }

    fn stops(&self) -> bool {
        self.report["verdict"]["stops"].as_bool().unwrap()
    }

    /// The state of a step at the first place whose name has this in it.
    fn state(&self, place: &str, step: &str) -> &str {
        let places = self.report["places"].as_array().unwrap();
        let found = places.iter().find(|it| it["name"].as_str().unwrap().contains(place));
        let steps = found.unwrap_or_else(|| panic!("no place {place}: {}", self.report));
        let mut steps = steps["steps"].as_array().unwrap().iter();
        let found = steps.find(|it| it["step"] == step);
        found.unwrap_or_else(|| panic!("no {step}: {}", self.report))["state"].as_str().unwrap()
    }

    /// What is not as it should be, for a test that fails.
    fn unwell(&self) -> String {
        let mut lines = vec![self.report["verdict"].to_string()];
        for place in self.report["places"].as_array().unwrap() {
            let steps = place["steps"].as_array().unwrap().iter().filter(|it| it["state"] != "ok");
            lines.extend(steps.map(|step| format!("{}: {step}", place["name"])));
        }
        lines.join("\n")
    }

    /// The verdict, with these words in its evidence.
    #[track_caller]
    pub fn is(&self, code: &str, words: &str) -> &Self {
        assert_eq!(self.code(), code, "{}", self.unwell());
        assert_eq!(self.report["verdict"]["exit"], self.exit);
        let evidence = self.report["verdict"]["evidence"].to_string();
        assert!(evidence.contains(words), "{words} is not in {evidence}");
        self
    }
}

pub fn diagnose(setup: &Setup, args: &[&str]) -> Diagnosis {
    let all: Vec<&str> = ["doctor", "--json"].into_iter().chain(args.iter().copied()).collect();
    Diagnosis::of(&setup.run(&all))
}

/// With the programs of this machine, git among them.
fn with_path(setup: Setup) -> Setup {
    setup.env("PATH", std::env::var("PATH").unwrap())
}

#[test]
fn a_healthy_chain() {
    let world = World::new();
    let setup = world.setup();
    let found = diagnose(&setup, &[LIB]);
    found.is("healthy", "");
    assert_eq!((found.exit, found.report["seen_by"].as_str()), (0, Some("command")));
    let upstream = world.upstream.address().to_string();
    for step in ["tcp", "http", "list", "info", "mod", "zip"] {
        assert_eq!(found.state(&upstream, step), "ok", "{step}: {:#}", found.report);
    }
    for step in ["supported", "lookup", "signature", "tile"] {
        assert_eq!(found.state("sum.test.example through", step), "ok", "{step}");
    }
    let ruled_out = found.report["ruled_out"].to_string();
    for words in ["the .zip of", "the .mod of", "disk:", "open-files:"] {
        assert!(ruled_out.contains(words), "{words}: {ruled_out}");
    }
    // A branch, `latest`, and a module by itself.
    for subject in ["ex.com/lib", "ex.com/lib@latest"] {
        diagnose(&setup, &[subject]).is("healthy", "");
    }
    assert!(!setup.data_dir().exists(), "an examination makes no data directory");
}

#[test]
fn the_running_server_looks_for_itself() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let found = diagnose(&setup, &[LIB]);
    found.is("healthy", "");
    assert_eq!(found.report["seen_by"], "server");
    assert_eq!(found.report["pid"], stoa.pid());
    let here = diagnose(&setup, &["--here", LIB]);
    assert_eq!(here.report["seen_by"], "command");
    assert_ne!(here.report["pid"], stoa.pid());
    // Nothing was stored by that.
    let log = stoa.log();
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    assert!(!setup.data_dir().join("cache/download/ex.com").exists());
}

#[test]
fn without_a_module_nobody_is_told_a_name() {
    let world = World::new();
    let found = diagnose(&with_path(world.setup()).env("STOA_GOPRIVATE", "127.0.0.1/team"), &[]);
    found.is("healthy", "");
    let asked = world.upstream.request_lines();
    assert!(!asked.is_empty() && asked.iter().all(|line| line.contains("/sumdb/")), "{asked:?}");
}

#[test]
fn a_private_name_goes_to_nobody_else() {
    let world = World::new();
    let setup = world.setup().env("STOA_GOPRIVATE", "ex.com/private");
    let found = diagnose(&setup, &["ex.com/private@v1.0.0"]);
    assert_ne!(found.code(), "healthy");
    let asked = world.upstream.request_lines();
    assert!(!asked.iter().any(|line| line.contains("private")), "{asked:?}");
}

#[test]
fn whom_a_client_would_not_ask_hears_no_name() {
    let names = |upstream: &FakeUpstream| {
        upstream
            .request_lines()
            .into_iter()
            .filter(|line| line.contains("ex.com"))
            .collect::<Vec<_>>()
    };
    // Behind the one that has it, and behind one that fails before a comma.
    let (world, behind) = (World::new(), FakeUpstream::start(modules()));
    let setup = world.setup().goproxy(format!("{},{}", world.upstream.url(), behind.url()));
    diagnose(&setup, &[LIB]).is("healthy", "");
    assert_eq!(names(&behind), Vec::<String>::new());
    world.upstream.fault("/ex.com/*", Fault::status(500));
    diagnose(&setup, &[LIB]).is("server-error", "500");
    assert_eq!(names(&behind), Vec::<String>::new());
    // The database is read by one road alone.
    let (world, second) = (World::new(), World::new());
    second.upstream.set_sumdb(&world.sumdb);
    let setup =
        world.setup().goproxy(format!("{},{}", world.upstream.url(), second.upstream.url()));
    diagnose(&setup, &[LIB]).is("healthy", "");
    assert_eq!(names(&second.upstream), Vec::<String>::new());
    let looked_up = world.upstream.count("*/lookup/*");
    assert_eq!(looked_up, 1);
}

#[tokio::test]
async fn what_is_stored_is_served_whatever_is_wrong() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    for file in ["info", "mod", "zip"] {
        let url = format!("{}/ex.com/lib/@v/v1.0.0.{file}", stoa.url);
        assert_eq!(client().get(url).send().await.unwrap().status(), 200);
    }
    world.upstream.fault("*", Fault::status(500));
    let found = diagnose(&setup, &[LIB]);
    assert!(!found.is("server-error", "500").stops(), "{}", found.unwell());
    assert_eq!(found.state("the store", "stored"), "ok");
    assert!(diagnose(&setup, &["ex.com/lib@v1.1.0"]).is("server-error", "500").stops());
}

/// `{"Version":"<megabytes>"}`, terminal sequences, and right-to-left marks.
#[test]
fn what_others_say_is_cut_and_printable() {
    let world = World::new();
    let long = format!("{{\"Version\":\"v1.0.0-{}\"}}", "x".repeat(5 << 20));
    world.upstream.fault("*.info", Fault::replace(long));
    let found = diagnose(&world.setup(), &[LIB]);
    found.is("malformed", "");
    assert!(found.report.to_string().len() < 20_000);
    world.upstream.clear_faults();
    let is_bad = |c: char| c != '\n' && (c.is_control() || matches!(c, '\u{202e}' | '\u{200b}'));
    for words in ["\x1b[2Jgone\x07", "gone\u{202e}\u{200b}"] {
        world.upstream.clear_faults();
        world.upstream.fault("*.info", Fault::status(403).text(words));
        world.upstream.fault("*.mod", Fault::replace(format!("module {words}\n")));
        for args in [&["doctor", LIB][..], &["doctor", "--verbose", "--json", "ex.com/lib"]] {
            let output = world.setup().run(args);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains("403"), "{text}");
            assert!(!text.contains(is_bad), "{text:?}");
        }
    }
}

#[test]
fn what_a_source_answers() {
    let check = |pattern: &str, fault: Fault, code: &str, words: &str| {
        let world = World::new();
        world.upstream.fault(pattern, fault);
        let found = diagnose(&world.setup(), &[LIB]);
        assert_eq!(found.code(), code, "{pattern} {words}: {}", found.unwell());
        found.is(code, words);
        assert!(found.stops());
        assert!(found.place().contains(&world.upstream.address().to_string()), "{}", found.place());
    };
    let unauthorized = "credential-missing-or-wrong";
    check("/ex.com/*", Fault::status(401).text("who are you?"), unauthorized, "who are you?");
    check("/ex.com/*", Fault::status(403).text("not for you"), "forbidden", "not for you");
    check("/ex.com/*", Fault::status(429), "rate-limited", "429");
    check("/ex.com/*", Fault::status(500), "server-error", "500");
    check("*.info", Fault::status(503), "server-error", "503");
    check("/ex.com/*", Fault::status(405), "not-a-proxy", "405");
    check("*/list", Fault::replace("<html>log in</html>"), "malformed", "log in");
    check("*.info", Fault::replace("<html>log in</html>"), "malformed", "log in");
    check("*.mod", Fault::replace("<html>log in</html>"), "malformed", "log in");
    check("*.zip", Fault::replace("<html>log in</html>"), "malformed", "zip");
    check("*.mod", Fault::truncate(5), "malformed", "cut off");
    check("*.zip", Fault::reset(), "reset", "zip");
}

#[test]
fn what_hangs() {
    std::thread::scope(|scope| {
        let check =
            |pattern: &'static str, fault: Fault, code: &'static str, words: &'static str| {
                scope.spawn(move || {
                    let world = World::new();
                    world.upstream.fault(pattern, fault);
                    let began = std::time::Instant::now();
                    diagnose(&world.setup(), &[LIB]).is(code, words);
                    assert!(began.elapsed() < Duration::from_mins(1));
                });
            };
        check("*.info", Fault::hang(), "header-timeout", "info");
        check("*.zip", Fault::hang(), "header-timeout", "zip");
        check("*.zip", Fault::drip(20, Duration::from_millis(400)), "slow", "zip");
    });
}

#[test]
fn what_is_not_there() {
    let world = World::new();
    let setup = world.setup();
    diagnose(&setup, &["ex.com/lib@v1.9.0"]).is("version-absent", "newest is v1.1.0");
    let setup = setup.goproxy(format!("{},direct", world.upstream.url()));
    diagnose(&setup, &["github.com/nobody"]).is("module-absent", "no module");
    let setup = setup.goproxy(world.upstream.url());
    diagnose(&setup, &["ex.com/nothing"]).is("no-route", "no setting names ex.com/nothing");
    diagnose(&setup, &["github.com/ex/nothing"]).is("module-absent", "nothing under this path");
    // The next source has it: nothing is wrong.
    let empty = FakeUpstream::start(Modules::default());
    let setup = world.setup().goproxy(format!("{},{}", empty.url(), world.upstream.url()));
    diagnose(&setup, &[LIB]).is("healthy", "");
}

#[test]
fn a_fault_over_the_pipe_only_costs_time() {
    let (world, dead) = (World::new(), FakeUpstream::start(modules()));
    dead.fault("*", Fault::status(500));
    let setup = world.setup().goproxy(format!("{}|{}", dead.url(), world.upstream.url()));
    let found = diagnose(&setup, &[LIB]);
    found.is("server-error", "500");
    assert!(!found.stops());
    let setup = world.setup().goproxy(format!("{},{}", dead.url(), world.upstream.url()));
    assert!(diagnose(&setup, &[LIB]).is("server-error", "500").stops());
    // What stands behind the one that has it is not asked.
    let setup = world.setup().goproxy(format!("{},{}", world.upstream.url(), dead.url()));
    diagnose(&setup, &[LIB]).is("healthy", "");
}

#[test]
fn what_the_checksum_database_says() {
    let world = World::new();
    let through = |upstream: &FakeUpstream, sumdb: &FakeSumdb| {
        Setup::new().goproxy(upstream.url()).gosumdb(sumdb.verifier_key())
    };
    // No record.
    let empty = FakeSumdb::new("sum.test.example", &Modules::default());
    empty.append_filler(20);
    let upstream = FakeUpstream::start(modules()).with_sumdb(&empty);
    diagnose(&through(&upstream, &empty), &[LIB]).is("no-record", LIB);
    // Another hash, well proven.
    let other = FakeSumdb::new("sum.test.example", &Modules::default());
    let h1 = |text: &str| stoa_module::H1::of_go_mod(text.as_bytes());
    other.append_record(LIB, h1("another zip"), h1("another go.mod"));
    let upstream = FakeUpstream::start(modules()).with_sumdb(&other);
    let found = diagnose(&through(&upstream, &other), &[LIB]);
    found.is("record-contradicts", &h1("another zip").to_string());
    // Not signed by its key, and a record that is not in the tree.
    for misbehaviour in [Misbehaviour::BadSignature, Misbehaviour::AlteredRecords] {
        let liar = FakeSumdb::new("sum.test.example", &modules());
        liar.append_filler(20);
        liar.misbehave(misbehaviour);
        let upstream = FakeUpstream::start(modules()).with_sumdb(&liar);
        diagnose(&through(&upstream, &liar), &[LIB]).is("database-unproven", "");
    }
    // Not passed on, and its own address refuses.
    let closed = FakeSumdb::new("127.0.0.1:1", &modules());
    let upstream = FakeUpstream::start(modules());
    let setup = through(&upstream, &closed);
    diagnose(&setup, &[LIB]).is("database-blocked", "refused");
    diagnose(&setup, &[]).is("database-blocked", "refused");
    // It takes connections and is silent.
    let mute = Port::mute();
    let silent = FakeSumdb::new(&mute.address().to_string(), &modules());
    diagnose(&through(&upstream, &silent), &[LIB]).is("database-blocked", "no answer");
    // One bad road is no matter where another works.
    let good = FakeUpstream::start(modules()).with_sumdb(&closed);
    upstream.fault("/sumdb/*", Fault::replace("<html>log in</html>"));
    let setup = through(&upstream, &closed).goproxy(format!("{},{}", upstream.url(), good.url()));
    diagnose(&setup, &[LIB]).is("healthy", "");
    diagnose(&through(&upstream, &closed), &[LIB]).is("database-unproven", "log in");
    upstream.clear_faults();
    // Nothing is fetched, so nobody is asked.
    diagnose(&through(&upstream, &closed).goproxy("off"), &[]).is("healthy", "");
    // Through a source that passes it on, its own address is no matter.
    let upstream = FakeUpstream::start(modules()).with_sumdb(&closed);
    diagnose(&through(&upstream, &closed), &[LIB]).is("healthy", "");
    drop(world);
}

#[tokio::test]
async fn two_histories_of_the_checksum_database() {
    let world = World::new();
    let setup = world.setup();
    let stoa = setup.start();
    let url = format!("{}/ex.com/lib/@v/v1.0.0.mod", stoa.url);
    assert_eq!(client().get(url).send().await.unwrap().status(), 200);
    let forked = world.sumdb.fork(5);
    forked.append_filler(600);
    forked.append(&modules());
    world.upstream.set_sumdb(&forked);
    let server = diagnose(&setup, &["ex.com/lib@v1.1.0"]);
    server.is("tree-forked", "not the beginning");
    drop(stoa);
    diagnose(&setup, &["ex.com/lib@v1.1.0"]).is("tree-forked", "not the beginning");
    diagnose(&setup, &[]).is("tree-forked", "not the beginning");
}

#[test]
fn what_the_settings_say() {
    let world = World::new();
    diagnose(&world.setup().offline(), &[LIB]).is("offline", "");
    assert!(world.upstream.request_lines().is_empty());
    let setup = world.setup();
    let file = setup.scratch().join("stoa.toml");
    fs_err::write(&file, "[[route]]\npattern = \"ex.com/lib\"\ngoproxy = \"off\"\n").unwrap();
    diagnose(&setup, &[LIB]).is("route-refuses", "ex.com/lib");
    // A wrong setting and a wrong name are no verdict.
    let output = setup.run(&["doctor", "no such module"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let output = world.setup().env("STOA_UPSTREAM_TRIES", "many").run(&["doctor"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn a_chain_that_leads_back() {
    let world = World::new();
    let through = FakeUpstream::start(Modules::default());
    let port = through.address().port();
    drop(through);
    let itself = format!("http://127.0.0.1:{port}");
    let setup = world.setup().env("STOA_LISTEN", format!("127.0.0.1:{port}")).goproxy(&itself);
    let stoa = setup.start();
    let found = diagnose(&setup, &[LIB]);
    assert_eq!(found.is("loop", "").report["seen_by"], "server");
    drop(stoa);
    // Also where it does not run.
    diagnose(&setup, &[LIB]).is("loop", "where this server listens");
}

#[test]
fn what_this_machine_lacks() {
    let world = World::new();
    // Room.
    if let Some(setup) = world.setup().on_tmpfs("4m") {
        diagnose(&setup, &[LIB]).is("disk-full", "");
        let _stoa = setup.start();
        assert_eq!(diagnose(&setup, &[LIB]).is("disk-full", "").report["seen_by"], "server");
    }
    // A place that can be written.
    if let Some(setup) = world.setup().on_tmpfs("64m") {
        diagnose(&setup, &[LIB]).is("healthy", "");
        setup.tmpfs().make_read_only();
        diagnose(&setup, &[LIB]).is("disk-read-only", "");
    }
    // git.
    let setup = world.setup().env("STOA_GOPRIVATE", "corp.test/x").env("PATH", "/nowhere");
    let found = diagnose(&setup, &[]);
    found.is("git-missing", "PATH");
}

#[test]
fn a_process_without_files() {
    let world = World::new();
    let setup = world.setup();
    // How many a process needs to begin is not ours to say: from enough to too few, one of them says it.
    let said = (8..20).rev().any(|files| {
        let mut command = std::process::Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" doctor --json");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_stoa")]);
        let inside = setup.command(&[]);
        command.env_clear();
        command.envs(inside.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.output().unwrap();
        assert_ne!(output.status.code(), Some(101), "{output:?}");
        !output.stdout.is_empty() && Diagnosis::of(&output).code() == "files-exhausted"
    });
    assert!(said);
}

#[test]
fn the_report_for_people() {
    let world = World::new();
    world.upstream.fault("*.zip", Fault::status(403).text("licence expired"));
    let output = world.setup().run(&["doctor", LIB]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(43), "{text}");
    for words in
        ["FAULT", "verdict forbidden", "licence expired", "what to do", "ruled out", "exit 43"]
    {
        assert!(text.contains(words), "{words} is not in:\n{text}");
    }
    assert!(!text.contains('\x1b'), "no colour without a terminal");
    assert!(text.lines().all(|line| line.chars().count() <= 130), "{text}");
}

/// As it comes to a terminal: `script` is one.
#[test]
fn colour_is_for_terminals() {
    let world = World::new();
    let setup = world.setup();
    let on_a_terminal = |variables: &[(&str, &str)]| {
        let doctor = setup.command(&["doctor", LIB]);
        let words: Vec<String> = std::iter::once(doctor.get_program())
            .chain(doctor.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect();
        let line = format!("stty cols 70; {}", words.join(" "));
        let mut script = std::process::Command::new("script");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env_clear();
        script.envs(doctor.get_envs().filter_map(|(name, value)| Some((name, value?))));
        script.env_remove("NO_COLOR").env("TERM", "xterm");
        script.env("PATH", std::env::var("PATH").unwrap()).envs(variables.iter().copied());
        script.stdin(std::process::Stdio::null());
        let output = script.output().expect("util-linux");
        String::from_utf8(output.stdout).unwrap()
    };
    let text = on_a_terminal(&[]);
    assert!(text.contains("\x1b[1;32mhealthy\x1b[0m"), "{text}");
    let plain: String = text
        .split("\x1b[")
        .map(|part| part.split_once('m').map_or(part, |(_, rest)| rest))
        .collect();
    assert!(plain.lines().all(|line| line.chars().count() <= 71), "{plain}");
    for variables in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let text = on_a_terminal(&[variables]);
        assert!(!text.contains('\x1b') && text.contains("verdict healthy"), "{text}");
    }
}

/// Where there is no repository, nothing is well.
#[test]
fn a_repository_that_is_not_there() {
    if !require_git() {
        return;
    }
    let net = crate::direct_net::Net::new();
    net.internet.host("github.com");
    let found = diagnose(&net.setup(), &["github.com/nobody/nothing"]);
    found.is("module-absent", "");
}
