use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use stoa_module::{GoMod, Version, module_line};

use crate::oracle::{compare, question, sample};

#[test]
fn the_module_line() {
    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(module_line(text.as_bytes()).as_deref(), expected, "{text:?}");
    }
    check("module example.com/m\n", Some("example.com/m"));
    check("// comment\n\nmodule  example.com/m // why\r\n", Some("example.com/m"));
    check("module \"example.com/m\"", Some("example.com/m"));
    check("module `example.com/m`", Some("example.com/m"));
    check(r#"module "example.com/\u006d\x6d\155""#, Some("example.com/mmm"));
    check("module a b\n", Some("a b"));
    check("module\texample.com/m", Some("example.com/m"));
    check("modulex y\nmodule z", Some("z"));
    check("module\nmodule z", Some("z"));
    check("module (\n\texample.com/m\n)\n", Some("("));
    check("module \"x", None);
    check("module \"x\" y", None);
    check("module \"\\q\"", None);
    check("module \"\\400\"", None);
    check("module `a`b`", None);
    check("module `a\rb`", Some("ab"));
    check("go 1.24\n", None);
    check("", None);
    check("module x", Some("x"));
    check("module https://x", Some("https:"));
}

#[test]
fn files() {
    let text = r#"
// Some comment.

// Deprecated: use example.com/new
// instead.
//
// More.
module example.com/old // a comment

go 1.24.3

toolchain go1.25.0

require rsc.io/quote v1.5.2 // indirect

require (
	"rsc.io/sampler" v1.3.0
	rsc.io/bad master
	golang.org/x/text v0.0.0-20170915032832-14c0d48ead0c // indirect
	gopkg.in/x.v2 v2+meta
	rsc.io/short v1.2
)

replace rsc.io/quote => ../quote

exclude (
	a.b v1.0.0
)

retract v1.0.1 // Published by mistake.

// Broken.
retract (
	v1.0.0
	// Worse.
	[v1.1.0, v1.1.9]
	[v1.2.0
	()
)

unknown {
	x
}
retract [v2.0.0, v2.1.0] more
go 1.99
module example.com/other
"#;
    let go_mod = GoMod::parse_lax(text.as_bytes());
    assert_eq!(go_mod.module.as_deref(), Some("example.com/old"));
    assert_eq!(go_mod.deprecated.as_deref(), Some("use example.com/new\ninstead."));
    assert_eq!(go_mod.go.as_deref(), Some("1.24.3"));
    assert_eq!(go_mod.toolchain.as_deref(), Some("go1.25.0"));
    let require: Vec<_> =
        go_mod.require.iter().map(|(path, version)| format!("{path} {version}")).collect();
    assert_eq!(
        require,
        [
            "rsc.io/quote v1.5.2",
            "rsc.io/sampler v1.3.0",
            "golang.org/x/text v0.0.0-20170915032832-14c0d48ead0c",
            "rsc.io/short v1.2.0"
        ]
    );
    let retract: Vec<_> =
        go_mod.retract.iter().map(|r| format!("{} {} {}", r.low, r.high, r.rationale)).collect();
    assert_eq!(
        retract,
        [
            "v1.0.1 v1.0.1 Published by mistake.",
            "v1.0.0 v1.0.0 Broken.",
            "v1.1.0 v1.1.9 Worse.",
            "v2.0.0 v2.1.0 "
        ]
    );
    let covers = |at: usize, version| {
        go_mod.retract[at].covers(&Version::parse(version).expect("a version"))
    };
    assert!(covers(0, "v1.0.1") && !covers(0, "v1.0.2") && !covers(0, "v1.0.1-rc1"));
    assert!(
        covers(2, "v1.1.0") && covers(2, "v1.1.5") && covers(2, "v1.1.9") && !covers(2, "v1.1.10")
    );
}

#[test]
fn go_lines() {
    #[track_caller]
    fn check(line: &str, expected: Option<&str>) {
        let go_mod = GoMod::parse_lax(format!("module m.x\n{line}\n").as_bytes());
        assert_eq!(go_mod.go.as_deref(), expected, "{line:?}");
    }
    check("go 1.24", Some("1.24"));
    check("go 1.24.0", Some("1.24.0"));
    check("go 1.24rc1", Some("1.24rc1"));
    check("go 1.24.1rc1", Some("1.24.1rc1"));
    check("go v1.24.1", Some("1.24"));
    check("go 1.24-x", Some("1.24"));
    check("go 1.24.01", Some("1.24"));
    check("go 1.24 // x", Some("1.24"));
    check("go 1", None);
    check("go 0.9", None);
    check("go 1.024", None);
    check("go v1.24", None);
    check("go 1.24 1.25", None);
    check("go", None);
    check("go (\n1.24\n)", None);
    for (line, expected) in [
        ("toolchain default", Some("default")),
        ("toolchain go1.25.0-custom", Some("go1.25.0-custom")),
        ("toolchain go1", Some("go1")),
        ("toolchain go2.0", None),
        ("toolchain go12", None),
        ("toolchain", None),
    ] {
        assert_eq!(GoMod::parse_lax(line.as_bytes()).toolchain.as_deref(), expected, "{line}");
    }
}

#[test]
fn deprecations() {
    #[track_caller]
    fn check(text: &str, expected: Option<&str>) {
        assert_eq!(GoMod::parse_lax(text.as_bytes()).deprecated.as_deref(), expected, "{text:?}");
    }
    check("// Deprecated: old\nmodule m.x", Some("old"));
    check("module m.x // Deprecated: old", Some("old"));
    check("// x\n// Deprecated: old\nmodule m.x", None);
    check("// x\n//\n// Deprecated: old\n//\n// Deprecated: older\nmodule m.x", Some("old"));
    check("//\n//\n//\nmodule m.x // Deprecated: old", Some("old"));
    check("// x\n//\n//\n//\n// Deprecated:  old\n//\n//\n// x\nmodule m.x", Some("old"));
    check("// x\n//\n// x Deprecated: old\nmodule m.x", None);
    check("// Deprecated: old\n\nmodule m.x", None);
    check("// deprecated: old\nmodule m.x", None);
    check("// Deprecated: old\nmodule (\n\tm.x\n)", Some("old"));
    check("// Deprecated: old\nmodule (\n\tm.x // other\n)", None);
}

fn go_mod_like() -> impl Strategy<Value = String> {
    let version = prop_oneof![
        6 => "v[0-9]\\.[0-9]\\.[0-9](-[a-z]{1,3})?(\\+incompatible)?",
        1 => "v[0-9]",
        1 => Just("\"v1.0.0\"".to_owned()),
        1 => Just("master".to_owned()),
    ];
    let path = prop_oneof![
        6 => "[a-z]{1,2}\\.[a-z]/[a-z]{1,2}",
        1 => "\"[a-z]{1,2}\\.[a-z]/[a-z]\"",
        1 => "[a-z]'x`?",
    ];
    let require = (path.clone(), version.clone()).prop_map(|(path, v)| format!("{path} {v}"));
    let retract = prop_oneof![
        version.clone(),
        (version.clone(), version).prop_map(|(low, high)| format!("[{low}, {high}]")),
        Just("[v1.0.0]".to_owned()),
        Just(String::new()),
    ];
    let item = prop_oneof![
        path.prop_map(|path| ("module", path)),
        "1\\.[0-9]{1,2}(\\.[0-9])?(rc1|x)?".prop_map(|v| ("go", v)),
        require.prop_map(|line| ("require", line)),
        retract.prop_map(|line| ("retract", line)),
        "[a-z]{1,3}( [a-z=>]{1,2})?".prop_map(|line| ("other", line)),
    ];
    let comment = prop_oneof![
        6 => Just(String::new()),
        1 => " // [a-zA-Z: ]{0,6}",
        1 => Just(" // Deprecated: x".to_owned()),
    ];
    let above = prop_oneof![
        6 => Just(String::new()),
        1 => Just("// Deprecated: why\n//\n".to_owned()),
        1 => "(// ?[a-z]{0,4}\n|\n){1,3}",
    ];
    let statement = (item, comment, above, prop::bool::weighted(0.3)).prop_map(
        |((verb, line), comment, above, block)| {
            if block {
                format!("{above}{verb} (\n{above}\t{line}{comment}\n\n\t{line}\n)\n")
            } else {
                format!("{above}{verb} {line}{comment}\n")
            }
        },
    );
    prop::collection::vec(statement, 1..5).prop_map(|statements| statements.concat())
}

/// Work and memory grow with the file, not with its square.
#[test]
fn large_files() {
    let line = "retract ".to_owned() + &"a ".repeat(1 << 20);
    assert!(GoMod::parse_lax(line.as_bytes()).retract.len() == 1);
    let comment = "// ".to_owned() + &"why ".repeat(1 << 18) + "\n";
    let block = format!("{comment}retract (\n{})\n", "v1.0.0\n".repeat(50_000));
    let go_mod = GoMod::parse_lax(block.as_bytes());
    assert_eq!(go_mod.retract.len(), 50_000);
    let shared = |n: usize| Arc::ptr_eq(&go_mod.retract[0].rationale, &go_mod.retract[n].rationale);
    assert!(shared(1) && shared(49_999));
}

proptest! {
    #[test]
    fn no_input_panics(bytes in any::<Vec<u8>>(), text in any::<String>(), like in go_mod_like(), quoted in "module \"[\\\\a-z0-7\"xuU]{0,12}") {
        for text in [&bytes[..], text.as_bytes(), like.as_bytes(), quoted.as_bytes()] {
            let _ = GoMod::parse_lax(text);
            let _ = module_line(text);
        }
    }
}

#[test]
fn go_agrees_on_go_mod_files() {
    let inputs = sample(go_mod_like(), 8000);
    let mut fine = 0;
    let questions: Vec<_> = inputs.iter().map(|text| question(["gomod", text])).collect();
    let Some(answers) = crate::oracle::ask(&questions) else { return };
    for (text, go) in inputs.iter().zip(&answers) {
        let line = module_line(text.as_bytes()).unwrap_or_default();
        assert_eq!(go["line"], line, "{text}");
        // Go refuses whole files of which we keep what can be understood.
        if go["error"].is_string() {
            continue;
        }
        fine += 1;
        let ours = GoMod::parse_lax(text.as_bytes());
        let or_null = |text: &Option<String>| text.clone().map_or(Value::Null, Value::from);
        assert_eq!(go["module"], or_null(&ours.module), "{text}");
        if ours.module.is_some() {
            assert_eq!(go["deprecated"], ours.deprecated.clone().unwrap_or_default(), "{text}");
        }
        assert_eq!(go["go"], or_null(&ours.go), "{text}");
        assert_eq!(go["require"], json!(ours.require), "{text}");
        let retract: Vec<_> =
            ours.retract.iter().map(|r| [&*r.low, &*r.high, &*r.rationale]).collect();
        assert_eq!(go["retract"], json!(retract), "{text}");
    }
    assert!(fine > 1000, "files that Go takes are among them: {fine}");
}

#[test]
fn go_agrees_on_quoted_module_lines() {
    let line = "module (\"|`)[a-z\\\\0-9abfnrtvxuU\"`' ]{0,10}(\"|`)";
    compare(
        &sample(line, 6000),
        |text| question(["gomod", text]),
        |text, go| {
            let line = module_line(text.as_bytes()).unwrap_or_default();
            // A path of bytes that are not UTF-8 is none here.
            if go["line"].as_str().is_some_and(|line| line.contains('\u{fffd}')) {
                assert_eq!(line, "", "{text}");
            } else {
                assert_eq!(go["line"], line, "{text}");
            }
        },
    );
}
