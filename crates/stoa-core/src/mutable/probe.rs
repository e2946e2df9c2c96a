//! Probes of paths that are no modules, while no source answers.

use std::sync::Arc;

use stoa_module::{ErrorClass, ModulePath};

use crate::error::Error;
use crate::mirror::Mirror;

impl Mirror {
    /// The go command asks for a package under every prefix of its path, and one that fails otherwise than by 404 fails
    /// the build. So when no source answers, and a shorter path is a module that is stored, a longer one is taken to be
    /// a directory of it.
    pub(super) async fn softened(&self, path: &ModulePath, error: Arc<Error>) -> Arc<Error> {
        if !error.went_unanswered() {
            return error;
        }
        let mut shorter = path.as_str();
        while let Some((parent, _)) = shorter.rsplit_once('/') {
            shorter = parent;
            let Ok(module) = ModulePath::parse(parent) else { continue };
            if self.inner.store.versions(&module).await.is_ok_and(|versions| !versions.is_empty()) {
                let softened = Error::new(
                    ErrorClass::NotFound,
                    format!(
                        "{path}: not found in the store, which has {module}; no source answered"
                    ),
                );
                return Arc::new(
                    softened
                        .because(error.failures.clone())
                        .hint("if it is a module of its own, ask again when a source answers"),
                );
            }
        }
        error
    }
}
