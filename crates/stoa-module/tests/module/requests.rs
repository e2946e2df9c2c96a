use proptest::prelude::*;
use stoa_module::{Artifact, ErrorClass, InvalidRequest, Request};

/// A short form of what was understood.
fn shown(request: &Request) -> String {
    match request {
        Request::List(path) => format!("list {path}"),
        Request::Latest(path) => format!("latest {path}"),
        Request::Query { path, query } => format!("query {path} {query}"),
        Request::Artifact { module, artifact } => format!("{} {module}", artifact.extension()),
        Request::Sumdb { rest } => format!("sumdb {rest}"),
    }
}

#[test]
fn requests() {
    #[track_caller]
    fn check(raw: &str, expected: &str) {
        let request = Request::parse(raw).expect(raw);
        assert_eq!(shown(&request), expected);
    }
    check("/rsc.io/quote/@v/list", "list rsc.io/quote");
    check("/rsc.io/quote/@latest", "latest rsc.io/quote");
    check("/example.com/@latest", "latest example.com");
    check("/rsc.io/quote/@v/v1.5.2.info", "info rsc.io/quote@v1.5.2");
    check("/rsc.io/quote/@v/v1.5.2.mod", "mod rsc.io/quote@v1.5.2");
    check("/rsc.io/quote/@v/v1.5.2.zip", "zip rsc.io/quote@v1.5.2");
    // As the go command and as others write the escape.
    check(
        "/github.com/%21burnt%21sushi/toml/@v/v1.0.0-%21r%21c1.info",
        "info github.com/BurntSushi/toml@v1.0.0-RC1",
    );
    check(
        "/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.info",
        "info github.com/BurntSushi/toml@v1.0.0-RC1",
    );
    check("/github.com/x/y/@v/v2.0.0+incompatible.mod", "mod github.com/x/y@v2.0.0+incompatible");
    check("/github.com/x/y/@v/v2.0.0%2Bincompatible.mod", "mod github.com/x/y@v2.0.0+incompatible");
    check("/github.com/x/y/%40v/list", "list github.com/x/y");
    check("/github.com%2fx/y/@v/list", "list github.com/x/y");
    // Revisions.
    check("/a.b/x/@v/master.info", "query a.b/x master");
    check("/a.b/x/@v/%21h%21e%21a%21d.info", "query a.b/x HEAD");
    check("/a.b/x/@v/v1.2.3+meta.info", "query a.b/x v1.2.3+meta");
    check("/a.b/x/@v/v2.0.0.info", "query a.b/x v2.0.0");
    check("/a.b/x/@v/v1.info", "query a.b/x v1");
    check("/a.b/x/@v/list.info", "query a.b/x list");
    check("/a.b/x/@v/a.b.info", "query a.b/x a.b");
    check("/a.b/x/@v/100%25.info", "query a.b/x 100%");
    check("/a.b/x/@v/%2521.info", "query a.b/x %21");
    check("/a.b/x/v2/@v/v2.0.0.info", "info a.b/x/v2@v2.0.0");
    check(
        "/gopkg.in/yaml.v1/@v/v0.0.0-20161208181325-20d25e280405.mod",
        "mod gopkg.in/yaml.v1@v0.0.0-20161208181325-20d25e280405",
    );
    check(
        "/golang.org/toolchain/@v/v0.0.1-go1.26.8.linux-amd64.zip",
        "zip golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64",
    );
    // The checksum database.
    check("/sumdb/sum.golang.org/supported", "sumdb sum.golang.org/supported");
    check(
        "/sumdb/sum.golang.org/lookup/github.com/%21x/y@v1.0.0",
        "sumdb sum.golang.org/lookup/github.com/!x/y@v1.0.0",
    );
    check("/sumdb/", "sumdb ");
    check("/sumdb/a/@v/list", "sumdb a/@v/list");
}

#[test]
fn refusals() {
    #[track_caller]
    fn check(raw: &str, expected: &str) {
        let error = Request::parse(raw).expect_err(raw);
        assert_eq!(error.class(), ErrorClass::Invalid);
        assert_eq!(error.to_string(), expected);
    }
    let form = |path: &str| {
        format!(
            "{path:?} is not part of the GOPROXY protocol: expected MODULE/@v/FILE or MODULE/@latest"
        )
    };
    for raw in [
        "",
        "/",
        "/robots.txt",
        "/sumdb",
        "/a.b/x",
        "/a.b/@v",
        "/a.b/@latest/",
        "/a.b/@Latest",
        "a.b/@latest",
        "/@latest",
        "/@v/list",
    ] {
        check(raw, &form(raw));
    }
    check("/%/@v/list", "the path of the request is not correctly percent-encoded");
    check("/a.b/%4/@v/list", "the path of the request is not correctly percent-encoded");
    check("/a.b/%zz/@v/list", "the path of the request is not correctly percent-encoded");
    check("/a.b/%+1/@v/list", "the path of the request is not correctly percent-encoded");
    check("/a.b/%ff/@v/list", "the path of the request is not correctly percent-encoded");
    check(
        "/a.b/x/@v/feature/x.info",
        r#"revision "feature/x.info" contains a slash: name the branch or tag by its commit instead"#,
    );
    check(
        "/a.b/x/@v/feature%2fx.info",
        r#"revision "feature/x.info" contains a slash: name the branch or tag by its commit instead"#,
    );
    let file = |name: &str| {
        format!("unknown file {name:?}: expected list, VERSION.info, VERSION.mod or VERSION.zip")
    };
    for name in
        ["", "v1", "v1.2.3", "v1.2.3.ziphash", "v1.2.3.INFO", "list/", "v1.0.0.info.", "@latest"]
    {
        if !name.contains('/') && name != "@latest" {
            check(&format!("/a.b/x/@v/{name}"), &file(name));
        }
    }
    let canonical = |file: &str| {
        format!(
            "{file:?} names no version of a.b/x: only canonical versions such as v1.2.3 have .mod and .zip files"
        )
    };
    for name in [
        "master.mod",
        "master.zip",
        "v1.mod",
        "v1.2.zip",
        "v2.0.0.mod",
        "v1.2.3+meta.zip",
        "latest.mod",
    ] {
        check(&format!("/a.b/x/@v/{name}"), &canonical(name));
    }
    for name in ["latest", "upgrade", "patch"] {
        check(
            &format!("/a.b/x/@v/{name}.info"),
            &format!(
                "{name:?} is resolved by the go command itself, from MODULE/@v/list and MODULE/@latest"
            ),
        );
    }
    check("/a.b/x/@v/.info", r#"malformed revision "": it is empty"#);
    check(
        "/a.b/x/@v/HEAD.info",
        r#"malformed revision "HEAD": its case escape is wrong: upper-case letters are written as ! and the lower-case letter"#,
    );
    check(
        "/github.com/Azure/x/@v/list",
        r#"malformed module path "github.com/Azure/x": its case escape is wrong: upper-case letters are written as ! and the lower-case letter"#,
    );
    check(
        "/localhost/@v/list",
        r#"malformed module path "localhost": its first element has no dot, so it is no host name"#,
    );
    // A `+` is no space, and decoding happens once.
    check(
        "/a.b/x+y/@v/list",
        r#"malformed module path "a.b/x+y": the character '+' is not allowed in it"#,
    );
    check(
        "/github.com/%2521x/y/@v/list",
        r#"malformed module path "github.com/%21x/y": the character '%' is not allowed in it"#,
    );
    check(
        "/a.b/../@v/list",
        r#"malformed module path "a.b/..": its element ".." is nothing but dots"#,
    );
    check(
        "/a.b/%2e%2e/@v/list",
        r#"malformed module path "a.b/..": its element ".." is nothing but dots"#,
    );
    check(
        "/a.b/x%00/@v/list",
        r#"malformed module path "a.b/x\0": the character '\0' is not allowed in it"#,
    );
    check("//a.b/x/@v/list", r#"malformed module path "/a.b/x": it begins with a slash"#);
    // The last of several decides, and then the path is wrong.
    check(
        "/a.b/x/@v/y/@v/list",
        r#"malformed module path "a.b/x/@v/y": the character '@' is not allowed in it"#,
    );
    check(
        "/a.b/x/@v/y/@latest",
        r#"malformed module path "a.b/x/@v/y": the character '@' is not allowed in it"#,
    );
    check(
        "/a.b/@latest/@v/list",
        r#"malformed module path "a.b/@latest": the character '@' is not allowed in it"#,
    );
}

#[test]
fn names_that_no_file_can_have() {
    let long = |n| "x".repeat(n);
    assert!(Request::parse(&format!("/a.b/{}/@v/list", long(255))).is_ok());
    assert_eq!(
        Request::parse(&format!("/a.b/{}/@v/list", long(256))),
        Err(InvalidRequest::TooLong)
    );
    assert_eq!(
        Request::parse(&format!("/a.b/{}/@v/list", "!x".repeat(128))),
        Err(InvalidRequest::TooLong)
    );
    assert!(Request::parse(&format!("/a.b/@v/v1.0.0-{}.zip", long(240))).is_ok());
    assert_eq!(
        Request::parse(&format!("/a.b/@v/v1.0.0-{}.zip", long(241))),
        Err(InvalidRequest::TooLong)
    );
}

#[test]
fn the_module_of_a_request() {
    let path = |raw| Request::parse(raw).expect(raw).path().map(ToString::to_string);
    for raw in ["/a.b/x/@v/list", "/a.b/x/@latest", "/a.b/x/@v/master.info", "/a.b/x/@v/v1.0.0.zip"]
    {
        assert_eq!(path(raw).as_deref(), Some("a.b/x"));
    }
    assert_eq!(path("/sumdb/x/latest"), None);
}

proptest! {
    #[test]
    fn no_input_panics(
        text in any::<String>(),
        raw in "/?([a-z.%!@/+~0-9A-F-]{0,12}/)?(@v|@latest|sumdb|%40v)/?[a-zA-Z0-9.%!+/@-]{0,12}",
    ) {
        let _ = Request::parse(&text);
        let _ = Request::parse(&raw);
    }

    /// What is understood can be written again, and is then understood in the same way.
    #[test]
    fn artifacts_round_trip(
        raw in "/a\\.b/[a-z!]{1,4}/@v/v[01]\\.[0-9]\\.[0-9](-[a-z!]{1,3})?\\.(info|mod|zip)",
    ) {
        if let Ok(Request::Artifact { module, artifact }) = Request::parse(&raw) {
            prop_assert_eq!(&raw[1..], module.escaped_file(artifact));
            let percent = raw.replace('!', "%21");
            prop_assert_eq!(Request::parse(&percent), Ok(Request::Artifact { module, artifact }));
        }
    }
}

#[test]
fn extensions_are_those_of_artifacts() {
    for artifact in Artifact::ALL {
        let raw = format!("/a.b/@v/v1.0.0{artifact}");
        assert!(
            matches!(Request::parse(&raw), Ok(Request::Artifact { artifact: a, .. }) if a == artifact)
        );
    }
}
