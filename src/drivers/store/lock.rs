//! File locks that a process holds until it ends.

use std::{
    fs::{File, TryLockError},
    thread,
    time::Duration,
};

/// How often a held lock is tried, and the pause between two tries.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// Takes the lock of a file; the lock ends when the file is closed. A held lock is tried again for
/// a third of a second: a killed process holds its locks until it is gone, and a child of this
/// process holds its parent's locks until it executes another program.
///
/// # Errors
/// Another process holds it ([`TryLockError::WouldBlock`]), or the system failed.
pub fn lock_for_life(file: &File) -> Result<(), TryLockError> {
    for _ in 1..ATTEMPTS {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(PAUSE),
            taken => return taken,
        }
    }
    file.try_lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_whose_holder_is_about_to_end_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let open = || File::options().create(true).truncate(false).write(true).open(&path).unwrap();
        let (first, second) = (open(), open());
        lock_for_life(&first).unwrap();
        assert!(matches!(lock_for_life(&second), Err(TryLockError::WouldBlock)));
        let ending = thread::spawn(move || {
            thread::sleep(PAUSE * 2);
            drop(first);
        });
        lock_for_life(&second).unwrap();
        ending.join().unwrap();
    }
}
