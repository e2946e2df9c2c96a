//! What becomes of one module's repository, for a person who wants to know: the questions that requests ask, each asked
//! once and its answer told in git's own words.

use std::path::Path;
use std::time::Duration;

use stoa_module::{ErrorClass, ModulePath};
use url::Url;

use crate::direct::access::{Grant, Located, Remote};
use crate::direct::command::{Run, Wanted};
use crate::direct::modules::DirectModules;
use crate::direct::repositories::RemoteAccess as _;
use crate::direct::words;
use crate::discovery::{Code, CodeRoot, discover};
use crate::failure::{Fault, Stage};
use crate::source::{redacted, redacted_text};

/// Where git is sent.
pub(crate) struct Way {
    /// The host, as `scheme://host:port`. None for a directory of this machine.
    pub(crate) host: Option<Url>,
    /// A setting names the module and its host, which may be wherever it is.
    pub(crate) is_ours: bool,
    /// The address, as it may be shown.
    pub(crate) shown: String,
    /// Which credential or key goes with it, and from where it is.
    pub(crate) credential: String,
}

impl DirectModules {
    /// Where the module's code is.
    pub(crate) async fn discovered(&self, path: &ModulePath) -> Result<Code, Fault> {
        discover(path, self.rules(), self.pages()).await
    }

    /// `2.43.0`.
    pub(crate) async fn git_version(&self) -> Result<String, Fault> {
        let inner = &self.repositories().inner;
        let run = Run::local(Path::new("/nonexistent"), &inner.settings).args(["version"]);
        let (ended, output) = inner.git.output(run).await?;
        if !ended.is_success() {
            return Err(words::fault(&ended.words));
        }
        let text = String::from_utf8_lossy(&output);
        let text = text.trim();
        Ok(text.strip_prefix("git version ").unwrap_or(text).to_owned())
    }

    /// Where git is sent for the repository at an address, and as whom.
    pub(crate) async fn way(&self, path: &ModulePath, url: &str) -> Result<Way, Fault> {
        let about = self.rules().about(path);
        let access = self.access();
        let Located { remote, key, address } = access.locate(url, about).await?;
        let is_ours = access.is_ours(&remote, about);
        let shown = redacted_text(address.as_deref().unwrap_or(url));
        let credential = match &remote {
            _ if !about.is_named => "none: no setting names the module".to_owned(),
            Remote::Http(url) => access
                .credential_origin(url)
                .await
                .unwrap_or_else(|| "none, but for git's own credential helpers".to_owned()),
            Remote::Ssh { .. } => match key {
                Some(key) => {
                    let (file, prefix) = (key.key_file.display(), redacted(&key.prefix));
                    format!("ssh key {file}, upstream.credential {prefix}")
                }
                None => "the ssh keys and settings of the server's user".to_owned(),
            },
            Remote::Local | Remote::Other { .. } => "none".to_owned(),
        };
        let scheme = match &remote {
            Remote::Http(url) => url.scheme(),
            _ => "ssh",
        };
        let host = remote.host().and_then(|(host, port)| {
            let host = match host {
                bare if bare.contains(':') && !bare.starts_with('[') => format!("[{bare}]"),
                host => host.to_owned(),
            };
            Url::parse(&format!("{scheme}://{host}:{port}/")).ok()
        });
        Ok(Way { host, is_ours, shown, credential })
    }

    /// Lists the refs of a repository, and tells how many there are. A fault has git's own words, also about
    /// what others may not see: whoever examines may read the server's log.
    pub(crate) async fn list_once(
        &self,
        path: &ModulePath,
        code: &CodeRoot,
        bound: Duration,
    ) -> Result<usize, Fault> {
        let about = self.rules().about(path);
        let grant = Grant { access: self.access().clone(), about };
        // It is looked at as requests have it looked at; nothing is made.
        self.repositories().open(code, std::sync::Arc::new(grant.clone()))?;
        let inner = &self.repositories().inner;
        let mut is_redirected = false;
        loop {
            let env = grant.prepare(&code.url).await?;
            let address = env.address.as_deref().unwrap_or(&code.url);
            let run = Run::remote(None, &env, &inner.settings).within(bound).args([
                "ls-remote",
                "-q",
                "--end-of-options",
                address,
            ]);
            let mut lines = 0;
            let mut count = |bytes: &[u8]| {
                lines += bytes.split(|&byte| byte == b'\n').skip(1).count();
                if lines > inner.settings.max_refs { Wanted::Enough } else { Wanted::More }
            };
            let ended = inner.git.run(run, &mut count).await?;
            if ended.is_success() {
                return Ok(lines);
            }
            if words::is_redirect(&ended.words) {
                if is_redirected {
                    let detail = format!("git: {} redirects on and on", code.url);
                    return Err(Fault::new(ErrorClass::Corrupt, Stage::Git, detail));
                }
                is_redirected = true;
                grant.follow(&code.url).await?;
                continue;
            }
            let fault = words::of_remote(&ended.words, &env);
            return Err(Fault { text: words::own_words(&ended.words), ..fault });
        }
    }
}
