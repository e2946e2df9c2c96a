use proptest::prelude::*;
use serde_json::Value;
use stoa_module::{ModulePath, PathProblem, check_file_path};

use crate::oracle::{compare, question, sample};

fn problem(path: &str) -> Option<PathProblem> {
    ModulePath::parse(path).err().map(|error| error.problem)
}

#[test]
fn module_paths() {
    #[track_caller]
    fn check(path: &str, expected: Option<PathProblem>) {
        assert_eq!(problem(path), expected, "{path:?}");
    }
    use PathProblem as P;
    let s = str::to_owned;
    for valid in [
        "github.com/Azure/azure-sdk-for-go",
        "example.com",
        "rsc.io/quote/v3",
        "a.b",
        "a-b.c/x_y~z.w",
        "example.com/foo~",
        "example.com/foo~1a",
        "example.com/~user/x",
        "example.com/console",
        "example.com/com0",
        "example.com/com10",
        "example.com/x..y",
        "1.2",
        "3.14159/x",
        "example.com/v",
        "example.com/version2",
        "example.com/xv2",
        "example.com/v2/x",
        "github.com/me/v123",
        "gopkg.in/yaml.v2",
        "gopkg.in/yaml.v0",
        "gopkg.in/yaml.v1",
        "gopkg.in/user/yaml.v2-unstable",
        "gopkg.in/yaml.v10",
        // Go takes this one, although no version can belong under it.
        "gopkg.in/yaml.v-unstable",
    ] {
        check(valid, None);
    }
    check("", Some(P::Empty));
    check("-a.com/x", Some(P::LeadingDash));
    check("/example.com", Some(P::LeadingSlash));
    check("example.com/", Some(P::TrailingSlash));
    check("example.com//x", Some(P::EmptyElement));
    check("example.com/../x", Some(P::OnlyDots(s(".."))));
    check("example.com/.", Some(P::OnlyDots(s("."))));
    check("example.com/.git", Some(P::LeadingDot(s(".git"))));
    check("example.com/x.", Some(P::TrailingDot(s("x."))));
    check("example.com/x+y", Some(P::Character('+')));
    check("example.com/x y", Some(P::Character(' ')));
    check("example.com/x!y", Some(P::Character('!')));
    check("example.com/x@v1", Some(P::Character('@')));
    check("example.com:80/x", Some(P::Character(':')));
    check("example.com/x\\y", Some(P::Character('\\')));
    check("example.com/x\0", Some(P::Character('\0')));
    check("example.com/é", Some(P::Character('é')));
    check("example.com/con", Some(P::WindowsName(s("con"))));
    check("example.com/Aux.go", Some(P::WindowsName(s("Aux"))));
    check("com1.com/x", Some(P::WindowsName(s("com1"))));
    check("example.com/lpt9.a.b", Some(P::WindowsName(s("lpt9"))));
    check("example.com/foo~1", Some(P::ShortName(s("foo~1"))));
    check("example.com/foo~1.txt", Some(P::ShortName(s("foo~1.txt"))));
    check("example.com/a~b~12", Some(P::ShortName(s("a~b~12"))));
    check("localhost/x", Some(P::NoDot));
    check("sumdb/sum.golang.org", Some(P::NoDot));
    check("Example.com/x", Some(P::HostCharacter('E')));
    check("exa_mple.com/x", Some(P::HostCharacter('_')));
    check("~a.com/x", Some(P::HostCharacter('~')));
    for suffix in ["v0", "v1", "v01", "v1.2", "v2.0", "v2.", "v0.1", "v00"] {
        let expected = if suffix == "v2." { P::TrailingDot(s(suffix)) } else { P::MajorSuffix };
        check(&format!("example.com/{suffix}"), Some(expected));
    }
    for path in [
        "gopkg.in/yaml",
        "gopkg.in/yaml.v",
        "gopkg.in/yaml.v01",
        "gopkg.in/yaml.v0-unstable",
        "gopkg.in/yaml.v2-stable",
        "gopkg.in/yaml/v2",
        "gopkg.in/yamlv2",
        "gopkg.in/x",
    ] {
        check(path, Some(P::GopkgIn));
    }
}

#[test]
fn errors_read_as_a_sentence() {
    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(ModulePath::parse(path).expect_err("malformed").to_string(), expected);
    }
    check("", "malformed module path \"\": it is empty");
    check(
        "localhost/x",
        "malformed module path \"localhost/x\": its first element has no dot, so it is no host name",
    );
    check(
        "a.com/b\u{1b}[31m",
        "malformed module path \"a.com/b\\u{1b}[31m\": the character '\\u{1b}' is not allowed in it",
    );
}

#[test]
fn majors() {
    #[track_caller]
    fn check(path: &str, prefix: &str, suffix: &str, major: Option<&str>) {
        let path = ModulePath::parse(path).expect("a module path");
        assert_eq!(path.prefix(), prefix);
        assert_eq!(path.path_major().as_str(), suffix);
        assert_eq!(path.path_major().is_empty(), suffix.is_empty());
        assert_eq!(path.path_major().major(), major);
    }
    check("example.com/x", "example.com/x", "", None);
    check("example.com/x/v2", "example.com/x", "/v2", Some("v2"));
    check("github.com/me/v123", "github.com/me", "/v123", Some("v123"));
    check("example.com/v", "example.com/v", "", None);
    check("example.com/x/v2/y", "example.com/x/v2/y", "", None);
    check("gopkg.in/yaml.v2", "gopkg.in/yaml", ".v2", Some("v2"));
    check("gopkg.in/u/y.v0", "gopkg.in/u/y", ".v0", Some("v0"));
    check("gopkg.in/y.v2-unstable", "gopkg.in/y", ".v2-unstable", Some("v2"));
}

#[test]
fn versions_that_a_path_allows() {
    #[track_caller]
    fn check(path: &str, allowed: &[&str], refused: &[&str]) {
        let path = ModulePath::parse(path).expect("a module path");
        for version in allowed {
            assert!(path.path_major().allows(version), "{path} allows {version}");
        }
        for version in refused {
            assert!(!path.path_major().allows(version), "{path} refuses {version}");
        }
    }
    check(
        "example.com/x",
        &["v0.0.0", "v1.9.0", "v2.0.0+incompatible", "v0.0.0-20240202030405-bbaab31090cb"],
        &["v2.0.0", "v10.0.0", "v2.0.0+meta", "", "master"],
    );
    check(
        "example.com/x/v2",
        &["v2.0.0", "v2.0.0-rc1"],
        &["v0.0.0", "v1.0.0", "v20.0.0", "v3.0.0+incompatible"],
    );
    check(
        "gopkg.in/x.v1",
        &["v1.0.0", "v0.0.0-20161208181325-20d25e280405"],
        &["v0.0.0", "v0.1.0", "v2.0.0"],
    );
    check("gopkg.in/x.v1-unstable", &["v1.0.0", "v0.0.0-20161208181325-20d25e280405"], &["v0.0.0"]);
    check("gopkg.in/x.v2-unstable", &["v2.0.0"], &["v0.0.0-20161208181325-20d25e280405", "v1.0.0"]);
    check("gopkg.in/x.v0", &["v0.3.0"], &["v1.0.0"]);
}

#[test]
fn escapes() {
    #[track_caller]
    fn check(path: &str, escaped: &str) {
        let parsed = ModulePath::parse(path).expect("a module path");
        assert_eq!(parsed.escaped(), escaped);
        assert_eq!(ModulePath::parse_escaped(escaped), Ok(parsed));
    }
    check("github.com/BurntSushi/toml", "github.com/!burnt!sushi/toml");
    check("github.com/Azure/azure-sdk", "github.com/!azure/azure-sdk");
    check("example.com/ABC/z", "example.com/!a!b!c/z");
    check("example.com/x", "example.com/x");
    for wrong in [
        "github.com/Azure/x",
        "github.com/!Azure/x",
        "github.com/!!azure/x",
        "github.com/!1/x",
        "github.com/x!",
        "github.com/!/x",
        "github.com/é/x",
    ] {
        let error = ModulePath::parse_escaped(wrong).expect_err(wrong);
        assert_eq!(error.problem, PathProblem::Escape, "{wrong}");
    }
    // Well escaped, but the path is wrong.
    assert!(ModulePath::parse_escaped("!example.com/x").is_err());
    assert!(ModulePath::parse_escaped("").is_err());
}

#[test]
fn impossible_modules() {
    #[track_caller]
    fn check(path: &str, impossible: bool) {
        let path = ModulePath::parse(path).expect("a module path");
        assert_eq!(path.impossible().is_some(), impossible, "{path}");
    }
    check("github.com", true);
    check("github.com/user", true);
    check("github.com/v2", true);
    check("github.com/user/repo", false);
    check("github.com/user/v2", false);
    check("bitbucket.org/user", true);
    check("bitbucket.org/user/repo/sub", false);
    check("gitlab.com/user", false);
    check("example.com", false);
    check("github.community/x", false);
}

#[test]
fn file_paths() {
    #[track_caller]
    fn check(path: &str, valid: bool) {
        assert_eq!(check_file_path(path).is_ok(), valid, "{path:?}");
    }
    for valid in [
        "a.go",
        ".github/workflows/x.yml",
        "-a",
        "a b/c d.txt",
        "!#$%&()+,-.=@[]^_{}~",
        "x~1",
        "é/ß/Ω/日本語",
        "ªº",
        "...a",
        "con-a/x",
        "a..b",
        "\u{1e900}",
    ] {
        check(valid, true);
    }
    for invalid in [
        "",
        "/a",
        "a/",
        "a//b",
        ".",
        "a/../b",
        "...",
        "a.",
        "a/b./c",
        "aux.go",
        "x/NUL",
        "x/com1.tar.gz",
        "a\"",
        "a'",
        "a*",
        "a<",
        "a>",
        "a?",
        "a`",
        "a|",
        "a\\b",
        "a:b",
        "a;b",
        "a\nb",
        "a\u{7f}",
        "a\u{0}",
        "e\u{301}",
        "\u{1f600}",
        "\u{0663}",
        "\u{a0}",
        "\u{fffd}",
    ] {
        check(invalid, false);
    }
}

/// Texts that are nearly module paths.
fn path_like() -> impl Strategy<Value = String> {
    let element = prop_oneof![
        4 => "[a-z]{1,4}",
        2 => "[a-zA-Z0-9._~-]{1,6}",
        1 => "(con|AUX|com[0-9]{1,2}|lpt1|nul)(\\.[a-z]{0,2})?",
        1 => "[a-z]{0,3}~[0-9]{0,2}[a-z.]{0,2}",
        2 => "v[0-9.]{0,4}",
        1 => "[a-z]{1,2}\\.v[0-9]{0,2}(-unstable)?",
        1 => "[ -~é]{0,4}",
        1 => "\\.{1,3}",
    ];
    let host = prop_oneof![
        5 => "[a-z]{1,3}\\.[a-z]{2}",
        2 => Just("gopkg.in".to_owned()),
        1 => "[a-zA-Z0-9.-]{0,4}",
    ];
    (host, prop::collection::vec(element, 0..4)).prop_map(|(host, elements)| {
        let mut path = host;
        for element in elements {
            path.push('/');
            path.push_str(&element);
        }
        path
    })
}

proptest! {
    #[test]
    fn no_input_panics(text in any::<String>(), like in path_like()) {
        for text in [&text, &like] {
            let _ = ModulePath::parse_escaped(text);
            let _ = check_file_path(text);
            if let Ok(path) = ModulePath::parse(text) {
                prop_assert_eq!(format!("{}{}", path.prefix(), path.path_major().as_str()), path.as_str());
                let _ = path.impossible();
            }
        }
    }

    #[test]
    fn escaping_is_undone(path in path_like()) {
        if let Ok(path) = ModulePath::parse(&path) {
            let escaped = path.escaped();
            prop_assert!(!escaped.chars().any(|c| c.is_ascii_uppercase()));
            prop_assert_eq!(ModulePath::parse_escaped(&escaped), Ok(path));
        }
    }

    #[test]
    fn json_holds_the_text(path in path_like()) {
        if let Ok(path) = ModulePath::parse(&path) {
            let json = serde_json::to_string(&path).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<ModulePath>(&json).expect("a path"), path);
        } else {
            let json = serde_json::to_string(&path).expect("JSON");
            prop_assert!(serde_json::from_str::<ModulePath>(&json).is_err());
        }
    }
}

#[test]
fn go_agrees_on_module_paths() {
    let mut inputs = sample(path_like(), 6000);
    inputs.extend(sample(any::<String>(), 500));
    let valid = inputs.iter().filter(|path| ModulePath::parse(path).is_ok()).count();
    assert!(valid > 500 && valid < inputs.len() - 500, "both kinds are there: {valid}");
    compare(&inputs, |path| question(["path", path]), |path, go| assert_same_path(path, go));
}

/// What the go command makes of a path is what we make of it.
pub(crate) fn assert_same_path(path: &str, go: &Value) {
    match ModulePath::parse(path) {
        Err(error) => assert_ne!(go["error"], "", "{error}"),
        Ok(parsed) => {
            assert_eq!(go["error"], "", "{path:?}");
            assert_eq!(go["prefix"], parsed.prefix());
            assert_eq!(go["major"], parsed.path_major().as_str());
            assert_eq!(go["escaped"], parsed.escaped());
        }
    }
}

/// The same of an escaped one.
pub(crate) fn assert_same_unescaped(path: &str, go: &Value) {
    match ModulePath::parse_escaped(path) {
        Err(error) => assert_ne!(go["error"], "", "{error}"),
        Ok(parsed) => assert_eq!(go["text"], parsed.as_str(), "{}", go["error"]),
    }
}

#[test]
fn go_agrees_on_escaped_paths() {
    let escaped = path_like().prop_flat_map(|path| {
        let mixed = path.replace(|c: char| c.is_ascii_uppercase(), "!a");
        prop_oneof![Just(path), Just(mixed)]
    });
    compare(
        &sample(escaped, 2000),
        |path| question(["unescape_path", path]),
        |path, go| assert_same_unescaped(path, go),
    );
}

#[test]
fn go_agrees_on_file_paths() {
    let element = prop_oneof![
        "[ -~]{0,5}",
        "[a-z.]{0,4}",
        "\\PC{0,3}",
        "(con|AUX|nul)(\\.[a-z]{0,2})?",
        "[a-z]~[0-9]",
        any::<char>().prop_map(String::from),
    ];
    let path = prop::collection::vec(element, 1..3).prop_map(|elements| elements.join("/"));
    compare(
        &sample(path, 6000),
        |path| question(["file", path]),
        |path, go| {
            assert_eq!(
                check_file_path(path).is_ok(),
                go["error"] == "",
                "{path:?}: {}",
                go["error"]
            );
        },
    );
}
