//! `<meta name="go-import" content="PREFIX VCS URL [SUBDIR]">` in whatever a server answers to `?go-get=1`.
//!
//! Read as leniently as the go command does: tags and attributes in any case, quoted or not, without an end, in a page
//! with any status; and only up to the end of the head.

/// Bytes of each part of an entry, and entries of a page. More is no address, and no page of a person.
const MAX_FIELD: usize = 2048;
const MAX_ENTRIES: usize = 1000;

/// One entry.
///
/// The parts are as they were written: that the address is one, and the subdirectory too, is for the caller to check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoImport {
    /// The import path of the repository's root.
    pub prefix: String,
    /// The version control system, or `mod` for a proxy.
    pub system: String,
    /// Where it is.
    pub url: String,
    /// The directory that the root stands for; mostly empty.
    pub subdir: String,
}

/// Why there is no one entry for a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoGoImport {
    /// There are only entries for other paths, with these prefixes, or none at all.
    NoMatch(Vec<String>),
    /// Several claim the path.
    Several,
}

/// The entries of a page in the order in which they count: those of `mod` first, and of the others those whose prefix no
/// `mod` entry has.
pub fn parse_go_imports(page: &[u8]) -> Vec<GoImport> {
    let page = String::from_utf8_lossy(page);
    let mut entries = Vec::new();
    let mut rest: &str = &page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        // What stands in these is text, whatever it looks like.
        if let Some((hidden, end)) = [("!--", "-->"), ("![CDATA[", "]]>"), ("?", "?>")]
            .into_iter()
            .find_map(|(begin, end)| Some((rest.strip_prefix(begin)?, end)))
        {
            rest = hidden.split_once(end).map_or("", |(_, after)| after);
            continue;
        }
        let (closing, tag) = match rest.strip_prefix('/') {
            Some(tag) => (true, tag),
            None => (false, rest),
        };
        let name_end = tag.find(|c: char| !is_name(c)).unwrap_or(tag.len());
        let (name, after) = tag.split_at(name_end);
        let name = local(name);
        if (!closing && name.eq_ignore_ascii_case("body"))
            || (closing && name.eq_ignore_ascii_case("head"))
        {
            break;
        }
        if closing || name.is_empty() {
            rest = after;
            continue;
        }
        // Those of any tag are read, for a value may look like a tag.
        let (attributes, after) = attributes(after);
        rest = after;
        if !name.eq_ignore_ascii_case("meta") {
            continue;
        }
        let value = |wanted: &str| {
            let named =
                attributes.iter().find(|(name, _)| local(name).eq_ignore_ascii_case(wanted));
            named.map_or("", |(_, value)| value.as_str())
        };
        if value("name") != "go-import" {
            continue;
        }
        let fields: Vec<&str> = value("content").split_whitespace().collect();
        let is_sane =
            fields.iter().all(|field| field.len() <= MAX_FIELD) && entries.len() < MAX_ENTRIES;
        if let [prefix, system, url, ref subdir @ ..] = fields[..]
            && subdir.len() <= 1
            && is_sane
        {
            entries.push(GoImport {
                prefix: prefix.to_owned(),
                system: system.to_owned(),
                url: url.to_owned(),
                subdir: subdir.first().copied().unwrap_or_default().to_owned(),
            });
        }
    }
    let (mut first, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| entry.system == "mod");
    let superseded = |entry: &GoImport| first.iter().any(|one| one.prefix == entry.prefix);
    let others: Vec<_> = others.into_iter().filter(|entry| !superseded(entry)).collect();
    first.extend(others);
    first
}

/// The one entry for a path.
pub fn select_go_import<'e>(
    entries: &'e [GoImport],
    path: &str,
) -> Result<&'e GoImport, NoGoImport> {
    let mut found: Option<&GoImport> = None;
    let mut others = Vec::new();
    for entry in entries {
        if !has_prefix(path, &entry.prefix) {
            others.push(entry.prefix.clone());
            continue;
        }
        match found {
            None => found = Some(entry),
            // Those of `mod` come first; what follows does not matter.
            Some(one) if one.system == "mod" && entry.system != "mod" => break,
            Some(_) => return Err(NoGoImport::Several),
        }
    }
    found.ok_or(NoGoImport::NoMatch(others))
}

/// By whole elements.
fn has_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with('/') || prefix.is_empty() || prefix.ends_with('/')
    })
}

/// The name without the prefix of a namespace.
fn local(name: &str) -> &str {
    match name.split_once(':') {
        Some((space, local)) if !space.is_empty() && !local.is_empty() => local,
        _ => name,
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | ':' | '.')
}

/// The attributes up to the tag's end, and what follows it.
fn attributes(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
        let Some(next) = rest.chars().next() else { return (found, rest) };
        if next == '>' {
            return (found, &rest[1..]);
        }
        // The tag was never closed.
        if next == '<' {
            return (found, rest);
        }
        let end = rest.find(|c: char| !is_name(c)).unwrap_or(rest.len());
        if end == 0 {
            rest = &rest[next.len_utf8()..];
            continue;
        }
        let (name, after) = rest.split_at(end);
        let after = after.trim_start();
        let Some(after) = after.strip_prefix('=') else {
            found.push((name.to_owned(), name.to_owned()));
            rest = after;
            continue;
        };
        let after = after.trim_start();
        let (value, after) = if let Some(quote @ ('"' | '\'')) = after.chars().next() {
            let inner = &after[1..];
            match inner.find(quote) {
                Some(end) => (&inner[..end], &inner[end + 1..]),
                None => (inner, ""),
            }
        } else {
            let end = after.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(after.len());
            let (value, after) = after.split_at(end);
            // The slash of an empty tag is none of the value.
            (if after.starts_with('>') { value.trim_end_matches('/') } else { value }, after)
        };
        found.push((name.to_owned(), unescape(value)));
        rest = after;
    }
}

/// Character references, as far as an address may need them: templates write `+` and `/` so.
fn unescape(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find('&') {
        let (before, reference) = rest.split_at(at);
        text.push_str(before);
        // No further than a reference goes: a page of nothing but ampersands would be read once for each of them.
        let end = reference.bytes().take(LONGEST_REFERENCE + 1).position(|byte| byte == b';');
        let meant = end.and_then(|end| Some((referred(&reference[1..end])?, end)));
        let (character, length) = meant.map_or(('&', 1), |(character, end)| (character, end + 1));
        text.push(character);
        rest = &reference[length..];
    }
    text + rest
}

/// `&#x10FFFF` and a few zeros.
const LONGEST_REFERENCE: usize = 12;

fn referred(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix(['x', 'X']) {
                Some(hexadecimal) => u32::from_str_radix(hexadecimal, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(prefix: &str, system: &str, url: &str, subdir: &str) -> GoImport {
        let own = str::to_owned;
        GoImport { prefix: own(prefix), system: own(system), url: own(url), subdir: own(subdir) }
    }

    #[test]
    fn character_references() {
        let check = |text: &str, expected: &str| assert_eq!(unescape(text), expected, "{text}");
        check("https:&#x2F;&#47;ex.com", "https://ex.com");
        check("git&#43;ssh://a?x=1&amp;y=2", "git+ssh://a?x=1&y=2");
        check("&quot;&apos;&lt;&gt;&#X41;", "\"'<>A");
        // Nothing is taken off twice, and what is none stays.
        check("&amp;lt;", "&lt;");
        check("a&b;c&;d&#;&#xzz;&#1114112;&nbsp;&", "a&b;c&;d&#;&#xzz;&#1114112;&nbsp;&");
    }

    #[test]
    fn pages_that_mean_harm() {
        let long = "x".repeat(MAX_FIELD + 1);
        let meta = |url: &str| format!("<meta name=go-import content='ex.com/a git {url}'>");
        assert_eq!(parse_go_imports(meta(&long).as_bytes()), []);
        assert_eq!(parse_go_imports(meta(&long[1..]).as_bytes()).len(), 1);
        assert_eq!(parse_go_imports(meta("https://a").repeat(5000).as_bytes()).len(), MAX_ENTRIES);

        let ampersands = "&".repeat(2 << 20);
        let began = std::time::Instant::now();
        assert_eq!(parse_go_imports(meta(&ampersands).as_bytes()), []);
        // It was more than a minute, and is less than a second.
        let took = began.elapsed();
        assert!(took.as_secs() < 20, "{took:?}");
    }

    #[test]
    fn pages() {
        let check = |page: &str, expected: &[GoImport]| {
            assert_eq!(parse_go_imports(page.as_bytes()), expected, "{page}");
        };
        let plain = entry("ex.com/a", "git", "https://git.ex.com/a", "");
        check(
            r#"<meta name="go-import" content="ex.com/a git https://git.ex.com/a">"#,
            std::slice::from_ref(&plain),
        );
        check(
            "<META NAME='go-import' CONTENT='ex.com/a git https://git.ex.com/a'/>",
            std::slice::from_ref(&plain),
        );
        check(
            "<meta content = \"ex.com/a\n git\thttps://git.ex.com/a \" name=go-import >",
            std::slice::from_ref(&plain),
        );
        check(
            "<!doctype html><html><head><title>a < b</title><script>if (a<b) {}</script>\
             <!-- <meta name=\"go-import\" content=\"ex.com/x git https://x\"> -->\
             <meta charset=\"utf-8\"><meta name=\"go-import\" content=\"ex.com/a git https://git.ex.com/a\"></head>\
             <meta name=\"go-import\" content=\"ex.com/b git https://b\">",
            std::slice::from_ref(&plain),
        );
        check("<body><meta name=\"go-import\" content=\"ex.com/a git https://a\">", &[]);
        check("<meta name=\"Go-Import\" content=\"ex.com/a git https://a\">", &[]);
        check("<meta name=\"go-import\" content=\"ex.com/a git\">", &[]);
        check("<meta name=\"go-import\" content=\"a b c d e\">", &[]);
        check(
            "<meta name=\"go-import\" content=\"ex.com/a git https://a sub/dir\">",
            &[entry("ex.com/a", "git", "https://a", "sub/dir")],
        );
        check(
            "<meta name=\"go-import\" content=\"ex.com/a git https://a?x=1&amp;y=2\">",
            &[entry("ex.com/a", "git", "https://a?x=1&y=2", "")],
        );
        // Entries of mod come first, and stand for others of the same prefix.
        check(
            "<meta name=go-import content='ex.com/b git https://b'>\
             <meta name=go-import content='ex.com/a git https://a'>\
             <meta name=go-import content='ex.com/a mod https://proxy'>",
            &[
                entry("ex.com/a", "mod", "https://proxy", ""),
                entry("ex.com/b", "git", "https://b", ""),
            ],
        );
        // What only looks like a tag, and what has the prefix of a namespace.
        let meta = r#"<meta name="go-import" content="ex.com/a git https://git.ex.com/a">"#;
        check(&format!("<link title='{meta}'>"), &[]);
        check(&format!("<![CDATA[{meta}]]>"), &[]);
        check(&format!("<?x {meta} ?>"), &[]);
        check(&format!("<link title='{meta}'><![CDATA[>]]>{meta}"), std::slice::from_ref(&plain));
        check(&meta.replace("meta name", "x:meta y:name"), std::slice::from_ref(&plain));
        check(&meta.replace("\"go-import\"", "go-import"), std::slice::from_ref(&plain));
        check(
            "<meta content='ex.com/a git https://git.ex.com/a' name=go-import/>",
            std::slice::from_ref(&plain),
        );
        for broken in [
            "<",
            "<meta",
            "<meta name",
            "<meta name=",
            "<meta name=\"go-import",
            "<!--",
            "</",
            "<meta <meta =>",
        ] {
            check(broken, &[]);
        }
        check(
            &format!(
                "<meta name=\"go-import\" content=\"ex.com/a git https://git.ex.com/a\" {}",
                "x".repeat(9)
            ),
            &[plain],
        );
    }

    #[test]
    fn any_bytes_are_read() {
        proptest::proptest!(|(page: Vec<u8>)| {
            parse_go_imports(&page);
        });
        proptest::proptest!(|(page in "[<>/ a-c='\"!-]*(<meta [a-z='\"& ]*>?)*")| {
            parse_go_imports(page.as_bytes());
        });
    }

    #[test]
    fn selection() {
        let a = entry("ex.com/a", "git", "https://a", "");
        let deep = entry("ex.com/a/b", "git", "https://ab", "");
        let module = entry("ex.com/a", "mod", "https://proxy", "");
        let check = |entries: &[GoImport], path: &str, expected: Result<&GoImport, NoGoImport>| {
            assert_eq!(select_go_import(entries, path), expected, "{path}");
        };
        check(std::slice::from_ref(&a), "ex.com/a", Ok(&a));
        check(std::slice::from_ref(&a), "ex.com/a/x/v2", Ok(&a));
        check(
            std::slice::from_ref(&a),
            "ex.com/ab",
            Err(NoGoImport::NoMatch(vec!["ex.com/a".into()])),
        );
        check(&[], "ex.com/a", Err(NoGoImport::NoMatch(vec![])));
        check(&[a.clone(), deep.clone()], "ex.com/a/c", Ok(&a));
        check(&[a.clone(), deep.clone()], "ex.com/a/b", Err(NoGoImport::Several));
        check(&[a.clone(), a.clone()], "ex.com/a", Err(NoGoImport::Several));
        check(&[module.clone(), deep], "ex.com/a/b", Ok(&module));
        check(&[module.clone(), module.clone()], "ex.com/a", Err(NoGoImport::Several));
    }
}
