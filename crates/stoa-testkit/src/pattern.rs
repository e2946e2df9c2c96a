use std::fmt;
use std::sync::Arc;

use crate::Request;

/// Which requests are meant: a glob over the [path](Request::path), or a predicate.
///
/// In a glob `*` stands for any text, slashes included; all else for itself. `GET ` or `HEAD ` in
/// front means that method alone: `HEAD *.zip`.
#[derive(Clone)]
pub struct Pattern {
    name: String,
    matches: Arc<dyn Fn(&Request) -> bool + Send + Sync>,
}

impl Pattern {
    pub fn when(matches: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Pattern {
        Pattern { name: "a predicate".to_owned(), matches: Arc::new(matches) }
    }

    pub fn matches(&self, request: &Request) -> bool {
        (self.matches)(request)
    }
}

impl From<&str> for Pattern {
    fn from(glob: &str) -> Pattern {
        let name = glob.to_owned();
        let (method, glob) = match glob.split_once(' ') {
            Some((method, glob)) => (Some(method.to_owned()), glob.to_owned()),
            None => (None, glob.to_owned()),
        };
        let matches = move |request: &Request| {
            method.as_ref().is_none_or(|method| *method == request.method)
                && glob_matches(&glob, &request.path)
        };
        Pattern { name, matches: Arc::new(matches) }
    }
}

impl From<&String> for Pattern {
    fn from(glob: &String) -> Pattern {
        Pattern::from(glob.as_str())
    }
}

impl From<String> for Pattern {
    fn from(glob: String) -> Pattern {
        Pattern::from(glob.as_str())
    }
}

impl From<&Pattern> for Pattern {
    fn from(pattern: &Pattern) -> Pattern {
        pattern.clone()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({})", self.name)
    }
}

fn glob_matches(glob: &str, text: &str) -> bool {
    let Some((before, after)) = glob.split_once('*') else { return glob == text };
    let Some(mut rest) = text.strip_prefix(before) else { return false };
    let Some((middle, last)) = after.rsplit_once('*') else { return rest.ends_with(after) };
    for piece in middle.split('*') {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        #[track_caller]
        fn check(glob: &str, text: &str, expected: bool) {
            assert_eq!(glob_matches(glob, text), expected, "{glob} on {text}");
        }
        check("/a/@v/list", "/a/@v/list", true);
        check("/a/@v/list", "/a/@v/list2", false);
        check("*", "", true);
        check("*", "/a/b", true);
        check("*.zip", "/a/@v/v1.0.0.zip", true);
        check("*.zip", "/a/@v/v1.0.0.zip.x", false);
        check("/a/*", "/a/b/c", true);
        check("/a/*", "/ab", false);
        check("/a/*.info", "/a/@v/v1.info", true);
        check("/sumdb/*/tile/*/0/*", "/sumdb/n/tile/8/0/000", true);
        check("/sumdb/*/tile/*/0/*", "/sumdb/n/tile/8/1/000", false);
        check("a*a", "a", false);
        check("a*b*b", "ab", false);
        check("a*b*b", "abb", true);
        check("**x", "x", true);
    }
}
