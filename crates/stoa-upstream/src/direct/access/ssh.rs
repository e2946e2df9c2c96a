//! How git is told to run ssh.

use std::path::PathBuf;

use stoa_module::ErrorClass;

use crate::failure::{Fault, Stage};
use crate::settings::SshKey;

/// Nobody is there to answer, and no other connection of this user is shared.
pub(super) const SSH: &str = "ssh -oBatchMode=yes -oControlMaster=no -oConnectTimeout=10 -oForwardAgent=no \
                   -oClearAllForwardings=yes";

/// The command for ssh, unless the user has one of their own and the settings have no key.
pub(super) fn ssh_command(
    key: Option<&SshKey>,
    user_has_one: bool,
) -> Result<Option<String>, Fault> {
    let Some(SshKey { key_file, known_hosts_file, .. }) = key else {
        return Ok((!user_has_one).then(|| SSH.to_owned()));
    };
    let quoted = |path: &PathBuf| match path.to_str() {
        // As ssh reads the value of an option: a word of its own, for a shell and then for ssh.
        Some(path) if !path.contains(['"', '\n', '%', '\\']) => {
            Ok(format!("'\"{}\"'", path.replace('\'', r"'\''")))
        }
        _ => {
            let detail =
                format!("git: ssh cannot be given a file of this name: {}", path.display());
            Err(Fault::new(ErrorClass::Internal, Stage::Local, detail))
        }
    };
    let key_file = quoted(key_file)?;
    let own = format!("-oIdentitiesOnly=yes -oIdentityAgent=none -oIdentityFile={key_file}");
    let Some(file) = known_hosts_file else { return Ok(Some(format!("{SSH} {own}"))) };
    let file = quoted(file)?;
    Ok(Some(format!(
        "{SSH} {own} -oUserKnownHostsFile={file} -oGlobalKnownHostsFile=/dev/null \
         -oStrictHostKeyChecking=yes"
    )))
}
