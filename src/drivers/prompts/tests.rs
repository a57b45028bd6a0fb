//! The library and its fetches against scripted servers, byte by byte.

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use flate2::{Compression, bufread};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::*;
use aftertone_core::model::{PromptFailure, PromptFailureKind, PromptSource};

#[test]
fn every_bundled_prompt_can_be_played() {
    for name in ["greeting", "goodbye", "spoken"] {
        assert!(bundled(name).is_some(), "{name}");
    }
    assert!(bundled("none").is_none());
}

const OLDER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const NEWER: &str = "Mon, 07 Nov 1994 08:49:37 GMT";

/// A prompt at `/now`, which redirects to the current file.
async fn moving(
    status: u16,
    first: &'static str,
    then: &'static str,
    fields: &'static str,
) -> ScriptedServer {
    let turns = AtomicUsize::new(0);
    ScriptedServer::start(move |asked| {
        let (sound, modified) = match asked.path() {
            "/now" => {
                let target = if turns.fetch_add(1, Ordering::Relaxed) == 0 { first } else { then };
                return Some(answer(status, &format!("Location: {target}"), b""));
            }
            "/goodbye.wav" => ("goodbye", NEWER),
            _ => ("greeting", OLDER),
        };
        // As most servers decide: one matching tag, or a date that is not older.
        let since = asked.field("if-modified-since");
        let is_known = match asked.field("if-none-match") {
            Some(tag) => fields.contains(&format!("ETag: {tag}")),
            None => since == Some(NEWER) || since == Some(modified),
        };
        let fields = format!("{fields}\r\nLast-Modified: {modified}");
        Some(match is_known {
            true => answer(304, &fields, b""),
            false => answer(200, &fields, bundled_wav(sound).unwrap()),
        })
    })
    .await
}

#[tokio::test]
async fn a_redirect_to_another_file_plays_that_file() {
    for status in [302, 303, 307] {
        for fields in
            ["X: y", "ETag: \"1\"", "ETag: W/\"1\"", "Cache-Control: max-age=600, immutable"]
        {
            let server = moving(status, "/goodbye.wav", "/greeting.wav", fields).await;
            let library = library(1 << 20);
            for sound in ["goodbye", "greeting", "greeting"] {
                let heard = server.heard(&library, "/now").await;
                assert_eq!(heard.unwrap(), sound, "{status}, {fields}");
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_to_the_same_file_does_not_bring_it_again() {
    let server = moving(302, "/goodbye.wav", "/goodbye.wav", "ETag: \"1\"").await;
    let library = library(1 << 20);
    for _ in 0..3 {
        assert_eq!(server.heard(&library, "/now").await.unwrap(), "goodbye");
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 6);
    let conditions = asked.iter().map(|head| ScriptedRequest { head: head.clone() });
    let conditions: Vec<bool> =
        conditions.map(|asked| asked.field("if-none-match").is_some()).collect();
    assert_eq!(conditions, [false, false, false, true, false, true]);
}

#[tokio::test]
async fn a_permanent_redirect_is_as_good_as_its_target() {
    for status in [301, 308] {
        let server =
            moving(status, "/goodbye.wav", "/greeting.wav", "Cache-Control: max-age=60").await;
        let library = library(1 << 20);
        for _ in 0..2 {
            assert_eq!(server.heard(&library, "/now").await.unwrap(), "goodbye", "{status}");
        }
        assert_eq!(server.asked().len(), 2, "{status}");
    }
}

#[tokio::test]
async fn a_304_without_a_question_is_no_prompt() {
    let server = moving(302, "/goodbye.wav", "/greeting.wav", "ETag: \"1\"").await;
    let broken = ScriptedServer::start(|_| Some(answer(304, "ETag: \"1\"", b""))).await;
    let library = library(1 << 20);
    server.heard(&library, "/now").await.unwrap();
    let failure = broken.heard(&library, "/now").await.unwrap_err();
    assert!(failure.message.contains("304"), "{}", failure.message);
}

#[tokio::test]
async fn a_copy_that_comes_old_or_whose_second_line_forbids_it_is_not_used_again() {
    for (fields, requests) in [
        ("Cache-Control: max-age=600\r\nAge: 10", 1),
        ("Cache-Control: max-age=600\r\nAge: 600", 2),
        ("Cache-Control: max-age=600\r\nAge: 100000", 2),
        ("Cache-Control: max-age=600\r\nAge: 18446744073709551615", 2),
        ("Cache-Control: max-age=600\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT", 2),
        ("Cache-Control: public\r\nCache-Control: max-age=600", 1),
        ("Cache-Control: max-age=600\r\nCache-Control: no-cache", 2),
        ("Cache-Control: max-age=600\r\nCache-Control: No-Store", 2),
        ("Expires: Fri, 06 Nov 2093 08:49:37 GMT", 1),
        ("Expires: 0", 2),
    ] {
        let server = ScriptedServer::start(move |_| {
            Some(answer(200, fields, bundled_wav("goodbye").unwrap()))
        })
        .await;
        let library = library(1 << 20);
        for _ in 0..2 {
            assert_eq!(server.heard(&library, "/a").await.unwrap(), "goodbye");
        }
        assert_eq!(server.asked().len(), requests, "{fields}");
    }
}

#[tokio::test]
async fn a_connection_that_is_closed_under_the_get_does_not_cost_the_prompt() {
    // Each connection serves one request and is closed when the next one comes.
    let server = ScriptedServer::start_turns(|_, turn| {
        (turn == 0).then(|| answer(200, "", bundled_wav("goodbye").unwrap()))
    })
    .await;
    let library = library(1 << 20);
    // Two at a time, so that two connections are kept and closed.
    for _ in 0..3 {
        let both = tokio::join!(server.heard(&library, "/a"), server.heard(&library, "/b"));
        assert_eq!((both.0.unwrap(), both.1.unwrap()), ("goodbye", "goodbye"));
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_fetched_again_and_a_server_that_always_cuts_fails() {
    let turns = AtomicUsize::new(0);
    let whole = answer(200, "", bundled_wav("goodbye").unwrap());
    let server = ScriptedServer::start(move |asked| {
        let is_cut = asked.path() != "/once" || turns.fetch_add(1, Ordering::Relaxed) == 0;
        Some(whole[..if is_cut { 5_000 } else { whole.len() }].to_vec())
    })
    .await;
    let library = library(1 << 20);
    assert_eq!(server.heard(&library, "/once").await.unwrap(), "goodbye");
    let failure = server.heard(&library, "/always").await.unwrap_err();
    assert_eq!(failure.kind, PromptFailureKind::NotFetched);
    assert_eq!(server.asked().len(), 4, "once and again, twice");
    let silent = ScriptedServer::start(|_| None).await;
    assert_eq!(silent.heard(&library, "/").await.unwrap_err().kind, PromptFailureKind::NotFetched);
    assert_eq!(silent.asked().len(), 2);
}

#[tokio::test]
async fn a_packed_prompt_is_played() {
    let wav = bundled_wav("goodbye").unwrap();
    let all = |mut packed: Box<dyn Read>| {
        let mut bytes = Vec::new();
        packed.read_to_end(&mut bytes).unwrap();
        bytes
    };
    let gzip = |bytes| all(Box::new(bufread::GzEncoder::new(bytes, Compression::fast())));
    let zlib = all(Box::new(bufread::ZlibEncoder::new(wav, Compression::fast())));
    let raw = all(Box::new(bufread::DeflateEncoder::new(wav, Compression::fast())));
    let gz = gzip(wav);
    let twice = all(Box::new(bufread::GzEncoder::new(
        std::io::Cursor::new(zlib.clone()),
        Compression::fast(),
    )));
    let library = library(1 << 20);
    for (fields, body) in [
        ("Content-Encoding: gzip", gz.clone()),
        ("Content-Encoding: X-GZip", gz.clone()),
        ("Content-Type: application/gzip", gz.clone()),
        ("Content-Encoding: deflate", zlib),
        ("Content-Encoding: deflate", raw),
        ("Content-Encoding: deflate\r\nContent-Encoding: gzip", twice.clone()),
        ("Content-Encoding: deflate, gzip", twice),
        ("Content-Encoding: aws-chunked", wav.to_vec()),
    ] {
        let server = ScriptedServer::start(move |_| Some(answer(200, fields, &body))).await;
        assert_eq!(server.heard(&library, "/a.wav.gz").await.unwrap(), "goodbye", "{fields}");
    }
    let bomb = all(Box::new(bufread::GzEncoder::new(
        std::io::BufReader::new(std::io::repeat(0).take(2 << 20)),
        Compression::fast(),
    )));
    for (fields, body, kind, words) in [
        ("Content-Encoding: br", b"?".to_vec(), PromptFailureKind::BadFormat, "\"br\""),
        ("Content-Encoding: gzip", gz[..99].to_vec(), PromptFailureKind::BadFormat, "unpacked"),
        ("Content-Encoding: gzip", bomb.clone(), PromptFailureKind::NotFetched, "larger than"),
        ("X: y", bomb, PromptFailureKind::NotFetched, "larger than"),
    ] {
        let server = ScriptedServer::start(move |_| Some(answer(200, fields, &body))).await;
        let failure = server.heard(&library, "/a").await.unwrap_err();
        assert_eq!(failure.kind, kind, "{fields}");
        assert!(failure.message.contains(words), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_packed_file_of_the_folder_is_played() {
    let folder = tempfile::tempdir().unwrap();
    let mut packed = Vec::new();
    let wav = bundled_wav("goodbye").unwrap();
    bufread::GzEncoder::new(wav, Compression::fast()).read_to_end(&mut packed).unwrap();
    std::fs::write(folder.path().join("a.wav.gz"), packed).unwrap();
    let library = library_with(1 << 20, Some(folder.path()));
    assert_eq!(heard(&library, "file:///a.wav.gz").await.unwrap(), "goodbye");
}

#[tokio::test]
async fn a_folder_that_does_not_answer_holds_few_of_the_threads_that_all_share() {
    let folder = tempfile::tempdir().unwrap();
    // Opening it blocks, as on a disk that does not answer, until it is opened for writing.
    let silent = folder.path().join("silent");
    nix::unistd::mkfifo(&silent, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let library = library_with(1 << 20, Some(folder.path()));
    // More than there are threads.
    let loading: Vec<_> = (0..600)
        .map(|number| {
            let path = folder.path().join(number.to_string());
            std::os::unix::fs::symlink(&silent, path).unwrap();
            let library = library.clone();
            tokio::spawn(async move { heard(&library, &format!("file:///{number}")).await })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let other = tokio::task::spawn_blocking(|| ());
    let other = tokio::time::timeout(Duration::from_secs(10), other).await;
    let _writer = std::fs::File::options().read(true).write(true).open(&silent).unwrap();
    for loaded in loading {
        assert!(loaded.await.unwrap().is_err());
    }
    assert!(other.is_ok(), "no thread was left");
}

#[tokio::test]
async fn a_location_in_raw_utf_8_is_followed() {
    let server = ScriptedServer::start(|asked| {
        Some(match asked.path() {
            "/now" => answer(302, "Location: /gr\u{fc}\u{df}e/früh.wav?n=1", b""),
            "/gr%C3%BC%C3%9Fe/fr%C3%BCh.wav?n=1" => {
                answer(200, "", bundled_wav("goodbye").unwrap())
            }
            _ => answer(404, "", b""),
        })
    })
    .await;
    assert_eq!(server.heard(&library(1 << 20), "/now").await.unwrap(), "goodbye");
}

// --- support ---

/// A server that records the heads of all requests.
struct ScriptedServer {
    base: String,
    heads: Arc<Mutex<Vec<String>>>,
}

struct ScriptedRequest {
    head: String,
}

/// The answer to the nth request on a connection; `None` closes the connection without an answer.
type AnswerScript = dyn Fn(&ScriptedRequest, usize) -> Option<Vec<u8>> + Send + Sync;

impl ScriptedServer {
    async fn start(
        script: impl Fn(&ScriptedRequest) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        Self::start_turns(move |asked, _| script(asked)).await
    }

    async fn start_turns(
        script: impl Fn(&ScriptedRequest, usize) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (script, heads): (Arc<AnswerScript>, _) = (Arc::new(script), Arc::default());
        let seen = Arc::clone(&heads);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Self { base, heads }
    }

    async fn heard(&self, library: &Library, path: &str) -> Result<&'static str, PromptFailure> {
        heard(library, &format!("{}{path}", self.base)).await
    }

    fn asked(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

impl ScriptedRequest {
    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

async fn serve(mut stream: TcpStream, script: Arc<AnswerScript>, heads: Arc<Mutex<Vec<String>>>) {
    for turn in 0.. {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let asked = ScriptedRequest { head: String::from_utf8(head).unwrap() };
        heads.lock().unwrap().push(asked.head.clone());
        let Some(answer) = script(&asked, turn) else { return };
        if stream.write_all(&answer).await.is_err() || !is_whole(&answer) {
            return;
        }
    }
}

/// Whether an answer has as many body bytes as its header says.
fn is_whole(answer: &[u8]) -> bool {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    length.is_none_or(|length| length.parse() == Ok(answer.len() - end))
}

/// An answer with these header fields.
fn answer(status: u16, fields: &str, body: &[u8]) -> Vec<u8> {
    let fields = if fields.is_empty() { "X: y" } else { fields };
    let length = match status {
        304 => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!("HTTP/1.1 {status} So\r\n{fields}\r\n{length}\r\n");
    [head.as_bytes(), body].concat()
}

fn library(max_bytes: u64) -> Library {
    library_with(max_bytes, None)
}

fn library_with(max_bytes: u64, folder: Option<&std::path::Path>) -> Library {
    let fence = Fence::new(std::iter::once(("127.0.0.0/8".parse().unwrap(), None)));
    let limits = FetchLimits {
        connect_timeout: Duration::from_secs(5),
        total_timeout: Duration::from_secs(5),
        max_bytes,
        prompt_folder: folder.map(ToOwned::to_owned),
    };
    let limits_of_library =
        LibraryLimits { memory_bytes: 64 << 20, max_duration: Duration::from_secs(60) };
    Library::new(Fetch::new(fence, limits).unwrap(), limits_of_library)
}

/// The bundled prompt that an address serves.
async fn heard(library: &Library, uri: &str) -> Result<&'static str, PromptFailure> {
    let source = PromptSource { uri: uri.to_owned(), resource_id: None, times: 1 };
    let clip = library.load("bot", &source).await?;
    let is_it = |name: &&str| bundled(name).unwrap().bytes() == clip.bytes();
    Ok(["greeting", "goodbye", "spoken"].into_iter().find(is_it).expect("a bundled prompt"))
}
