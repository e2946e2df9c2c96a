//! What a person has looked at anew: a module, a version of it, or a branch.

use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use stoa_module::{
    Artifact, ErrorClass, Info, ModulePath, ModuleVersion, Query, Version, parse_list,
};
use stoa_store::AnswerKey;

use crate::answer::Wish;
use crate::error::Error;
use crate::mirror::{Mirror, asked_answer, query_key, refuse_impossible};

/// What is to be looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    Module(ModulePath),
    Version(ModuleVersion),
    /// A branch, or a tag or hash that is no version.
    Query(ModulePath, Query),
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Refreshed {
    pub looks: Vec<Look>,
    /// The sources have it: a list or an `@latest`, every small file of the version, or what the branch stands for.
    pub found: bool,
}

#[derive(Clone, Debug)]
pub struct Look {
    /// `list`, `@latest`, `.info`, `.mod`, or the query.
    pub asked: String,
    /// For people: what is known of it now, in a few words.
    pub outcome: Result<String, Arc<Error>>,
}

impl Subject {
    /// `MODULE`, `MODULE@latest`, `MODULE@VERSION` or `MODULE@BRANCH`.
    ///
    /// # Errors
    /// One line that names what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (path, version) = text.split_once('@').unwrap_or((text, "latest"));
        let path = ModulePath::parse(path).map_err(|error| format!("{text}: {error}"))?;
        if version == "latest" {
            return Ok(Self::Module(path));
        }
        if let Ok(version) = Version::parse(version) {
            let module = ModuleVersion::new(path, version);
            return module.map(Self::Version).map_err(|error| format!("{text}: {error}"));
        }
        let query = Query::parse(version).map_err(|error| format!("{text}: {error}"))?;
        Ok(Self::Query(path, query))
    }

    pub fn path(&self) -> &ModulePath {
        match self {
            Self::Module(path) | Self::Query(path, _) => path,
            Self::Version(module) => module.path(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(path) => path.fmt(f),
            Self::Version(module) => module.fmt(f),
            Self::Query(path, query) => write!(f, "{path}@{query}"),
        }
    }
}

impl Mirror {
    /// Has the sources asked now about the list, `@latest` and what else `subject` names, and everything else that is
    /// kept of the module at its next use. No verdict on it stands any more, a contradiction neither; what was absent
    /// is still known to have been, for while no source answers. Nothing that is stored is deleted.
    ///
    /// # Errors
    /// Nobody can be asked: offline, a route that refuses it, or a path that can be no module.
    pub async fn refresh(&self, subject: &Subject) -> Result<Refreshed, Arc<Error>> {
        let (path, asked) = (subject.path(), subject.to_string());
        self.refuse_by_route(path, &asked)?;
        refuse_impossible(path, &asked)?;
        if self.inner.settings.offline {
            let error = Error::new(ErrorClass::Denied, format!("{asked}: the server is offline"));
            return Err(Arc::new(error));
        }
        self.inner.verdicts.lapse(path);
        self.inner.refreshed.insert(path.clone(), jiff::Timestamp::now());
        let own = async {
            match subject {
                Subject::Module(_) => Vec::new(),
                Subject::Version(module) => {
                    let looks =
                        [Artifact::Info, Artifact::Mod].map(|one| self.look_at(module, one));
                    join_all(looks).await
                }
                Subject::Query(path, query) => {
                    vec![self.look_anew(query.to_string(), query_key(path, query)).await]
                }
            }
        };
        let (own, list, latest) = tokio::join!(
            own,
            self.look_anew("list".to_owned(), AnswerKey::List(path.clone())),
            self.look_anew("@latest".to_owned(), AnswerKey::Latest(path.clone())),
        );
        let found = if own.is_empty() {
            list.outcome.is_ok() || latest.outcome.is_ok()
        } else {
            own.iter().all(|look| look.outcome.is_ok())
        };
        Ok(Refreshed { looks: own.into_iter().chain([list, latest]).collect(), found })
    }

    async fn look_at(&self, module: &ModuleVersion, artifact: Artifact) -> Look {
        let stored = self.inner.store.sidecar(module).await.ok().flatten();
        let had = stored.is_some_and(|sidecar| sidecar.of(artifact).is_some());
        let answered =
            self.artifact(module, artifact, Wish { fresh: true, ..Wish::default() }).await;
        let words = if had { "stored already" } else { "fetched" };
        Look {
            asked: format!(".{}", artifact.extension()),
            outcome: answered.map(|_| words.to_owned()),
        }
    }

    async fn look_anew(&self, asked: String, key: AnswerKey) -> Look {
        let kept = self.look(&key, true, None, "").await;
        let outcome = kept.and_then(|kept| match &key {
            AnswerKey::List(path) => {
                let listed = parse_list(&kept.body, path);
                let newest = listed.last().map(|last| format!(", up to {}", last.version));
                let plural = if listed.len() == 1 { "" } else { "s" };
                Ok(format!("{} version{plural}{}", listed.len(), newest.unwrap_or_default()))
            }
            AnswerKey::Latest(_) | AnswerKey::Query(..) => {
                let info = Info::parse(&kept.body);
                info.map(|info| info.version.to_string()).map_err(|error| {
                    let text = format!("{}: {error}", asked_answer(&key));
                    Arc::new(Error::new(ErrorClass::Corrupt, text))
                })
            }
        });
        Look { asked, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        let check = |text: &str, expected: Result<&str, &str>| match Subject::parse(text) {
            Ok(subject) => assert_eq!(Ok(subject.to_string().as_str()), expected, "{text}"),
            Err(error) => assert!(expected.is_err_and(|words| error.contains(words)), "{error}"),
        };
        check("example.com/m", Ok("example.com/m"));
        check("example.com/m@latest", Ok("example.com/m"));
        check("example.com/m@v1.0.0", Ok("example.com/m@v1.0.0"));
        check("example.com/m/v2@v2.0.0", Ok("example.com/m/v2@v2.0.0"));
        check("example.com/m@main", Ok("example.com/m@main"));
        check("example.com/m@v2.0.0", Err("example.com/m@v2.0.0: "));
        check("example.com/m@", Err("example.com/m@: "));
        check("example.com/m@a@b", Ok("example.com/m@a@b"));
        check("m", Err("m: "));
        check("", Err(": "));
        check("example.com/M y", Err("example.com/M y: "));
        let parsed = Subject::parse("example.com/m@v1.0.0");
        assert!(matches!(parsed, Ok(Subject::Version(_))), "{parsed:?}");
    }
}
