//! Real texts with faults in them, and what the go command's own code makes of the same texts.

use jiff::Timestamp;
use proptest::prelude::*;
use stoa_module::{
    H1, ModulePath, ModuleVersion, PseudoClaim, Query, Sha256, Version, check_file_path,
    is_pseudo_version, pseudo_version, semver,
};

use crate::oracle::{compare, question, sample};
use crate::paths::{assert_same_path, assert_same_unescaped};

const PATHS: [&str; 16] = [
    "github.com/Azure/azure-sdk-for-go/sdk/azcore",
    "github.com/BurntSushi/toml",
    "github.com/prometheus/prometheus/v2",
    "github.com/a/b.v2",
    "gopkg.in/yaml.v3",
    "gopkg.in/src-d/go-git.v4",
    "gopkg.in/x/y.v1-unstable",
    "golang.org/x/text",
    "k8s.io/client-go",
    "cloud.google.com/go/compute/metadata",
    "ex.com/~user/mod_1/v10",
    "1.2.3.4/x",
    "xn--bcher-kva.example/a+b",
    "example.com/v2/v3",
    "a-b.c/progra~1/con.txt",
    "github.com/123/v123",
];

const VERSIONS: [&str; 16] = [
    "v0.0.0",
    "v1.2.3",
    "v2.0.0+incompatible",
    "v1.0.0-rc.1",
    "v1.0.0-RC1.x-y",
    "v10.20.30-alpha.0.beta",
    "v1.2",
    "v1",
    "v1.2.3+meta.1-x",
    "v0.0.0-20240202030405-bbaab31090cb",
    "v1.2.4-0.20240202030405-bbaab31090cb",
    "v2.3.1-rc.1.0.20240202030405-bbaab31090cb+incompatible",
    "v0.0.0-20241302030405-bbaab31090cb",
    "v1.0.0-0.20240202030405-bbaab31090cb",
    "v99999999999999999999.0.18446744073709551616",
    "v1.0.10000-0.20240202030405-bbaab31090cb+x.y",
];

const FILES: [&str; 10] = [
    "go.mod",
    "cmd/go/main.go",
    "testdata/AUX.txt",
    "a b/c~1.go",
    "docs/[x]#1 (2).md",
    "vendor/x/y.go",
    ".github/workflows/ci.yml",
    "i18n/日本語/é.go",
    "@v/!x^{}.go",
    "com1.d/nul",
];

/// What rules have something to say about.
const PIECES: [&str; 40] = [
    "/",
    ".",
    "..",
    "-",
    "--",
    "~",
    "~1",
    "!",
    "!a",
    "!!",
    "@",
    "+",
    "_",
    "A",
    "Z",
    "a",
    "0",
    "00",
    "1",
    "9",
    "v",
    "v2",
    ".v2",
    "/v2",
    "/v1",
    "-unstable",
    "+incompatible",
    "-0.",
    ".0.",
    " ",
    "\t",
    "\0",
    "é",
    "\u{0301}",
    "\u{212a}",
    "ſ",
    "con",
    "\\",
    "*",
    "%2f",
];

/// Some faults at random places.
fn faulty(texts: &'static [&'static str]) -> impl Strategy<Value = String> {
    let fault = (any::<prop::sample::Index>(), 0..5_u8, prop::sample::select(&PIECES[..]));
    (prop::sample::select(texts), prop::collection::vec(fault, 0..4)).prop_map(|(text, faults)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, kind, piece) in faults {
            let at = at.index(chars.len() + 1);
            let next = chars.len().min(at + 1);
            match kind {
                0 => drop(chars.splice(at..at, piece.chars())),
                1 => drop(chars.splice(at..next, piece.chars())),
                2 => drop(chars.drain(at..next)),
                3 => chars.truncate(at),
                _ => chars.rotate_left(at),
            }
        }
        chars.into_iter().collect()
    })
}

#[test]
fn go_agrees_on_faulty_paths() {
    let inputs = sample(faulty(&PATHS), 6000);
    let valid = inputs.iter().filter(|path| ModulePath::parse(path).is_ok()).count();
    assert!(valid > 1000 && valid < inputs.len() - 1000, "both kinds are there: {valid}");
    compare(&inputs, |path| question(["path", path]), |path, go| assert_same_path(path, go));
    compare(
        &inputs,
        |path| question(["unescape_path", path]),
        |path, go| assert_same_unescaped(path, go),
    );
}

#[test]
fn go_agrees_on_faulty_files() {
    compare(
        &sample(faulty(&FILES), 6000),
        |path| question(["file", path]),
        |path, go| {
            assert_eq!(check_file_path(path).is_ok(), go["error"] == "", "{path:?} {go}");
        },
    );
}

#[test]
fn go_agrees_on_faulty_versions() {
    let inputs = sample(faulty(&VERSIONS), 8000);
    let valid = inputs.iter().filter(|version| Version::parse(version).is_ok()).count();
    assert!(valid > 1000 && valid < inputs.len() - 1000, "both kinds are there: {valid}");
    compare(
        &inputs,
        |version| question(["version", version]),
        |text, go| {
            let canonical = semver::canonical_version(text).unwrap_or_default();
            assert_eq!(go["canonical"], canonical, "{text}");
            assert_eq!(go["plain"], semver::canonical(text).unwrap_or_default(), "{text}");
            assert_eq!(go["major"], semver::major(text).unwrap_or_default(), "{text}");
            assert_eq!(go["pre"], semver::prerelease(text), "{text}");
            assert_eq!(go["build"], semver::build(text), "{text}");
            assert_eq!(
                Version::parse(text).is_ok(),
                *text == canonical && !text.is_empty(),
                "{text}"
            );
            match Query::parse(text) {
                Ok(query) => assert_eq!(go["escaped"], query.escaped(), "{text}"),
                Err(error) => assert!(go["escaped"].is_null(), "{error}"),
            }
        },
    );
    compare(
        &inputs,
        |text| question(["unescape_version", text]),
        |text, go| match Query::parse_escaped(text) {
            Ok(query) => assert_eq!(go["text"], query.as_str(), "{}", go["error"]),
            Err(error) => assert_ne!(go["error"], "", "{error}"),
        },
    );
    let pairs: Vec<_> = inputs.windows(2).collect();
    compare(
        &pairs,
        |pair| question(["compare", &pair[0], &pair[1]]),
        |pair, go| assert_eq!(go["order"], semver::compare(&pair[0], &pair[1]) as i8, "{pair:?}"),
    );
}

/// A path and a version together, as `module.Check` sees them.
#[test]
fn go_agrees_on_faulty_modules() {
    let inputs = sample((faulty(&PATHS), faulty(&VERSIONS)), 8000);
    let valid = |(path, version): &(String, String)| {
        let (Ok(path), Ok(version)) = (ModulePath::parse(path), Version::parse(version)) else {
            return false;
        };
        ModuleVersion::new(path, version).is_ok()
    };
    let count = inputs.iter().filter(|input| valid(input)).count();
    assert!(count > 500 && count < inputs.len() - 500, "both kinds are there: {count}");
    compare(
        &inputs,
        |(path, version)| question(["module", path, version]),
        |input, go| {
            let (_, version) = input;
            // `module.Check` also takes what is not canonical; the go command checks that by itself, and so do we.
            let canonical = semver::canonical_version(version).as_ref() == Some(version);
            assert_eq!(valid(input), go["error"] == "" && canonical, "{input:?} {go}");
        },
    );
}

/// Any text, since tags have build metadata of their own.
#[test]
fn go_agrees_on_faulty_pseudo_versions() {
    let inputs = sample(faulty(&VERSIONS[9..]), 6000);
    let claims = inputs.iter().filter(|text| PseudoClaim::of(text).is_ok()).count();
    assert!(claims > 500, "pseudo-versions are among them: {claims}");
    compare(
        &inputs,
        |text| question(["pseudo", text]),
        |text, go| {
            assert_eq!(go["is"], is_pseudo_version(text), "{text}");
            // The claim leaves `+incompatible` out, as direct mode does, also where no base can have it.
            if text.ends_with("+incompatible") {
                return;
            }
            let claim = PseudoClaim::of(text).ok().map(|claim| {
                serde_json::json!([
                    claim.base.unwrap_or_default(),
                    claim.time.to_string(),
                    claim.revision
                ])
            });
            assert_eq!(go.get("parts"), claim.as_ref(), "{text}");
        },
    );
}

#[test]
fn go_agrees_on_the_pseudo_versions_that_are_made() {
    let major = prop_oneof![Just(""), Just("v1"), Just("v2"), Just("v10")];
    let base = prop_oneof![1 => Just(String::new()), 3 => faulty(&VERSIONS[..9])];
    let inputs = sample((major, base, 0_i64..250_000_000_000, "[0-9a-f]{12}"), 4000);
    compare(
        &inputs,
        |(major, base, seconds, revision)| {
            let time = Timestamp::from_second(*seconds).expect("before the year 9999").to_string();
            question(["make_pseudo", major, base, &time, revision])
        },
        |(major, base, seconds, revision), go| {
            let some = |text: &'_ str| (!text.is_empty()).then(|| text.to_owned());
            let time = Timestamp::from_second(*seconds).expect("before the year 9999");
            let made =
                pseudo_version(some(major).as_deref(), some(base).as_deref(), time, revision);
            assert_eq!(go["text"], made, "{major:?} {base:?}");
        },
    );
}

#[test]
fn go_agrees_on_the_hash_of_files() {
    let name = prop_oneof!["[a-c/.]{1,5}", "[ -~]{1,4}", "\\PC{1,3}", "[ab\n]{1,3}"];
    let files = prop::collection::btree_map(name, "\\PC{0,8}", 0..6)
        .prop_map(|files| files.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    compare(
        &sample(files, 3000),
        |files| {
            let words = files.iter().flat_map(|(name, text)| [name.clone(), text.clone()]);
            ["hash1".to_owned()].into_iter().chain(words).collect()
        },
        |files, go| {
            let sums = files
                .iter()
                .map(|(name, text)| (name.as_str(), *Sha256::of(text.as_bytes()).as_bytes()));
            match H1::of_files(sums) {
                Ok(h1) => assert_eq!(go["h1"], h1.to_string()),
                Err(error) => assert_ne!(go["error"], "", "{error}"),
            }
        },
    );
}
