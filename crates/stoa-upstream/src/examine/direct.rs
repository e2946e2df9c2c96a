//! A module that comes from its own repository.

use std::sync::Arc;
use std::time::Duration;

use stoa_module::{ErrorClass, ModulePath};
use tokio::time::timeout;
use url::Url;

use crate::Client;
use crate::client::names::Names;
use crate::direct::{DirectModules, GitSettings};
use crate::discovery::{Code, CodeRoot, asks_host};
use crate::examine::reach::{Allowed, Means, reach};
use crate::examine::{Begun, Course, Step, Trouble};
use crate::failure::{Fault, Stage, span};
use crate::settings::Settings;
use crate::source::{redacted, redacted_text};

/// All stages for a module.
pub(super) async fn module(client: &Client, path: &ModulePath, course: &mut Course) {
    let means = client.means();
    let direct = match fresh(means, course.limits.step).await {
        Ok(direct) => direct,
        Err(why) => {
            if let Some(begun) = course.begin(Step::Git, Duration::MAX) {
                course.end(
                    begun,
                    &format!("repositories cannot be asked: {why}"),
                    Trouble::GitRefused,
                );
            }
            return;
        }
    };
    let Some(code) = find(means, &direct.modules, path, course).await else { return };

    let Some(begun) = course.begin(Step::Git, Duration::MAX) else { return };
    match within(begun, direct.modules.git_version()).await {
        Ok(version) => course.end(begun, &format!("git {version}"), None),
        Err(fault) => return failed(course, begun, &fault),
    }
    let (root, urls) = match code {
        Code::Git(code) => return repository(means, &direct.modules, path, &code, course).await,
        Code::GitByScheme { root, urls } => (root, urls),
        // It was reached, and is asked as other proxies are.
        Code::Proxy(_) => return,
    };
    let first = course.examined.steps.len();
    for url in urls {
        let code = CodeRoot { root: root.clone(), url, subdir: String::new() };
        repository(means, &direct.modules, path, &code, course).await;
        let last = course.examined.steps.last().and_then(|last| last.trouble);
        if last.is_none() {
            // So it is no matter that another address did not do.
            return forgive(course, first, "another address did");
        }
        if last == Some(Trouble::NotPublic) {
            return;
        }
    }
}

/// Modules of which nothing is known yet, so that nobody's answer is an old one. Their repositories would be in a directory
/// that goes with them: an examination may run as another user than the server, beside it.
struct Fresh {
    modules: DirectModules,
    _directory: tempfile::TempDir,
}

async fn fresh(means: &Means, step: Duration) -> Result<Fresh, String> {
    let git = &means.settings.git;
    let git = GitSettings {
        queue_timeout: git.queue_timeout.min(step),
        local_timeout: git.local_timeout.min(step),
        ..git.clone()
    };
    let settings = Settings { git, ..means.settings.clone() };
    let (credentials, proxies) = (Arc::clone(&means.credentials), Arc::clone(&means.proxies));
    let names = Arc::new(Names::new(Arc::clone(&means.resolver.resolver), Duration::ZERO));
    let making = tokio::task::spawn_blocking(move || {
        let directory = tempfile::Builder::new().prefix("stoa-").tempdir();
        let directory = directory.map_err(|error| error.to_string())?;
        let git_dir = Some(directory.path().to_owned());
        let settings = Settings { git_dir, ..settings };
        let modules = DirectModules::new(&settings, credentials, proxies, names);
        match modules.map_err(|error| error.to_string())? {
            Some(modules) => Ok(Fresh { modules, _directory: directory }),
            None => Err("there is no directory for repositories".to_owned()),
        }
    });
    making.await.map_err(|error| error.to_string())?
}

/// Where the module's code is. None if that cannot be found out.
async fn find(
    means: &Means,
    direct: &DirectModules,
    path: &ModulePath,
    course: &mut Course,
) -> Option<Code> {
    let rules = direct.rules();
    let about = rules.about(path);
    let first = course.examined.steps.len();
    if asks_host(path) {
        let url = Url::parse(&format!("https://{path}")).ok()?;
        let is_ours = about.is_named && rules.names_host(url.host_str()?);
        let allowed = Allowed { public_only: !is_ours, insecure: about.insecure };
        // A host that nobody has named hears nothing of a private module, not even that somebody is there.
        let may_ask = is_ours || !about.is_private;
        // Without TLS it may answer all the same.
        if may_ask && reach(means, &url, allowed, course).await.is_none() && !about.insecure {
            return None;
        }
    }
    let stage = if asks_host(path) { Step::Http } else { Step::Git };
    let begun = course.begin(stage, Duration::MAX)?;
    let code = match within(begun, direct.discovered(path)).await {
        Ok(code) => code,
        Err(fault) => {
            failed(course, begun, &fault);
            return None;
        }
    };
    forgive(course, first, "the page came all the same");
    let by = if asks_host(path) { "go-import" } else { "by the form of its path" };
    let seen = match &code {
        Code::Git(code) => {
            format!("{} is in git at {} ({by})", code.root, redacted_text(&code.url))
        }
        Code::GitByScheme { root, urls } => {
            format!("{root} is in git at {} ({by})", urls.join(" or "))
        }
        Code::Proxy(url) => format!("its host names a proxy for it: {}", redacted(url)),
    };
    course.end(begun, &seen, None);
    if let Code::Proxy(url) = &code {
        let is_ours = about.is_named && rules.names_host(url.host_str().unwrap_or_default());
        let allowed = Allowed { public_only: !is_ours, insecure: about.insecure };
        reach(means, url, allowed, course).await?;
    }
    Some(code)
}

/// The host of a repository, and what git says about it.
async fn repository(
    means: &Means,
    direct: &DirectModules,
    path: &ModulePath,
    code: &CodeRoot,
    course: &mut Course,
) {
    let about = direct.rules().about(path);
    let first = course.examined.steps.len();
    let Some(begun) = course.begin(Step::Git, Duration::MAX) else { return };
    let way = match within(begun, direct.way(path, &code.url)).await {
        Ok(way) => way,
        Err(fault) => return failed(course, begun, &fault),
    };
    if let Some(host) = &way.host {
        let allowed = Allowed { public_only: !way.is_ours, insecure: about.insecure };
        // Whatever comes of it, git may have settings of its own by which it gets there.
        _ = reach(means, host, allowed, course).await;
    }
    if course.examined.troubles().any(|trouble| trouble == Trouble::NotPublic) {
        return;
    }
    if let Some(begun) = course.begin(Step::Credential, Duration::MAX) {
        course.end(begun, &way.credential, None);
    }
    let Some(begun) = course.begin(Step::Git, Duration::MAX) else { return };
    match within(begun, direct.list_once(path, code, begun.bound)).await {
        Ok(refs) => {
            forgive(course, first, "git came through all the same");
            course.end(begun, &format!("{}: {refs} refs", way.shown), None);
        }
        Err(fault) => failed(course, begun, &fault),
    }
}

/// What comes of something within the bound of its stage.
async fn within<T>(
    begun: Begun,
    doing: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let stage = if begun.stage == Step::Git { Stage::Git } else { Stage::Http };
    timeout(begun.bound, doing).await.unwrap_or_else(|_| {
        let detail = format!("{stage}: no answer in {}", span(begun.bound));
        Err(Fault::new(ErrorClass::Timeout, stage, detail))
    })
}

/// What stood in our way did not stand in another's. Only what costs everybody time stays a fault.
fn forgive(course: &mut Course, first: usize, why: &str) {
    for observed in course.examined.steps.iter_mut().skip(first) {
        if observed.trouble.is_some_and(|trouble| trouble != Trouble::BlackHoledIpv6) {
            observed.trouble = None;
            observed.seen = super::line(&format!("{why}: {}", observed.seen));
        }
    }
}

fn failed(course: &mut Course, begun: Begun, fault: &Fault) {
    let stage = match fault.stage {
        Stage::Dns => Step::Name,
        Stage::Connect => Step::Tcp,
        Stage::Tls => Step::Tls,
        Stage::Http | Stage::Body => Step::Http,
        Stage::Git | Stage::Local => Step::Git,
    };
    let trouble = fault.trouble.unwrap_or(match fault.class {
        ErrorClass::NotFound => Trouble::NotFound,
        ErrorClass::Timeout => Trouble::HeaderTimeout,
        _ => Trouble::GitRefused,
    });
    course.end(Begun { stage, ..begun }, &fault.to_string(), trouble);
}
