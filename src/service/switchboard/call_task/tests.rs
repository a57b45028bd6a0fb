//! Tests of one call task, and of what it must release.

use futures_util::FutureExt;
use rand::{SeedableRng, rngs::StdRng};
use tokio::sync::oneshot;

use super::{placing::from_one_side, *};
use crate::service::switchboard::{
    CallControl, LiveCall,
    mailbox::mailbox,
    outgoing::Placed,
    tests::{Fixture, Phone, WITHIN, record, settings, terms},
};
use aftertone_core::{
    audio::tape,
    call::{Offer, Owner},
    model::{CallId, RecordingId},
};

#[tokio::test]
async fn a_task_that_panics_hangs_up_and_its_call_is_told() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (task, call, entry) = task(&fixture, dialog, invite.offer.clone());
    let (panic, wanted) = oneshot::channel::<()>();
    let panics = async move {
        let _ = wanted.await;
        panic!("as the test wants it");
    };
    task.work.push(panics.boxed());
    let span = tracing::Span::none();
    assert!(fixture.switchboard.run_task(call, task, entry, (dialog, None, None), span).is_ok());
    fixture.go_on();
    fixture.answer(&phone, call).await;
    let recorded = fixture.switchboard.submit("bot", call, record()).await.unwrap();
    while fixture.clip_bytes() <= aftertone_core::audio::wav::HEADER_BYTES as u64 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic.send(()).unwrap();
    phone.hung_up().await;
    let ended = fixture.until_state(call, CallState::Terminated).await;
    assert_eq!(ended.termination, Some(aftertone_core::model::Termination::Internal));
    assert!(fixture.switchboard.is_empty());
    let operations = fixture.drivers.database.operations(call).await.unwrap();
    let [operation] = operations.as_slice() else { panic!("{operations:?}") };
    assert_eq!((operation.id, &operation.end), (recorded.id, &Some(OperationEnd::HungUpWithAudio)));
    let clip = operation.recording.as_ref().expect("what was recorded is kept");
    fixture.drivers.vault.read(clip.id).await.expect("its file is there");
}

#[tokio::test]
async fn a_clip_that_is_whole_after_its_call_is_deleted() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, call, entry) = task(&fixture, dialog, invite.offer.clone());
    let recording = RecordingId::from_random([9; 16]);
    let (spool, written) = oneshot::channel();
    let ((_broken, broken), chunks) = (oneshot::channel(), fixture.drivers.spool.chunks());
    let operation = OperationId::from_random([8; 16]);
    task.take_clip(operation, OpenClip { recording, chunks, written, broken });
    let tape = task.clips.remove(&operation).unwrap();
    task.await_clip(operation, tape);
    let span = tracing::Span::none();
    assert!(fixture.switchboard.run_task(call, task, entry, (dialog, None, None), span).is_ok());
    fixture.go_on();
    phone.send("CANCEL", 1, "").await;
    fixture.until_state(call, CallState::Terminated).await;
    let path = fixture.drivers.vault.path(recording);
    std::fs::write(&path, b"late").unwrap();
    spool.send(Ok(SafeClip { bytes: 48, samples: 2, is_cut_short: false })).unwrap();
    let gone = async {
        while path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WITHIN, gone).await.expect("nobody will ask for it");
}

#[tokio::test]
async fn a_clip_whose_leg_is_late_holds_all_that_the_leg_still_has() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, ..) = task(&fixture, dialog, invite.offer);
    let (recording, operation) =
        (RecordingId::from_random([9; 16]), OperationId::from_random([8; 16]));
    let clip = fixture.drivers.spool.open(recording, CallId::from_random([7; 16])).await.unwrap();
    let chunks = clip.chunks.clone();
    task.take_clip(operation, clip);
    let (_leg, events) = mpsc::channel(1);
    task.leg_events = Some(events);
    task.seal(operation, recording);
    assert!(task.saving.next().now_or_never().is_none(), "the leg has not ended it");
    let samples = tape::ChunkBody::Samples(vec![1; 8_000]);
    for body in [samples, tape::ChunkBody::End { keep: true }] {
        chunks.send(tape::Chunk { recording, body }).unwrap();
    }
    let done = tokio::time::timeout(WITHIN, task.saving.next()).await.expect("it is safe");
    let Some(WorkDone::Clip(_, _, Ok(finished))) = done else { panic!("it is not kept") };
    assert_eq!(finished.samples, 8_000);
}

#[tokio::test]
async fn decoded_prompts_go_with_their_operation() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, ..) = task(&fixture, dialog, invite.offer);
    let canceled = OperationId::from_random([8; 16]);
    task.done(WorkDone::Prepared(canceled, Ok(Prepared { prompts: Vec::new(), clip: None }))).await;
    task.carry_out().await;
    assert!(task.prompts.is_empty());
}

#[tokio::test]
async fn a_referral_that_is_given_up_gives_its_place_back() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, call, entry) = task(&fixture, dialog, invite.offer);
    fixture.switchboard.registry().calls.insert(call, entry);
    let directory = fixture.switchboard.inner.directory.borrow().clone();
    let nobody = Placed { display_name: None, subject: None };
    let (route_plan, _) = directory.way_out(&"tel:+491".parse().unwrap(), &nobody).unwrap();
    let next = DialogId(DialogId::FIRST_OUTGOING);
    let (reserved, _) =
        fixture.switchboard.reserve(call, next, Some("trunk".to_owned()), None).unwrap();
    task.referral = Some(ReservedReferral { reserved, route_plan, targets: Vec::new() });
    assert_eq!(fixture.switchboard.registry().dialogs_by("trunk"), 1);
    task.carry_out().await;
    assert_eq!(fixture.switchboard.registry().dialogs_by("trunk"), 0);
}

#[tokio::test]
async fn a_call_that_is_not_replaced_keeps_its_peer() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, call, entry) = task(&fixture, dialog, invite.offer.clone());
    fixture.switchboard.registry().calls.insert(call, entry);
    let first = task.peer;
    let (reserved, _) = fixture.switchboard.reserve(call, DialogId(9), None, None).unwrap();
    let mut invite = invite;
    invite.path.peer = "192.0.2.1:5060".parse().unwrap();
    // The call is still ringing, so its peer cannot be replaced.
    task.message(CallMessage::Replace(reserved, Box::new(invite), terms())).await;
    assert_eq!(task.peer, first);
    assert!(!fixture.switchboard.registry().dialogs.contains_key(&DialogId(9)));
}

#[tokio::test]
async fn the_sound_is_told_an_address_of_the_family_where_it_is_bound() {
    let mut fixture = Fixture::start().await;
    let phone = Phone::of(&fixture).await;
    phone.invite("bot").await;
    let (dialog, invite) = fixture.invited().await;
    let (mut task, ..) = task(&fixture, dialog, invite.offer);
    task.advertised = Some("192.0.2.1".parse().unwrap());
    for (local, told) in [("10.0.0.1", "192.0.2.1"), ("2001:db8::1", "2001:db8::1")] {
        let local = std::net::SocketAddr::new(local.parse().unwrap(), 5060);
        assert_eq!(task.located(Ok(vec![Path::udp(local, local)])), Ok(()));
        assert_eq!((task.bind, task.address), (local.ip(), told.parse().unwrap()));
    }
}

/// The task of a call that was offered to the bot.
fn task(
    fixture: &Fixture,
    dialog: DialogId,
    offer: Option<Vec<u8>>,
) -> (CallTask, CallId, LiveCall) {
    let id = CallId::from_random([1; 16]);
    let offer = Offer {
        dialog,
        source: Default::default(),
        target: Default::default(),
        arrival: Default::default(),
        is_telephone: false,
        sip_call_id: "one@127.0.0.1".to_owned(),
        subject: None,
        sdp: offer,
        media: terms(),
    };
    let owner =
        Owner::Application { name: "bot".to_owned(), callback_uri: "http://127.0.0.1/".to_owned() };
    let rng = StdRng::seed_from_u64(1);
    let machine =
        Machine::offered(id, offer, owner, settings(), fixture.drivers.now(), rng).unwrap();
    let (mail, mailbox) = mailbox();
    let path = Path::udp(fixture.sip, "127.0.0.1:5060".parse().unwrap());
    let task = CallTask::incoming(machine, fixture.drivers.clone(), path, None, mailbox);
    (task, id, LiveCall::of_application("bot", mail))
}

#[test]
fn a_call_goes_on_to_targets_on_the_side_of_its_sound_only() {
    let path = |local: &str, peer: &str| Path::udp(local.parse().unwrap(), peer.parse().unwrap());
    let first = path("10.0.0.1:5060", "10.0.0.7:5060");
    let second = path("10.0.0.1:5060", "10.0.0.8:5060");
    let v6 = path("[2001:db8::1]:5060", "[2001:db8::7]:5060");
    let elsewhere = path("192.0.2.1:5060", "192.0.2.7:5060");
    assert_eq!(from_one_side(vec![first, v6, elsewhere, second]), [first, second]);
    assert_eq!(from_one_side(vec![v6, first]), [v6]);
    assert_eq!(from_one_side(Vec::new()), []);
}
