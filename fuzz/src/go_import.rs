//! go-import pages: what is read can be written as a page again, and other texts around it change nothing.

use std::fmt::Write as _;

use stoa_module::{GoImport, NoGoImport, parse_go_imports, select_go_import};

pub fn check(page: &[u8]) {
    let entries = parse_go_imports(page);
    assert!(entries.len() <= 1000);
    let mods = entries.iter().take_while(|entry| entry.system == "mod").count();
    let (mods, others) = entries.split_at(mods);
    for entry in &entries {
        let GoImport { prefix, system, url, subdir } = entry;
        for field in [prefix, system, url, subdir] {
            assert!(field.len() <= 2048 && !field.contains(char::is_whitespace), "{entry:?}");
        }
        assert!(!prefix.is_empty() && !system.is_empty() && !url.is_empty(), "{entry:?}");
    }
    assert!(others.iter().all(|entry| entry.system != "mod"));
    assert!(others.iter().all(|entry| mods.iter().all(|one| one.prefix != entry.prefix)));

    let written = write(&entries);
    assert_eq!(parse_go_imports(written.as_bytes()), entries, "{written}");
    let more = [written.as_bytes(), b"</head>", page].concat();
    assert_eq!(parse_go_imports(&more), entries);
    let before = [b"<!doctype html><title>a &lt; b</title><!-- <meta -->", page].concat();
    assert_eq!(parse_go_imports(&before), entries);
    if !page.windows(3).any(|window| window == b"-->") {
        assert_eq!(parse_go_imports(&[b"<!--", page].concat()), []);
    }

    for (begin, end) in [("<![CDATA[", "]]>"), ("<link title='", "'")] {
        if !page.windows(end.len()).any(|window| window == end.as_bytes()) {
            assert_eq!(parse_go_imports(&[begin.as_bytes(), page, end.as_bytes()].concat()), []);
        }
    }

    for path in ["ex.com/a", "ex.com/a/b", "ex.com"] {
        select(&entries, path);
    }
    if let Some(entry) = entries.first() {
        select(&entries, &entry.prefix);
        select(&entries, &format!("{}/x", entry.prefix));
    }
}

/// By the words of the go command's documentation.
fn select(entries: &[GoImport], path: &str) {
    let fits = |entry: &&GoImport| {
        let prefix = entry.prefix.as_str();
        path == prefix
            || path.starts_with(&format!("{prefix}/"))
            || prefix.ends_with('/') && path.starts_with(prefix)
    };
    let fitting: Vec<_> = entries.iter().filter(fits).collect();
    let mods = fitting.iter().filter(|entry| entry.system == "mod").count();
    match select_go_import(entries, path) {
        Ok(entry) => {
            assert_eq!(fitting.first(), Some(&entry));
            assert!(fitting.len() == 1 || mods == 1, "{fitting:?}");
        }
        Err(NoGoImport::Several) => assert!(mods > 1 || mods == 0 && fitting.len() > 1),
        Err(NoGoImport::NoMatch(others)) => {
            assert!(fitting.is_empty());
            assert!(others.iter().eq(entries.iter().map(|entry| &entry.prefix)));
        }
    }
}

/// Every character but the simplest as its number.
fn write(entries: &[GoImport]) -> String {
    let mut page = "<html><head>\n".to_owned();
    for GoImport { prefix, system, url, subdir } in entries {
        page += "<meta name=\"go-import\" content=\"";
        for c in format!("{prefix} {system} {url} {subdir}").chars() {
            if c.is_ascii_alphanumeric() || "./ -".contains(c) {
                page.push(c);
            } else {
                _ = write!(page, "&#x{:x};", u32::from(c));
            }
        }
        page += "\">\n";
    }
    page
}

pub fn seeds() -> Vec<Vec<u8>> {
    crate::texts(&[
        "<html><head><meta name=\"go-import\" content=\"ex.com/a git https://git.ex.com/a\"></head><body>x</body></html>",
        "<META NAME='go-import' CONTENT='ex.com/a git https://a?x=1&amp;y=&#x2F; sub/dir'/>",
        "<meta name=go-import content='ex.com/b git https://b'><meta name=go-import content='ex.com/b mod https://p'>",
        "<!doctype html><!-- <meta --><script>if (a<b) {}</script><meta charset=utf-8><meta content = \"ex.com/a hg\nhttps://x \" name=go-import >",
        "<meta name=\"go-import\" content=\"ex.com git https://a\"><meta name=go-import content='ex.com/a/ git https://c",
    ])
}
