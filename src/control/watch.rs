//! Watches the files of a configuration and asks for a reload when one of them changed.
//!
//! Folders are watched and not files, because editors and Kubernetes replace files: a `ConfigMap` is a symbolic link to a
//! folder that is swapped. An event only asks the question; the answer is the content, compared with what was read last.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{Event, EventKind, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::supervisor::{Supervisor, Trigger};

/// How long after a change it is looked at: a burst of changes is looked at once.
const SETTLE: Duration = Duration::from_millis(200);

/// Watches until the supervisor's process ends. Failing to watch is said once; SIGHUP and the admin API still reload.
pub async fn watch(supervisor: Arc<Supervisor>) {
    let (events, mut changed) = mpsc::channel::<()>(1);
    let names = Arc::new(Mutex::new(BTreeSet::<OsString>::new()));
    let of_ours = Arc::clone(&names);
    let notify = move |result: notify::Result<Event>| {
        // A log that is written beside the configuration is none of ours, and neither is our own reading of it.
        if result.map_or(true, |event| concerns(&event, &of_ours.lock())) {
            // A full channel means that a look is due anyway.
            let _ = events.try_send(());
        }
    };
    // Bare events, and not ones that were merged: to a debouncer, a file that came and went in between is no event, but
    // it may have been read meanwhile.
    let mut watcher = match notify::recommended_watcher(notify) {
        Ok(watcher) => watcher,
        Err(error) => {
            tracing::warn!(%error, "files are not watched: reload by SIGHUP or the admin API");
            return;
        }
    };
    let mut folders: BTreeSet<PathBuf> = BTreeSet::new();
    loop {
        let files = supervisor.files();
        let wanted = folders_of(files.iter());
        *names.lock() = names_of(&files);
        for gone in folders.difference(&wanted) {
            let _ = watcher.unwatch(gone);
        }
        for new in wanted.difference(&folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
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
        tokio::time::sleep(SETTLE).await;
        // What came meanwhile is looked at now as well.
        let _ = changed.try_recv();
    }
}

/// Whether an event is a change of something that is called like one of the files, like a link on the way to one, or like
/// a configuration file that is new in a folder of them.
fn concerns(event: &Event, names: &BTreeSet<OsString>) -> bool {
    let is_ours = |path: &PathBuf| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        path.file_name().is_none_or(|name| names.contains(name))
            || extension.is_some_and(|extension| matches!(extension, "toml" | "yaml" | "yml" | "json"))
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(is_ours)
}

/// What the files, and the folders and links on the way to them, are called.
fn names_of(files: &[PathBuf]) -> BTreeSet<OsString> {
    let mut names = BTreeSet::new();
    for file in files {
        for path in links_of(file) {
            names.extend(path.components().map(|component| component.as_os_str().to_owned()));
        }
    }
    names
}

fn unwatched(folder: &Path, error: &notify::Error) {
    tracing::warn!(folder = %folder.display(), %error, "a folder of the configuration is not watched");
}

/// The folders in which the files stand, by every link on the way: the swap of a link happens in the link's folder.
fn folders_of<'a>(files: impl Iterator<Item = &'a PathBuf>) -> BTreeSet<PathBuf> {
    let mut folders = BTreeSet::new();
    for path in files.flat_map(|file| links_of(file)) {
        if path.is_dir() {
            folders.insert(path.clone());
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folders.insert(parent.to_owned());
    }
    folders.retain(|folder| folder.is_dir());
    folders
}

/// The path, and what it becomes with each symbolic link on the way followed; bounded, because links may form a ring.
fn links_of(file: &Path) -> Vec<PathBuf> {
    const MOST: usize = 8;
    std::iter::successors(Some(file.to_owned()), |path| next_link(path)).take(MOST).collect()
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
