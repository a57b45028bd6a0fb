//! What a daemon finds at its start: a recording of a call that is over.

use std::time::{Duration, SystemTime};

use aftertone::drivers::store::{Database, Journal, JournalLimits};
use aftertone_core::model::{
    Call, CallId, CallState, Change, OperationId, RecordingChange, RecordingId, Termination,
    UnixMillis,
};
use sqlx::{AnyConnection, Connection};
use tempfile::TempDir;

use super::{Node, sample};

/// The wall clock's time; the steady clock of a fresh database shows the same.
pub fn now() -> UnixMillis {
    UnixMillis::from(SystemTime::now())
}

/// A node's folder with one recording of `bytes` bytes, for the application of the tests, that
/// expires after `left`.
pub async fn with_a_recording(bytes: usize, left: Option<Duration>) -> (TempDir, RecordingId) {
    let folder = tempfile::tempdir().unwrap();
    let id = RecordingId::from_random([7; 16]);
    let call = CallId::from_random([8; 16]);
    let recordings = folder.path().join("recordings");
    std::fs::create_dir(&recordings).unwrap();
    std::fs::write(recordings.join(format!("{id}.wav")), vec![7; bytes]).unwrap();
    let url = format!("sqlite:{}", folder.path().join("aftertone.db").display());
    let database = Database::open(&url).await.unwrap();
    let (journal, writer) = Journal::start(database.clone(), JournalLimits::default());
    let mut changes = vec![
        RecordingChange::Begun {
            id,
            call,
            operation: OperationId::from_random([9; 16]),
            application: Some("tester".to_owned()),
            at: now(),
        },
        RecordingChange::Finished { id, bytes: bytes as u64 },
    ];
    let ended_at = database.clock().now();
    changes.extend(left.map(|retention| RecordingChange::Expire { call, ended_at, retention }));
    let change = Change { call: Some(ended_call(call)), recordings: changes, ..Change::default() };
    journal.submit(change).unwrap().await.unwrap();
    drop(journal);
    writer.await.unwrap();
    database.close().await;
    (folder, id)
}

fn ended_call(id: CallId) -> Call {
    Call {
        application: Some("tester".to_owned()),
        state: CallState::Terminated,
        created_at: now(),
        ended_at: Some(now()),
        termination: Some(Termination::PeerHungUp),
        ..sample::call(id)
    }
}

/// A second connection to the database of a node.
pub async fn database(node: &Node) -> AnyConnection {
    sqlx::any::install_default_drivers();
    let url = format!("sqlite:{}", node.folder().join("aftertone.db").display());
    AnyConnection::connect(&url).await.unwrap()
}
