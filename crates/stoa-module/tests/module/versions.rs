use std::cmp::Ordering;

use proptest::prelude::*;
use stoa_module::{Artifact, InvalidVersion, ModulePath, ModuleVersion, Query, Version, semver};

use crate::oracle::{compare, question, sample};

/// Versions in ascending order; those on one line are equal in precedence.
const ORDERED: &[&[&str]] = &[
    &[
        "",
        "bad",
        "1.2.3",
        "v1.2.3.4",
        "v01.0.0",
        "v1.02.0",
        "v1-pre",
        "v1.2+meta",
        "v1.0.0-01",
        "v1.0.0-",
        "v1.0.0+",
    ],
    &["v0.0.0-20240202030405-bbaab31090cb"],
    &["v0", "v0.0", "v0.0.0", "v0.0.0+meta"],
    &["v1.0.0-alpha"],
    &["v1.0.0-alpha.1"],
    &["v1.0.0-alpha.beta"],
    &["v1.0.0-beta"],
    &["v1.0.0-beta.2"],
    &["v1.0.0-beta.11"],
    &["v1.0.0-beta.18446744073709551617"],
    &["v1.0.0-beta.18446744073709551618"],
    &["v1.0.0-rc.1"],
    &["v1", "v1.0", "v1.0.0", "v1.0.0+incompatible", "v1.0.0+01.x"],
    &["v1.2.0-0"],
    &["v1.2.0--"],
    &["v1.2"],
    &["v1.10.0"],
    &["v2.0.0"],
    &["v18446744073709551616.0.0"],
    &["v18446744073709551617.0.0"],
    &["v100000000000000000000000000000000000000000.0.0"],
];

#[test]
fn precedence() {
    for (a, vs) in ORDERED.iter().enumerate() {
        for (b, ws) in ORDERED.iter().enumerate() {
            for (v, w) in vs.iter().flat_map(|v| ws.iter().map(move |w| (v, w))) {
                assert_eq!(semver::compare(v, w), a.cmp(&b), "{v:?} {w:?}");
            }
        }
        assert!(vs.iter().all(|v| semver::is_valid(v) == (a > 0)), "{vs:?}");
    }
}

#[test]
fn parts() {
    #[track_caller]
    fn check(version: &str, canonical: Option<&str>, major: &str, pre: &str, build: &str) {
        assert_eq!(semver::canonical(version).as_deref(), canonical);
        assert_eq!(semver::major(version).unwrap_or_default(), major);
        assert_eq!(semver::prerelease(version), pre);
        assert_eq!(semver::build(version), build);
    }
    check("v1.2.3", Some("v1.2.3"), "v1", "", "");
    check("v1", Some("v1.0.0"), "v1", "", "");
    check("v12.3", Some("v12.3.0"), "v12", "", "");
    check("v1.2.3-rc.1+meta.01", Some("v1.2.3-rc.1"), "v1", "-rc.1", "+meta.01");
    check("v2.0.0+incompatible", Some("v2.0.0"), "v2", "", "+incompatible");
    check("v1.2.3--.-x", Some("v1.2.3--.-x"), "v1", "--.-x", "");
    check("v1.2-rc1", None, "", "", "");
    check("v1.2.3-a..b", None, "", "", "");
    check("v1.2.3+a..b", None, "", "", "");
    check("v1.2.3+a+b", None, "", "", "");
    check("v1.2.3-a_b", None, "", "", "");
    check("V1.2.3", None, "", "", "");
    check("v1.2.3 ", None, "", "", "");
    assert_eq!(semver::canonical_version("v2+x"), None);
    assert_eq!(semver::canonical_version("v2.0.0+x").as_deref(), Some("v2.0.0"));
    assert_eq!(
        semver::canonical_version("v2.0.0+incompatible").as_deref(),
        Some("v2.0.0+incompatible")
    );
}

#[test]
fn canonical_names_only() {
    for valid in
        ["v1.2.3", "v0.0.0-x", "v2.0.0+incompatible", "v1.0.0-RC1", "v0.0.1-go1.26.8.linux-amd64"]
    {
        assert_eq!(Version::parse(valid).expect(valid).as_str(), valid);
    }
    for (text, canonical) in [("v1", "v1.0.0"), ("v1.2", "v1.2.0"), ("v1.2.3+meta", "v1.2.3")] {
        let expected = InvalidVersion::NotCanonical {
            version: text.to_owned(),
            canonical: canonical.to_owned(),
        };
        assert_eq!(Version::parse(text), Err(expected));
    }
    for text in ["", "master", "1.2.3", "v1.2.3/x", "v1.2.3\n", "v1.2.3+incompatible+incompatible"]
    {
        assert_eq!(Version::parse(text), Err(InvalidVersion::Syntax(text.to_owned())));
    }
}

#[test]
fn escapes() {
    let version = Version::parse("v1.0.0-RC1").expect("a version");
    assert_eq!(version.escaped(), "v1.0.0-!r!c1");
    assert_eq!(Version::parse_escaped("v1.0.0-!r!c1"), Ok(version));
    for wrong in ["v1.0.0-RC1", "v1.0.0-!", "v1.0.0-!1", "v1.0.0-é"] {
        assert_eq!(Version::parse_escaped(wrong), Err(InvalidVersion::Escape(wrong.to_owned())));
    }
    assert_eq!(Query::parse("HEAD").expect("a query").escaped(), "!h!e!a!d");
    assert_eq!(Query::parse_escaped("!h!e!a!d").expect("a query").as_str(), "HEAD");
}

#[test]
fn kinds_of_versions() {
    #[track_caller]
    fn check(version: &str, prerelease: bool, pseudo: bool, incompatible: bool) {
        let version = Version::parse(version).expect("a version");
        let kinds = (version.is_prerelease(), version.is_pseudo(), version.is_incompatible());
        assert_eq!(kinds, (prerelease, pseudo, incompatible), "{version}");
    }
    check("v1.2.3", false, false, false);
    check("v2.0.0+incompatible", false, false, true);
    check("v1.2.3-rc.1", true, false, false);
    check("v1.2.3-incompatible", true, false, false);
    check("v0.0.0-20240202030405-bbaab31090cb", true, true, false);
    check("v2.1.1-0.20240202030405-bbaab31090cb+incompatible", true, true, true);
}

#[test]
fn pseudo_versions() {
    #[track_caller]
    fn check(version: &str, base: Option<&str>, time: &str, revision: &str) {
        let pseudo =
            Version::parse(version).expect("a version").pseudo().expect("a pseudo-version");
        assert_eq!(pseudo.base.as_deref(), base);
        assert_eq!(pseudo.time.to_string(), time);
        assert_eq!(pseudo.revision, revision);
    }
    let time = "2024-02-02T03:04:05Z";
    check("v0.0.0-20240202030405-bbaab31090cb", None, time, "bbaab31090cb");
    check("v3.0.0-20240202030405-x", None, time, "x");
    check("v1.1.1-0.20240202030405-bbaab31090cb", Some("v1.1.0"), time, "bbaab31090cb");
    check("v1.1.10-0.20240202030405-bbaab31090cb", Some("v1.1.9"), time, "bbaab31090cb");
    check("v1.1.100-0.20240202030405-b", Some("v1.1.99"), time, "b");
    check("v1.1.110-0.20240202030405-b", Some("v1.1.109"), time, "b");
    check(
        "v1.1.18446744073709551616-0.20240202030405-b",
        Some("v1.1.18446744073709551615"),
        time,
        "b",
    );
    check("v3.1.0-rc1.0.20240202030405-a0ba9a6ff8de", Some("v3.1.0-rc1"), time, "a0ba9a6ff8de");
    check(
        "v3.1.0-rc1.0.20240202030405-a0ba9a6ff8de+incompatible",
        Some("v3.1.0-rc1+incompatible"),
        time,
        "a0ba9a6ff8de",
    );
    check("v2.1.1-0.20240202030405-b+incompatible", Some("v2.1.0+incompatible"), time, "b");
    check("v1.0.0-0.0.20240202030405-b", Some("v1.0.0-0"), time, "b");
    check("v1.0.0-a-b.0.20240202030405-b", Some("v1.0.0-a-b"), time, "b");
    check("v0.0.0-20000229235959-b", None, "2000-02-29T23:59:59Z", "b");
    check("v0.0.0-00010101000000-000000000000", None, "0001-01-01T00:00:00Z", "000000000000");

    for ordinary in [
        "v1.0.0-20240202030405",
        "v0.1.0-20240202030405-b",
        "v0.0.1-20240202030405-b",
        "v0.0.0-2024020203040-b",
        "v0.0.0-202402020304050-b",
        "v0.0.0-1.20240202030405-b",
        "v0.0.0-rc.20240202030405-b",
        "v0.0.0-x0.20240202030405-b",
        "v0.0.0-20240202030405-b.c",
        "v0.0.0-20240202030405-",
        "v1.1.1-0.20240202030405",
        "v0.0.1-go1.26.8.linux-amd64",
    ] {
        let version = Version::parse(ordinary).expect("a version");
        assert!(!version.is_pseudo() && version.pseudo().is_none(), "{ordinary}");
    }
    for impossible in [
        "v0.0.0-20241302030405-b",
        "v0.0.0-20230229030405-b",
        "v0.0.0-20240202240405-b",
        "v0.0.0-20240202030460-b",
        "v0.0.0-20240202030405-b+incompatible",
        "v1.1.0-0.20240202030405-b",
    ] {
        let version = Version::parse(impossible).expect("a version");
        assert!(version.is_pseudo() && version.pseudo().is_none(), "{impossible}");
    }
}

#[test]
fn queries() {
    for valid in
        ["master", "HEAD", "v1.2.3+meta", "a0ba9a6", "v1", "feature-x", "#1", "x y", "~", "v2.0.0"]
    {
        assert_eq!(Query::parse(valid).expect(valid).as_str(), valid);
    }
    for invalid in
        ["", ".", "..", "a.", "a/b", "a!b", "é", "a\\b", "a:b", "<v1", ">=v1", "a\n", "con", "a*"]
    {
        assert!(Query::parse(invalid).is_err(), "{invalid:?}");
    }
}

#[test]
fn modules_with_versions() {
    #[track_caller]
    fn refused(text: &str, message: &str) {
        assert_eq!(ModuleVersion::parse(text).expect_err(text).to_string(), message);
    }
    let module = ModuleVersion::parse("github.com/Azure/x/v2@v2.0.0-RC1").expect("a module");
    assert_eq!(module.path().as_str(), "github.com/Azure/x/v2");
    assert_eq!(module.version().as_str(), "v2.0.0-RC1");
    assert_eq!(module.to_string(), "github.com/Azure/x/v2@v2.0.0-RC1");
    assert_eq!(module.escaped_file(Artifact::Zip), "github.com/!azure/x/v2/@v/v2.0.0-!r!c1.zip");
    assert_eq!(module.escaped_file(Artifact::Mod), "github.com/!azure/x/v2/@v/v2.0.0-!r!c1.mod");
    for artifact in Artifact::ALL {
        assert_eq!(Artifact::from_extension(artifact.extension()), Some(artifact));
        assert_eq!(artifact.to_string(), format!(".{}", artifact.extension()));
    }
    assert_eq!(Artifact::from_extension("ziphash"), None);

    refused("example.com/x", r#""example.com/x" is not of the form path@version"#);
    refused(
        "example.com/x@v2.0.0",
        "version v2.0.0 does not fit module example.com/x: it should be v0 or v1",
    );
    refused(
        "example.com/x/v3@v2.0.0",
        "version v2.0.0 does not fit module example.com/x/v3: it should be v3",
    );
    refused("example.com/x@master", r#"version "master" is not a semantic version such as v1.2.3"#);
    refused("example.com/x@v1", r#"version "v1" is not canonical: it should be "v1.0.0""#);
    refused(
        "x@v1.0.0",
        r#"malformed module path "x": its first element has no dot, so it is no host name"#,
    );
    assert!(ModuleVersion::parse("example.com/x@v1.0.0@v1.0.0").is_err());
}

fn version_like() -> impl Strategy<Value = String> {
    let number = prop_oneof![8 => "[0-9]{1,2}", 1 => "[1-9][0-9]{18,22}", 1 => "0[0-9]?", 1 => ""];
    let identifiers = "[0-9A-Za-z-]{0,3}(\\.[0-9A-Za-z-]{1,2}){0,2}";
    let time = prop_oneof![
        3 => "20[0-9]{2}(0[1-9]|1[0-2])[0-2][1-8][01][0-9][0-5][0-9][0-5][0-9]",
        1 => "[0-9]{13,15}",
    ];
    let tail = prop_oneof![
        3 => Just(String::new()),
        3 => identifiers.prop_map(|text| format!("-{text}")),
        1 => identifiers.prop_map(|text| format!("+{text}")),
        1 => (identifiers, identifiers).prop_map(|(pre, build)| format!("-{pre}+{build}")),
        4 => (
            prop_oneof![
                Just(String::new()),
                Just("0.".to_owned()),
                Just("rc.0.".to_owned()),
                "[a-z0-9.-]{0,4}",
            ],
            time,
            "[a-z0-9]{0,3}",
            prop_oneof![4 => Just(""), 1 => Just("+incompatible"), 1 => Just("+x")],
        )
            .prop_map(|(before, time, rev, build)| format!("-{before}{time}-{rev}{build}")),
        1 => Just("+incompatible".to_owned()),
        1 => "[ -~]{0,3}",
    ];
    (prop::collection::vec(number, 1..4), tail, prop::bool::weighted(0.05)).prop_map(
        |(mut numbers, tail, short)| {
            if !short {
                numbers.resize(3, "0".to_owned());
            }
            format!("v{}{tail}", numbers.join("."))
        },
    )
}

fn versions() -> impl Strategy<Value = Version> {
    version_like().prop_filter_map("a canonical version", |text| {
        Version::parse(&semver::canonical_version(&text)?).ok()
    })
}

proptest! {
    #[test]
    fn no_input_panics(text in any::<String>(), like in version_like()) {
        for text in [&text, &like] {
            let _ = Version::parse_escaped(text);
            let _ = Query::parse(text);
            let _ = Query::parse_escaped(text);
            let _ = ModuleVersion::parse(text);
            let _ = ModuleVersion::parse(&format!("a.b@{text}"));
            let _ = semver::compare(text, &like);
            if let Ok(version) = Version::parse(text) {
                let _ = version.pseudo();
            }
        }
    }

    #[test]
    fn escaping_is_undone(version in versions(), query in "[ -~]{1,8}") {
        prop_assert_eq!(Version::parse_escaped(&version.escaped()), Ok(version));
        if let Ok(query) = Query::parse(&query) {
            prop_assert_eq!(Query::parse_escaped(&query.escaped()), Ok(query));
        }
    }

    #[test]
    fn the_order_is_total(a in versions(), b in versions(), c in versions()) {
        prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
        prop_assert_eq!(a.cmp(&b) == Ordering::Equal, a == b);
        let mut sorted = [&a, &b, &c];
        sorted.sort();
        prop_assert!(sorted[0] <= sorted[1] && sorted[1] <= sorted[2] && sorted[0] <= sorted[2]);
    }
}

#[test]
fn ties_are_broken_by_the_text() {
    let parse = |text| Version::parse(text).expect("a version");
    assert!(parse("v2.0.0") < parse("v2.0.0+incompatible"));
    assert!(parse("v2.0.0+incompatible") < parse("v2.0.1"));
}

#[test]
fn go_agrees_on_versions() {
    let mut inputs = sample(version_like(), 8000);
    inputs.extend(ORDERED.concat().into_iter().map(str::to_owned));
    let pseudo = inputs.iter().filter_map(|v| Version::parse(v).ok()?.pseudo()).count();
    assert!(pseudo > 200, "pseudo-versions are among them: {pseudo}");
    compare(
        &inputs,
        |version| question(["version", version]),
        |text, go| {
            assert_eq!(
                go["canonical"],
                semver::canonical_version(text).unwrap_or_default(),
                "{text}"
            );
            assert_eq!(go["plain"], semver::canonical(text).unwrap_or_default(), "{text}");
            assert_eq!(go["major"], semver::major(text).unwrap_or_default(), "{text}");
            assert_eq!(go["pre"], semver::prerelease(text), "{text}");
            assert_eq!(go["build"], semver::build(text), "{text}");
            match Query::parse(text) {
                Ok(query) => assert_eq!(go["escaped"], query.escaped(), "{text}"),
                Err(error) => assert!(go["escaped"].is_null(), "{error}"),
            }
            let canonical = go["canonical"] == text.as_str() && !text.is_empty();
            assert_eq!(Version::parse(text).is_ok(), canonical, "{text}");
            if let Ok(version) = Version::parse(text) {
                assert_eq!(go["pseudo"], version.is_pseudo(), "{text}");
                let parts = version.pseudo().map(|pseudo| {
                    serde_json::json!([
                        pseudo.base.unwrap_or_default(),
                        pseudo.time.to_string(),
                        pseudo.revision
                    ])
                });
                assert_eq!(go.get("parts"), parts.as_ref(), "{text}");
            }
        },
    );
}

#[test]
fn go_agrees_on_precedence() {
    let pairs = sample((version_like(), version_like()), 4000);
    compare(
        &pairs,
        |(v, w)| question(["compare", v, w]),
        |(v, w), go| {
            assert_eq!(go["order"], semver::compare(v, w) as i8, "{v} {w}");
        },
    );
}

#[test]
fn go_agrees_on_majors() {
    const PATHS: [&str; 6] = [
        "a.b/x",
        "a.b/x/v2",
        "gopkg.in/x.v0",
        "gopkg.in/x.v1",
        "gopkg.in/x.v1-unstable",
        "gopkg.in/x.v2-unstable",
    ];
    let major = prop_oneof!["v[0-3]", "v[0-3]\\.0\\.0"];
    let version = prop_oneof![
        version_like(),
        (major, "(\\+incompatible|-x|-20240202030405-b|\\.0)?").prop_map(|(v, tail)| v + &tail),
    ];
    let inputs = sample((prop::sample::select(&PATHS[..]), version), 3000);
    let major = |path| ModulePath::parse(path).expect("a path").path_major().as_str().to_owned();
    compare(
        &inputs,
        |(path, v)| question(["major", v, &major(path)]),
        |(path, v), go| {
            let path = ModulePath::parse(path).expect("a path");
            assert_eq!(
                path.path_major().allows(v),
                go["error"] == "",
                "{path} {v}: {}",
                go["error"]
            );
        },
    );
}

#[test]
fn go_agrees_on_escaped_versions() {
    compare(
        &sample("[a-z!A-Z0-9.é+-]{0,6}", 3000),
        |text| question(["unescape_version", text]),
        |text, go| match Query::parse_escaped(text) {
            Ok(query) => assert_eq!(go["text"], query.as_str(), "{}", go["error"]),
            Err(error) => assert_ne!(go["error"], "", "{error}"),
        },
    );
}
