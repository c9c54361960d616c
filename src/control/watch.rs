//! Watches the files of a configuration and asks for a reload when one of them changed.
//!
//! Folders are watched and not files, because editors and Kubernetes replace files: a ConfigMap is a symbolic link to a
//! folder that is swapped. What counts is therefore what the paths show, compared after each event and its aftershocks.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify_debouncer_full::notify::{self, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, new_debouncer};
use tokio::sync::mpsc;

use super::supervisor::{Supervisor, Trigger};

/// How long a burst of changes may go on before it is looked at.
const SETTLE: Duration = Duration::from_millis(200);

/// What a path shows: where it leads, its size and its time of change.
type Look = Option<(PathBuf, u64, Option<SystemTime>)>;

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
    let mut looks = look_at(&supervisor.files());
    loop {
        let wanted = folders_of(looks.keys());
        for gone in folders.difference(&wanted) {
            let _ = debouncer.unwatch(gone);
        }
        for new in wanted.difference(&folders) {
            if let Err(error) = debouncer.watch(new, RecursiveMode::NonRecursive) {
                unwatched(new, &error);
            }
        }
        folders = wanted;
        let now = look_at(&supervisor.files());
        if now == looks {
            if changed.recv().await.is_none() {
                return;
            }
            continue;
        }
        // An error is on the log and in the status already.
        let _ = supervisor.reload(Trigger::File).await;
        // What changed while it was read counts as not seen yet; only files that are new are looked at now.
        let new = look_at(&supervisor.files());
        looks = new.into_iter().map(|(file, look)| (file.clone(), now.get(&file).cloned().unwrap_or(look))).collect();
    }
}

fn unwatched(folder: &Path, error: &notify::Error) {
    tracing::warn!(folder = %folder.display(), %error, "a folder of the configuration is not watched");
}

fn look_at(files: &[PathBuf]) -> HashMap<PathBuf, Look> {
    files.iter().map(|file| (file.clone(), look(file))).collect()
}

fn look(file: &Path) -> Look {
    let target = std::fs::canonicalize(file).ok()?;
    let metadata = std::fs::metadata(&target).ok()?;
    Some((target, metadata.len(), metadata.modified().ok()))
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
        let before = look(&root.join("gateway.toml"));
        std::fs::create_dir(root.join("..data_2")).expect("created");
        std::fs::write(root.join("..data_2/gateway.toml"), "").expect("written");
        std::os::unix::fs::symlink("..data_2", root.join("..new")).expect("linked");
        std::fs::rename(root.join("..new"), root.join("..data")).expect("swapped");
        assert_ne!(look(&root.join("gateway.toml")), before);
    }
}
