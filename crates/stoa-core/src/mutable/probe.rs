//! Probes of paths that are no modules, while no source answers.
//!
//! The go command asks for a package under every prefix of its path: for a list, for what a branch stands for, or, when
//! it is to get one version of the package, for the `.info` of that version. It goes on with the longest prefix that is
//! a module with the package in it. A longer one that failed otherwise than by 404 fails the command; a shorter one does
//! not.

use std::sync::Arc;

use stoa_module::{ErrorClass, ModulePath, ModuleVersion, Version};

use crate::error::Error;
use crate::mirror::Mirror;

impl Mirror {
    /// What a probe is answered with that no source answered. When a shorter path is a module that is stored (in that
    /// very version, if one is asked for), a longer one is taken to be a directory of it.
    pub(crate) async fn softened(
        &self,
        path: &ModulePath,
        version: Option<&Version>,
        error: Arc<Error>,
    ) -> Arc<Error> {
        // Of which something is stored is a module.
        if !error.went_unanswered() || self.has(path, None).await {
            return error;
        }
        let mut shorter = path.as_str();
        while let Some((parent, _)) = shorter.rsplit_once('/') {
            shorter = parent;
            let Ok(module) = ModulePath::parse(parent) else { continue };
            if self.has(&module, version).await {
                let at = version.map_or_else(String::new, |version| format!("@{version}"));
                let text = format!(
                    "{path}{at}: not found in the store, which has {module}{at}; no source answered"
                );
                let softened =
                    Error::new(ErrorClass::NotFound, text).because(error.failures.clone());
                return Arc::new(
                    softened.hint("if it is a module of its own, ask again when a source answers"),
                );
            }
        }
        error
    }

    /// Whether anything of that version is stored, or of any.
    async fn has(&self, path: &ModulePath, version: Option<&Version>) -> bool {
        let store = &self.inner.store;
        match version {
            Some(version) => match ModuleVersion::new(path.clone(), version.clone()) {
                Ok(module) => store.sidecar(&module).await.is_ok_and(|sidecar| sidecar.is_some()),
                Err(_) => false,
            },
            // The first is quick, and knows only of versions with an `.info`.
            None => {
                store.versions(path).await.is_ok_and(|versions| !versions.is_empty())
                    || store.stored_versions(path).await.is_ok_and(|stored| !stored.is_empty())
            }
        }
    }
}
