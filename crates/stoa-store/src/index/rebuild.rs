//! The pass over every sidecar.

use std::path::{Path, PathBuf};

use stoa_module::ModulePath;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::Row;
use crate::{files::Files, lists::names};

/// Rows in flight from the pass to the writer.
pub(super) const BACKLOG: usize = 256;

/// Walks `cache/download`, sends each artifact's row, and makes each `list` and `.ziphash` agree with the sidecars. Blocks.
/// True when everything was seen: not interrupted, nothing unreadable.
pub(super) fn walk(
    files: &Files,
    rows: &mpsc::Sender<Row>,
    closing: &watch::Receiver<bool>,
) -> bool {
    let root = files.layout.download();
    let mut whole = true;
    // Directories still to be read, deepest last: memory follows the breadth of the open branches, not the tree.
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        if *closing.borrow() || rows.is_closed() {
            return false;
        }
        let children = match names(&root.join(&below)) {
            Ok(children) => children,
            Err(error) => {
                warn!(%error, "a directory of the cache cannot be read");
                whole = false;
                continue;
            }
        };
        for child in children {
            if child == "@v" {
                whole &= visit(files, &below, rows);
            } else if below != Path::new("") || child != "sumdb" {
                let child = below.join(child);
                if root.join(&child).is_dir() {
                    open.push(child);
                }
            }
        }
    }
    whole && !rows.is_closed()
}

fn visit(files: &Files, below: &Path, rows: &mpsc::Sender<Row>) -> bool {
    // What is no module path holds no sidecar of ours.
    let Some(Ok(path)) = below.to_str().map(ModulePath::parse_escaped) else { return true };
    let mut whole = true;
    let reconciled = files.reconcile(&path, |module, sidecar| {
        for (artifact, record) in sidecar.records() {
            let row = Row { module: module.clone(), artifact, record: Some(record.clone()) };
            whole &= rows.blocking_send(row).is_ok();
        }
    });
    if let Err(error) = reconciled {
        warn!(module.path = %path, %error, "a module of the cache cannot be read");
        return false;
    }
    whole
}
