//! The rules by which tags, go.mod files and a module's path make versions (`modfetch/coderepo.go` of cmd/go), without
//! anything that asks a repository.

use std::cmp::Ordering;

use stoa_module::{
    GoMod, ModulePath, PathMajor, Version, is_pseudo_version, module_line, semver, tagged_version,
};

use crate::direct::refs::{ObjectId, Refs};

/// Where in a repository a module is, by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: ModulePath,
    /// The import path of the repository's root.
    root: String,
    /// The directory, without slashes at its ends; empty for the root. A module with a path such as `…/v2` may be in the
    /// directory `v2` below it instead.
    pub(super) directory: String,
}

/// The go.mod files of a commit that decide where a module is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct GoMods<'g> {
    /// In the module's directory.
    pub(super) plain: Option<&'g [u8]>,
    /// In the directory of the major version below it.
    pub(super) major: Option<&'g [u8]>,
}

/// Where in a commit the module is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'g> {
    pub(super) directory: String,
    /// `None` where there is no go.mod file and none is needed.
    pub(super) go_mod: Option<&'g [u8]>,
}

impl Place {
    /// `subdirectory` is what the host says the root stands for. The error is for a person.
    pub(super) fn new(path: &ModulePath, root: &str, subdirectory: &str) -> Result<Self, String> {
        let outside = || format!("a repository rooted at {root} cannot contain the module {path}");
        let below = |path: &str| {
            let rest = path.strip_prefix(root)?;
            (rest.is_empty() || rest.starts_with('/')).then(|| rest.trim_matches('/').to_owned())
        };
        below(path.as_str()).ok_or_else(outside)?;
        let directory = if root == path.as_str() {
            String::new()
        } else {
            below(path.prefix()).ok_or_else(outside)?
        };
        let joined = clean(&format!("{directory}/{subdirectory}"))
            .ok_or_else(|| format!("{subdirectory:?} is no directory in a repository"))?;
        Ok(Self { path: path.clone(), root: root.to_owned(), directory: joined })
    }

    /// What tags of the module have in front of the version.
    pub(super) fn tag_prefix(&self) -> String {
        if self.directory.is_empty() { String::new() } else { format!("{}/", self.directory) }
    }

    /// The tag of a version, without `refs/tags/`.
    pub(super) fn tag(&self, version: &str) -> String {
        let version = version.strip_suffix("+incompatible").unwrap_or(version);
        format!("{}{version}", self.tag_prefix())
    }

    /// What the tags have in front of which a pseudo-version of the module depends.
    pub(super) fn pseudo_tag_prefix(&self) -> String {
        let prefix = self.tag_prefix();
        match self.major().as_str().get(1..) {
            Some(major) => format!("{prefix}{major}."),
            None => prefix,
        }
    }

    pub(super) fn major(&self) -> PathMajor<'_> {
        self.path.path_major()
    }

    /// Whether a module may be here without a go.mod file, and so with a major version that its path does not name.
    pub(super) fn is_plain_root(&self) -> bool {
        self.directory.is_empty() && self.major().is_empty()
    }

    /// The directory for the major version, if the module may be there.
    fn major_directory(&self) -> Option<String> {
        let major = self.major().as_str().strip_prefix('/')?;
        (self.root != self.path.as_str()).then(|| format!("{}{major}", self.tag_prefix()))
    }

    /// The go.mod files that decide where the module is: the plain one, and perhaps that for the major version.
    pub(super) fn go_mod_files(&self) -> Vec<String> {
        let mut files = vec![format!("{}go.mod", self.tag_prefix())];
        files.extend(self.major_directory().map(|directory| format!("{directory}/go.mod")));
        files
    }

    /// Where the module is in a commit that has these files. The error says why it is not there.
    pub(super) fn find<'g>(
        &self,
        go_mods: GoMods<'g>,
        revision: &str,
    ) -> Result<Found<'g>, String> {
        let (prefix, major) = (self.path.prefix(), self.major());
        let plain_file = format!("{}go.mod", self.tag_prefix());
        let plain_module = go_mods.plain.and_then(module_line);
        // The go command once took the path of a gopkg.in module for one without a major version (golang.org/issue/34254).
        let is_gopkg_in = major.is_empty()
            && plain_module.as_ref().is_some_and(|module| module.starts_with("gopkg.in/"));
        let plain_fits = is_gopkg_in || fits(plain_module.as_deref(), major);

        let mut no_other = String::new();
        if let Some(directory) = self.major_directory() {
            let file = format!("{directory}/go.mod");
            match go_mods.major {
                Some(text) => {
                    let module = module_line(text);
                    let fits = fits(module.as_deref(), major);
                    if fits && plain_fits {
                        return Err(format!(
                            "{plain_file} and {file} both have ...{} module paths at revision {revision}",
                            major.as_str()
                        ));
                    }
                    if fits {
                        return Ok(Found { directory, go_mod: go_mods.major });
                    }
                    return Err(match module {
                        None => format!("{file} has no module path at revision {revision}"),
                        Some(module) => format!(
                            "{file} has the module path {module:?}, which does not end in {}, at \
                             revision {revision}",
                            major.as_str()
                        ),
                    });
                }
                None => no_other = format!(", and there is no {file},"),
            }
        }
        match (go_mods.plain, plain_module) {
            (Some(_), _) if plain_fits => {
                Ok(Found { directory: self.directory.clone(), go_mod: go_mods.plain })
            }
            (Some(_), None) => {
                Err(format!("{plain_file} has no module path{no_other} at revision {revision}"))
            }
            (Some(_), Some(module)) => Err(if major.is_empty() {
                format!(
                    "{plain_file} has the module path {module:?}, which is for another major version, \
                     at revision {revision}"
                )
            } else {
                format!(
                    "{plain_file} has the module path {module:?}, which does not end in {}{no_other} at \
                     revision {revision}",
                    major.as_str()
                )
            }),
            // Modules older than go.mod files are the roots of their repositories.
            (None, _) if self.directory.is_empty() && !major.as_str().starts_with('/') => {
                Ok(Found { directory: String::new(), go_mod: None })
            }
            (None, _) if no_other.is_empty() => {
                Err(format!("there is no {prefix}/go.mod at revision {revision}"))
            }
            (None, _) => Err(format!(
                "there is neither {prefix}/go.mod nor one in its directory {} at revision {revision}",
                &major.as_str()[1..]
            )),
        }
    }

    /// The version that a tag stands for, and whether it is written just so. `None` for a tag of another module, or one
    /// that looks like a pseudo-version.
    pub(super) fn version_of(&self, tag: &str) -> Option<(String, bool)> {
        let trimmed = tag.strip_prefix(&self.tag_prefix())?;
        // With its prefix: so the go command does it, and a tag `sub/v0.0.0-…` counts.
        if is_pseudo_version(tag) {
            return None;
        }
        tagged_version(trimmed)
    }

    /// The versions that the tags give, sorted: those that fit the path, and those with a higher major version, which
    /// are versions if there is no go.mod file.
    pub(super) fn tagged(&self, refs: &Refs) -> Tagged {
        let mut tagged = Tagged::default();
        if self.path.as_str().starts_with("gopkg.in/") && self.path.as_str().ends_with("-unstable")
        {
            // Its tags would be those of the stable one.
            return tagged;
        }
        let prefix = self.tag_prefix();
        for (tag, _) in refs.tags() {
            let Some(version) = tag.strip_prefix(&prefix) else { continue };
            if semver::canonical(version).as_deref() != Some(version) || is_pseudo_version(version)
            {
                continue;
            }
            let Ok(parsed) = Version::parse(version) else { continue };
            if self.major().allows(version) {
                tagged.fitting.push(parsed);
            } else if self.is_plain_root() && !matches!(semver::major(version), Some("v0" | "v1")) {
                tagged.higher.push(parsed);
            }
        }
        tagged.fitting.sort();
        tagged.higher.sort();
        tagged
    }
}

/// The versions that tags give, by the module's path.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tagged {
    pub(super) fitting: Vec<Version>,
    pub(super) higher: Vec<Version>,
}

impl Tagged {
    /// The highest version of each higher major. Whether it has a go.mod file decides for its whole major.
    pub(super) fn highest_of_majors(&self) -> Vec<&Version> {
        let mut highest: Vec<&Version> = Vec::new();
        for version in &self.higher {
            match highest.last_mut() {
                Some(last) if same_major(last, version) => *last = version,
                _ => highest.push(version),
            }
        }
        highest
    }

    /// All versions, those of the majors that are given with `+incompatible`, sorted.
    pub(super) fn with_incompatible(self, majors: &[&Version]) -> Vec<Version> {
        let is_taken = |version: &&Version| majors.iter().any(|major| same_major(major, version));
        let incompatible: Vec<Version> = self
            .higher
            .iter()
            .filter(is_taken)
            .filter_map(|version| Version::parse(&format!("{version}+incompatible")).ok())
            .collect();
        let mut all = self.fitting;
        all.extend(incompatible);
        all
    }

    /// The one whose go.mod file may take back versions.
    pub(super) fn retracting(&self) -> Option<&Version> {
        let release = self.fitting.iter().rfind(|version| !version.is_prerelease());
        release.or(self.fitting.last())
    }
}

fn same_major(a: &Version, b: &Version) -> bool {
    semver::major(a.as_str()) == semver::major(b.as_str())
}

/// Tags from which a pseudo-version may be derived, the highest version first.
#[derive(Debug, Default)]
pub(super) struct Bases {
    list: Vec<(String, ObjectId)>,
}

impl Bases {
    pub(super) fn new(mut list: Vec<(String, ObjectId)>) -> Self {
        list.sort_by(|(a, _), (b, _)| match semver::compare(b, a) {
            Ordering::Equal => b.cmp(a),
            order => order,
        });
        Self { list }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// For each commit the place of its highest version.
    pub(super) fn ranks(&self) -> std::collections::HashMap<ObjectId, usize> {
        // Backwards, so that the highest is the one that stays.
        self.list.iter().enumerate().rev().map(|(rank, (_, id))| (*id, rank)).collect()
    }

    pub(super) fn version(&self, rank: usize) -> Option<&str> {
        self.list.get(rank).map(|(version, _)| version.as_str())
    }
}

/// Whether the versions that a `module` line stands for are those of a path with this major version.
fn fits(module: Option<&str>, major: PathMajor<'_>) -> bool {
    let Some(of_module) = module.and_then(PathMajor::of) else { return false };
    if major.is_empty() {
        return matches!(of_module.major(), None | Some("v0" | "v1"));
    }
    !of_module.is_empty() && of_module.as_str().get(1..) == major.as_str().get(1..)
}

/// The versions that a go.mod file takes back.
pub(super) fn retracted(go_mod: &[u8]) -> impl Fn(&str) -> bool + use<> {
    let retract = GoMod::parse_lax(go_mod).retract;
    move |version| {
        retract.iter().any(|range| {
            semver::compare(&range.low, version).is_le()
                && semver::compare(version, &range.high).is_le()
        })
    }
}

/// A slash-separated path without `.`, `..` and superfluous slashes. `None` if it leads outside.
fn clean(path: &str) -> Option<String> {
    let mut elements = Vec::new();
    for element in path.split('/') {
        match element {
            "" | "." => {}
            ".." => _ = elements.pop()?,
            element => elements.push(element),
        }
    }
    Some(elements.join("/"))
}

#[cfg(test)]
mod tests;
