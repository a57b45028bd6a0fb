//! Writes chunks of PCM to WAV files, on a writer thread.
//!
//! In: half-second chunks from the legs, by a bounded channel that the legs never wait for. Out: a
//! file that is a valid WAV at every moment, and a report when a complete clip is safe on disk. The
//! file of a clip is named `ID.part` until then and `ID.wav` from then on. The file is created and
//! opened before the recording is accepted, so that a full disk refuses a recording instead of
//! failing it.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    Folder,
    clip_file::{ClipFile, again},
    spool_error::SpoolError,
};
use aftertone_core::{
    audio::{
        tape::{Chunk, ChunkBody, SafeClip},
        wav,
    },
    model::{CallId, RecordingId},
};

/// Resolves when the clip is safe, discarded, or failed.
pub type ClipWritten = oneshot::Receiver<Result<SafeClip, SpoolError>>;

/// Limits at which no more clips are begun.
#[derive(Debug, Clone, Copy)]
pub struct SpoolLimits {
    /// Bytes that must be free on the disk of the clips; 0 = no limit.
    pub low_water: u64,
    /// Clips that may be open at the same time, each with one file.
    pub open: usize,
    /// Calls for which one open clip each is reserved, however many queued recordings other calls
    /// have.
    pub calls: usize,
}

/// A clip with an open file. If it is dropped before a sample has come, the file is removed.
#[derive(Debug)]
pub struct OpenClip {
    /// Its id.
    pub recording: RecordingId,
    /// Sends chunks to the writer.
    pub chunks: SyncSender<Chunk>,
    /// Resolves at the end of the clip.
    pub written: ClipWritten,
    /// Resolves with `Ok` when a write has failed: the rest of the clip is not kept.
    pub broken: oneshot::Receiver<()>,
}

/// A handle on the writer; cheap to clone.
#[derive(Clone)]
pub struct Spool {
    folder: Folder,
    limits: SpoolLimits,
    chunks: SyncSender<Chunk>,
    waiting: Arc<Mutex<AwaitedClips>>,
}

/// Clips that were opened and have not ended yet.
type AwaitedClips = HashMap<RecordingId, Expected>;

/// An open clip, as the spool tracks it.
struct Expected {
    /// The call that records it.
    call: CallId,
    written: oneshot::Sender<Result<SafeClip, SpoolError>>,
    /// `None` after a write has failed.
    broken: Option<oneshot::Sender<()>>,
    /// `None` after the writer has taken it, with the first chunk.
    file: Option<ClipFile>,
}

/// Half-second chunks that may wait: five seconds of two hundred calls.
const CHUNKS: usize = 2_000;
/// Chunks that are handled before the clips that ended with them are announced together.
const BATCH: usize = 256;
/// How often the writer looks for abandoned clips, and tries a failed sync again.
const LOOK_ROUND: Duration = Duration::from_secs(1);

impl Spool {
    /// Starts the writer.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(folder: Folder, limits: SpoolLimits) -> io::Result<Self> {
        let (chunks, received) = sync_channel(CHUNKS);
        let waiting = Arc::default();
        let writer = SpoolWriter::new(folder.clone(), Arc::clone(&waiting));
        // The thread ends when the last handle is gone. The shutdown need not wait for it: a call
        // waits for its clips, and a clip that does not end in time is repaired at the next start.
        thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self { folder, limits, chunks, waiting })
    }

    /// Creates the file of a clip of a call. The clip's row may be written later, but before its
    /// first chunk. A file without a sample and without a row is removed: when its clip is dropped,
    /// or at the start after a crash.
    ///
    /// # Errors
    /// The disk is full or fails, or too many clips are open; then there is no file. Or this clip
    /// is open already.
    pub async fn open(&self, id: RecordingId, call: CallId) -> Result<OpenClip, SpoolError> {
        let spool = self.clone();
        let opened = self.folder.blocking(move || spool.open_now(id, call)).await;
        opened.unwrap_or(Err(SpoolError::Stopped))
    }

    /// Checks whether the disk has enough free space to begin a clip.
    ///
    /// # Errors
    /// Too little is free, or the free space cannot be read.
    pub async fn check_room(&self) -> Result<(), SpoolError> {
        let spool = self.clone();
        let checked = self.folder.blocking(move || spool.check_room_now()).await;
        checked.unwrap_or(Err(SpoolError::Stopped))
    }

    /// Sends chunks to the writer.
    pub fn chunks(&self) -> SyncSender<Chunk> {
        self.chunks.clone()
    }

    fn open_now(&self, id: RecordingId, call: CallId) -> Result<OpenClip, SpoolError> {
        let (written_sender, written) = oneshot::channel();
        let (broken_sender, broken) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.contains_key(&id) {
                return Err(SpoolError::InUse);
            }
            self.check_limits(&waiting, call)?;
            let (written, broken) = (written_sender, Some(broken_sender));
            waiting.insert(id, Expected { call, written, broken, file: None });
        }
        let path = self.folder.join(format!("{id}.part"));
        let made = self.check_room_now().and_then(|()| {
            ClipFile::create(&path).map_err(|source| SpoolError::Io { path, source })
        });
        let mut waiting = self.waiting();
        match made {
            Ok(file) => {
                if let Some(expected) = waiting.get_mut(&id) {
                    expected.file = Some(file);
                }
                Ok(OpenClip { recording: id, chunks: self.chunks.clone(), written, broken })
            }
            Err(error) => {
                waiting.remove(&id);
                Err(error)
            }
        }
    }

    /// Checks whether the call may open another clip.
    fn check_limits(&self, waiting: &AwaitedClips, call: CallId) -> Result<(), SpoolError> {
        // Clips with a dropped receiver are about to be closed.
        let open = waiting.values().filter(|expected| !expected.written.is_closed());
        let calls: Vec<CallId> = open.map(|expected| expected.call).collect();
        let distinct: HashSet<CallId> = calls.iter().copied().collect();
        let SpoolLimits { open, calls: kept_for, .. } = self.limits;
        let is_first = !distinct.contains(&call);
        let more = calls.len() - distinct.len();
        if calls.len() < open && (is_first || more < open.saturating_sub(kept_for)) {
            Ok(())
        } else {
            Err(SpoolError::TooMany(calls.len()))
        }
    }

    fn check_room_now(&self) -> Result<(), SpoolError> {
        let low_water = self.limits.low_water;
        if low_water == 0 {
            return Ok(());
        }
        let failed = |errno: nix::Error| SpoolError::Io {
            path: self.folder.shown().to_owned(),
            source: errno.into(),
        };
        let disk = statvfs(self.folder.path()).map_err(failed)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < low_water { Err(SpoolError::LowWater { free, low_water }) } else { Ok(()) }
    }

    fn waiting(&self) -> MutexGuard<'_, AwaitedClips> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SpoolWriter {
    folder: Folder,
    open: HashMap<RecordingId, ClipFile>,
    /// Clips with complete and renamed files; the folder is not synced yet.
    finished: Vec<(RecordingId, SafeClip)>,
    /// When a sync of the folder last failed; `None` after a sync that succeeded.
    sync_failed_at: Option<Instant>,
    waiting: Arc<Mutex<AwaitedClips>>,
}

impl SpoolWriter {
    fn new(folder: Folder, waiting: Arc<Mutex<AwaitedClips>>) -> Self {
        Self { folder, open: HashMap::new(), finished: Vec::new(), sync_failed_at: None, waiting }
    }

    fn run(mut self, chunks: &Receiver<Chunk>) {
        let mut looked = Instant::now();
        loop {
            match chunks.recv_timeout(LOOK_ROUND) {
                Ok(chunk) => {
                    self.take(chunk);
                    chunks.try_iter().take(BATCH).for_each(|chunk| self.take(chunk));
                    self.announce();
                }
                Err(RecvTimeoutError::Timeout) => self.announce(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if looked.elapsed() >= LOOK_ROUND {
                self.let_go();
                looked = Instant::now();
            }
        }
    }

    fn take(&mut self, chunk: Chunk) {
        let id = chunk.recording;
        // A clip without an entry has failed or was abandoned: the rest of it is dropped.
        let is_finished = self.finished.iter().any(|(finished, _)| *finished == id);
        if is_finished || !self.waiting().contains_key(&id) {
            return;
        }
        let is_sound = matches!(chunk.body, ChunkBody::Samples(_));
        let result = match chunk.body {
            ChunkBody::Samples(samples) => self.file_of(id).and_then(|clip| {
                clip.append(&samples).map(|()| None).map_err(|source| clip.failed(source))
            }),
            ChunkBody::End { keep: true } => self.finish(id, false).map(|()| None),
            ChunkBody::End { keep: false } => self.discard(id).map(Some),
        };
        match result {
            Ok(None) => {}
            Ok(Some(finished)) => self.tell(id, Ok(finished)),
            Err(error) => {
                error!(%error, recording.id = %id, "a recording cannot be written");
                self.keep_what_there_is(id, error, is_sound);
            }
        }
    }

    /// After a failed write: the samples that were written before become the clip; without a sample
    /// the clip fails.
    fn keep_what_there_is(&mut self, id: RecordingId, error: SpoolError, is_cut_short: bool) {
        // The call learns of it at once; the file is made safe after that.
        let broken = self.waiting().get_mut(&id).and_then(|expected| expected.broken.take());
        if let Some(broken) = broken {
            // The call may be over.
            let _ = broken.send(());
        }
        let has_audio = self.open.get(&id).is_some_and(|clip| clip.data_bytes > 0);
        let kept = match (has_audio, self.open.get_mut(&id)) {
            (true, Some(clip)) => again(|| clip.cut()).map_err(|source| clip.failed(source)),
            _ => Err(error),
        };
        if let Err(error) = kept.and_then(|()| self.finish(id, is_cut_short)) {
            self.open.remove(&id);
            self.tell(id, Err(error));
        }
    }

    /// Closes the files of abandoned clips: their legs or calls broke, so their end never comes.
    /// Their rows decide what happens to those files. The file of a clip that was opened and not
    /// begun is removed: its recording was refused, or cancelled in the queue.
    fn let_go(&mut self) {
        let mut not_begun = Vec::new();
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.retain(|_, expected| {
                let is_over = expected.written.is_closed();
                if is_over {
                    not_begun.extend(expected.file.take());
                }
                !is_over
            });
            self.open.retain(|id, _| waiting.contains_key(id));
        }
        for clip in not_begun {
            match fs::remove_file(&clip.path) {
                Ok(()) => {}
                // Its row was discarded, and the purge has already deleted the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    let name = clip.path.file_name().unwrap_or_default();
                    warn!(%error, "Cannot remove {}", self.folder.shown().join(name).display());
                }
            }
        }
    }

    /// Syncs a clip's bytes and gives the file its final name. The clip is announced after the
    /// folder is synced as well.
    fn finish(&mut self, id: RecordingId, is_cut_short: bool) -> Result<(), SpoolError> {
        let path = self.folder.join(format!("{id}.wav"));
        let clip = self.file_of(id)?;
        clip.make_safe()
            .and_then(|()| again(|| fs::rename(&clip.path, &path)))
            .map_err(|source| clip.failed(source))?;
        let finished = SafeClip {
            bytes: u64::from(clip.data_bytes) + wav::HEADER_BYTES as u64,
            samples: u64::from(clip.data_bytes / 2),
            is_cut_short,
        };
        self.open.remove(&id);
        self.finished.push((id, finished));
        Ok(())
    }

    /// Syncs the folder once for all clips that were finished since the last time, and reports
    /// them. While the folder cannot be synced, the clips wait: a power cut could still undo their
    /// renames.
    fn announce(&mut self) {
        let is_due = self.sync_failed_at.is_none_or(|at| at.elapsed() >= LOOK_ROUND);
        if self.finished.is_empty() || !is_due {
            return;
        }
        if let Err(error) = self.folder.sync() {
            if self.sync_failed_at.is_none() {
                error!(%error, clips = self.finished.len(), "Finished clips wait: cannot sync their folder");
            }
            self.sync_failed_at = Some(Instant::now());
            return;
        }
        if self.sync_failed_at.take().is_some() {
            info!("The folder of the recordings can be synced again");
        }
        for (id, finished) in std::mem::take(&mut self.finished) {
            self.tell(id, Ok(finished));
        }
    }

    fn discard(&mut self, id: RecordingId) -> Result<SafeClip, SpoolError> {
        let nothing = SafeClip { bytes: 0, samples: 0, is_cut_short: false };
        let path = self.file_of(id)?.path.clone();
        self.open.remove(&id);
        match fs::remove_file(&path) {
            Ok(()) => Ok(nothing),
            // The purge has already deleted it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nothing),
            Err(source) => Err(SpoolError::Io { path, source }),
        }
    }

    /// The open file, which the writer takes over with the first chunk.
    fn file_of(&mut self, id: RecordingId) -> Result<&mut ClipFile, SpoolError> {
        if !self.open.contains_key(&id) {
            let file = self.waiting().get_mut(&id).and_then(|expected| expected.file.take());
            self.open.insert(id, file.ok_or(SpoolError::Stopped)?);
        }
        self.open.get_mut(&id).ok_or(SpoolError::Stopped)
    }

    fn tell(&self, id: RecordingId, result: Result<SafeClip, SpoolError>) {
        let expected = self.waiting().remove(&id);
        let sent = expected.map(|expected| expected.written.send(result));
        // A discarded clip needs no receiver, so its missing receiver is not logged.
        if let Some(Err(Ok(SafeClip { bytes: 1.., .. }))) = sent {
            warn!(recording.id = %id, "the call no longer waits for the recording");
        }
    }

    fn waiting(&self) -> MutexGuard<'_, AwaitedClips> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, path::Path};

    use super::*;

    const LIMITS: SpoolLimits = SpoolLimits { low_water: 0, open: 10, calls: 5 };

    fn call(n: u8) -> CallId {
        CallId::from_random([n; 16])
    }

    fn id(n: u8) -> RecordingId {
        RecordingId::from_random([n; 16])
    }

    fn held(folder: &Path) -> Folder {
        Folder::hold(folder.to_owned()).unwrap()
    }

    /// The number of files, except the lock.
    fn count(folder: &Path) -> usize {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name != ".lock").count()
    }

    fn samples(chunks: &SyncSender<Chunk>, recording: RecordingId, samples: Vec<i16>) {
        chunks.send(Chunk { recording, body: ChunkBody::Samples(samples) }).unwrap();
    }

    fn end(chunks: &SyncSender<Chunk>, recording: RecordingId, keep: bool) {
        chunks.send(Chunk { recording, body: ChunkBody::End { keep } }).unwrap();
    }

    #[tokio::test]
    async fn a_clip_is_announced_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(&folder.path().join("r")), LIMITS).unwrap();
        let OpenClip { chunks, written, .. } = spool.open(id(1), call(1)).await.unwrap();
        assert!(matches!(spool.open(id(1), call(1)).await, Err(SpoolError::InUse)));
        samples(&chunks, id(1), (0..8000).collect());
        samples(&chunks, id(1), (8000..8100).collect());
        end(&chunks, id(1), true);
        let finished = written.await.unwrap().unwrap();
        assert_eq!((finished.bytes, finished.samples), (44 + 16_200, 8_100));
        let path = folder.path().join("r").join(format!("{}.wav", id(1)));
        let mut reader = hound::WavReader::open(path).unwrap();
        assert_eq!(reader.spec().sample_rate, 16_000);
        let read: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert_eq!(read, (0..8100).collect::<Vec<i16>>());
    }

    #[tokio::test]
    async fn an_unfinished_clip_is_a_valid_wav_at_every_moment() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(folder.path()), LIMITS).unwrap();
        let OpenClip { chunks, written: _written, .. } = spool.open(id(2), call(1)).await.unwrap();
        samples(&chunks, id(2), vec![7; 8000]);
        let path = folder.path().join(format!("{}.part", id(2)));
        let begun = std::time::Instant::now();
        while fs::metadata(&path).map_or(0, |file| file.len()) < 16_044 {
            assert!(begun.elapsed().as_secs() < 5);
            tokio::task::yield_now().await;
        }
        let mut length = 0;
        while length == 0 {
            assert!(begun.elapsed().as_secs() < 5);
            length = hound::WavReader::open(&path).unwrap().len();
        }
        assert_eq!(length, 8000);
    }

    #[tokio::test]
    async fn a_discarded_clip_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(folder.path()), LIMITS).unwrap();
        let OpenClip { chunks, written, .. } = spool.open(id(3), call(1)).await.unwrap();
        samples(&chunks, id(3), vec![1; 8000]);
        end(&chunks, id(3), false);
        assert_eq!(written.await.unwrap().unwrap(), NOTHING);
        assert_eq!(count(folder.path()), 0);
    }

    #[tokio::test]
    async fn a_discarded_clip_may_be_gone_already() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(folder.path()), LIMITS).unwrap();
        let OpenClip { chunks, written, .. } = spool.open(id(6), call(1)).await.unwrap();
        samples(&chunks, id(6), vec![1; 8000]);
        let path = folder.path().join(format!("{}.part", id(6)));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        fs::remove_file(&path).unwrap();
        end(&chunks, id(6), false);
        assert_eq!(written.await.unwrap().unwrap(), NOTHING);
    }

    #[test]
    fn a_clip_that_nobody_waits_for_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let waiting = Arc::new(Mutex::new(AwaitedClips::new()));
        let mut writer = SpoolWriter::new(held(folder.path()), Arc::clone(&waiting));
        let mut wanted = Vec::new();
        for (id, is_wanted) in [(id(7), false), (id(8), true)] {
            let (expected, written) = expected(folder.path(), id);
            waiting.lock().unwrap().insert(id, expected);
            writer.take(Chunk { recording: id, body: ChunkBody::Samples(vec![1; 8000]) });
            wanted.extend(is_wanted.then_some(written));
        }
        writer.let_go();
        let open: Vec<_> = writer.open.keys().copied().collect();
        assert_eq!(open, [id(8)]);
        assert_eq!(waiting.lock().unwrap().keys().copied().collect::<Vec<_>>(), [id(8)]);
    }

    #[test]
    fn what_was_written_before_a_write_failed_is_a_clip() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut written) = writer_with(folder.path(), id(9));
        let chunk = |body| Chunk { recording: id(9), body };
        writer.take(chunk(ChunkBody::Samples(vec![5; 8000])));
        // The next writes fail, and the last one has left partial bytes behind.
        let clip = writer.open.get_mut(&id(9)).unwrap();
        let mut file = fs::OpenOptions::new().append(true).open(&clip.path).unwrap();
        file.write_all(&[1; 333]).unwrap();
        let error = clip.failed(io::ErrorKind::StorageFull.into());
        writer.keep_what_there_is(id(9), error, true);
        // Later samples do not begin a new file.
        writer.take(chunk(ChunkBody::Samples(vec![6; 8000])));
        writer.announce();
        writer.take(chunk(ChunkBody::Samples(vec![6; 8000])));
        let finished = written.try_recv().unwrap().unwrap();
        assert_eq!((finished.samples, finished.is_cut_short), (8000, true));
        assert_eq!(count(folder.path()), 1);
        let path = folder.path().join(format!("{}.wav", id(9)));
        let mut reader = hound::WavReader::open(path).unwrap();
        assert!(reader.samples::<i16>().map(Result::unwrap).eq([5; 8000]));
    }

    #[test]
    fn clips_wait_while_their_folder_cannot_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut written) = writer_with(folder.path(), id(10));
        writer.take(Chunk { recording: id(10), body: ChunkBody::Samples(vec![5; 8000]) });
        writer.take(Chunk { recording: id(10), body: ChunkBody::End { keep: true } });
        let well = std::mem::replace(&mut writer.folder, Folder::broken());
        writer.announce();
        assert!(written.try_recv().is_err(), "it is not announced");
        writer.folder = well;
        writer.announce();
        assert!(written.try_recv().is_err(), "a second has not passed");
        writer.sync_failed_at = writer.sync_failed_at.map(|at| at - LOOK_ROUND);
        writer.announce();
        assert_eq!(written.try_recv().unwrap().unwrap().samples, 8000);
    }

    #[tokio::test]
    async fn a_clip_that_is_not_begun_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(folder.path()), LIMITS).unwrap();
        drop(spool.open(id(12), call(1)).await.unwrap());
        let path = folder.path().join(format!("{}.part", id(12)));
        let begun = Instant::now();
        while path.exists() {
            assert!(begun.elapsed().as_secs() < 5);
            // The writer also checks between chunks.
            samples(&spool.chunks(), id(13), vec![1]);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(spool.open(id(12), call(1)).await.is_ok());
    }

    #[tokio::test]
    async fn no_clip_is_begun_below_the_low_water_mark_or_beyond_the_files_that_may_be_open() {
        let folder = tempfile::tempdir().unwrap();
        let held = held(folder.path());
        let spool = |low_water, open| {
            let limits = SpoolLimits { low_water, open, calls: 1 };
            Spool::start(held.clone(), limits).unwrap()
        };
        let full = spool(u64::MAX, 10);
        let refused = full.open(id(14), call(1)).await.unwrap_err();
        assert!(matches!(refused, SpoolError::LowWater { low_water: u64::MAX, .. }), "{refused}");
        assert!(full.check_room().await.is_err());
        let small = spool(1, 2);
        let clips = [
            small.open(id(15), call(1)).await.unwrap(),
            small.open(id(16), call(1)).await.unwrap(),
        ];
        assert!(matches!(small.open(id(17), call(1)).await, Err(SpoolError::TooMany(2))));
        assert_eq!(count(folder.path()), clips.len());
    }

    #[tokio::test]
    async fn one_call_with_a_full_queue_leaves_a_file_for_each_other_call() {
        let folder = tempfile::tempdir().unwrap();
        let limits = SpoolLimits { low_water: 0, open: 7, calls: 3 };
        let spool = Spool::start(held(folder.path()), limits).unwrap();
        let mut clips = Vec::new();
        for n in 0..5 {
            clips.push(spool.open(id(n), call(1)).await.unwrap());
        }
        assert!(matches!(spool.open(id(5), call(1)).await, Err(SpoolError::TooMany(5))));
        for n in [6, 7] {
            clips.push(spool.open(id(n), call(n)).await.unwrap());
            assert!(matches!(spool.open(id(8), call(n)).await, Err(SpoolError::TooMany(_))));
        }
        assert!(matches!(spool.open(id(8), call(8)).await, Err(SpoolError::TooMany(7))));
        // A clip that one call gives up is free for other calls.
        clips.remove(0);
        clips.push(spool.open(id(8), call(6)).await.unwrap());
        assert!(matches!(spool.open(id(9), call(1)).await, Err(SpoolError::TooMany(7))));
    }

    const NOTHING: SafeClip = SafeClip { bytes: 0, samples: 0, is_cut_short: false };

    fn writer_with(folder: &Path, clip: RecordingId) -> (SpoolWriter, ClipWritten) {
        let (expected, written) = expected(folder, clip);
        let waiting = Arc::new(Mutex::new(AwaitedClips::from([(clip, expected)])));
        (SpoolWriter::new(held(folder), waiting), written)
    }

    fn expected(folder: &Path, clip: RecordingId) -> (Expected, ClipWritten) {
        let (sender, written) = oneshot::channel();
        let file = ClipFile::create(&folder.join(format!("{clip}.part"))).unwrap();
        let (call, file) = (call(1), Some(file));
        (Expected { call, written: sender, broken: None, file }, written)
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_told_and_harms_no_other_clip() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(held(folder.path()), LIMITS).unwrap();
        let OpenClip { chunks, written: lost, broken, .. } =
            spool.open(id(4), call(1)).await.unwrap();
        samples(&chunks, id(4), vec![1; 8000]);
        // A directory stands in its place.
        fs::create_dir(folder.path().join(format!("{}.wav", id(4)))).unwrap();
        end(&chunks, id(4), true);
        assert!(broken.await.is_ok());
        assert!(matches!(lost.await.unwrap(), Err(SpoolError::Io { .. })));
        samples(&chunks, id(4), vec![1; 8000]);
        end(&chunks, id(4), true);
        let OpenClip { chunks, written: kept, .. } = spool.open(id(5), call(1)).await.unwrap();
        end(&chunks, id(5), true);
        assert_eq!(kept.await.unwrap().unwrap().samples, 0);
    }
}
