//! Chunks of PCM to WAV files, on a writer thread.
//!
//! In: half-second chunks from the legs, by a bounded channel that they never wait for. Out: a file
//! that is a valid WAV at every moment, and, when a clip is complete, word that its bytes are safe.
//! A clip is `ID.part` until then and `ID.wav` from then on.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::{
    audio::{
        tape::{Chunk, ChunkBody},
        wav,
    },
    model::RecordingId,
};

/// Resolves when the clip is safe, discarded, or cannot be kept.
pub type ClipWritten = oneshot::Receiver<Result<Finished, SpoolError>>;

/// A clip that is safe on disk, or was discarded as asked (then both figures are 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Samples at 16,000 Hz.
    pub samples: u64,
}

/// Why a clip cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk.
    #[error("cannot write {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The clip is open already.
    #[error("the recording is being written already")]
    InUse,
    /// The writer has stopped.
    #[error("the writer of recordings has stopped")]
    Stopped,
}

/// The handle on the writer; cheap to clone.
#[derive(Clone)]
pub struct Spool {
    chunks: SyncSender<Chunk>,
    waiting: Arc<Mutex<Waiting>>,
}

/// Clips that were opened and have no file yet, or whose end is waited for.
type Waiting = HashMap<RecordingId, oneshot::Sender<Result<Finished, SpoolError>>>;

/// Extension of a second copy of a clip, while that is written.
pub(super) const COPY: &str = "copy";
/// Half-second chunks that may wait: five seconds of two hundred calls.
const CHUNKS: usize = 2_000;
/// Chunks that are taken before the clips that they have ended are announced together.
const BATCH: usize = 256;
/// How often writing a clip again, or a rename that fails, is tried.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
/// How often the writer looks for clips that nobody waits for.
const LOOK_ROUND: Duration = Duration::from_secs(1);

impl Spool {
    /// Makes the folder, if it is not there, and starts the writer.
    ///
    /// # Errors
    /// The folder cannot be made or written.
    pub fn start(folder: PathBuf) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let (chunks, received) = sync_channel(CHUNKS);
        let waiting = Arc::default();
        let writer = Writer::new(folder, Arc::clone(&waiting));
        // The thread ends when the last handle is gone. Nobody has to wait for it: a call waits for its
        // clips, and what it does not get in time is put in order at the next start.
        thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run(&received))?;
        Ok(Self { chunks, waiting })
    }

    /// Announces a clip, whose row is committed. Its file begins with its first chunk.
    ///
    /// # Errors
    /// The clip is open already.
    pub fn open(&self, id: RecordingId) -> Result<(SyncSender<Chunk>, ClipWritten), SpoolError> {
        let (sender, written) = oneshot::channel();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.contains_key(&id) {
            return Err(SpoolError::InUse);
        }
        waiting.insert(id, sender);
        Ok((self.chunks.clone(), written))
    }

    /// The way to the writer.
    pub fn chunks(&self) -> SyncSender<Chunk> {
        self.chunks.clone()
    }
}

struct Writer {
    folder: PathBuf,
    open: HashMap<RecordingId, ClipFile>,
    /// Clips whose files are whole and have their names; the folder is not synced yet.
    finished: Vec<(RecordingId, Finished)>,
    /// When the folder could last not be synced; `None` once it could.
    sync_failed_at: Option<Instant>,
    waiting: Arc<Mutex<Waiting>>,
}

struct ClipFile {
    file: File,
    path: PathBuf,
    data_bytes: u32,
}

impl Writer {
    fn new(folder: PathBuf, waiting: Arc<Mutex<Waiting>>) -> Self {
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
        // A clip that nobody waits for has failed already: the rest of it is dropped.
        let is_finished = self.finished.iter().any(|(finished, _)| *finished == id);
        if is_finished || !self.waiting().contains_key(&id) {
            return;
        }
        let result = match chunk.body {
            ChunkBody::Samples(samples) => self.append(id, &samples).map(|()| None),
            ChunkBody::End { keep: true } => self.finish(id).map(|()| None),
            ChunkBody::End { keep: false } => self.discard(id).map(Some),
        };
        match result {
            Ok(None) => {}
            Ok(Some(finished)) => self.tell(id, Ok(finished)),
            Err(error) => {
                error!(%error, recording.id = %id, "a recording cannot be written");
                self.keep_what_there_is(id, error);
            }
        }
    }

    /// After a failed write: what was written before is a clip; without a sample there is none.
    fn keep_what_there_is(&mut self, id: RecordingId, error: SpoolError) {
        let has_audio = self.open.get(&id).is_some_and(|clip| clip.data_bytes > 0);
        let kept = match (has_audio, self.open.get_mut(&id)) {
            (true, Some(clip)) => clip.cut().map_err(|source| clip.failed(source)),
            _ => Err(error),
        };
        if let Err(error) = kept.and_then(|()| self.finish(id)) {
            self.open.remove(&id);
            self.tell(id, Err(error));
        }
    }

    /// Closes the files of clips that nobody waits for and nobody ends: their legs broke, or their calls
    /// did. What becomes of the files is decided by their rows.
    fn let_go(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|_, who| !who.is_closed());
        self.open.retain(|id, _| waiting.contains_key(id));
    }

    fn append(&mut self, id: RecordingId, samples: &[i16]) -> Result<(), SpoolError> {
        let clip = self.file_of(id)?;
        clip.append(samples).map_err(|source| clip.failed(source))
    }

    /// Makes the bytes of a clip safe and gives the file its name. It is announced when the folder
    /// is synced as well.
    fn finish(&mut self, id: RecordingId) -> Result<(), SpoolError> {
        // A clip without a sample is a file all the same: it was asked for.
        self.file_of(id)?;
        let Some(clip) = self.open.get_mut(&id) else { return Err(SpoolError::Stopped) };
        let path = self.folder.join(format!("{id}.wav"));
        clip.make_safe()
            .and_then(|()| again(|| fs::rename(&clip.path, &path)))
            .map_err(|source| clip.failed(source))?;
        let finished = Finished {
            bytes: u64::from(clip.data_bytes) + wav::HEADER_BYTES as u64,
            samples: u64::from(clip.data_bytes / 2),
        };
        self.open.remove(&id);
        self.finished.push((id, finished));
        Ok(())
    }

    /// Syncs the folder once for all clips that were finished since the last time, and reports
    /// them. While the folder cannot be synced the clips wait: a power cut could still take their
    /// names.
    fn announce(&mut self) {
        let is_due = self.sync_failed_at.is_none_or(|at| at.elapsed() >= LOOK_ROUND);
        if self.finished.is_empty() || !is_due {
            return;
        }
        if let Err(error) = sync_folder(&self.folder) {
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

    fn discard(&mut self, id: RecordingId) -> Result<Finished, SpoolError> {
        let nothing = Finished { bytes: 0, samples: 0 };
        let Some(clip) = self.open.remove(&id) else { return Ok(nothing) };
        match fs::remove_file(&clip.path) {
            Ok(()) => Ok(nothing),
            // The purge was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nothing),
            Err(source) => Err(SpoolError::Io { path: clip.path, source }),
        }
    }

    fn file_of(&mut self, id: RecordingId) -> Result<&mut ClipFile, SpoolError> {
        if !self.open.contains_key(&id) {
            let path = self.folder.join(format!("{id}.part"));
            let clip = ClipFile::create(&path).map_err(|source| SpoolError::Io { path, source })?;
            self.open.insert(id, clip);
        }
        self.open.get_mut(&id).ok_or(SpoolError::Stopped)
    }

    fn tell(&self, id: RecordingId, result: Result<Finished, SpoolError>) {
        let waiting = self.waiting().remove(&id);
        // Of a clip that is not wanted, nobody needs to hear.
        if let Some(Err(Ok(Finished { bytes: 1.., .. }))) = waiting.map(|who| who.send(result)) {
            warn!(recording.id = %id, "nobody waits for the recording any more");
        }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClipFile {
    fn create(path: &Path) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(&wav::header(0))?;
        Ok(Self { file, path: path.to_owned(), data_bytes: 0 })
    }

    /// Appends samples, then corrects the header: between the two, the file is a valid WAV that
    /// does not know its last half second yet.
    fn append(&mut self, samples: &[i16]) -> io::Result<()> {
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let more = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let total = self.data_bytes.checked_add(more).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::End(0))?;
        self.file.write_all(&bytes)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav::header(total))?;
        self.data_bytes = total;
        Ok(())
    }

    /// Makes the bytes of the clip safe from a power cut.
    ///
    /// After a sync that has failed, Linux may count pages as written that are not on the disk, and
    /// the next sync of the same file reports success. So the clip is written again, to a new file.
    fn make_safe(&mut self) -> io::Result<()> {
        let Err(error) = self.file.sync_all() else { return Ok(()) };
        warn!(%error, file = %self.path.display(), "A clip cannot be synced; it is written again");
        for _ in 1..ATTEMPTS {
            match self.write_again() {
                Ok(()) => return Ok(()),
                Err(_) => thread::sleep(PAUSE),
            }
        }
        self.write_again()
    }

    /// Writes the clip to a new file, which takes the place of the old one once it is synced.
    fn write_again(&mut self) -> io::Result<()> {
        let copy = self.path.with_extension(COPY);
        let mut bytes = Vec::with_capacity(wav::HEADER_BYTES + self.data_bytes as usize);
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        if bytes.len() != wav::HEADER_BYTES + self.data_bytes as usize {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&copy)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&copy, &self.path)?;
            Ok(file)
        };
        match written() {
            Ok(file) => self.file = file,
            Err(error) => {
                // What cannot be removed now is removed at the next start.
                let _ = fs::remove_file(&copy);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Takes away what a failed write may have left behind the last whole chunk.
    fn cut(&mut self) -> io::Result<()> {
        self.file.set_len(wav::HEADER_BYTES as u64 + u64::from(self.data_bytes))?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&wav::header(self.data_bytes))
    }

    fn failed(&self, source: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), source }
    }
}

/// Tries once more what may fail for a moment only.
fn again(attempt: impl Fn() -> io::Result<()>) -> io::Result<()> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(_) => thread::sleep(PAUSE),
        }
    }
    attempt()
}

/// Makes a rename in a folder outlive a power cut.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn id(n: u8) -> RecordingId {
        RecordingId::from_random([n; 16])
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
        let spool = Spool::start(folder.path().join("r")).unwrap();
        let (chunks, written) = spool.open(id(1)).unwrap();
        assert!(matches!(spool.open(id(1)), Err(SpoolError::InUse)));
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
        let spool = Spool::start(folder.path().to_owned()).unwrap();
        let (chunks, _written) = spool.open(id(2)).unwrap();
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
        let spool = Spool::start(folder.path().to_owned()).unwrap();
        let (chunks, written) = spool.open(id(3)).unwrap();
        samples(&chunks, id(3), vec![1; 8000]);
        end(&chunks, id(3), false);
        assert_eq!(written.await.unwrap().unwrap(), Finished { bytes: 0, samples: 0 });
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_discarded_clip_may_be_gone_already() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::start(folder.path().to_owned()).unwrap();
        let (chunks, written) = spool.open(id(6)).unwrap();
        samples(&chunks, id(6), vec![1; 8000]);
        let path = folder.path().join(format!("{}.part", id(6)));
        while !path.exists() {
            tokio::task::yield_now().await;
        }
        fs::remove_file(&path).unwrap();
        end(&chunks, id(6), false);
        assert_eq!(written.await.unwrap().unwrap(), Finished { bytes: 0, samples: 0 });
    }

    #[test]
    fn a_clip_that_nobody_waits_for_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let waiting = Arc::new(Mutex::new(Waiting::new()));
        let folder = folder.path().to_owned();
        let mut writer = Writer::new(folder, Arc::clone(&waiting));
        let (lost, _) = oneshot::channel();
        let (wanted, _waits) = oneshot::channel();
        for (id, who) in [(id(7), lost), (id(8), wanted)] {
            waiting.lock().unwrap().insert(id, who);
            writer.append(id, &[1; 8000]).unwrap();
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
        // The next writes fail, and the last one has left something behind.
        let clip = writer.open.get_mut(&id(9)).unwrap();
        clip.file.seek(SeekFrom::End(0)).unwrap();
        clip.file.write_all(&[1; 333]).unwrap();
        let error = clip.failed(io::ErrorKind::StorageFull.into());
        writer.keep_what_there_is(id(9), error);
        // What comes later does not begin a new file.
        writer.take(chunk(ChunkBody::Samples(vec![6; 8000])));
        writer.announce();
        writer.take(chunk(ChunkBody::Samples(vec![6; 8000])));
        assert_eq!(written.try_recv().unwrap().unwrap().samples, 8000);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(files.len(), 1);
        let mut reader = hound::WavReader::open(files[0].path()).unwrap();
        assert!(reader.samples::<i16>().map(Result::unwrap).eq([5; 8000]));
    }

    #[test]
    fn clips_wait_while_their_folder_cannot_be_synced() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, mut written) = writer_with(folder.path(), id(10));
        writer.take(Chunk { recording: id(10), body: ChunkBody::Samples(vec![5; 8000]) });
        writer.take(Chunk { recording: id(10), body: ChunkBody::End { keep: true } });
        let moved = folder.path().with_extension("moved");
        fs::rename(folder.path(), &moved).unwrap();
        writer.announce();
        assert!(written.try_recv().is_err(), "it is not announced");
        fs::rename(&moved, folder.path()).unwrap();
        writer.announce();
        assert!(written.try_recv().is_err(), "a second has not passed");
        writer.sync_failed_at = writer.sync_failed_at.map(|at| at - LOOK_ROUND);
        writer.announce();
        assert_eq!(written.try_recv().unwrap().unwrap().samples, 8000);
    }

    #[test]
    fn a_clip_that_cannot_be_synced_is_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let (mut writer, _written) = writer_with(folder.path(), id(11));
        writer.append(id(11), &[7; 8000]).unwrap();
        let clip = writer.open.get_mut(&id(11)).unwrap();
        let before = clip.file.metadata().unwrap().ino();
        clip.write_again().unwrap();
        assert_ne!(clip.file.metadata().unwrap().ino(), before);
        clip.append(&[8; 100]).unwrap();
        let mut reader = hound::WavReader::open(&clip.path).unwrap();
        let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
        assert!(samples == [vec![7; 8000], vec![8; 100]].concat());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    fn writer_with(folder: &Path, clip: RecordingId) -> (Writer, ClipWritten) {
        let (sender, written) = oneshot::channel();
        let waiting = Arc::new(Mutex::new(Waiting::from([(clip, sender)])));
        (Writer::new(folder.to_owned(), waiting), written)
    }

    #[tokio::test]
    async fn a_disk_that_fails_is_told_and_harms_no_other_clip() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("r");
        let spool = Spool::start(inner.clone()).unwrap();
        let (chunks, lost) = spool.open(id(4)).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        samples(&chunks, id(4), vec![1; 8000]);
        assert!(matches!(lost.await.unwrap(), Err(SpoolError::Io { .. })));
        samples(&chunks, id(4), vec![1; 8000]);
        end(&chunks, id(4), true);
        fs::create_dir(&inner).unwrap();
        let (chunks, kept) = spool.open(id(5)).unwrap();
        end(&chunks, id(5), true);
        assert_eq!(kept.await.unwrap().unwrap().samples, 0);
    }
}
