//! Where a module's code is kept: what its path says by its form, or else its host, asked with `?go-get=1` (cmd/go's
//! `vcs` package).
//!
//! A module's path chooses the host that is asked, and paths come from strangers. So a host that no setting names is
//! asked at public addresses only, a private module's name follows no redirect to a host that was not named, and page,
//! redirects and time are bounded.

mod address;
mod govcs;
mod guard;
mod hosts;
mod meta;
mod pages;

use stoa_module::{ErrorClass, ModulePath, Patterns};
use url::Url;

use crate::discovery::hosts::Known;
use crate::discovery::meta::{GoImport, NoImport};
use crate::failure::{Fault, Stage};

pub(crate) use crate::discovery::address::{NotPublic, is_public};
pub use crate::discovery::govcs::{GoVcs, InvalidGoVcs};
pub(crate) use crate::discovery::guard::{About, Guard};
pub(crate) use crate::discovery::pages::{Page, Pages};

/// Where a module's code is.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct CodeRoot {
    /// The import path of the repository's root: `github.com/ex/r`, `gopkg.in/yaml.v3`.
    pub(crate) root: String,
    /// The repository's address, with a scheme: `https://github.com/ex/r`, `ssh://git@host/path`.
    pub(crate) url: String,
    /// The directory in the repository that the root stands for; mostly empty.
    pub(crate) subdir: String,
}

/// What was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Code {
    Git(CodeRoot),
    /// Any of these addresses, the first that answers.
    GitByScheme {
        root: String,
        urls: Vec<String>,
    },
    /// Another proxy has it (`mod` entries).
    Proxy {
        root: String,
        base: Url,
    },
}

/// Which modules are whose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub goprivate: Patterns,
    pub gonoproxy: Patterns,
    pub goinsecure: Patterns,
    pub govcs: GoVcs,
    /// Patterns of routes: their hosts were named by a person, too.
    pub routed: Vec<Patterns>,
}

impl Rules {
    /// Whether a setting names a module on this host, so that it may be asked wherever it is.
    pub(crate) fn names_host(&self, host: &str) -> bool {
        self.goprivate.names_host(host)
            || self.gonoproxy.names_host(host)
            || self.routed.iter().any(|patterns| patterns.names_host(host))
    }

    pub(crate) fn is_private(&self, path: &ModulePath) -> bool {
        self.goprivate.matches(path) || self.gonoproxy.matches(path)
    }

    pub(crate) fn about(&self, path: &ModulePath) -> About {
        About { is_private: self.is_private(path), insecure: self.goinsecure.matches(path) }
    }

    fn allow(&self, root: &str, system: &str) -> Result<(), Fault> {
        let not_found = |detail| Fault::new(ErrorClass::NotFound, Stage::Git, detail);
        let path = ModulePath::parse(root)
            .map_err(|error| not_found(format!("its root {root:?} is no module path: {error}")))?;
        let is_private = self.goprivate.matches(&path);
        if !self.govcs.allows(&path, is_private, system) {
            let whose = if is_private { "private" } else { "public" };
            let detail = format!("GOVCS disallows using {system} for {whose} {root}");
            return Err(Fault::new(ErrorClass::Denied, Stage::Local, detail)
                .hint("the server's upstream.govcs decides, as GOVCS in Go"));
        }
        if system == "git" {
            return Ok(());
        }
        Err(not_found(format!("{root} is kept in {system}, and this server fetches from git only")))
    }
}

/// Answers `https://PATH?go-get=1`.
pub(crate) trait Ask {
    async fn ask(&self, path: &str, about: About) -> Result<Page, Fault>;
}

/// Finds where the code of a module is.
pub(crate) async fn discover(
    path: &ModulePath,
    rules: &Rules,
    pages: &impl Ask,
) -> Result<Code, Fault> {
    let about = rules.about(path);
    match hosts::find(path.as_str()) {
        Known::Git(code) => {
            rules.allow(&code.root, "git")?;
            Ok(Code::Git(code))
        }
        Known::Schemeless { root, address } => {
            rules.allow(&root, "git")?;
            let schemes: &[&str] = if about.insecure {
                &["https", "http", "git+ssh", "ssh", "git"]
            } else {
                &["https", "git+ssh", "ssh"]
            };
            let urls = schemes.iter().map(|scheme| format!("{scheme}://{address}")).collect();
            Ok(Code::GitByScheme { root, urls })
        }
        Known::Other { root, system } => {
            rules.allow(&root, system)?;
            // Nothing but git passes the rules.
            Err(Fault::new(ErrorClass::NotFound, Stage::Git, format!("{root} is kept in {system}")))
        }
        Known::Invalid(reason) => Err(Fault::new(ErrorClass::NotFound, Stage::Local, reason)),
        Known::Unknown => dynamic(path, rules, pages, about).await,
    }
}

async fn dynamic(
    path: &ModulePath,
    rules: &Rules,
    pages: &impl Ask,
    about: About,
) -> Result<Code, Fault> {
    let not_found = |detail: String| Fault::new(ErrorClass::NotFound, Stage::Http, detail);
    let page = pages.ask(path.as_str(), about).await?;
    let entries = entries(&page, path.as_str())?;
    let claimed = choose(&entries, path, &page)?.clone();
    // Whoever owns only a part of a host must not claim the whole of it.
    if claimed.prefix != path.as_str() {
        let root = pages.ask(&claimed.prefix, about).await?;
        let at_root = meta::parse(&root.body);
        if meta::select(&at_root, path.as_str()) != Ok(&claimed) {
            return Err(not_found(format!(
                "{} and {} disagree about the go-import of {}",
                page.url, root.url, claimed.prefix
            )));
        }
    }
    let GoImport { prefix, system, url, subdir } = claimed;
    if subdir.starts_with(['/', '-'])
        || subdir.split('/').any(|element| matches!(element, "." | ".."))
    {
        return Err(not_found(format!("{}: invalid subdirectory {subdir:?}", page.url)));
    }
    let address = Url::parse(&url)
        .map_err(|error| not_found(format!("{}: invalid address {url:?}: {error}", page.url)))?;
    if address.scheme() == "file" {
        return Err(not_found(format!("{}: a repository cannot be at a file: address", page.url)));
    }
    if system == "mod" {
        if address.scheme() != "https" && !(about.insecure && address.scheme() == "http") {
            let detail = format!("{}: its proxy is not at an https: address ({url})", page.url);
            return Err(not_found(detail));
        }
        return Ok(Code::Proxy { root: prefix, base: address });
    }
    if !matches!(system.as_str(), "git" | "hg" | "svn" | "bzr" | "fossil") {
        return Err(not_found(format!("{}: unknown version control system {system:?}", page.url)));
    }
    rules.allow(&prefix, &system)?;
    Ok(Code::Git(CodeRoot { root: prefix, url, subdir }))
}

const LOOK: &str = "look at the module's path, and at the server's credential for this host";

/// The entries of a page. Whatever its status is, it counts when it has some.
fn entries(page: &Page, path: &str) -> Result<Vec<GoImport>, Fault> {
    let entries = meta::parse(&page.body);
    if !entries.is_empty() {
        return Ok(entries);
    }
    let Page { url, status, .. } = page;
    Err(match status {
        200..=299 => {
            let detail = format!("{url} names no repository for {path} (no go-import in the page)");
            Fault::new(ErrorClass::NotFound, Stage::Http, detail).hint(LOOK)
        }
        // A page that one may not see and one that is not there are alike, also to who asks here.
        401 | 403 | 404 | 410 => {
            let detail = format!("{url}: no such page, or the server's credential may not see it");
            Fault::new(ErrorClass::NotFound, Stage::Http, detail).hint(LOOK)
        }
        300..=428 | 430..=499 => {
            Fault::new(ErrorClass::NotFound, Stage::Http, format!("{url}: http {status}"))
        }
        _ => Fault::new(ErrorClass::Unavailable, Stage::Http, format!("{url}: http {status}")),
    })
}

fn choose<'e>(
    entries: &'e [GoImport],
    path: &ModulePath,
    page: &Page,
) -> Result<&'e GoImport, Fault> {
    meta::select(entries, path.as_str()).map_err(|none| {
        let detail = match none {
            NoImport::Several => format!("{}: several go-imports match {path}", page.url),
            NoImport::NoMatch(others) => {
                format!("{}: no go-import for {path}, only for {}", page.url, others.join(", "))
            }
        };
        Fault::new(ErrorClass::NotFound, Stage::Http, detail)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Mutex;

    use super::*;

    /// Pages by path, and what was asked.
    struct Site {
        pages: HashMap<&'static str, (u16, &'static str)>,
        asked: Mutex<Vec<String>>,
    }

    impl Ask for Site {
        async fn ask(&self, path: &str, about: About) -> Result<Page, Fault> {
            self.asked
                .lock()
                .unwrap()
                .push(format!("{path}{}", if about.insecure { " insecure" } else { "" }));
            let (status, body) = self.pages.get(path).copied().unwrap_or((404, "no such page"));
            let url = Url::parse(&format!("https://{path}?go-get=1")).unwrap();
            Ok(Page { url, status, body: body.as_bytes().to_vec() })
        }
    }

    async fn found(
        pages: &[(&'static str, u16, &'static str)],
        path: &str,
    ) -> (Result<Code, String>, Vec<String>) {
        let pages = pages.iter().map(|&(path, status, body)| (path, (status, body))).collect();
        let site = Site { pages, asked: Mutex::default() };
        let rules = Rules {
            goprivate: Patterns::parse("*.corp.example.com").unwrap(),
            goinsecure: Patterns::parse("old.example.com").unwrap(),
            govcs: GoVcs::parse("never.example.com:off").unwrap(),
            ..Rules::default()
        };
        let outcome = discover(&ModulePath::parse(path).unwrap(), &rules, &site).await;
        (
            outcome.map_err(|fault| format!("{} {}", fault.class, fault.detail)),
            site.asked.into_inner().unwrap(),
        )
    }

    fn git(root: &str, url: &str, subdir: &str) -> Code {
        Code::Git(CodeRoot { root: root.into(), url: url.into(), subdir: subdir.into() })
    }

    const A: &str = "<meta name=\"go-import\" content=\"ex.com/a git https://git.ex.com/a\">";
    const OTHER: &str = "<meta name=\"go-import\" content=\"ex.com/a git https://evil.ex.com/a\">";

    #[tokio::test]
    async fn by_page() {
        let check = async |pages: &[(&'static str, u16, &'static str)],
                           path: &str,
                           expected: Result<Code, String>,
                           asked: &[&str]| {
            assert_eq!(
                found(pages, path).await,
                (expected, asked.iter().map(|&a| a.to_owned()).collect()),
                "{path}"
            );
        };
        check(
            &[("ex.com/a", 200, A)],
            "ex.com/a",
            Ok(git("ex.com/a", "https://git.ex.com/a", "")),
            &["ex.com/a"],
        )
        .await;
        // The status does not matter when there is an entry.
        check(
            &[("ex.com/a", 404, A)],
            "ex.com/a",
            Ok(git("ex.com/a", "https://git.ex.com/a", "")),
            &["ex.com/a"],
        )
        .await;
        // The root is asked, too, and must say the same.
        check(
            &[("ex.com/a/b", 200, A), ("ex.com/a", 200, A)],
            "ex.com/a/b",
            Ok(git("ex.com/a", "https://git.ex.com/a", "")),
            &["ex.com/a/b", "ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/a/b", 200, A), ("ex.com/a", 200, OTHER)],
            "ex.com/a/b",
            Err("not_found https://ex.com/a/b?go-get=1 and https://ex.com/a?go-get=1 disagree about the go-import of ex.com/a".into()),
            &["ex.com/a/b", "ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/a/b", 200, A)],
            "ex.com/a/b",
            Err("not_found https://ex.com/a/b?go-get=1 and https://ex.com/a?go-get=1 disagree about the go-import of ex.com/a".into()),
            &["ex.com/a/b", "ex.com/a"],
        )
        .await;
        check(
            &[],
            "ex.com/a",
            Err("not_found https://ex.com/a?go-get=1: no such page, or the server's credential may not see it".into()),
            &["ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/a", 403, "")],
            "ex.com/a",
            Err("not_found https://ex.com/a?go-get=1: no such page, or the server's credential may not see it".into()),
            &["ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/a", 503, "")],
            "ex.com/a",
            Err("unavailable https://ex.com/a?go-get=1: http 503".into()),
            &["ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/a", 200, "<html>hello")],
            "ex.com/a",
            Err("not_found https://ex.com/a?go-get=1 names no repository for ex.com/a (no go-import in the page)".into()),
            &["ex.com/a"],
        )
        .await;
        check(
            &[("ex.com/b", 200, A)],
            "ex.com/b",
            Err(
                "not_found https://ex.com/b?go-get=1: no go-import for ex.com/b, only for ex.com/a"
                    .into(),
            ),
            &["ex.com/b"],
        )
        .await;
        check(
            &[(
                "ex.com/a",
                200,
                "<meta name=go-import content='ex.com/a git ssh://git@git.ex.com/a go/mod'>",
            )],
            "ex.com/a",
            Ok(git("ex.com/a", "ssh://git@git.ex.com/a", "go/mod")),
            &["ex.com/a"],
        )
        .await;
        check(
            &[(
                "ex.com/a",
                200,
                "<meta name=go-import content='ex.com/a mod https://goproxy.ex.com'>",
            )],
            "ex.com/a",
            Ok(Code::Proxy {
                root: "ex.com/a".into(),
                base: Url::parse("https://goproxy.ex.com").unwrap(),
            }),
            &["ex.com/a"],
        )
        .await;
        check(
            &[("old.example.com/a", 200, "")],
            "old.example.com/a",
            found(&[("old.example.com/a", 200, "")], "old.example.com/a").await.0,
            &["old.example.com/a insecure"],
        )
        .await;
    }

    #[tokio::test]
    async fn what_is_refused() {
        let check = async |content: &'static str, expected: &str| {
            let page = format!("<meta name=go-import content='ex.com/a {content}'>");
            let (outcome, _) = found(&[("ex.com/a", 200, page.leak())], "ex.com/a").await;
            let error = outcome.unwrap_err();
            assert!(error.contains(expected), "{content}: {error}");
        };
        check("git file:///etc", "file:").await;
        check("git git.ex.com/a", "invalid address").await;
        check("git git@git.ex.com:a", "invalid address").await;
        check("git https://git.ex.com/a -x", "invalid subdirectory").await;
        check("git https://git.ex.com/a /etc", "invalid subdirectory").await;
        check("git https://git.ex.com/a a/../..", "invalid subdirectory").await;
        check("cvs https://git.ex.com/a", "unknown version control system").await;
        check("hg https://hg.ex.com/a", "kept in hg, and this server fetches from git only").await;
        check("svn https://svn.ex.com/a", "GOVCS disallows using svn for public ex.com/a").await;
        let (outcome, asked) = found(&[], "never.example.com/a.git").await;
        assert!(outcome.unwrap_err().contains("GOVCS disallows using git"));
        assert!(asked.is_empty());
        let (outcome, asked) = found(&[], "github.com/ex").await;
        assert!(outcome.unwrap_err().contains("invalid github.com import path"));
        assert!(asked.is_empty());
    }

    #[tokio::test]
    async fn by_suffix() {
        let urls = |list: &[&str], root: &str| {
            Ok(Code::GitByScheme {
                root: root.into(),
                urls: list.iter().map(|&u| u.to_owned()).collect(),
            })
        };
        let (outcome, _) = found(&[], "git.corp.example.com/team/r.git/sub").await;
        let host = "git.corp.example.com/team/r";
        let expected =
            [format!("https://{host}"), format!("git+ssh://{host}"), format!("ssh://{host}")];
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(outcome, urls(&expected, "git.corp.example.com/team/r.git"));
        let (outcome, _) = found(&[], "old.example.com/r.git").await;
        let host = "old.example.com/r";
        let expected =
            ["https", "http", "git+ssh", "ssh", "git"].map(|scheme| format!("{scheme}://{host}"));
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        assert_eq!(outcome, urls(&expected, "old.example.com/r.git"));
    }
}
