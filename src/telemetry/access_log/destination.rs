//! Where lines go: standard output or a file that is appended to. The only file access of the access log.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;

/// Something that takes bytes and can be opened anew.
pub(super) trait Destination: Send + 'static {
    /// Writes some of `bytes` and says how many, as [`io::Write::write`] does.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Opens it anew, after somebody has moved the file away. On failure the old one stays in use.
    fn reopen(&mut self) -> io::Result<Reopened>;
}

/// What comes of opening a destination anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reopened {
    /// The file behind the path, which may be another one.
    Another,
    /// What was open before: it has no path.
    Same,
}

/// Opens what the setting `access_log.path` names; `-` is standard output.
pub(super) fn open(path: &str) -> io::Result<Box<dyn Destination>> {
    if path == "-" {
        // a descriptor of its own, because the one of the standard library buffers
        let descriptor = io::stdout().as_fd().try_clone_to_owned()?;
        return Ok(Box::new(Stdout(File::from(descriptor))));
    }
    Ok(Box::new(LogFile { path: path.to_owned(), file: append_to(path)? }))
}

struct Stdout(File);

impl Destination for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        Ok(Reopened::Same)
    }
}

struct LogFile {
    path: String,
    file: File,
}

impl Destination for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn reopen(&mut self) -> io::Result<Reopened> {
        self.file = append_to(&self.path)?;
        Ok(Reopened::Another)
    }
}

/// Readable for the owner and its group only: lines hold addresses of people.
fn append_to(path: &str) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn content(path: &Path) -> String {
        let mut text = String::new();
        io::Read::read_to_string(&mut File::open(path).expect("the file exists"), &mut text).expect("text");
        text
    }

    #[test]
    fn a_file_is_appended_to_and_not_for_everybody() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("access.log");
        let name = path.to_str().expect("a name in UTF-8");
        open(name).expect("it opens").write(b"one\n").expect("it writes");
        open(name).expect("it opens").write(b"two\n").expect("it writes");
        assert_eq!(content(&path), "one\ntwo\n");
        let mode = File::open(&path).and_then(|file| file.metadata()).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o007, 0, "{mode:o}");
    }

    #[test]
    fn a_moved_file_is_left_at_reopen() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let mut log = open(path.to_str().expect("a name in UTF-8")).expect("it opens");
        log.write(b"one\n").expect("it writes");
        std::fs::rename(&path, &moved).expect("it moves");
        log.write(b"two\n").expect("it writes");
        log.reopen().expect("it opens anew");
        log.write(b"three\n").expect("it writes");
        assert_eq!((content(&moved).as_str(), content(&path).as_str()), ("one\ntwo\n", "three\n"));
    }

    #[test]
    fn a_failed_reopen_keeps_the_old_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("logs");
        std::fs::create_dir(&inner).expect("it is made");
        let path = inner.join("access.log");
        let mut log = open(path.to_str().expect("a name in UTF-8")).expect("it opens");
        std::fs::rename(&inner, folder.path().join("gone")).expect("it moves");
        assert!(log.reopen().is_err());
        log.write(b"one\n").expect("it still writes");
        assert_eq!(content(&folder.path().join("gone/access.log")), "one\n");
    }
}
