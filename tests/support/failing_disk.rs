//! A disk that fails or waits on demand: a library that is preloaded into the daemon.

use std::{
    ffi::OsStr,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::Node;

pub const ENOSPC: i32 = 28;
pub const EIO: i32 = 5;

const CONTROL_BYTES: usize = 128;
const SEEN_AT: u64 = 16;
const KINDS_AT: u64 = 20;
const PART_AT: u64 = 24;

/// The control of a daemon's disk.
pub struct FailingDisk {
    folder: TempDir,
    control: File,
}

/// Kinds of disk calls, as bits of `Fault::kinds`.
pub const WRITES: i32 = 2;
pub const SYNCS: i32 = 4;
/// Opens, writes, syncs and renames.
pub const ALL: i32 = 15;
/// Calls that look at a file or folder without opening it.
pub const LOOKS: i32 = 16;

/// What happens to disk calls.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The first call that fails or waits, counted from 1 since the fault was set.
    pub first: i32,
    /// How many calls fail or wait, from the first one on.
    pub count: i32,
    /// The `errno` of these calls; 0 if they only wait.
    pub error: i32,
    /// How long they wait.
    pub delay_ms: i32,
    /// The kinds of calls that are counted.
    pub kinds: i32,
}

impl FailingDisk {
    /// A disk without a fault.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_disk.c");
        let built = Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([library(&folder), source])
            .arg("-ldl")
            .status();
        assert!(built.expect("this test needs cc: install Debian's package gcc").success());
        let path = folder.path().join("control");
        std::fs::write(&path, [0; CONTROL_BYTES]).unwrap();
        let control = File::options().read(true).write(true).open(path).unwrap();
        Self { folder, control }
    }

    /// Starts a daemon on this disk.
    pub fn start(&self, folder: TempDir, extra: &str) -> Node {
        let (library, control) = (library(&self.folder), self.folder.path().join("control"));
        let env: [(&str, &OsStr); 2] =
            [("LD_PRELOAD", library.as_os_str()), ("FAILING_DISK", control.as_os_str())];
        Node::start_with_env(folder, extra, &env)
    }

    /// From now on, calls on paths that contain `part` are counted, and `fault` applies to some of
    /// them.
    pub fn set(&self, part: &str, fault: Fault) {
        self.well();
        let mut bytes = [0; CONTROL_BYTES - PART_AT as usize];
        bytes[..part.len()].copy_from_slice(part.as_bytes());
        self.control.write_all_at(&bytes, PART_AT).unwrap();
        let Fault { first, count, error, delay_ms, kinds } = fault;
        for (at, value) in [(4, count), (8, error), (12, delay_ms), (KINDS_AT, kinds), (0, first)] {
            self.control.write_all_at(&value.to_ne_bytes(), at).unwrap();
        }
    }

    /// Removes the fault and resets the count.
    pub fn well(&self) {
        for at in [0, SEEN_AT] {
            self.control.write_all_at(&0_i32.to_ne_bytes(), at).unwrap();
        }
    }

    /// The number of calls on matching paths since the fault was set.
    pub fn seen(&self) -> i32 {
        let mut bytes = [0; 4];
        self.control.read_exact_at(&mut bytes, SEEN_AT).unwrap();
        i32::from_ne_bytes(bytes)
    }
}

fn library(folder: &TempDir) -> PathBuf {
    folder.path().join("failing_disk.so")
}
