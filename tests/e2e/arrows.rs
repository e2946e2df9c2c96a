//! Which crate may know which (ARCHITECTURE.md, "Rooms"): what cargo says is compared with one table.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

/// Everything a crate may name as a dependency, of this workspace.
const MAY_KNOW: [(&str, &[&str]); 8] = [
    ("stoa-module", &[]),
    ("stoa-sumdb", &["stoa-module"]),
    ("stoa-store", &["stoa-module"]),
    ("stoa-upstream", &["stoa-module"]),
    ("stoa-core", &["stoa-module", "stoa-sumdb", "stoa-store", "stoa-upstream"]),
    ("stoa", &["stoa-module", "stoa-sumdb", "stoa-store", "stoa-upstream", "stoa-core"]),
    // Never shipped: they know what they fake and measure, and no program knows them.
    ("stoa-testkit", &["stoa-module", "stoa-sumdb"]),
    ("stoa-bench", &["stoa-module", "stoa-sumdb", "stoa-testkit"]),
];

/// What any crate's tests may know besides.
const TESTS_MAY_KNOW: &str = "stoa-testkit";

/// The pure rooms do no I/O and are not async: what would bring either is not named by them.
const PURE: [&str; 2] = ["stoa-module", "stoa-sumdb"];
const IMPURE: [&str; 8] =
    ["tokio", "hyper", "reqwest", "axum", "sqlx", "fs-err", "futures-util", "tempfile"];

#[test]
fn no_crate_knows_what_it_must_not() {
    let wrong = wrong_arrows(&cargo_metadata());
    assert!(wrong.is_empty(), "ARCHITECTURE.md does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn an_arrow_that_points_up_or_across_is_found() {
    #[track_caller]
    fn check(from: &str, to: &str, kind: Option<&str>, expected: bool) {
        let dependency = serde_json::json!({ "name": to, "kind": kind });
        let package = |name: &str| serde_json::json!({ "name": name, "dependencies": [] });
        let mut packages: Vec<_> = MAY_KNOW.iter().map(|(name, _)| package(name)).collect();
        for package in packages.iter_mut().filter(|package| package["name"] == from) {
            package["dependencies"] = serde_json::json!([dependency]);
        }
        let wrong = wrong_arrows(&serde_json::json!({ "packages": packages }));
        assert_eq!(wrong.is_empty(), expected, "{from} -> {to} ({kind:?}): {wrong:?}");
    }
    check("stoa", "stoa-core", None, true);
    check("stoa", "stoa-module", None, true);
    check("stoa-core", "stoa-store", None, true);
    check("stoa-store", "tokio", None, true);
    check("stoa-core", "stoa", None, false);
    check("stoa-store", "stoa-upstream", None, false);
    check("stoa-store", "stoa-upstream", Some("dev"), false);
    check("stoa-upstream", "stoa-sumdb", None, false);
    check("stoa-module", "stoa-sumdb", None, false);
    check("stoa-module", "tokio", None, false);
    check("stoa-core", "stoa-testkit", Some("dev"), true);
    check("stoa-core", "stoa-testkit", None, false);
    check("stoa", "stoa-testkit", Some("build"), false);
    check("stoa", "stoa-bench", Some("dev"), false);
}

#[test]
fn a_crate_that_the_table_lacks_is_found() {
    let packages = serde_json::json!([{ "name": "stoa-new", "dependencies": [] }]);
    let wrong = wrong_arrows(&serde_json::json!({ "packages": packages }));
    assert_eq!(wrong, ["stoa-new: not in the table of tests/e2e/arrows.rs"]);
}

/// One line for each arrow that is not allowed.
fn wrong_arrows(metadata: &Value) -> Vec<String> {
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages
        .iter()
        .map(|package| text(package, "name"))
        .chain(MAY_KNOW.map(|it| it.0))
        .collect();
    let mut wrong = Vec::new();
    for package in packages {
        let from = text(package, "name");
        let Some((_, may_know)) = MAY_KNOW.iter().find(|(name, _)| *name == from) else {
            wrong.push(format!("{from}: not in the table of tests/e2e/arrows.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = text(dependency, "name");
            let dev = dependency["kind"] == "dev";
            let allowed = if ours.contains(to) {
                may_know.contains(&to) || (dev && to == TESTS_MAY_KNOW)
            } else {
                dev || !PURE.contains(&from) || !IMPURE.contains(&to)
            };
            if !allowed {
                wrong.push(format!("{from} -> {to} ({})", dependency["kind"]));
            }
        }
    }
    wrong
}

#[track_caller]
fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// The members of the workspace and what each names as its dependencies.
fn cargo_metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON from cargo metadata")
}
