//! Clips without a row: moved to `lost+found`, kept as long as others, and moved back when their
//! rows exist again.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use nix::{
    errno::Errno,
    unistd::{AccessFlags, access},
};
use tracing::{error, info, warn};

use super::{
    lost_and_found::LostAndFound,
    vault::{RecoverError, Vault, clips_in},
};
use crate::drivers::store::{Database, RecordingState};
use aftertone_core::{
    audio::wav,
    model::{RecordingId, UnixMillis},
};

/// A file in `lost+found`, or a directory in the place of one.
#[derive(Debug)]
pub(super) struct LostFile {
    /// Its path relative to the folder of the clips; bytes that are not UTF-8 are replaced.
    pub name: String,
    pub path: PathBuf,
    /// The path by the configured folder, for log messages.
    pub shown: PathBuf,
    pub bytes: u64,
    /// When it was last changed, by the wall clock of that time.
    pub changed: UnixMillis,
}

/// The directory for clips without a row.
const LOST_AND_FOUND: &str = "lost+found";
/// Used instead where `lost+found` belongs to root, as at the root of a file system.
const LOST_CLIPS: &str = "lost-clips";
/// How many files of the same name are kept beside each other.
const NAMESAKES: u32 = 1_000;

impl Vault {
    /// What was in `lost+found` at the keeper's last check.
    pub fn lost_and_found(&self) -> LostAndFound {
        self.seen().lost_and_found
    }

    /// Moves clips that have no row and are older than `age` to `lost+found`. A clip that cannot be
    /// moved is logged. Files without a sample were created for recordings that are not accepted
    /// yet, or never were: at the start, when `age` is zero, they are removed; later they are left
    /// alone.
    ///
    /// `known` keeps, from one call to the next, the clips in the folder that had a row: the
    /// database is queried only when there are others.
    ///
    /// # Errors
    /// The folder cannot be read, or the database failed.
    pub(super) async fn set_aside_unknown(
        &self,
        database: &Database,
        age: Duration,
        known: &mut HashSet<RecordingId>,
    ) -> Result<(), RecoverError> {
        // The files are read before the rows: a row is written before the first sample.
        let vault = self.clone();
        let old = self.folder.blocking(move || vault.clips_older_than(age)).await;
        let old = old.flatten().map_err(|source| self.failed(source))?;
        let there: HashSet<RecordingId> = old.iter().map(|(_, id)| *id).collect();
        known.retain(|id| there.contains(id));
        if there.len() == known.len() {
            return Ok(());
        }
        let rows = database.recording_states().await?;
        known.extend(there.into_iter().filter(|id| rows.contains_key(id)));
        let unknown = old.into_iter().filter(|(_, id)| !rows.contains_key(id));
        let unknown: Vec<OsString> = unknown.map(|(name, _)| name).collect();
        let vault = self.clone();
        let moved = self.folder.blocking(move || {
            let has_samples = |name: &OsString| !vault.has_no_sample(name);
            let (lost, empty): (Vec<_>, Vec<_>) = unknown.into_iter().partition(has_samples);
            vault.set_aside_and_log(&lost);
            if age.is_zero() {
                vault.remove_and_log(&empty);
            }
        });
        moved.await.map_err(|source| self.failed(source))
    }

    fn has_no_sample(&self, name: &OsStr) -> bool {
        fs::symlink_metadata(self.folder.join(name)).is_ok_and(|file| is_empty(&file))
    }

    fn remove_and_log(&self, names: &[OsString]) {
        for name in names {
            if let Err(cause) = fs::remove_file(self.folder.join(name)) {
                error!(%cause, "Cannot remove {}", self.folder.shown().join(name).display());
            }
        }
    }

    /// The clip files that are older than `age`; with an age, only those with samples.
    fn clips_older_than(&self, age: Duration) -> io::Result<Vec<(OsString, RecordingId)>> {
        let now = SystemTime::now();
        let mut clips = self.clips()?;
        // A file that has gone meanwhile is skipped.
        clips.retain(|(name, _)| {
            let metadata = fs::symlink_metadata(self.folder.join(name));
            metadata
                .is_ok_and(|file| age.is_zero() || (is_older(&file, age, now) && !is_empty(&file)))
        });
        Ok(clips)
    }

    pub(super) fn set_aside_and_log(&self, names: &[OsString]) {
        let mut failed = None;
        for name in names {
            match self.set_aside(name) {
                Ok(to) => warn!(
                    "No row of the database stands for the clip {}: it is now {}, and is purged when it \
                     is older than the retention time",
                    self.folder.shown().join(name).display(),
                    self.folder.shown().join(to).display()
                ),
                // It was purged meanwhile.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => failed = Some((cause, failed.map_or(1, |(_, count)| count + 1))),
            }
        }
        if let Some((cause, clips)) = failed {
            error!(%cause, clips, "Cannot move clips aside that no row knows");
        }
    }

    /// Moves a file to `lost+found`, and returns its path relative to the folder. Its modification
    /// time stays, and with it its age.
    fn set_aside(&self, name: &OsStr) -> io::Result<PathBuf> {
        let all = AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK;
        let lost = match access(&self.folder.join(LOST_AND_FOUND), all) {
            Err(Errno::EACCES) => LOST_CLIPS,
            Ok(()) | Err(_) => LOST_AND_FOUND,
        };
        let folder = self.folder.join(lost);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        // A rename would replace a file of that name that was moved there before.
        let numbered = (1..NAMESAKES).map(|number| {
            let mut numbered = name.to_owned();
            numbered.push(format!(".{number}"));
            numbered
        });
        let free = std::iter::once(name.to_owned())
            .chain(numbered)
            .find(|name| fs::symlink_metadata(folder.join(name)).is_err());
        let to = free.ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(self.folder.join(name), folder.join(&to))?;
        Ok(Path::new(lost).join(to))
    }

    /// Moves clips in `lost+found` back whose rows exist again, because the right database was
    /// restored.
    ///
    /// # Errors
    /// `lost+found` cannot be read. A clip that cannot be moved is logged.
    pub(super) fn bring_back(
        &self,
        known: &HashMap<RecordingId, RecordingState>,
    ) -> io::Result<()> {
        for (lost, _) in self.lost_clips()?.iter().filter(|(_, id)| known.contains_key(id)) {
            let name = lost.file_name().unwrap_or_default();
            let to = self.folder.join(name);
            if fs::symlink_metadata(&to).is_ok() {
                continue;
            }
            let shown = self.folder.shown().join(name);
            match fs::rename(self.folder.join(lost), to) {
                Ok(()) => info!("The clip {} is back: it has a row", shown.display()),
                Err(cause) => error!(%cause, "Cannot bring back the clip {}", shown.display()),
            }
        }
        Ok(())
    }

    /// The clip files in `lost+found`, by their paths relative to the folder.
    pub(super) fn lost_clips(&self) -> io::Result<Vec<(PathBuf, RecordingId)>> {
        let mut clips = Vec::new();
        for lost in [LOST_AND_FOUND, LOST_CLIPS] {
            match clips_in(self.folder.join(lost)) {
                Ok(there) => {
                    let there = there.into_iter();
                    clips.extend(there.map(|(name, id)| (Path::new(lost).join(name), id)));
                }
                Err(error) if is_not_ours(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(clips)
    }

    /// The files of `lost+found`. Blocks as long as the disk does.
    ///
    /// # Errors
    /// The folder cannot be read. A file with unreadable metadata is logged and left out.
    pub(super) fn lost_files(&self) -> io::Result<Vec<LostFile>> {
        let mut files = Vec::new();
        for lost in [LOST_AND_FOUND, LOST_CLIPS] {
            let entries = match fs::read_dir(self.folder.join(lost)) {
                Ok(entries) => entries,
                Err(error) if is_not_ours(&error) => continue,
                Err(error) => return Err(error),
            };
            for entry in entries {
                let entry = entry?;
                let name = Path::new(lost).join(entry.file_name());
                let shown = self.folder.shown().join(&name);
                match entry.metadata() {
                    Ok(metadata) => files.push(LostFile {
                        name: name.to_string_lossy().into_owned(),
                        path: entry.path(),
                        shown,
                        bytes: metadata.len(),
                        changed: changed(&metadata).into(),
                    }),
                    Err(cause) => error!(%cause, "Cannot look at {}", shown.display()),
                }
            }
        }
        Ok(files)
    }
}

impl LostFile {
    /// Deletes the file at `path`. Blocks as long as the disk does.
    pub(super) fn purge(path: &Path) -> io::Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir_all(path)
        } else {
            fs::remove_file(path)
        }
    }
}

/// Whether the error means that the directory holds nothing of ours: it does not exist, or belongs
/// to root.
fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

/// Whether a clip file has no sample.
fn is_empty(file: &fs::Metadata) -> bool {
    file.is_file() && file.len() <= wav::HEADER_BYTES as u64
}

/// Whether a file was last changed `age` or longer before `now`. A file with a time in the future
/// counts as new.
fn is_older(metadata: &fs::Metadata, age: Duration, now: SystemTime) -> bool {
    now.duration_since(changed(metadata)).unwrap_or_default() >= age
}

/// When the bytes of a file were last changed. The modification time may lie in the future, as of a
/// copy from another machine; then the change time counts, which is when the file was created or
/// moved here.
fn changed(metadata: &fs::Metadata) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(metadata.ctime()).unwrap_or(0));
    let moved = SystemTime::UNIX_EPOCH + seconds;
    metadata.modified().map_or(moved, |modified| modified.min(moved))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::drivers::recordings::folder::Folder;

    const OLD: Duration = Duration::from_secs(3600);

    async fn vault_and_database(folder: &Path) -> (Vault, Database) {
        let url = format!("sqlite:{}", folder.join("fresh.db").display());
        let vault = Vault::new(Folder::hold(folder.join("recordings")).unwrap());
        (vault, Database::open(&url).await.unwrap())
    }

    fn id(n: u8) -> RecordingId {
        RecordingId::from_random([n; 16])
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_clip_does_not_disappear_because_its_row_does() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, database) = vault_and_database(folder.path()).await;
        let (whole, part) = ([1; 100], [2; 100]);
        fs::write(vault.path(id(1)), whole).unwrap();
        fs::write(vault.folder.join(format!("{}.part", id(2))), part).unwrap();
        // Opened for a recording that was refused: it holds no sample that could be lost.
        let empty = vault.folder.join(format!("{}.part", id(4)));
        fs::write(&empty, wav::header(0)).unwrap();
        let mut known = HashSet::new();
        let age = Duration::from_millis(1);
        vault.set_aside_unknown(&database, age, &mut known).await.unwrap();
        assert!(empty.exists(), "its recording may be accepted yet");
        // A directory in the place of a file: it is moved like the others.
        fs::create_dir(vault.folder.join(format!("{}.part", id(3)))).unwrap();
        vault.recover(&database, &[]).await.unwrap();
        let lost = folder.path().join("recordings").join(LOST_AND_FOUND);
        assert_eq!(fs::read(lost.join(format!("{}.wav", id(1)))).unwrap(), whole);
        assert_eq!(fs::read(lost.join(format!("{}.part", id(2)))).unwrap(), part);
        assert_eq!(names(&lost).len(), 3);
        assert!(!empty.exists());

        let files = vault.lost_files().unwrap();
        assert_eq!(files.len(), 3);
        files.iter().for_each(|file| LostFile::purge(&file.path).unwrap());
        assert!(names(&lost).is_empty());
    }

    #[tokio::test]
    async fn a_clip_that_comes_back_while_we_run_is_set_aside_when_it_is_not_new() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, database) = vault_and_database(folder.path()).await;
        let minute = Duration::from_secs(60);
        let write = |n, byte, age| {
            fs::write(vault.path(id(n)), [byte; 100]).unwrap();
            let file = File::options().write(true).open(vault.path(id(n))).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
        };
        write(1, 1, Duration::ZERO);
        write(2, 2, minute);
        let mut known = HashSet::new();
        vault.set_aside_unknown(&database, minute, &mut known).await.unwrap();
        // The same clip again does not replace the first one.
        write(2, 3, minute * 2);
        vault.set_aside_unknown(&database, minute, &mut known).await.unwrap();
        let recordings = folder.path().join("recordings");
        assert_eq!(names(&recordings), [format!("{}.wav", id(1)), LOST_AND_FOUND.to_owned()]);
        let lost = recordings.join(LOST_AND_FOUND);
        let (first, again) = (format!("{}.wav", id(2)), format!("{}.wav.1", id(2)));
        assert_eq!(names(&lost), [first.clone(), again.clone()]);
        assert_eq!(fs::read(lost.join(first)).unwrap(), [2; 100]);
        assert_eq!(fs::read(lost.join(again)).unwrap(), [3; 100]);
        let mut there = LostAndFound::default();
        vault.lost_files().unwrap().iter().for_each(|file| there.count(file.bytes, file.changed));
        assert_eq!((there.files, there.bytes), (2, 200));
        let age = SystemTime::now().duration_since(there.oldest.unwrap().into()).unwrap();
        assert!((minute * 2..minute * 3).contains(&age), "{age:?}");
    }

    #[test]
    fn a_time_in_the_future_does_not_keep_a_file_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip");
        let file = File::create(&path).unwrap();
        let now = SystemTime::now();
        file.set_modified(now + OLD * 1000).unwrap();
        let metadata = fs::metadata(&path).unwrap();
        assert!(changed(&metadata) <= now + Duration::from_secs(60));
        assert!(
            !is_older(&metadata, OLD, now + OLD / 2) && is_older(&metadata, OLD, now + OLD * 2)
        );
    }

    #[tokio::test]
    async fn what_lies_beside_a_lost_and_found_of_root_is_kept_and_purged_like_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(folder.path()).await;
        let beside = vault.folder.join(LOST_CLIPS);
        fs::create_dir(&beside).unwrap();
        let file = |n| beside.join(format!("{}.wav", id(n)));
        fs::write(file(1), b"known").unwrap();
        fs::write(file(2), b"unknown").unwrap();
        vault.bring_back(&HashMap::from([(id(1), RecordingState::Ready)])).unwrap();
        assert_eq!(fs::read(vault.path(id(1))).unwrap(), b"known");
        let there = vault.lost_files().unwrap();
        let [file] = there.as_slice() else { panic!("{there:?}") };
        assert_eq!((file.bytes, file.name.starts_with(LOST_CLIPS)), (7, true));
    }

    #[tokio::test]
    async fn a_clip_whose_row_is_there_again_is_brought_back() {
        let folder = tempfile::tempdir().unwrap();
        let (vault, _) = vault_and_database(folder.path()).await;
        for n in [1, 2, 3] {
            fs::write(vault.path(id(n)), [n]).unwrap();
        }
        let names_of = |ids: &[u8]| ids.iter().map(|n| format!("{}.wav", id(*n)).into()).collect();
        let all: Vec<OsString> = names_of(&[1, 2, 3]);
        vault.set_aside_and_log(&all);
        fs::write(vault.path(id(2)), b"another").unwrap();
        let known = HashMap::from([1, 2].map(|n| (id(n), RecordingState::Ready)));
        vault.bring_back(&known).unwrap();
        assert_eq!(fs::read(vault.path(id(1))).unwrap(), [1]);
        assert_eq!(fs::read(vault.path(id(2))).unwrap(), b"another", "it is not replaced");
        assert!(!vault.path(id(3)).exists());
    }
}
