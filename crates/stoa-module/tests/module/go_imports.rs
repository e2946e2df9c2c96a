//! go-import pages as the go command's own reader has them.

use proptest::prelude::*;
use stoa_module::parse_go_imports;

use crate::oracle::{compare, question, sample};

/// Attributes in every way in which they are written, and a few that are none.
fn attribute() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        4 => Just("name"), 6 => Just("content"), 1 => Just("NAME"), 1 => Just("Content"),
        1 => Just("charset"), 1 => Just("x:name"), 1 => Just("itemprop"),
    ];
    let value = prop_oneof![
        5 => Just("go-import".to_owned()),
        8 => ("ex\\.com(/[ab])?", "(git|mod|hg)", "https://[a-c](\\?x=1&amp;y)?", "( sub/dir)?")
            .prop_map(|(prefix, system, url, subdir)| format!("{prefix} {system} {url}{subdir}")),
        1 => "[a-z ]{0,6}",
        1 => Just("a <meta name=go-import content='ex.com git https://x'> b".to_owned()),
        1 => Just("ex.com/a&#32;git&#x20;https:&#x2f;&#47;a".to_owned()),
        1 => Just("&lt;&gt;&quot;&apos;&nbsp;& &;&#;".to_owned()),
    ];
    let space = || prop_oneof![8 => Just(""), 1 => Just(" "), 1 => Just("\n")];
    (name, space(), space(), value, 0..12_u8).prop_map(|(name, before, after, value, quote)| {
        match quote {
            0 => format!("{name}{before}={after}{value}"),
            1 => name.to_owned(),
            2..=5 if !value.contains('\'') => format!("{name}{before}={after}'{value}'"),
            _ if !value.contains('"') => format!("{name}{before}={after}\"{value}\""),
            _ => String::new(),
        }
    })
}

fn piece() -> impl Strategy<Value = String> {
    let tag = prop_oneof![
        12 => Just("meta"), 1 => Just("META"), 2 => Just("link"), 1 => Just("x:meta"), 1 => Just("metal"), 1 => Just("p"),
    ];
    let end = prop_oneof![6 => Just(">"), 2 => Just("/>"), 2 => Just(" >"), 1 => Just(" / >"), 1 => Just("")];
    prop_oneof![
        12 => (tag, prop::collection::vec(attribute(), 0..4), end)
            .prop_map(|(tag, attributes, end)| format!("<{tag} {}{end}", attributes.join(" "))),
        6 => ("(ex\\.com(/[ab])?|x)", "(git|mod)").prop_map(|(prefix, system)| {
            format!("<meta name=\"go-import\" content=\"{prefix} {system} https://a\">")
        }),
        1 => Just("<!doctype html>".to_owned()),
        1 => Just("<?xml version=\"1.0\" encoding=\"utf-8\"?>".to_owned()),
        1 => Just("<!-- <meta name=\"go-import\" content=\"ex.com git https://c\"> -->".to_owned()),
        1 => Just("<![CDATA[<meta name=\"go-import\" content=\"ex.com git https://c\">]]>".to_owned()),
        1 => "<title>[a-z &;]{0,6}</title>",
        1 => "[a-z \n&;\"'=/>]{0,6}",
        1 => Just("<script>if (a < b) {}</script>".to_owned()),
        1 => Just("</head>".to_owned()),
        1 => Just("</HEAD >".to_owned()),
        1 => Just("<body class=x>".to_owned()),
    ]
}

#[test]
fn go_agrees_on_pages() {
    let pages = sample(prop::collection::vec(piece(), 1..6).prop_map(|all| all.concat()), 4000);
    let some = pages.iter().filter(|page| !parse_go_imports(page.as_bytes()).is_empty()).count();
    assert!(some > 1000, "pages with entries are among them: {some}");
    compare(
        &pages,
        |page| question(["goimport", page]),
        |page, go| {
            // Beyond what Go does not understand we read on, since hosts write such pages.
            if go["Whole"] == false {
                return;
            }
            let ours: Vec<_> = parse_go_imports(page.as_bytes())
                .into_iter()
                .map(|it| serde_json::json!({
                    "Prefix": it.prefix, "VCS": it.system, "RepoRoot": it.url, "SubDir": it.subdir,
                }))
                .collect();
            let go = go["Entries"].as_array().cloned().unwrap_or_default();
            assert_eq!(ours, go, "{page}");
        },
    );
}
