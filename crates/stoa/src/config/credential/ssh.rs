//! Credentials that are ssh keys.

use super::super::file::Entry;
use super::super::mistakes::Collector;
use super::super::places::Places;
use super::super::show::quote;
use super::{KEY, Secret, Shown, WAYS};

const KEY_FILE: &str = "ssh-key-file";
const KNOWN_HOSTS: &str = "known-hosts-file";
/// The fields of a key; an entry with one of them is for ssh.
pub(super) const FIELDS: [&str; 2] = [KEY_FILE, KNOWN_HOSTS];

/// The key of an entry. `None`: what is wrong with it has been reported.
pub(super) fn key(
    entry: &Entry,
    places: &mut Places<'_>,
    out: &mut Collector,
) -> Option<(Secret, Vec<Shown>)> {
    let mistakes_before = out.mistakes.len();
    let others: Vec<&str> =
        WAYS.into_iter().chain(["username"]).filter(|way| entry.fields.contains_key(way)).collect();
    if !others.is_empty() && entry.fields.contains_key(KEY_FILE) {
        let problem = format!(
            "an ssh key is all that ssh is given; leave {} out (the user stands in the prefix)",
            others.join(" and ")
        );
        out.mistake(entry.origin.clone(), KEY, problem);
    }
    if !entry.fields.contains_key(KEY_FILE) {
        let origin = entry.fields.get(KNOWN_HOSTS).map_or(&entry.origin, |(_, origin)| origin);
        let problem = "goes with ssh-key-file, which is missing";
        out.mistake(origin.clone(), format!("{KEY}.{KNOWN_HOSTS}"), problem);
    }
    let mut shown = Vec::new();
    let mut file = |field: &'static str| {
        let (raw, origin) = entry.fields.get(field)?;
        let path = raw.text().and_then(|text| {
            shown.push((field, quote(&text)));
            if field == KEY_FILE { places.ssh_key(&text) } else { places.readable_file(&text) }
        });
        let key = format!("{KEY}.{field}");
        path.map_err(|problem| out.mistake(origin.clone(), key, problem)).ok()
    };
    let (key_file, known_hosts_file) = (file(KEY_FILE), file(KNOWN_HOSTS));
    if out.mistakes.len() > mistakes_before {
        return None;
    }
    Some((Secret::SshKey { key_file: key_file?, known_hosts_file }, shown))
}
