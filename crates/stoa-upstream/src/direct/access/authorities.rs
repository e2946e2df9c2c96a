//! Whom git trusts. It takes one file of authorities instead of the system's, so that the settings' alone would make it
//! distrust everybody else.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::Error;

const NAME: &str = "authorities.pem";
const LINE: usize = 64;

/// Writes the system's authorities and those of `files` into one file in `directory`.
pub(super) fn bundle(files: &[PathBuf], directory: &Path) -> Result<PathBuf, Error> {
    let mut pem = String::new();
    // A system without any is told about where somebody needs them.
    for certificate in rustls_native_certs::load_native_certs().certs {
        pem += "-----BEGIN CERTIFICATE-----\n";
        let text = STANDARD.encode(&certificate);
        for line in text.as_bytes().chunks(LINE) {
            pem += &String::from_utf8_lossy(line);
            pem.push('\n');
        }
        pem += "-----END CERTIFICATE-----\n";
    }
    for file in files {
        pem += &fs_err::read_to_string(file).map_err(Error::ReadAuthorities)?;
        pem.push('\n');
    }
    let path = directory.join(NAME);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(pem.as_bytes())?;
        file.persist(&path)?;
        Ok(())
    };
    write().map_err(Error::GitDirectory)?;
    Ok(path)
}
