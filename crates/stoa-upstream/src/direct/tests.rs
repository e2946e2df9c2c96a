//! Against real repositories, with the answers of the real go command.

mod against_go;
mod fetching;
mod harm;
mod odd;
mod room;
mod vectors;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use stoa_module::{CheckedZip, ModulePath, ModuleVersion, Version, ZipLimits, check_zip};
use stoa_testkit::GitRemotes;
use tempfile::TempDir;

use crate::direct::access::RemoteEnv;
use crate::direct::repositories::{RemoteAccess, Repositories};
use crate::direct::{CodeModule, GitSettings};
use crate::discovery::CodeRoot;
use crate::failure::Fault;

/// Leads git to the repositories of a test.
#[derive(Debug, Default)]
pub(super) struct Access {
    env: RemoteEnv,
}

impl Access {
    fn to(remotes: &GitRemotes) -> Arc<dyn RemoteAccess> {
        let os = |text: String| OsString::from_vec(text.into_bytes());
        let envs = remotes.environment().into_iter().map(|(name, value)| (os(name), os(value)));
        Arc::new(Self { env: RemoteEnv { envs: envs.collect(), ..RemoteEnv::default() } })
    }
}

impl RemoteAccess for Access {
    fn is_named(&self) -> bool {
        true
    }

    fn prepare<'a>(
        &'a self,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<RemoteEnv, Fault>> + Send + 'a>> {
        Box::pin(async { Ok(self.env.clone()) })
    }

    fn follow<'a>(
        &'a self,
        _: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), Fault>> + Send + 'a>> {
        Box::pin(async { Ok(()) })
    }
}

/// A server's repositories, empty at first.
struct Direct {
    repositories: Repositories,
    access: Arc<dyn RemoteAccess>,
    directory: Arc<TempDir>,
}

impl Direct {
    fn new(remotes: &GitRemotes, settings: GitSettings) -> Self {
        Self::with_path(remotes, settings, &std::env::var("PATH").unwrap())
    }

    /// Where commands are looked for elsewhere.
    fn with_path(remotes: &GitRemotes, settings: GitSettings, path: &str) -> Self {
        let directory = Arc::new(tempfile::tempdir().unwrap());
        Self::at(directory, remotes, settings, path)
    }

    /// Another process in the same directory.
    fn again(&self, remotes: &GitRemotes) -> Self {
        let path = std::env::var("PATH").unwrap();
        Self::at(self.directory.clone(), remotes, GitSettings::default(), &path)
    }

    fn at(
        directory: Arc<TempDir>,
        remotes: &GitRemotes,
        settings: GitSettings,
        path: &str,
    ) -> Self {
        let environment = [("PATH".into(), path.into())];
        let repositories = Repositories::new(directory.path(), settings, environment).unwrap();
        Self { repositories, access: Access::to(remotes), directory }
    }

    /// The bare repository, where there is one.
    fn repository(&self) -> PathBuf {
        let entries = fs_err::read_dir(self.directory.path()).unwrap();
        let is_repository = |path: &PathBuf| path.join("HEAD").exists();
        entries.map(|entry| entry.unwrap().path()).find(is_repository).unwrap()
    }

    fn module(&self, path: &str) -> CodeModule {
        let root: Vec<&str> = path.split('/').take(3).collect();
        let root = root.join("/");
        self.module_at(
            path,
            &CodeRoot { url: format!("https://{root}"), root, subdir: String::new() },
        )
    }

    fn module_at(&self, path: &str, code: &CodeRoot) -> CodeModule {
        let path = ModulePath::parse(path).unwrap();
        let repository = self.repositories.open(code, self.access.clone()).unwrap();
        CodeModule::new(&path, code, repository).unwrap()
    }
}

async fn zip_of(module: &CodeModule, path: &str, version: &Version) -> Result<CheckedZip, Fault> {
    let file = fs_err::tokio::File::from_parts(tempfile::tempfile().unwrap().into(), "a zip");
    module.zip(version, &file, 500 << 20).await?;
    let zip = file.into_parts().0.into_std().await;
    let module = ModuleVersion::new(ModulePath::parse(path).unwrap(), version.clone()).unwrap();
    Ok(check_zip(zip, &module, &ZipLimits::default()).unwrap())
}
