use proptest::prelude::*;
use stoa_module::{ModulePath, Version, latest_of, parse_list, render_list};

fn parse(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

#[test]
fn lists() {
    #[track_caller]
    fn check(path: &str, body: &str, expected: &str) {
        let path = ModulePath::parse(path).expect("a path");
        let listed: Vec<_> = parse_list(body.as_bytes(), &path)
            .into_iter()
            .map(|listed| match listed.time {
                Some(time) => format!("{}@{time}", listed.version),
                None => listed.version.to_string(),
            })
            .collect();
        assert_eq!(listed.join(" "), expected);
    }
    check("a.b/x", "", "");
    check("a.b/x", "v1.10.0\nv1.2.0\nv1.0.0", "v1.0.0 v1.2.0 v1.10.0");
    check("a.b/x", "\r\n  v1.0.0\r\n\n\tv1.1.0  \r\n", "v1.0.0 v1.1.0");
    check("a.b/x", "v1.0.0\nv1.0.0\n", "v1.0.0");
    check(
        "a.b/x",
        "v1.0.0 2024-01-02T03:04:05Z\nv1.1.0 soon\n",
        "v1.0.0@2024-01-02T03:04:05Z v1.1.0",
    );
    check("a.b/x", "v1.0.0\nv1.0.0 2024-01-02T03:04:05Z\n", "v1.0.0@2024-01-02T03:04:05Z");
    check("a.b/x", "v1\nv1.0\nv1.0.0+meta\nmaster\n<html>\nV1.0.0\n", "");
    check("a.b/x", "v0.0.0-20240202030405-bbaab31090cb\n", "v0.0.0-20240202030405-bbaab31090cb");
    check("a.b/x", "v2.0.0\nv2.0.0+incompatible\nv1.0.0", "v1.0.0 v2.0.0+incompatible");
    check("a.b/x/v2", "v2.0.0\nv2.0.0+incompatible\nv1.0.0", "v2.0.0 v2.0.0+incompatible");
    check("gopkg.in/x.v2", "v2.1.0\nv1.0.0", "v2.1.0");
    let path = ModulePath::parse("a.b/x").expect("a path");
    let listed = parse_list(b"\xff\xfe\nv1.0.0\n\0\nv1.1.0\xff\n", &path);
    assert_eq!(listed.len(), 1);
}

#[test]
fn rendering() {
    assert_eq!(render_list([]), "");
    assert_eq!(render_list(&[parse("v1.0.0"), parse("v1.1.0-rc1")]), "v1.0.0\nv1.1.0-rc1\n");
}

#[test]
fn latest() {
    #[track_caller]
    fn check(versions: &[&str], expected: Option<&str>) {
        let mut versions: Vec<_> = versions.iter().map(|text| parse(text)).collect();
        for _ in 0..versions.len().max(1) {
            assert_eq!(latest_of(&versions).map(Version::as_str), expected);
            let by = 1.min(versions.len());
            versions.rotate_left(by);
        }
    }
    check(&[], None);
    check(&["v1.9.0", "v1.10.0", "v1.11.0-rc1"], Some("v1.10.0"));
    check(&["v1.9.0-rc1", "v1.9.0-rc2", "v0.0.0-20990202030405-b"], Some("v1.9.0-rc2"));
    check(&["v1.0.0", "v2.0.0+incompatible"], Some("v2.0.0+incompatible"));
    // Pseudo-versions by their time, not by their precedence.
    check(
        &["v0.0.0-20240202030405-b", "v0.3.1-0.20230202030405-c", "v0.0.0-20200101000000-d"],
        Some("v0.0.0-20240202030405-b"),
    );
    check(&["v0.0.0-20240202030405-a", "v0.0.0-20240202030405-b"], Some("v0.0.0-20240202030405-b"));
    // A time that does not exist is older than any.
    check(&["v0.0.0-20249902030405-b", "v0.0.0-20000101000000-a"], Some("v0.0.0-20000101000000-a"));
    check(&["v0.0.0-20249902030405-b"], Some("v0.0.0-20249902030405-b"));
}

proptest! {
    #[test]
    fn no_input_panics(body in any::<Vec<u8>>(), text in "(v[0-9.]{0,6}(-[a-z0-9.]{0,3})? ?\n?){0,5}") {
        let path = ModulePath::parse("a.b/x").expect("a path");
        for body in [&body[..], text.as_bytes()] {
            let versions: Vec<_> =
                parse_list(body, &path).into_iter().map(|listed| listed.version).collect();
            prop_assert!(versions.is_sorted());
            // What is written is read back.
            let again = parse_list(render_list(&versions).as_bytes(), &path);
            prop_assert!(again.iter().map(|listed| &listed.version).eq(&versions));
            prop_assert_eq!(latest_of(&versions).is_some(), !versions.is_empty());
        }
    }
}
