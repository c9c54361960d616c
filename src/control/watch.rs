//! Watches the files of a configuration and asks for a reload when one of them changed.
//!
//! Folders are watched and not files, because editors and Kubernetes replace files: a `ConfigMap` is a symbolic link to a
//! folder that is swapped. An event only asks the question; the answer is the content, compared with what was read last.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify_debouncer_full::notify::{self, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, new_debouncer};
use tokio::sync::mpsc;

use super::supervisor::{Supervisor, Trigger};

/// How long a burst of changes may go on before it is looked at.
const SETTLE: Duration = Duration::from_millis(200);

/// Watches until the supervisor's process ends. Failing to watch is said once; SIGHUP and the admin API still reload.
pub async fn watch(supervisor: Arc<Supervisor>) {
    let (events, mut changed) = mpsc::channel::<()>(1);
    let notify = move |_: DebounceEventResult| {
        // A full channel means that a look is due anyway.
        let _ = events.try_send(());
    };
    let mut debouncer = match new_debouncer(SETTLE, None, notify) {
        Ok(debouncer) => debouncer,
        Err(error) => {
            tracing::warn!(%error, "files are not watched: reload by SIGHUP or the admin API");
            return;
        }
    };
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    loop {
        let wanted = folders_of(supervisor.files().iter());
        for gone in folders.difference(&wanted) {
            let _ = debouncer.unwatch(gone);
        }
        for new in wanted.difference(&folders) {
            if let Err(error) = debouncer.watch(new, RecursiveMode::NonRecursive) {
                unwatched(new, &error);
            }
        }
        folders = wanted;
        // Asked after the folders are watched, so that no change falls in between.
        if supervisor.is_outdated().await {
            // An error is on the log and in the status already.
            let _ = supervisor.reload(Trigger::File).await;
            continue;
        }
        if changed.recv().await.is_none() {
            return;
        }
    }
}

fn unwatched(folder: &Path, error: &notify::Error) {
    tracing::warn!(folder = %folder.display(), %error, "a folder of the configuration is not watched");
}

/// The folders in which the files stand, by every link on the way: the swap of a link happens in the link's folder.
fn folders_of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for file in files {
        let mut path = file.clone();
        for _ in 0..8 {
            if path.is_dir() {
                folders.insert(path.clone());
            }
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            folders.insert(parent.to_owned());
            let Some(next) = next_link(&path) else { break };
            path = next;
        }
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The path with its last symbolic link followed once.
fn next_link(path: &Path) -> Option<PathBuf> {
    for ancestor in path.ancestors() {
        if let Ok(target) = std::fs::read_link(ancestor) {
            let rest = path.strip_prefix(ancestor).ok()?;
            let base = ancestor.parent().unwrap_or(Path::new("."));
            return Some(base.join(target).join(rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_every_link_on_the_way_are_watched() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        std::fs::create_dir(root.join("..data_1")).expect("created");
        std::fs::write(root.join("..data_1/gateway.toml"), "").expect("written");
        std::os::unix::fs::symlink("..data_1", root.join("..data")).expect("linked");
        std::os::unix::fs::symlink("..data/gateway.toml", root.join("gateway.toml")).expect("linked");
        let folders = folders_of([root.join("gateway.toml")].iter());
        assert!(folders.contains(root), "{folders:?}");
        assert!(folders.contains(&root.join("..data_1")), "{folders:?}");
    }
}
