//! The contract of the store, on SQLite and on PostgreSQL from one body.
//!
//! Each case gets a database of its own, and may close and open it again.

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/sample.rs"]
mod sample;

use std::{path::PathBuf, pin::Pin, process::Stdio, time::Duration};

use aftertone::drivers::{
    recordings::{Folder, Purge, Vault},
    store::{
        Database, Delivery, Journal, JournalLimits, KeptAnswer, LostFileRow, RecordingRow,
        RecordingState, RequestKey, SigningKeyRow, StoreError,
    },
};
use aftertone_core::model::{
    Call, CallId, CallState, Change, Event, Notification, Operation, OperationEnd, OperationId,
    OperationKind, OperationStatus, Party, RecordingChange, RecordingId, SteadyMillis, Termination,
    Tone, UnixMillis,
};
use futures_util::future::join_all;
use postgres::Cluster;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    for (name, case) in CASES {
        println!("SQLite: {name}");
        let place = Place::Sqlite(folder.path().join(format!("{name}.db")));
        case(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_keeps_the_contract() {
    let cluster = Cluster::start();
    for (name, case) in CASES {
        println!("PostgreSQL: {name}");
        case(Place::Postgres(cluster.database(name))).await;
    }
    println!("PostgreSQL: waits_for_the_server");
    waits_for_the_server(&cluster).await;
    println!("PostgreSQL: a_second_process_is_refused_until_the_first_has_gone");
    a_second_process_is_refused_until_the_first_has_gone(&cluster).await;
}

macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        &[$((stringify!($case), |place| Box::pin($case(place)))),*]
    };
}

type Case = fn(Place) -> Pin<Box<dyn Future<Output = ()> + Send>>;

const CASES: &[(&str, Case)] = cases![
    a_change_is_true_as_a_whole_or_not_at_all,
    commits_keep_the_order_of_submission,
    one_bad_change_does_not_poison_the_others,
    what_is_committed_survives_a_crash,
    a_full_journal_gives_the_change_back,
    operations_come_in_the_order_of_acceptance,
    unfinished_calls_are_found_after_a_restart,
    the_outbox_keeps_the_order_of_a_call,
    sequences_go_on_after_delivery,
    a_notification_given_up_stays_visible,
    tones_of_a_call_do_not_pile_up_and_facts_are_all_kept,
    an_unreadable_notification_does_not_block_its_call,
    receivers_are_told_apart,
    a_nul_in_a_text_stops_no_commit,
    a_recording_lives_its_life,
    discarded_clips_go_at_once,
    a_deleted_clip_never_comes_back,
    a_clip_that_cannot_be_deleted_does_not_hold_up_the_others,
    ended_calls_are_purged_after_their_recordings,
    a_sleeping_purge_is_woken_by_what_is_due_earlier,
    keys_of_requests_survive_a_restart,
    a_key_whose_call_was_placed_before_a_crash_finds_it,
    an_application_has_its_newest_answers_kept,
    signing_keys_come_and_go,
    the_clock_goes_on_after_a_restart,
    files_that_no_row_knows_are_written_down,
    many_writers_and_readers,
];

async fn a_change_is_true_as_a_whole_or_not_at_all(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let operation = operation(&call, 1);
    fixture
        .commit(Change {
            call: Some(call.clone()),
            operations: vec![operation.clone()],
            notifications: vec![offered(&call)],
            ..Change::default()
        })
        .await
        .unwrap();
    assert_eq!(fixture.store.call(call.id).await.unwrap(), Some(call.clone()));
    assert_eq!(fixture.store.operations(call.id).await.unwrap(), [operation]);
    assert_eq!(place.pending().await, 1);

    // The notification names a call that does not exist, so the whole change is refused.
    let stranger = self::call(2);
    let changed = Call { state: CallState::Established, ..call.clone() };
    let refused = fixture
        .commit(Change {
            call: Some(changed),
            notifications: vec![offered(&call), offered(&stranger)],
            ..Change::default()
        })
        .await;
    assert!(matches!(refused, Err(StoreError::UnknownCall(id)) if id == stranger.id));
    assert_eq!(fixture.store.call(call.id).await.unwrap(), Some(call));
    assert_eq!(place.pending().await, 1);
}

async fn commits_keep_the_order_of_submission(place: Place) {
    let fixture = Fixture::open(&place).await;
    let subject = |call: &Call, text: String| Call { subject: Some(text), ..call.clone() };
    let calls: Vec<Call> = (0..10).map(call).collect();
    let mut commits = Vec::new();
    for round in 0..50 {
        for call in &calls {
            let call = subject(call, format!("round {round}"));
            let notifications = vec![changed(&call)];
            let change = Change { call: Some(call), notifications, ..Change::default() };
            commits.push(fixture.journal.submit(change).unwrap());
        }
    }
    join_all(commits).await.into_iter().for_each(Result::unwrap);
    for call in &calls {
        let stored = fixture.store.call(call.id).await.unwrap().unwrap();
        assert_eq!(stored.subject.as_deref(), Some("round 49"));
        for round in 0..50 {
            let head = fixture.head_of(call).await.unwrap();
            assert_eq!(head.sequence, round + 1);
            let Event::CallChanged { call: told } = &head.event else { panic!("{head:?}") };
            assert_eq!(told.subject, Some(format!("round {round}")));
            fixture.store.delivered(&head).await.unwrap();
        }
        assert_eq!(fixture.head_of(call).await, None);
    }
}

async fn one_bad_change_does_not_poison_the_others(place: Place) {
    let fixture = Fixture::open(&place).await;
    let commits: Vec<_> = (0..20)
        .map(|number| {
            let call = call(number);
            let operations = if number == 7 {
                // The operation belongs to a call that was never stored.
                vec![operation(&self::call(1000), 1)]
            } else {
                Vec::new()
            };
            fixture
                .journal
                .submit(Change { call: Some(call), operations, ..Change::default() })
                .unwrap()
        })
        .collect();
    for (number, result) in join_all(commits).await.into_iter().enumerate() {
        assert_eq!(result.is_err(), number == 7, "{number}: {result:?}");
        let stored = fixture.store.call(call(number as u32).id).await.unwrap();
        assert_eq!(stored.is_none(), number == 7, "{number}");
    }
}

async fn what_is_committed_survives_a_crash(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    fixture.commit(opening(&call)).await.unwrap();
    // Neither the database nor the journal is closed.
    fixture.writer.abort();
    assert!(fixture.writer.await.unwrap_err().is_cancelled());
    drop((fixture.journal, fixture.store));
    let fixture = Fixture::open(&place).await;
    assert_eq!(fixture.store.call(call.id).await.unwrap(), Some(call.clone()));
    assert_eq!(fixture.head_of(&call).await.unwrap().sequence, 1);
}

async fn a_full_journal_gives_the_change_back(place: Place) {
    let store = Database::open(&place.url()).await.unwrap();
    let limits = JournalLimits { queue: 4, behind_changes: 2, ..JournalLimits::default() };
    let (journal, writer) = Journal::start(store.clone(), limits);
    let mut commits = Vec::new();
    let mut number = 0;
    let returned = loop {
        match journal.submit(opening(&call(number))) {
            Ok(commit) => commits.push(commit),
            Err(behind) => break *behind.0,
        }
        number += 1;
        assert!(number < 100_000, "the journal takes everything");
    };
    assert_eq!(returned, opening(&call(number)));
    assert!(journal.is_behind());
    join_all(commits).await.into_iter().for_each(Result::unwrap);
    journal.flush(Duration::from_secs(10)).await.unwrap();
    assert!(!journal.is_behind());
    journal.submit(returned).unwrap().await.unwrap();
    assert_eq!(place.pending().await, i64::from(number) + 1);

    // The journal ends by itself, after everything that was submitted.
    let last = journal.submit(opening(&call(number + 1))).unwrap();
    drop(journal);
    last.await.unwrap();
    writer.await.unwrap();
}

async fn operations_come_in_the_order_of_acceptance(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    // All in the same millisecond, with ids in the opposite order.
    let operations: Vec<Operation> = (0..5).map(|n| operation(&call, 200 - n)).collect();
    let change =
        Change { call: Some(call.clone()), operations: operations.clone(), ..Change::default() };
    fixture.commit(change).await.unwrap();
    let ended = ended(&operations[1]);
    let change = Change { operations: vec![ended.clone()], ..Change::default() };
    fixture.commit(change).await.unwrap();
    let stored = fixture.store.operations(call.id).await.unwrap();
    let mut expected = operations;
    expected[1] = ended;
    assert_eq!(stored, expected);
}

async fn unfinished_calls_are_found_after_a_restart(place: Place) {
    let fixture = Fixture::open(&place).await;
    let (live, done) = (call(1), terminated(&call(2)));
    let operations = vec![operation(&live, 1), ended(&operation(&live, 2)), operation(&live, 3)];
    let change = Change {
        call: Some(live.clone()),
        operations: operations.clone(),
        recordings: vec![begun(1, &operations[0])],
        ..Change::default()
    };
    fixture.commit(change).await.unwrap();
    fixture.commit(Change { call: Some(done), ..Change::default() }).await.unwrap();

    let fixture = fixture.restarted(&place).await;
    let unfinished = fixture.store.unfinished_calls().await.unwrap();
    assert_eq!(unfinished.len(), 1);
    assert_eq!(unfinished[0].call, live);
    assert_eq!(unfinished[0].operations, [operations[0].clone(), operations[2].clone()]);
    let clips = fixture.store.unfinished().await.unwrap();
    assert_eq!(clips.len(), 1);
    assert_eq!((clips[0].id, clips[0].operation), (recording_id(1), operations[0].id));
}

async fn the_outbox_keeps_the_order_of_a_call(place: Place) {
    let fixture = Fixture::open(&place).await;
    let (slow, quick) = (call(1), call(2));
    for call in [&slow, &quick] {
        let mut change = opening(call);
        change.notifications.push(changed(call));
        fixture.commit(change).await.unwrap();
    }
    let head = fixture.head_of(&slow).await.unwrap();
    fixture.store.failed(&head, 1, SteadyMillis(5_000), "no answer").await.unwrap();

    // Before its time the failed notification holds back the next one of its call, and no other
    // call.
    let heads = fixture.heads(SteadyMillis(4_999)).await;
    assert_eq!(names(&heads), [(quick.id, 1)]);
    assert_eq!(fixture.store.head_of(slow.id, SteadyMillis(4_999)).await.unwrap(), None);
    let next = fixture.store.next_attempt(SteadyMillis(4_999)).await.unwrap();
    assert_eq!(next, Some(SteadyMillis(5_000)));
    let heads = fixture.heads(SteadyMillis(5_000)).await;
    assert_eq!(names(&heads), [(quick.id, 1), (slow.id, 1)]);
    assert_eq!(heads[1].attempts, 1);

    fixture.store.delivered(&heads[1]).await.unwrap();
    let heads = fixture.heads(SteadyMillis(5_000)).await;
    assert_eq!(names(&heads), [(slow.id, 2), (quick.id, 1)]);
}

async fn sequences_go_on_after_delivery(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    fixture.commit(opening(&call)).await.unwrap();
    for sequence in 1..=3 {
        let head = fixture.head_of(&call).await.unwrap();
        assert_eq!(head.sequence, sequence);
        fixture.store.delivered(&head).await.unwrap();
        assert_eq!(place.pending().await, 0);
        let change = Change { notifications: vec![changed(&call)], ..Change::default() };
        fixture.commit(change).await.unwrap();
    }
}

async fn a_notification_given_up_stays_visible(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let mut change = opening(&call);
    change.notifications.push(changed(&call));
    fixture.commit(change).await.unwrap();
    let head = fixture.head_of(&call).await.unwrap();
    fixture.store.give_up(&head, 3, "answered 403 Forbidden").await.unwrap();

    let fixture = fixture.restarted(&place).await;
    assert_eq!(fixture.head_of(&call).await.unwrap().sequence, 2);
    assert_eq!(place.pending().await, 1);
    let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
    assert_eq!(given_up.len(), 1);
    assert_eq!((given_up[0].delivery.sequence, given_up[0].delivery.attempts), (1, 3));
    assert_eq!(given_up[0].error, "answered 403 Forbidden");
    assert_eq!(fixture.store.given_up("another", 0, 10).await.unwrap(), []);
}

async fn tones_of_a_call_do_not_pile_up_and_facts_are_all_kept(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    fixture.commit(opening(&call)).await.unwrap();
    let tone = |sequence| {
        let event = Event::ToneHeard { call: call.id, sequence, tone: Tone::POUND };
        Change { notifications: vec![notification(event)], ..Change::default() }
    };
    let tones: Vec<_> =
        (1..=600).map(|sequence| fixture.journal.submit(tone(sequence)).unwrap()).collect();
    for written in join_all(tones).await {
        written.unwrap();
    }
    assert_eq!(place.pending().await, 256);
    let fact = Change { notifications: vec![changed(&call)], ..Change::default() };
    for _ in 0..10 {
        fixture.commit(fact.clone()).await.unwrap();
    }
    assert_eq!(place.pending().await, 266);
    // Once the application accepts them, tones are notified again, in order.
    let mut sequence = 0;
    while let Some(head) = fixture.head_of(&call).await {
        assert_eq!(head.sequence, sequence + 1);
        sequence = head.sequence;
        fixture.store.delivered(&head).await.unwrap();
    }
    fixture.commit(tone(601)).await.unwrap();
    let head = fixture.head_of(&call).await.unwrap();
    assert_eq!(
        (head.sequence, head.event.clone()),
        (267, Event::ToneHeard { call: call.id, sequence: 601, tone: Tone::POUND })
    );
    // An application that refuses each of them leaves the newest.
    fixture.store.give_up(&head, 1, "answered 403").await.unwrap();
    for sequence in 602..2_000 {
        fixture.commit(tone(sequence)).await.unwrap();
        let head = fixture.head_of(&call).await.unwrap();
        fixture.store.give_up(&head, 1, "answered 403").await.unwrap();
    }
    let given_up = fixture.store.given_up_count("bot").await.unwrap();
    assert!((1_000..=1_025).contains(&given_up), "{given_up}");
}

async fn an_unreadable_notification_does_not_block_its_call(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let mut change = opening(&call);
    change.notifications.push(changed(&call));
    fixture.commit(change).await.unwrap();
    fixture.close().await;
    place
        .execute("UPDATE outbox SET body = '{\"kind\":\"of a later time\"}' WHERE sequence = 1")
        .await;
    let fixture = Fixture::open(&place).await;
    assert_eq!(fixture.heads(SteadyMillis(0)).await, []);
    assert_eq!(names(&fixture.heads(SteadyMillis(0)).await), [(call.id, 2)]);
    assert_eq!(fixture.store.given_up("bot", 0, 10).await.unwrap(), []);
}

/// PostgreSQL refuses NUL in a text, and everything that is committed with it.
async fn a_nul_in_a_text_stops_no_commit(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let mut change = opening(&call);
    let notification = &mut change.notifications[0];
    notification.callback_uri = "https://bot.example/\0calls".to_owned();
    notification.chain_id = "ch\0ain".to_owned();
    fixture.commit(change).await.unwrap();
    let [delivery] = &fixture.heads(SteadyMillis(0)).await[..] else { panic!("not one") };
    assert_eq!(delivery.callback_uri, "https://bot.example/calls");
    fixture.store.give_up(delivery, 1, "no\0answer").await.unwrap();
    let given_up = fixture.store.given_up("bot", 0, 10).await.unwrap();
    assert_eq!(given_up[0].error, "noanswer");
}

async fn receivers_are_told_apart(place: Place) {
    let fixture = Fixture::open(&place).await;
    let at = |number, application: &str, callback_uri: &str| {
        let call = call(number);
        let mut change = opening(&call);
        change.notifications[0].application = application.to_owned();
        change.notifications[0].callback_uri = callback_uri.to_owned();
        change
    };
    for change in [
        at(1, "bot", "https://a.example/one?x=1"),
        at(2, "bot", "https://A.example:443/two"),
        at(3, "bot", "http://a.example/one"),
        at(4, "other", "https://a.example/one"),
        at(5, "bot", "not an address"),
    ] {
        fixture.commit(change).await.unwrap();
    }
    let due = fixture.store.receivers_due(SteadyMillis(0)).await.unwrap();
    let mut expected = [
        "bot http://a.example",
        "bot https://a.example",
        "bot not an address",
        "other https://a.example",
    ]
    .map(str::to_owned);
    expected.sort();
    let mut sorted = due;
    sorted.sort();
    assert_eq!(sorted, expected);
    let heads = fixture.store.heads("bot https://a.example", SteadyMillis(0), 10).await.unwrap();
    assert_eq!(names(&heads), [(call(1).id, 1), (call(2).id, 1)]);
    let heads = fixture.store.heads("bot https://a.example", SteadyMillis(0), 1).await.unwrap();
    assert_eq!(heads.len(), 1);
}

async fn a_recording_lives_its_life(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let operation = operation(&call, 1);
    let id = recording_id(1);
    fixture
        .commit(Change {
            call: Some(call.clone()),
            operations: vec![operation.clone()],
            recordings: vec![begun(1, &operation)],
            ..Change::default()
        })
        .await
        .unwrap();
    let row = fixture.store.recording(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.bytes, row.expires_at), (RecordingState::Writing, 0, None));
    assert_eq!((row.call, row.operation), (call.id, operation.id));
    assert_eq!(row.application.as_deref(), Some("bot"));

    // The call ended before the file was complete: nothing is due while bytes may still come.
    fixture.record(expired(&call)).await;
    assert_eq!(fixture.store.next_due().await.unwrap(), None);
    assert_eq!(fixture.store.mark_due(SteadyMillis(99_000), 10).await.unwrap(), []);
    fixture.record(RecordingChange::Finished { id, bytes: 32_044 }).await;
    let row = fixture.store.recording(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.bytes), (RecordingState::Ready, 32_044));
    assert_eq!(fixture.store.next_due().await.unwrap(), Some(SteadyMillis(9_000)));
    assert_eq!(fixture.store.mark_due(SteadyMillis(8_999), 10).await.unwrap(), []);
    let at_once = Some(SteadyMillis(0));
    let marked = RecordingRow { state: RecordingState::Deleting, expires_at: at_once, ..row };
    assert_eq!(
        fixture.store.mark_due(SteadyMillis(9_000), 10).await.unwrap(),
        std::slice::from_ref(&marked)
    );
    assert_eq!(fixture.store.recording(id).await.unwrap(), Some(marked));

    // After a crash between the bytes and the row it is due again.
    let fixture = fixture.restarted(&place).await;
    let due = fixture.store.mark_due(SteadyMillis(1), 10).await.unwrap();
    assert_eq!((due.len(), due[0].state), (1, RecordingState::Deleting));
    fixture.store.forget(id).await.unwrap();
    fixture.store.forget(id).await.unwrap();
    assert!(!fixture.store.delete_now(id).await.unwrap());
    assert_eq!(fixture.store.recording(id).await.unwrap(), None);
    assert_eq!(fixture.store.next_due().await.unwrap(), None);
}

async fn discarded_clips_go_at_once(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let operation = operation(&call, 1);
    fixture
        .commit(Change {
            call: Some(call.clone()),
            recordings: vec![
                begun(1, &operation),
                begun(2, &operation),
                RecordingChange::Discarded { id: recording_id(1) },
                expired(&call),
            ],
            ..Change::default()
        })
        .await
        .unwrap();
    let row = fixture.store.recording(recording_id(1)).await.unwrap().unwrap();
    assert_eq!(row.state, RecordingState::Discarded);
    let due = fixture.store.mark_due(SteadyMillis(1), 10).await.unwrap();
    assert_eq!(due.iter().map(|row| row.id).collect::<Vec<_>>(), [recording_id(1)]);
    assert_eq!(fixture.store.unfinished().await.unwrap().len(), 1);
}

async fn a_deleted_clip_never_comes_back(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let change = Change {
        call: Some(call.clone()),
        recordings: vec![begun(1, &operation(&call, 1))],
        ..Change::default()
    };
    fixture.commit(change.clone()).await.unwrap();
    let id = recording_id(1);
    assert!(fixture.store.delete_now(id).await.unwrap());
    // Each of these changes may still be on its way when a client deletes the clip.
    fixture.commit(change).await.unwrap();
    fixture.record(RecordingChange::Finished { id, bytes: 1 }).await;
    fixture.record(expired(&call)).await;
    fixture.record(RecordingChange::Discarded { id }).await;
    let row = fixture.store.recording(id).await.unwrap().unwrap();
    assert_eq!((row.state, row.expires_at), (RecordingState::Deleting, Some(SteadyMillis(0))));
}

async fn a_clip_that_cannot_be_deleted_does_not_hold_up_the_others(place: Place) {
    let fixture = Fixture::open(&place).await;
    let call = call(1);
    let operation = operation(&call, 1);
    let clips = [recording_id(1), recording_id(2)];
    let discarded = clips.map(|id| RecordingChange::Discarded { id });
    let mut recordings = vec![begun(1, &operation), begun(2, &operation)];
    recordings.extend(discarded);
    let change = Change { call: Some(call), recordings, ..Change::default() };
    fixture.commit(change).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::new(Folder::hold(folder.path().to_owned()).unwrap());
    // A folder cannot be deleted as a file can.
    std::fs::create_dir(vault.path(clips[0])).unwrap();
    std::fs::write(vault.path(clips[1]), b"RIFF").unwrap();

    let cancel = CancellationToken::new();
    let retention = Duration::from_secs(600);
    let purge = Purge::new(fixture.store.clone(), vault.clone(), retention);
    let purging = tokio::spawn(purge.run(cancel.clone()));
    while fixture.store.recording(clips[1]).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!vault.path(clips[1]).exists());
    cancel.cancel();
    purging.await.unwrap();
    let now = fixture.store.clock().now();
    assert_eq!(fixture.store.mark_due(now, 10).await.unwrap(), [], "it waits");
    let stuck = fixture.store.mark_due(now.plus(Duration::from_secs(60)), 10).await.unwrap();
    assert_eq!(stuck.iter().map(|row| row.id).collect::<Vec<_>>(), [clips[0]], "it is tried again");
}

async fn a_sleeping_purge_is_woken_by_what_is_due_earlier(place: Place) {
    let fixture = Fixture::open(&place).await;
    let folder = tempfile::tempdir().unwrap();
    let vault = Vault::new(Folder::hold(folder.path().to_owned()).unwrap());
    let cancel = CancellationToken::new();
    let purge = Purge::new(fixture.store.clone(), vault, Duration::from_secs(1));
    let purging = tokio::spawn(purge.run(cancel.clone()));
    // Time for the first sweep; nothing is due after it.
    tokio::time::sleep(Duration::from_millis(500)).await;

    let call = call(1);
    let change = Change { recordings: vec![begun(1, &operation(&call, 1))], ..opening(&call) };
    fixture.commit(change).await.unwrap();
    let recordings = vec![expired(&call)];
    let end = Change { call: Some(terminated(&call)), recordings, ..Change::default() };
    fixture.commit(end).await.unwrap();
    fixture.record(RecordingChange::Finished { id: recording_id(1), bytes: 1 }).await;
    let begun = std::time::Instant::now();
    let in_time = || assert!(begun.elapsed() < Duration::from_secs(20), "nothing is purged");
    while fixture.store.recording(recording_id(1)).await.unwrap().is_some() {
        in_time();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(fixture.store.call(call.id).await.unwrap().is_some(), "its notification is not sent");
    let head = fixture.head_of(&call).await.unwrap();
    fixture.store.give_up(&head, 1, "gone").await.unwrap();
    // The purge sleeps now until given-up notifications are too old.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let now = fixture.store.clock().now();
    assert_eq!(fixture.store.resend("bot", None, now).await.unwrap(), 1);
    fixture.store.delivered(&head).await.unwrap();
    while fixture.store.call(call.id).await.unwrap().is_some() {
        in_time();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cancel.cancel();
    purging.await.unwrap();
}

async fn ended_calls_are_purged_after_their_recordings(place: Place) {
    let fixture = Fixture::open(&place).await;
    let [live, recorded, waiting, done] = [call(1), call(2), call(3), call(4)];
    let given_up = operation(&done, 1);
    for (call, with_clip, with_notification) in [
        (&live, false, false),
        (&recorded, true, false),
        (&waiting, false, true),
        (&done, false, true),
    ] {
        let mut recordings = Vec::from_iter(with_clip.then(|| begun(1, &operation(call, 2))));
        recordings.extend((call != &live).then(|| expired(call)));
        let notifications = Vec::from_iter(with_notification.then(|| changed(call)));
        let operations = if call == &done { vec![given_up.clone()] } else { Vec::new() };
        let state = if call == &live { call.clone() } else { terminated(call) };
        let change = Change { call: Some(state), operations, recordings, notifications };
        fixture.commit(change).await.unwrap();
    }
    let head = fixture.head_of(&done).await.unwrap();
    fixture.store.give_up(&head, 1, "gone").await.unwrap();

    let (never, always) = (SteadyMillis(i64::MAX), SteadyMillis(0));
    assert_eq!(fixture.store.purge_calls(SteadyMillis(8_000), never).await.unwrap(), 0);
    let after = SteadyMillis(8_001);
    assert_eq!(fixture.store.purge_calls(after, always).await.unwrap(), 0, "it can be sent again");
    let now = fixture.store.clock().now();
    assert_eq!(fixture.store.resend("other", None, now).await.unwrap(), 0);
    let which = Some((head.call, head.sequence));
    assert_eq!(fixture.store.resend("bot", which, now).await.unwrap(), 1);
    assert_eq!(fixture.store.given_up("bot", 0, 10).await.unwrap(), []);
    let again = fixture.head_of(&done).await.unwrap();
    assert_eq!((again.sequence, again.attempts), (head.sequence, 0));
    fixture.store.give_up(&again, 1, "gone").await.unwrap();
    assert_eq!(fixture.store.resend("bot", None, now).await.unwrap(), 1);
    fixture.store.give_up(&again, 1, "gone").await.unwrap();
    assert_eq!(fixture.store.purge_calls(after, never).await.unwrap(), 1);
    assert_eq!(fixture.store.call(done.id).await.unwrap(), None);
    assert_eq!(fixture.store.operations(done.id).await.unwrap(), []);
    assert_eq!(fixture.store.given_up("bot", 0, 10).await.unwrap(), []);

    fixture.store.forget(recording_id(1)).await.unwrap();
    let head = fixture.head_of(&waiting).await.unwrap();
    fixture.store.delivered(&head).await.unwrap();
    assert_eq!(fixture.store.purge_calls(after, always).await.unwrap(), 2);
    assert!(fixture.store.call(live.id).await.unwrap().is_some());
}

async fn keys_of_requests_survive_a_restart(place: Place) {
    let fixture = Fixture::open(&place).await;
    let begin = async |store: &Database, application: &str, key: &str, fingerprint: &str| {
        store.begin_request(application, key, fingerprint, None, SteadyMillis(5)).await.unwrap()
    };
    assert_eq!(begin(&fixture.store, "bot", "k", "f").await, RequestKey::New);
    assert_eq!(begin(&fixture.store, "other", "k", "g").await, RequestKey::New);
    assert_eq!(begin(&fixture.store, "bot", "k", "f").await, RequestKey::Unanswered);
    assert_eq!(begin(&fixture.store, "bot", "k", "g").await, RequestKey::Taken);
    let location = Some("https://api.example/operations/1".to_owned());
    let answer = KeptAnswer { status: 200, location, body: "{}".to_owned() };
    fixture.store.end_request("bot", "k", Some(&answer)).await.unwrap();
    fixture.store.end_request("other", "k", None).await.unwrap();
    let fixture = fixture.restarted(&place).await;
    assert_eq!(begin(&fixture.store, "bot", "k", "f").await, RequestKey::Answered(answer));
    assert_eq!(begin(&fixture.store, "other", "k", "h").await, RequestKey::New);
    assert_eq!(fixture.store.purge_requests(SteadyMillis(5), 10).await.unwrap(), 0);
    assert_eq!(fixture.store.purge_requests(SteadyMillis(6), 10).await.unwrap(), 2);
    assert_eq!(begin(&fixture.store, "bot", "k", "g").await, RequestKey::New);
}

async fn a_key_whose_call_was_placed_before_a_crash_finds_it(place: Place) {
    let fixture = Fixture::open(&place).await;
    let begin = async |store: &Database, key: &str, placed: Option<CallId>| {
        store.begin_request("bot", key, "f", placed, SteadyMillis(5)).await.unwrap()
    };
    let placed = call(1);
    for (key, call) in [("action", None), ("not placed", Some(call(2).id)), ("k", Some(placed.id))]
    {
        assert_eq!(begin(&fixture.store, key, call).await, RequestKey::New);
    }
    fixture.commit(opening(&placed)).await.unwrap();
    let fixture = fixture.restarted(&place).await;
    assert_eq!(begin(&fixture.store, "action", None).await, RequestKey::Unanswered);
    assert_eq!(fixture.store.free_unanswered_requests().await.unwrap(), 2);
    assert_eq!(begin(&fixture.store, "action", None).await, RequestKey::New);
    assert_eq!(begin(&fixture.store, "not placed", Some(call(3).id)).await, RequestKey::New);
    let found = begin(&fixture.store, "k", Some(call(4).id)).await;
    assert_eq!(found, RequestKey::Placed(Box::new(placed)));
}

async fn an_application_has_its_newest_answers_kept(place: Place) {
    let fixture = Fixture::open(&place).await;
    let answer = KeptAnswer { status: 202, location: None, body: String::new() };
    for (application, count) in [("bot", 5), ("other", 3)] {
        for number in 0..count {
            let (key, at) = (number.to_string(), SteadyMillis(10 + number));
            let begun = fixture.store.begin_request(application, &key, "f", None, at).await;
            assert_eq!(begun.unwrap(), RequestKey::New);
            fixture.store.end_request(application, &key, Some(&answer)).await.unwrap();
        }
    }
    assert_eq!(fixture.store.purge_requests(SteadyMillis(0), 3).await.unwrap(), 2);
    for (key, is_known) in [("0", false), ("1", false), ("2", true), ("4", true)] {
        let again = fixture.store.begin_request("bot", key, "f", None, SteadyMillis(20)).await;
        assert_eq!(again.unwrap() != RequestKey::New, is_known, "{key}");
    }
}

async fn the_clock_goes_on_after_a_restart(place: Place) {
    let fixture = Fixture::open(&place).await;
    assert_eq!(fixture.store.clock().look(), None, "it begins with the wall clock");
    fixture.store.keep_clock().await.unwrap();
    // As if the steady clock had begun with a wall clock that was an hour behind.
    fixture.close().await;
    place.execute("UPDATE clock SET offset_ms = offset_ms - 3600000, seen = seen - 3600000").await;
    let fixture = Fixture::open(&place).await;
    let before = fixture.store.clock().now();
    let wall = UnixMillis::from(std::time::SystemTime::now());
    let behind_ms = wall.0 - before.0 - 3_600_000;
    assert!(behind_ms.abs() < 1000, "{behind_ms} ms");
    assert_eq!(fixture.store.clock().look().unwrap().to_string(), "set forward by 1h");
    fixture.store.keep_clock().await.unwrap();
    let fixture = fixture.restarted(&place).await;
    let clock = fixture.store.clock();
    assert!(clock.now().since(before) < Duration::from_secs(60));
    assert_eq!(clock.look(), None, "the last look is known");
    assert!((clock.shown(before).0 - wall.0).abs() < 1000);
}

async fn files_that_no_row_knows_are_written_down(place: Place) {
    let fixture = Fixture::open(&place).await;
    let file = |since| LostFileRow {
        name: "a.wav".to_owned(),
        modified: UnixMillis(5),
        since: SteadyMillis(since),
    };
    fixture.store.note_lost_file(&file(7)).await.unwrap();
    fixture.store.note_lost_file(&file(8)).await.unwrap();
    let fixture = fixture.restarted(&place).await;
    assert_eq!(fixture.store.lost_files().await.unwrap(), [file(8)]);
    fixture.store.forget_lost_file("a.wav").await.unwrap();
    assert_eq!(fixture.store.lost_files().await.unwrap(), []);
}

async fn signing_keys_come_and_go(place: Place) {
    let fixture = Fixture::open(&place).await;
    let key = |number: i64| SigningKeyRow {
        id: format!("key {number}"),
        created_at: SteadyMillis(number),
        pem: "pem".to_owned(),
    };
    fixture.store.add_signing_key(&key(2)).await.unwrap();
    fixture.store.add_signing_key(&key(1)).await.unwrap();
    let fixture = fixture.restarted(&place).await;
    assert_eq!(fixture.store.signing_keys().await.unwrap(), [key(1), key(2)]);
    fixture.store.drop_signing_key("key 1").await.unwrap();
    assert_eq!(fixture.store.signing_keys().await.unwrap(), [key(2)]);
}

async fn many_writers_and_readers(place: Place) {
    let fixture = Fixture::open(&place).await;
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, journal) = (fixture.store.clone(), fixture.journal.clone());
            tokio::spawn(async move {
                let call = call(number);
                for _ in 0..5 {
                    journal.submit(opening(&call)).unwrap().await.unwrap();
                    let head = store.head_of(call.id, SteadyMillis(0)).await.unwrap().unwrap();
                    store.delivered(&head).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(place.pending().await, 0);
    assert_eq!(fixture.store.unfinished_calls().await.unwrap().len(), 40);
}

async fn waits_for_the_server(cluster: &Cluster) {
    let place = Place::Postgres(cluster.database("waits"));
    let fixture = Fixture::open(&place).await;
    fixture.commit(opening(&call(1))).await.unwrap();
    cluster.crash();
    let commits: Vec<_> =
        (2..10).map(|number| fixture.journal.submit(opening(&call(number))).unwrap()).collect();
    let early = fixture.journal.flush(Duration::from_millis(300)).await;
    assert!(matches!(early, Err(StoreError::NotFlushed { .. })), "{early:?}");
    cluster.restart();
    join_all(commits).await.into_iter().for_each(Result::unwrap);
    for number in 1..10 {
        assert_eq!(fixture.head_of(&call(number)).await.unwrap().sequence, 1);
    }
    assert_eq!(place.pending().await, 9);
}

async fn a_second_process_is_refused_until_the_first_has_gone(cluster: &Cluster) {
    let place = Place::Postgres(cluster.database("two"));
    let first = Fixture::open(&place).await;
    let refused = Database::open(&place.url()).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("in use by another aftertone"), "{refused}");

    // The lock is lost with its connection, and taken again.
    let before = place.holder().await.expect("somebody holds it");
    place
        .execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        .await;
    while place.holder().await.is_none_or(|holder| holder == before) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = Database::open(&place.url()).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");

    first.close().await;
    Fixture::open(&place).await.close().await;
}

/// Set in the process that will be killed: the path of its database.
const VICTIM: &str = "AFTERTONE_TEST_STORE_VICTIM";

/// The test starts itself as a second process, which commits until it is killed.
#[tokio::test]
async fn what_was_reported_as_durable_survives_kill_9() {
    if let Ok(url) = std::env::var(VICTIM) {
        return commit_until_killed(&url).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Sqlite(folder.path().join("killed.db"));
    let mut victim = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "what_was_reported_as_durable_survives_kill_9", "--nocapture"])
        .env(VICTIM, place.url())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let mut durable = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some(number) = line.strip_prefix("durable ") {
            durable.push(number.parse::<u32>().unwrap());
        }
        if durable.len() == 500 {
            victim.start_kill().unwrap();
        }
    }
    victim.wait().await.unwrap();
    assert!(durable.len() >= 500, "{} commits were reported", durable.len());

    let fixture = Fixture::open(&place).await;
    for number in durable {
        assert_eq!(fixture.store.call(call(number).id).await.unwrap(), Some(call(number)));
        assert_eq!(fixture.head_of(&call(number)).await.unwrap().sequence, 1);
    }
    // A fact and its notification: never one without the other.
    let calls = fixture.store.unfinished_calls().await.unwrap().len();
    assert_eq!(place.pending().await, calls as i64);
}

async fn commit_until_killed(url: &str) {
    let store = Database::open(url).await.unwrap();
    let (journal, _writer) = Journal::start(store, JournalLimits::default());
    for first in (0..100_000).step_by(10) {
        let commits = (first..first + 10)
            .map(|number| (number, journal.submit(opening(&call(number))).unwrap()));
        for (number, commit) in commits.collect::<Vec<_>>() {
            commit.await.unwrap();
            println!("durable {number}");
        }
    }
}

#[tokio::test]
async fn sqlite_waits_for_a_lock_that_somebody_else_holds() {
    use sqlx::Connection;

    let folder = tempfile::tempdir().unwrap();
    let place = Place::Sqlite(folder.path().join("locked.db"));
    let fixture = Fixture::open(&place).await;
    let mut other = sqlx::AnyConnection::connect(&place.url()).await.unwrap();
    let lock = other.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let commit = fixture.journal.submit(opening(&call(1))).unwrap();
    // Longer than the driver retries by itself, so that the journal has to try again.
    let early = fixture.journal.flush(Duration::from_millis(1_500)).await;
    assert!(matches!(early, Err(StoreError::NotFlushed { .. })), "{early:?}");
    lock.rollback().await.unwrap();
    commit.await.unwrap();
    assert_eq!(fixture.head_of(&call(1)).await.unwrap().sequence, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_is_in_no_file_of_the_database() {
    const WATERMARKS: [&str; 3] = ["sip:watermark@example", "Wassermann", "marked subject"];
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Sqlite(folder.path().join("marked.db"));
    let fixture = Fixture::open(&place).await;
    for number in 0..100 {
        let [uri, name, subject] = WATERMARKS.map(str::to_owned);
        let source = Party { uri, display_name: Some(name) };
        let marked = Call { source, subject: Some(subject), ..call(number) };
        fixture.commit(opening(&marked)).await.unwrap();
        let recordings = vec![expired(&marked)];
        let ended = Change { call: Some(terminated(&marked)), recordings, ..Change::default() };
        fixture.commit(ended).await.unwrap();
        let told = fixture.head_of(&marked).await.unwrap();
        fixture.store.delivered(&told).await.unwrap();
    }
    let hits = || {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        let bytes: Vec<u8> = files.flat_map(|file| std::fs::read(file.path()).unwrap()).collect();
        WATERMARKS.map(|mark| bytes.windows(mark.len()).any(|found| found == mark.as_bytes()))
    };
    assert_eq!(hits(), [true; 3], "it is there before the purge");

    let recordings = tempfile::tempdir().unwrap();
    let vault = Vault::new(Folder::hold(recordings.path().to_owned()).unwrap());
    let retention = Duration::from_secs(1);
    let purge = Purge::new(fixture.store.clone(), vault, retention);
    let cancel = CancellationToken::new();
    let purging = tokio::spawn(purge.run(cancel.clone()));
    let begun = std::time::Instant::now();
    while hits() != [false; 3] {
        assert!(begun.elapsed() < Duration::from_secs(10), "still there: {:?}", hits());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    cancel.cancel();
    purging.await.unwrap();
    fixture.close().await;
    assert_eq!(hits(), [false; 3], "after a clean stop");
}

#[tokio::test]
async fn a_database_of_a_newer_aftertone_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::Sqlite(folder.path().join("newer.db"));
    Fixture::open(&place).await.close().await;
    place
        .execute(
            "INSERT INTO _sqlx_migrations \
             (version, description, success, checksum, execution_time) \
             VALUES (9999, 'of a later time', TRUE, x'00', 0)",
        )
        .await;
    let error = Database::open(&place.url()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { version: 9999 }), "{error}");
    assert!(error.to_string().contains("newer aftertone"));
}

// --- support ---

/// Where a case keeps its database.
enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::Sqlite(path) => format!("sqlite:{}", path.display()),
            Self::Postgres(url) => url.clone(),
        }
    }

    /// Changes the database without the store.
    async fn execute(&self, statement: &'static str) {
        use sqlx::Connection;

        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        sqlx::query(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// How many notifications are not delivered yet.
    async fn pending(&self) -> i64 {
        use sqlx::Connection;

        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        let query = sqlx::query_as("SELECT COUNT(*) FROM outbox WHERE state = 'pending'");
        let (pending,) = query.fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        pending
    }

    /// The server process that holds the lock against other nodes.
    async fn holder(&self) -> Option<i32> {
        use sqlx::Connection;

        let mut connection = sqlx::AnyConnection::connect(&self.url()).await.unwrap();
        let held = sqlx::query_as(
            "SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
             WHERE l.locktype = 'advisory' AND d.datname = current_database()",
        );
        let held: Option<(i32,)> = held.fetch_optional(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        held.map(|(pid,)| pid)
    }
}

/// An open store with its journal.
struct Fixture {
    store: Database,
    journal: Journal,
    writer: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn open(place: &Place) -> Self {
        let store = Database::open(&place.url()).await.unwrap();
        let (journal, writer) = Journal::start(store.clone(), JournalLimits::default());
        Self { store, journal, writer }
    }

    async fn close(self) {
        drop(self.journal);
        self.writer.await.unwrap();
        self.store.close().await;
    }

    async fn restarted(self, place: &Place) -> Self {
        self.close().await;
        Self::open(place).await
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        self.journal.submit(change).unwrap().await
    }

    async fn record(&self, recording: RecordingChange) {
        let change = Change { recordings: vec![recording], ..Change::default() };
        self.commit(change).await.unwrap();
    }

    async fn head_of(&self, call: &Call) -> Option<Delivery> {
        self.store.head_of(call.id, SteadyMillis(0)).await.unwrap()
    }

    async fn heads(&self, now: SteadyMillis) -> Vec<Delivery> {
        self.store.heads("bot https://bot.example", now, 10).await.unwrap()
    }
}

fn names(heads: &[Delivery]) -> Vec<(CallId, u64)> {
    heads.iter().map(|head| (head.call, head.sequence)).collect()
}

fn bytes(number: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    bytes
}

fn recording_id(number: u32) -> RecordingId {
    RecordingId::from_random(bytes(number))
}

fn call(number: u32) -> Call {
    let sample = sample::call(CallId::from_random(bytes(number)));
    Call {
        source: Party { display_name: Some("Älice".to_owned()), ..sample.source },
        // A TEXT column of PostgreSQL cannot hold NUL; JSON escapes it.
        subject: Some("it's \0 \"quoted\"".to_owned()),
        created_at: UnixMillis(1_000 + i64::from(number)),
        ..sample
    }
}

fn terminated(call: &Call) -> Call {
    Call {
        state: CallState::Terminated,
        ended_at: Some(UnixMillis(50_000)),
        termination: Some(Termination::PeerHungUp),
        ..call.clone()
    }
}

/// The call ended at 8 s; its clips expire at 9 s.
fn expired(call: &Call) -> RecordingChange {
    let (ended_at, retention) = (SteadyMillis(8_000), Duration::from_secs(1));
    RecordingChange::Expire { call: call.id, ended_at, retention }
}

fn operation(call: &Call, number: u32) -> Operation {
    Operation {
        id: OperationId::from_random(bytes(number)),
        call: call.id,
        kind: OperationKind::Echo,
        client_context: Some("mine".to_owned()),
        status: OperationStatus::Running,
        end: None,
        recording: None,
        created_at: UnixMillis(2_000),
        ended_at: None,
    }
}

fn ended(operation: &Operation) -> Operation {
    Operation {
        status: OperationStatus::Completed,
        end: Some(OperationEnd::Done),
        ended_at: Some(UnixMillis(3_000)),
        ..operation.clone()
    }
}

fn begun(number: u32, operation: &Operation) -> RecordingChange {
    RecordingChange::Begun {
        id: recording_id(number),
        call: operation.call,
        operation: operation.id,
        application: Some("bot".to_owned()),
        at: UnixMillis(2_500),
    }
}

fn notification(event: Event) -> Notification {
    Notification {
        application: "bot".to_owned(),
        chain_id: "chain".to_owned(),
        callback_uri: "https://bot.example/calls".to_owned(),
        event,
    }
}

fn offered(call: &Call) -> Notification {
    notification(Event::CallOffered { call: call.clone() })
}

fn changed(call: &Call) -> Notification {
    notification(Event::CallChanged { call: call.clone() })
}

/// The first change of a call.
fn opening(call: &Call) -> Change {
    Change { call: Some(call.clone()), notifications: vec![offered(call)], ..Change::default() }
}
