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
        Err("not_found https://ex.com/b?go-get=1: no go-import for ex.com/b, only for ex.com/a"
            .into()),
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
        &[("ex.com/a", 200, "<meta name=go-import content='ex.com/a mod https://goproxy.ex.com'>")],
        "ex.com/a",
        Ok(Code::Proxy(Url::parse("https://goproxy.ex.com").unwrap())),
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
