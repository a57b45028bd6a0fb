//! Downloads while the store cannot be read or the folder is gone, and downloads that outlast their
//! recording.

mod support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use aftertone_core::model::RecordingId;
use reqwest::Method;
use sqlx::Executor;
use support::{
    Node,
    bot::{Bot, TOKEN},
    kept::{database, now, with_a_recording},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
};

/// More than the buffers between a client and the file can hold.
const BYTES: usize = 8 << 20;

async fn ask(bot: &Bot, node: &Node, method: Method, id: RecordingId) -> (u16, bool) {
    let asked = bot.client.request(method, format!("{}/recordings/{id}", node.api));
    let answer = asked.bearer_auth(TOKEN).send().await.unwrap();
    (answer.status().as_u16(), answer.headers().contains_key("retry-after"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_while_the_database_is_locked_is_not_answered_with_not_found() {
    let (folder, id) = with_a_recording(BYTES, None).await;
    let bot = Bot::start().await;
    let node = Node::start_in(folder, &bot.config());
    let mut other = database(&node).await;
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    assert_eq!(ask(&bot, &node, Method::DELETE, id).await, (503, true));
    assert_eq!(ask(&bot, &node, Method::HEAD, id).await, (200, false));
    other.execute("COMMIT").await.unwrap();
    assert_eq!(ask(&bot, &node, Method::DELETE, id).await, (204, false));
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (404, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_whose_file_cannot_be_opened_is_not_answered_with_not_found() {
    let (folder, id) = with_a_recording(BYTES, None).await;
    let bot = Bot::start().await;
    let node = Node::start_in(folder, &bot.config());
    let file = node.folder().join(format!("recordings/{id}.wav"));
    let aside = node.folder().join("aside");
    let recordings = node.folder().join("recordings");
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).unwrap();
    // A symbolic link to itself (ELOOP): no user can open it.
    rename(&file, &aside);
    std::os::unix::fs::symlink(&file, &file).unwrap();
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (503, true));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (404, false));
    rename(&aside, &file);
    // The whole folder is away, as if its disk was not mounted.
    rename(&recordings, &aside);
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (503, true));
    rename(&aside, &recordings);
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (200, false));
}

/// Downloads a recording at the pace of a slow client until `until`, then as fast as possible;
/// returns how many bytes came, and when the connection ended.
async fn taken_slowly(node: &Node, id: RecordingId, until: Instant) -> (usize, Instant) {
    let address = node.api.strip_prefix("http://").unwrap().parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!(
        "GET /recordings/{id} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut buffer, mut answer) = (vec![0; 16 * 1024], Vec::new());
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..read]);
        if Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
    let text = String::from_utf8_lossy(&answer[..head]).to_lowercase();
    assert!(text.contains(&format!("content-length: {BYTES}\r\n")), "{text}");
    (answer.len() - head, Instant::now())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_when_its_recording_expires() {
    let bot = Bot::start().await;
    let expiry = Duration::from_secs(4);
    let (folder, id) = with_a_recording(BYTES, Some(expiry)).await;
    let expired = Instant::now() + expiry;
    let node = Node::start_in(folder, &bot.config());
    let (bytes, _) = taken_slowly(&node, id, expired).await;
    assert!(bytes > 0 && bytes < BYTES, "{bytes} bytes were sent after the expiry");
    assert_eq!(ask(&bot, &node, Method::GET, id).await, (404, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_of_a_live_call_ends_when_the_call_and_its_time_are_over() {
    // The recording had no expiry when the download began.
    let (folder, id) = with_a_recording(BYTES, None).await;
    let bot = Bot::start().await;
    let node = Node::start_in(folder, &bot.config());
    let expired = Instant::now() + Duration::from_secs(3);
    // The steady clock of a fresh database shows the wall clock's time.
    let (expires_at, mut other) = (now().plus(Duration::from_secs(2)), database(&node).await);
    let (taken, ()) = tokio::join!(taken_slowly(&node, id, expired), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let set = format!("UPDATE recordings SET expires_at = {}", expires_at.0);
        other.execute(sqlx::AssertSqlSafe(set)).await.unwrap();
    });
    assert!(taken.0 > 0 && taken.0 < BYTES, "{} bytes were sent after the expiry", taken.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_ends_when_its_recording_is_deleted() {
    let (folder, id) = with_a_recording(BYTES, None).await;
    let bot = Bot::start().await;
    let node = Node::start_in(folder, &bot.config());
    let deleted = Instant::now() + Duration::from_secs(1);
    let (taken, status) =
        tokio::join!(taken_slowly(&node, id, deleted + Duration::from_secs(2)), async {
            tokio::time::sleep_until(deleted.into()).await;
            ask(&bot, &node, Method::DELETE, id).await
        });
    assert_eq!(status, (204, false));
    let (bytes, ended) = taken;
    assert!(bytes > 0 && bytes < BYTES, "{bytes} bytes were sent after the DELETE");
    assert!(ended < deleted + Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_in_its_time_is_whole() {
    let (folder, id) = with_a_recording(BYTES, None).await;
    let bot = Bot::start().await;
    let node = Node::start_in(folder, &bot.config());
    let (bytes, _) = taken_slowly(&node, id, Instant::now() + Duration::from_secs(3)).await;
    assert_eq!(bytes, BYTES);
}
