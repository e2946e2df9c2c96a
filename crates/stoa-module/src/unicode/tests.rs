use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use super::{compare_paths, equal_fold, fold, is_letter};
use crate::unicode_tables::UNICODE_VERSION;

#[test]
fn letters() {
    for letter in ['a', 'Z', 'ª', 'é', 'ß', 'ǅ', 'ʰ', 'א', '日', '\u{1e900}', '\u{323af}'] {
        assert!(is_letter(letter), "{letter:?}");
    }
    for other in ['0', '_', '\u{301}', '٣', '€', '\u{1f600}', '\u{0}', '\u{323b0}', '\u{10ffff}']
    {
        assert!(!is_letter(other), "{other:?}");
    }
}

#[test]
fn folding() {
    #[track_caller]
    fn check(a: &str, b: &str, equal: bool) {
        assert_eq!(equal_fold(a, b), equal, "{a} {b}");
        assert_eq!(compare_paths(a, b).is_eq(), equal, "{a} {b}");
    }
    check("README", "readme", true);
    check("k", "\u{212a}", true);
    check("K", "\u{212a}", true);
    check("s", "\u{17f}", true);
    check("å", "\u{212b}", true);
    check("Å", "å", true);
    check("σ", "ς", true);
    check("Σ", "ς", true);
    check("µ", "μ", true);
    check("ǆ", "ǅ", true);
    check("Ꭰ", "ꭰ", true);
    check("\u{10400}", "\u{10428}", true);
    check("ß", "ss", false);
    check("ß", "ẞ", true);
    check("İ", "i", false);
    check("ı", "i", false);
    check("é", "e", false);
    check("a", "ab", false);
}

#[test]
fn paths_in_order() {
    // What lies in a directory follows it, before names that go on behind its own.
    let ordered = ["a", "A/b", "a/B/c", "a/\u{212a}", "a.go", "a0", "é", "É/x"];
    for (n, a) in ordered.iter().enumerate() {
        for (m, b) in ordered.iter().enumerate() {
            assert_eq!(compare_paths(a, b), n.cmp(&m), "{a} {b}");
        }
    }
    // A difference inside a character.
    assert!(compare_paths("xé", "xè").is_gt());
    assert!(compare_paths("x\u{e9}", "x\u{2e9}").is_lt());
}

/// Runs the generator; `None`, after having said so, without a go command of the same Unicode version.
fn generate(arguments: &[&str]) -> Option<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("unicode");
    let output = Command::new("go")
        .args(["run", "."])
        .args(arguments)
        .current_dir(dir)
        .env("GOFLAGS", "")
        .env("GOWORK", "off")
        .env("GOTOOLCHAIN", "local")
        .output();
    let reason = match output {
        Ok(output) => {
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let text = String::from_utf8(output.stdout).expect("UTF-8");
            let same_version = text.contains(&format!("{UNICODE_VERSION:?}"));
            if same_version || !arguments.is_empty() {
                return Some(text);
            }
            format!("this go has another version of Unicode than {UNICODE_VERSION}")
        }
        Err(_) => "there is no go command".to_owned(),
    };
    let required = std::env::var_os("STOA_REQUIRE_GO").is_some_and(|value| value == "1");
    assert!(!required, "STOA_REQUIRE_GO=1, but {reason}");
    eprintln!("skipped: {reason}");
    None
}

#[test]
fn the_tables_are_those_of_go() {
    if let Some(text) = generate(&[]) {
        assert!(text == include_str!("../unicode_tables.rs"), "run unicode/main.go again");
    }
}

#[test]
fn every_character_is_looked_up_as_go_does() {
    if generate(&[]).is_none() {
        return;
    }
    let Some(text) = generate(&["each"]) else { return };
    let known: HashMap<u32, (bool, u32)> = text
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let number = |at: usize| u32::from_str_radix(fields[at], 16).expect("a number");
            (number(0), (fields[1] == "1", number(2)))
        })
        .collect();
    assert!(known.len() > 100_000, "{}", known.len());
    for c in '\0'..=char::MAX {
        let code = u32::from(c);
        let expected = known.get(&code).copied().unwrap_or((false, code));
        assert_eq!((is_letter(c), u32::from(fold(c))), expected, "{c:?}");
    }
}
