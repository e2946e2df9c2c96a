//! Asks the code of the go command itself: golang.org/x/mod as it is vendored in GOROOT, and its reader of go-import pages,
//! built with `tests/oracle`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::Value;

/// Puts all questions to the oracle and returns an answer for each. `None`, after having said so, where there is no go
/// command; with `STOA_REQUIRE_GO=1` that is a failure.
pub(crate) fn ask(questions: &[Vec<String>]) -> Option<Vec<Value>> {
    let mut oracle = Command::new(program()?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the oracle starts");
    let mut stdin = oracle.stdin.take().expect("it has an input");
    let stdout = BufReader::new(oracle.stdout.take().expect("it has an output"));
    let answers = std::thread::scope(|scope| {
        scope.spawn(move || {
            for question in questions {
                let line = serde_json::to_string(question).expect("strings are JSON");
                // If the oracle has stopped, the answers will be too few.
                if writeln!(stdin, "{line}").is_err() {
                    break;
                }
            }
        });
        stdout
            .lines()
            .map(|line| serde_json::from_str(&line.expect("a line")).expect("the line is JSON"))
            .collect::<Vec<Value>>()
    });
    assert!(oracle.wait().expect("the oracle ends").success());
    assert_eq!(answers.len(), questions.len());
    Some(answers)
}

/// Compares what we make of each input with what the oracle answers.
pub(crate) fn compare<T>(
    inputs: &[T],
    question: impl Fn(&T) -> Vec<String>,
    check: impl Fn(&T, &Value),
) {
    let questions: Vec<_> = inputs.iter().map(question).collect();
    if let Some(answers) = ask(&questions) {
        for (input, answer) in inputs.iter().zip(&answers) {
            check(input, answer);
        }
    }
}

/// Some values of a strategy, the same in each run; `STOA_GO_CASES=100` takes a hundred times as many.
pub(crate) fn sample<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let times = std::env::var("STOA_GO_CASES").map_or(1, |times| times.parse().expect("a number"));
    let mut runner = TestRunner::deterministic();
    (0..count * times)
        .map(|_| strategy.new_tree(&mut runner).expect("the strategy rejects nothing").current())
        .collect()
}

/// A question of strings.
pub(crate) fn question<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Says once that there is no go command, or fails.
pub(crate) fn skip(reason: &str) {
    assert!(
        std::env::var_os("STOA_REQUIRE_GO").is_none_or(|value| value != "1"),
        "STOA_REQUIRE_GO=1, but {reason}"
    );
    eprintln!("skipped: {reason}");
}

fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM.get_or_init(build).as_deref()
}

fn build() -> Option<PathBuf> {
    let goroot = match Command::new("go").args(["env", "GOROOT"]).output() {
        Ok(output) if output.status.success() => String::from_utf8(output.stdout).expect("UTF-8"),
        _ => {
            skip("there is no go command");
            return None;
        }
    };
    let sources = Path::new(goroot.trim()).join("src/cmd");
    let x_mod = sources.join("vendor/golang.org/x/mod");
    let discovery = sources.join("go/internal/vcs/discovery.go");
    if !x_mod.is_dir() || !discovery.is_file() {
        skip("the sources of the go command are not in GOROOT");
        return None;
    }

    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("oracle");
    fs_err::create_dir_all(&dir).expect("a directory");
    // Test processes may run side by side.
    let lock = fs_err::File::create(dir.join("lock")).expect("a lock file");
    lock.file().lock().expect("the lock");

    copy(&x_mod, &dir.join("mod"));
    fs_err::write(dir.join("mod/go.mod"), "module golang.org/x/mod\n\ngo 1.25\n").expect("go.mod");
    let go_mod = "module oracle\n\ngo 1.25\n\nrequire golang.org/x/mod v0.0.0\n\n\
                  replace golang.org/x/mod => ./mod\n";
    fs_err::write(dir.join("go.mod"), go_mod).expect("go.mod");
    fs_err::write(dir.join("main.go"), include_str!("../oracle/main.go")).expect("main.go");
    fs_err::create_dir_all(dir.join("vcs")).expect("a directory");
    fs_err::copy(discovery, dir.join("vcs/discovery.go")).expect("a copy");
    fs_err::write(dir.join("vcs/vcs.go"), include_str!("../oracle/vcs.go")).expect("vcs.go");
    let output = Command::new("go")
        .args(["build", "-o", "oracle", "."])
        .current_dir(&dir)
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("GOPROXY", "off")
        .env("GOTOOLCHAIN", "local")
        .output()
        .expect("go build runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(dir.join("oracle"))
}

/// Copies the Go files of a tree.
fn copy(from: &Path, to: &Path) {
    fs_err::create_dir_all(to).expect("a directory");
    for entry in fs_err::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.path().extension().is_some_and(|extension| extension == "go") {
            fs_err::copy(entry.path(), target).expect("a copy");
        }
    }
}
