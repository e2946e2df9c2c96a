//! GOVCS: which version control systems may be used for which modules.

use stoa_module::{ModulePath, Patterns};

/// The setting, with the go command's own rules behind it: git and hg for public modules, everything for private ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GoVcs {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    whom: Whom,
    systems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Whom {
    Private,
    Public,
    Named(Patterns),
}

/// Why a text is no GOVCS.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidGoVcs {
    #[error("an entry is empty")]
    EmptyEntry,
    #[error("{0:?} has no colon: an entry is PATTERN:SYSTEM|SYSTEM")]
    NoColon(String),
    #[error("{0:?} names no module")]
    NoPattern(String),
    #[error("{0:?} has an empty name of a system")]
    NoSystem(String),
    #[error("{0:?} is never reached: its pattern stands before it already")]
    Unreachable(String),
    #[error("{0:?}: {1}")]
    Pattern(String, String),
}

impl GoVcs {
    /// Reads the list; empty is the default.
    pub fn parse(text: &str) -> Result<Self, InvalidGoVcs> {
        let mut rules = Vec::new();
        let mut had = Vec::new();
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        for item in text.split(',').map(str::trim) {
            if item.is_empty() {
                return Err(InvalidGoVcs::EmptyEntry);
            }
            let own = || item.to_owned();
            let (pattern, systems) =
                item.split_once(':').ok_or_else(|| InvalidGoVcs::NoColon(own()))?;
            let pattern = pattern.trim();
            if pattern.is_empty() {
                return Err(InvalidGoVcs::NoPattern(own()));
            }
            let systems: Vec<String> =
                systems.split('|').map(|one| one.trim().to_owned()).collect();
            if systems.iter().any(String::is_empty) {
                return Err(InvalidGoVcs::NoSystem(own()));
            }
            if had.contains(&pattern) {
                return Err(InvalidGoVcs::Unreachable(own()));
            }
            had.push(pattern);
            let whom = match pattern {
                "private" => Whom::Private,
                "public" => Whom::Public,
                _ => Whom::Named(
                    Patterns::parse(pattern)
                        .map_err(|error| InvalidGoVcs::Pattern(own(), error.to_string()))?,
                ),
            };
            rules.push(Rule { whom, systems });
        }
        Ok(Self { rules })
    }

    /// Whether a system may be used for the repository whose root has this path; the first rule that names it decides.
    pub(crate) fn allows(&self, root: &ModulePath, is_private: bool, system: &str) -> bool {
        for Rule { whom, systems } in &self.rules {
            let named = match whom {
                Whom::Private => is_private,
                Whom::Public => !is_private,
                Whom::Named(patterns) => patterns.matches(root),
            };
            if named {
                return systems.iter().any(|one| one == system || one == "all");
            }
        }
        is_private || matches!(system, "git" | "hg")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let check = |text: &str, root: &str, is_private: bool, system: &str, expected: bool| {
            let rules = GoVcs::parse(text).unwrap();
            let root = ModulePath::parse(root).unwrap();
            assert_eq!(rules.allows(&root, is_private, system), expected, "{text} {root} {system}");
        };
        check("", "github.com/a/b", false, "git", true);
        check("", "github.com/a/b", false, "svn", false);
        check("", "github.com/a/b", true, "svn", true);
        check("github.com:git,evil.com:off,*:git|hg", "github.com/a/b", false, "git", true);
        check("github.com:git,evil.com:off,*:git|hg", "github.com/a/b", false, "hg", false);
        check("github.com:git,evil.com:off,*:git|hg", "evil.com/a", false, "git", false);
        check("github.com:git,evil.com:off,*:git|hg", "good.com/a", true, "hg", true);
        check("private:all, public:off", "ex.com/a", false, "git", false);
        check("private:all, public:off", "ex.com/a", true, "bzr", true);
        check("public:git", "ex.com/a", true, "bzr", true);
        check("ex.com/a : git | all", "ex.com/a/b", false, "svn", true);
    }

    #[test]
    fn mistakes() {
        let check = |text: &str, expected: InvalidGoVcs| {
            assert_eq!(GoVcs::parse(text), Err(expected), "{text}");
        };
        check("a.com:git,,b.com:git", InvalidGoVcs::EmptyEntry);
        check("a.com", InvalidGoVcs::NoColon("a.com".into()));
        check(":git", InvalidGoVcs::NoPattern(":git".into()));
        check("a.com:", InvalidGoVcs::NoSystem("a.com:".into()));
        check("a.com:git||hg", InvalidGoVcs::NoSystem("a.com:git||hg".into()));
        check("a.com:git,a.com:hg", InvalidGoVcs::Unreachable("a.com:hg".into()));
        assert!(matches!(GoVcs::parse("[:git"), Err(InvalidGoVcs::Pattern(..))));
    }
}
