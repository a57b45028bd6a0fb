//! Locks on files that one process has for its life.

use std::{
    fs::{File, TryLockError},
    thread,
    time::Duration,
};

/// How often a lock that somebody has is tried again, and the pause in between.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(30);

/// Takes the lock of a file, which goes with the file. One that is held is tried again for a third
/// of a second: a process that was killed has it until it is gone, and a child of this process has
/// what its parent had until it becomes another program.
///
/// # Errors
/// Another process has it ([`TryLockError::WouldBlock`]), or the system failed.
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
