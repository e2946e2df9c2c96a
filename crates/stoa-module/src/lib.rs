//! The pure vocabulary of Go modules: paths, versions, patterns, requests, hashes, and the rules of module zips.
//!
//! Nothing here opens a file or a connection, and nothing panics on any input. The rules are those of the go command and
//! of golang.org/x/mod, as of Go 1.26.

mod class;
mod element;
mod escape;
mod glob;
mod go_import;
mod go_mod;
mod goproxy;
mod hash;
mod info;
mod list;
mod origin;
mod path;
mod patterns;
mod pseudo;
mod request;
pub mod semver;
mod tags;
mod text;
mod time;
mod unicode;
mod unicode_tables;
mod version;
mod zip;

pub use class::ErrorClass;
pub use element::{PathProblem, check_file_path};
pub use glob::{InvalidGlob, path_match};
pub use go_import::{GoImport, NoGoImport, parse_go_imports, select_go_import};
pub use go_mod::{GoMod, Retract, module_line};
pub use goproxy::{InvalidProxyList, ProxyItem, ProxyList, ProxySource, Separator};
pub use hash::{H1, InvalidHash, NewlineInName, Sha256};
pub use info::{Info, InvalidInfo};
pub use list::{Listed, latest_of, parse_list, render_list};
pub use origin::{Origin, RevisionInfo};
pub use path::{InvalidModulePath, ModulePath, PathMajor};
pub use patterns::{InvalidPattern, Patterns};
pub use pseudo::{
    InvalidPseudoVersion, PseudoClaim, compact_time, is_pseudo_version, pseudo_version,
};
pub use request::{InvalidRequest, Request};
pub use tags::{tag_sum, tagged_version};
pub use version::{
    Artifact, InvalidModuleVersion, InvalidQuery, InvalidVersion, ModuleVersion, PseudoVersion,
    Query, Version, VersionMismatch,
};
pub use zip::{
    CheckedZip, CreateZipError, EntryProblem, ZipError, ZipLimits, check_zip, create_zip,
};
