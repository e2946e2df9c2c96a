//! What the user's own configuration of git says.

use crate::direct::access::RemoteEnv;
use crate::direct::command::{Ended, Run};
use crate::direct::repositories::Repositories;
use crate::direct::words;
use crate::failure::Fault;

impl Repositories {
    /// Where an address leads by the `insteadOf` of the user's configuration.
    pub(super) async fn address(&self, url: &str) -> Result<String, Fault> {
        let args = ["ls-remote", "--get-url", "--end-of-options", url];
        let ask = async {
            let (ended, text) = self.ask_here(&args).await?;
            if ended.is_success() {
                Ok(text.trim_end().to_owned())
            } else {
                Err(words::fault(&ended.words))
            }
        };
        self.remembered(&args, ask).await
    }

    /// What the user's configuration says; empty if nothing. `args` are those of `git config`.
    pub(super) async fn configured(&self, args: &[&str]) -> Result<String, Fault> {
        let all: Vec<&str> = ["config"].into_iter().chain(args.iter().copied()).collect();
        let ask = async {
            let (ended, text) = self.ask_here(&all).await?;
            Ok(if ended.is_success() { text } else { String::new() })
        };
        self.remembered(&all, ask).await
    }

    /// Runs a command that speaks to nobody, with the user's configuration.
    async fn ask_here(&self, args: &[&str]) -> Result<(Ended, String), Fault> {
        let env = RemoteEnv::default();
        let run = Run::configured(&env, &self.inner.settings).args(args);
        let (ended, output) = self.inner.git.output(run).await?;
        Ok((ended, String::from_utf8_lossy(&output).into_owned()))
    }

    /// Answers from memory what was answered within [`GitSettings::refs_ttl`]: the user's configuration hardly ever changes,
    /// and every operation depends on it.
    async fn remembered(
        &self,
        args: &[&str],
        ask: impl Future<Output = Result<String, Fault>>,
    ) -> Result<String, Fault> {
        let key: Vec<Box<str>> = args.iter().map(|&arg| arg.into()).collect();
        if let Some(known) = self.inner.configured.get(&key) {
            return Ok(known);
        }
        let text = ask.await?;
        self.inner.configured.insert(key, text.clone());
        Ok(text)
    }
}
