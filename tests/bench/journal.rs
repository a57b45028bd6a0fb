//! How many changes a second the journal makes durable on SQLite, by the number of calls that wait
//! for their commits at the same time.

#[path = "../support/sample.rs"]
mod sample;

use std::time::{Duration, Instant};

use aftertone::drivers::store::{Database, Journal, JournalLimits};
use aftertone_core::model::{CallId, Change, Event, Notification};
use futures_util::future::join_all;

const TIME: Duration = Duration::from_secs(5);
const WRITERS: [u32; 4] = [1, 8, 64, 512];

#[tokio::main]
async fn main() {
    for writers in WRITERS {
        // On a disk: /tmp may be in memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("measured.db").display());
        let database = Database::open(&url).await.expect("a database");
        let (journal, writer) = Journal::start(database.clone(), JournalLimits::default());
        let begun = Instant::now();
        let mut waits = join_all((0..writers).map(|writer| write(&journal, writer))).await.concat();
        let rate = waits.len() as f64 / begun.elapsed().as_secs_f64();
        waits.sort();
        let at = |share: usize| waits[(waits.len() - 1) * share / 100];
        println!("{writers} writers: {rate:.0} a second, {:.1?}, p99 {:.1?}", at(50), at(99));
        drop(journal);
        writer.await.expect("the journal ends");
        database.close().await;
    }
}

/// Commits one call after another; returns how long each commit took.
async fn write(journal: &Journal, writer: u32) -> Vec<Duration> {
    let begun = Instant::now();
    let mut waits = Vec::new();
    for number in 0_u32.. {
        if begun.elapsed() > TIME {
            break;
        }
        let asked = Instant::now();
        let change = opening(writer, number);
        journal.submit(change).expect("there is room").await.expect("it is durable");
        waits.push(asked.elapsed());
    }
    waits
}

/// The first change of a call: its row and its first notification.
fn opening(writer: u32, number: u32) -> Change {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&writer.to_be_bytes());
    id[4..8].copy_from_slice(&number.to_be_bytes());
    let call = sample::call(CallId::from_random(id));
    let notification = Notification {
        application: "bot".to_owned(),
        chain_id: "chain".to_owned(),
        callback_uri: "https://bot.example/calls".to_owned(),
        event: Event::CallOffered { call: call.clone() },
    };
    Change { call: Some(call), notifications: vec![notification], ..Change::default() }
}
