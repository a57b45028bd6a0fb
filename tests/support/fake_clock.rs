//! A wall clock that a test sets for one daemon, by libfaketime. The clocks that only count stay
//! those of the machine.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::Node;

/// The control of a daemon's wall clock.
pub struct FakeClock {
    folder: TempDir,
    library: PathBuf,
}

impl FakeClock {
    /// A clock that shows the right time.
    pub fn new() -> Self {
        let clock = Self { folder: tempfile::tempdir().unwrap(), library: library() };
        clock.set("+0");
        clock
    }

    /// Starts a daemon with this clock.
    pub fn start(&self, folder: TempDir, extra: &str) -> Node {
        let control = self.control();
        let yes = OsStr::new("1");
        let env: [(&str, &OsStr); 5] = [
            ("LD_PRELOAD", self.library.as_os_str()),
            ("FAKETIME_TIMESTAMP_FILE", control.as_os_str()),
            ("FAKETIME_NO_CACHE", yes),
            ("FAKETIME_DONT_FAKE_MONOTONIC", yes),
            ("NO_FAKE_STAT", yes),
        ];
        Node::start_with_env(folder, extra, &env)
    }

    /// Sets the clock to this offset from the right time: `-1h`, `+1d`.
    pub fn set(&self, offset: &str) {
        let fresh = self.folder.path().join("fresh");
        fs::write(&fresh, format!("{offset}\n")).unwrap();
        // The file is replaced as a whole: the daemon may read it at any moment.
        fs::rename(&fresh, self.control()).unwrap();
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }
}

fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    folders
        .map(|folder| folder.path().join(Path::new("faketime/libfaketimeMT.so.1")))
        .find(|file| file.is_file())
        .expect("this test needs libfaketime: install Debian's package faketime")
}
