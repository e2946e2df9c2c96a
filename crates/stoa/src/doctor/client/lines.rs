//! Settings as lines to paste, each quoted as its reader reads it.

use std::collections::BTreeMap;

use serde::Serialize;

/// The same settings for each kind of machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lines {
    pub sh: Vec<String>,
    pub powershell: Vec<String>,
    pub dockerfile: Vec<String>,
    /// The `env:` block of a workflow, a job or a step.
    pub github_actions: Vec<String>,
    /// The `variables:` block of a pipeline or a job.
    pub gitlab_ci: Vec<String>,
    /// For a shell, and for good: the go command stores them.
    pub go_env: Vec<String>,
}

impl Lines {
    /// `hides`: whether a variable of the environment is stronger than what `go env -w` stores.
    pub(super) fn new(set: &BTreeMap<&'static str, String>, hides: impl Fn(&str) -> bool) -> Self {
        if set.is_empty() {
            return Self::default();
        }
        let each = |line: fn(&str, &str) -> String| -> Vec<String> {
            set.iter().map(|(name, value)| line(name, value)).collect()
        };
        let block = |title: &str, line: fn(&str, &str) -> String| -> Vec<String> {
            std::iter::once(format!("{title}:")).chain(each(line)).collect()
        };
        Self {
            sh: each(|name, value| format!("export {name}={}", sh(value))),
            powershell: each(|name, value| format!("$env:{name} = {}", powershell(value))),
            dockerfile: each(|name, value| format!("ENV {name}={}", dockerfile(value))),
            github_actions: block("env", |name, value| {
                // `${{` begins an expression, also inside quotes.
                format!("  {name}: {}", yaml(&value.replace("${{", "${{ '${{' }}")))
            }),
            gitlab_ci: block("variables", |name, value| {
                // `$` begins a variable, also inside quotes.
                format!("  {name}: {}", yaml(&value.replace('$', "$$")))
            }),
            go_env: go_env(set, hides),
        }
    }
}

fn go_env(set: &BTreeMap<&'static str, String>, hides: impl Fn(&str) -> bool) -> Vec<String> {
    let own: Vec<_> = set.iter().filter(|(name, _)| name.starts_with("GO")).collect();
    if own.is_empty() {
        return Vec::new();
    }
    let names = own.iter().map(|(name, _)| **name).chain(["GOENV"]);
    let hiding: Vec<&str> = names.filter(|name| hides(name)).collect();
    let values: Vec<String> =
        own.iter().map(|(name, value)| sh(&format!("{name}={value}"))).collect();
    let unset = (!hiding.is_empty()).then(|| format!("unset {}", hiding.join(" ")));
    unset.into_iter().chain([format!("go env -w {}", values.join(" "))]).collect()
}

fn sh(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// To PowerShell, typographic quotes are quotes as well.
fn powershell(text: &str) -> String {
    let mut quoted = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '‘' | '’' | '‚' | '‛') {
            quoted.push(c);
        }
        quoted.push(c);
    }
    quoted + "'"
}

fn dockerfile(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

/// Quoted always: `off` would be a truth value, and `*` the name of something.
fn yaml(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
