//! `stoa doctor --client [URL]`: do the go command's settings on this machine let it use that stoa, and if not, which
//! lines mend them?
//!
//! The go command is the judge: its settings are read by its own rules (environment, then what `go env -w` stored, then
//! its defaults), and each sentence below about what it does is what it does. Two questions are asked of the server, so
//! that what the settings cannot tell (is anybody there, is it a stoa, is its certificate accepted) is told too.
//!
//! # As JSON
//!
//! Fields are added, and never change their meaning:
//!
//! | field | |
//! |---|---|
//! | `stoa` | the address that was meant, without credentials; null if none was given and GOPROXY begins with none |
//! | `go` | the version of the go command, `go1.26.8`; null if there is none, or it did not answer |
//! | `verdict` | the worst one: `fine`, `weakens` (it is used, and something is lost) or `defeats` (it is not used, or builds fail) |
//! | `settings` | `setting`, `value`, `from` (`environment`, `go env -w`, `GOPRIVATE`, `default`), `verdict`, `says`, and `set` (`name`, `value`) if a setting mends it |
//! | `questions` | `question` (`version`, `sumdb`), `asked` (an address), `verdict`, `says`, `milliseconds` |
//! | `set` | what mends all of it, by name; if nothing is wrong, what a new machine has to set |
//! | `lines` | the same as lines to paste: `sh`, `powershell`, `dockerfile`, `github_actions`, `gitlab_ci`, `go_env` |
//!
//! Credentials are masked in each of them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use stoa_module::{ProxyList, ProxySource};
use url::Url;

use self::lines::Lines;
use self::live::{Asked, Question};
use self::machine::Machine;
use self::settings::Finding;
use crate::doctor::mask;

pub mod lines;
pub mod live;
mod machine;

pub mod settings;
mod text;

#[cfg(test)]
mod tests;

/// What something does to the use of stoa.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// It is used, but gone around now and then, or less is verified.
    Weakens,
    /// It is not asked, or builds fail.
    Defeats,
}

impl Verdict {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Weakens => "weakens",
            Self::Defeats => "defeats",
        }
    }
}

/// What was found; the fields are described at the top.
#[derive(Clone, Debug, Serialize)]
pub struct ClientReport {
    pub stoa: Option<String>,
    pub go: Option<String>,
    pub verdict: Verdict,
    pub settings: Vec<Finding>,
    pub questions: Vec<Question>,
    pub set: BTreeMap<&'static str, String>,
    pub lines: Lines,
}

/// Reads the go command's settings as they are in `cwd`, and asks the server, for at most 20 s altogether.
///
/// `url`: the stoa to use; none: the first `http` or `https` entry of GOPROXY. `env`: this process's environment.
pub async fn examine(url: Option<Url>, env: &BTreeMap<String, String>, cwd: &Path) -> ClientReport {
    let machine = Machine::read(env, cwd).await;
    let is_named = url.is_some();
    let Some(stoa) = url.or_else(|| first_proxy(&machine)) else {
        return ClientReport::new(&machine, None, settings::check(&machine, None), Vec::new());
    };
    let Asked { mut questions, is_other } = Box::pin(live::ask(&machine, &stoa)).await;
    // The first proxy of a machine that was never told of a stoa is somebody else's, and no line may set it.
    let stoa = (is_named || !is_other).then_some(&stoa);
    if stoa.is_none() {
        // What else it can do is nothing to this.
        questions.truncate(1);
        for question in &mut questions {
            question.verdict = Verdict::Defeats;
        }
    }
    ClientReport::new(&machine, stoa, settings::check(&machine, stoa), questions)
}

fn first_proxy(machine: &Machine) -> Option<Url> {
    let list = ProxyList::parse(&machine.setting("GOPROXY").value).ok()?;
    list.items.into_iter().find_map(|item| match item.source {
        ProxySource::Url(url) if url.scheme() != "file" => Some(url),
        _ => None,
    })
}

impl ClientReport {
    fn new(
        machine: &Machine,
        stoa: Option<&Url>,
        settings: Vec<Finding>,
        questions: Vec<Question>,
    ) -> Self {
        let verdicts = settings.iter().map(|finding| finding.verdict);
        let verdict = verdicts.chain(questions.iter().map(|question| question.verdict)).max();
        let verdict = verdict.unwrap_or(Verdict::Fine);
        let set = match (verdict, stoa) {
            (Verdict::Fine, Some(stoa)) => settings::of_a_new_machine(machine, stoa),
            _ => settings
                .iter()
                .filter_map(|finding| finding.set.as_ref())
                .map(|change| (change.name, change.value.clone()))
                .collect(),
        };
        let hides = |name: &str| match verdict {
            // Nobody knows what is set on a machine that is yet to come.
            Verdict::Fine => false,
            _ => machine.hides_stored(name),
        };
        let lines = Lines::new(&set, hides);
        let stoa =
            stoa.map(|stoa| mask::printable(mask::mask(stoa.as_str()).trim_end_matches('/')));
        Self { stoa, go: machine.go.clone(), verdict, settings, questions, set, lines }
    }

    /// For people. With colours only if asked for; lines have at most 120 characters, but for those to paste.
    pub fn to_text(&self, color: bool) -> String {
        text::render(self, color)
    }

    /// In one piece, with a newline at its end.
    pub fn to_json(&self) -> String {
        // It holds nothing but texts, numbers and lists of them.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{json}\n")
    }

    /// 0 if all is fine, 1 if something defeats or weakens it.
    pub fn exit(&self) -> u8 {
        u8::from(self.verdict != Verdict::Fine)
    }
}
