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
mod pages;

use stoa_module::{
    ErrorClass, GoImport, ModulePath, NoGoImport, Patterns, parse_go_imports, select_go_import,
};
use url::Url;

use crate::discovery::hosts::Known;
use crate::failure::{Fault, Stage};

pub(crate) use crate::discovery::address::{NotPublic, is_public, literal_address, names_one_host};
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
    Proxy(Url),
}

/// Which modules are whose.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub goprivate: Patterns,
    pub gonoproxy: Patterns,
    pub gonosumdb: Patterns,
    pub goinsecure: Patterns,
    pub govcs: GoVcs,
    /// Patterns of routes that lead to `direct`: their hosts were named by a person, too.
    pub routed: Vec<Patterns>,
}

impl Rules {
    /// Whether a setting names a module on this host, so that it may be asked wherever it is.
    pub(crate) fn names_host(&self, host: &str) -> bool {
        self.goprivate.names_host(host)
            || self.gonoproxy.names_host(host)
            || self.routed.iter().any(|patterns| patterns.names_host(host))
    }

    /// Whether the module's name is for nobody but those whom somebody named for it. A route and GONOSUMDB together keep it
    /// from everybody else too; either alone says less: GONOSUMDB may well be `*`.
    pub(crate) fn is_private(&self, path: &ModulePath) -> bool {
        let routed = || self.routed.iter().any(|patterns| patterns.matches(path));
        self.goprivate.matches(path)
            || self.gonoproxy.matches(path)
            || (self.gonosumdb.matches(path) && routed())
    }

    pub(crate) fn about(&self, path: &ModulePath) -> About {
        let is_named = self.is_private(path)
            || self.gonosumdb.matches(path)
            || self.routed.iter().any(|patterns| patterns.matches(path));
        About {
            is_private: self.is_private(path),
            is_named,
            insecure: self.goinsecure.matches(path),
        }
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

/// Whether only a module's host knows where its code is.
pub(crate) fn asks_host(path: &ModulePath) -> bool {
    hosts::find(path.as_str()) == Known::Unknown
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
        let at_root = parse_go_imports(&root.body);
        if select_go_import(&at_root, path.as_str()) != Ok(&claimed) {
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
    if !names_one_host(&url) {
        return Err(not_found(format!("{}: invalid address {url:?}", page.url)));
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
        return Ok(Code::Proxy(address));
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
    let entries = parse_go_imports(&page.body);
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
    select_go_import(entries, path.as_str()).map_err(|none| {
        let detail = match none {
            NoGoImport::Several => format!("{}: several go-imports match {path}", page.url),
            NoGoImport::NoMatch(others) => {
                format!(
                    "{}: no go-import for {path}, only for {}",
                    page.url,
                    others[..others.len().min(3)].join(", ")
                )
            }
        };
        Fault::new(ErrorClass::NotFound, Stage::Http, detail)
    })
}

#[cfg(test)]
mod tests;
