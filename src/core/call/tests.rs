//! Tests the machine of a call in a simulated world that answers in any order.

mod referral;
mod world;

use std::time::Duration;

use proptest::prelude::*;

use self::world::{
    OFFER, World, acknowledged, answered, bye, path, play, progress, record, referred, refused,
    settings, terms,
};
use super::{CallError, Command, DialogRole, Input, LineScript, Owner};
use crate::{
    audio::tape::SafeClip,
    model::{
        CallState, Event, MediaState, OperationEnd, OperationKind, OperationStatus,
        RecordingStatus, RejectReason, SendTonesRequest, Side, Termination, Tone, TransferKind,
    },
    proto::{
        sdp,
        sip::{
            Status,
            endpoint::{self, DialogId, Loss},
            uri::Uri,
        },
    },
};

#[test]
fn a_record_that_barges_in_finds_room_in_a_full_queue() {
    let mut world = World::established();
    let mut accepted = 0;
    while world.submit(play()).is_ok() {
        accepted += 1;
    }
    assert_eq!(world.submit(record(false)), Err(CallError::QueueFull));
    world.submit(record(true)).unwrap();
    let dropped = world.events().into_iter().filter(|event| {
        matches!(event, Event::OperationEnded { operation } if operation.end == Some(OperationEnd::Canceled))
    });
    assert_eq!(dropped.count(), accepted);
    world.finish();
    world.check();
}

#[test]
fn operations_run_one_after_the_other_and_a_clip_holds_up_nobody() {
    let mut world = World::established();
    let first = world.submit(record(false)).unwrap();
    let second = world.submit(play()).unwrap();
    let status = |world: &World, id| {
        world.machine.operations().find(|operation| operation.id == id).unwrap().status
    };
    assert_eq!(status(&world, first), OperationStatus::Running);
    assert_eq!(status(&world, second), OperationStatus::NotStarted);
    world.prepare(true);
    world.prepare(true);
    assert_eq!(world.running.unwrap().0, first);
    world.end_media(OperationEnd::StopToneDetected);
    assert_eq!(world.running.unwrap().0, second, "the next begins at once");
    assert!(world.ends_of(first).is_empty(), "bytes before announcement");
    world.make_safe(true);
    assert_eq!(world.ends_of(first), [(OperationEnd::StopToneDetected, 8514)]);
    world.finish();
    world.check();
}

#[test]
fn what_waits_behind_a_prompt_begins_when_it_is_said_and_it_is_told_when_it_was_heard() {
    let mut world = World::established();
    let [first, second] = [play(), play()].map(|kind| world.submit(kind).unwrap());
    let recording = world.submit(record(false)).unwrap();
    (0..3).for_each(|_| world.prepare(true));
    assert_eq!(world.running.unwrap().0, first);
    world.say();
    assert_eq!(world.running.unwrap().0, second, "the next begins at once");
    assert!(world.ends_of(first).is_empty(), "the peer still plays it");
    world.say();
    assert_eq!(world.running.unwrap().0, recording);
    world.hear();
    assert_eq!(world.ends_of(first), [(OperationEnd::Done, 0)]);
    assert!(world.ends_of(second).is_empty());
    // An operation that is sent is not canceled any more.
    world.submit(OperationKind::CancelMediaProcessing).unwrap();
    assert_eq!(world.canceled, [recording]);
    world.hear();
    assert_eq!(world.ends_of(second), [(OperationEnd::Done, 0)]);
    world.finish();
    world.check();
}

#[test]
fn a_prompt_that_was_said_is_done_when_its_leg_vanishes() {
    let mut world = World::established();
    let prompt = world.submit(play()).unwrap();
    world.prepare(true);
    world.say();
    world.sip(bye);
    world.close_leg(true);
    assert_eq!(world.ends_of(prompt), [(OperationEnd::Done, 0)]);
    world.check();
}

#[test]
fn a_record_that_may_barge_in_ends_what_runs_and_drops_what_waits() {
    let mut world = World::established();
    let first = world.submit(play()).unwrap();
    let second = world.submit(play()).unwrap();
    world.prepare(true);
    world.prepare(true);
    let third = world.submit(record(true)).unwrap();
    assert_eq!(world.ends_of(second), [(OperationEnd::Canceled, 8508)]);
    assert_eq!(world.canceled, [first]);
    world.prepare(true);
    world.end_media(OperationEnd::Canceled);
    assert_eq!(world.ends_of(first), [(OperationEnd::Canceled, 8508)]);
    assert_eq!(world.running.unwrap().0, third);
    world.finish();
    world.check();
}

#[test]
fn a_hang_up_waits_for_the_clip_and_ends_what_waits() {
    let mut world = World::established();
    let running = world.submit(record(false)).unwrap();
    let waiting = world.submit(record(false)).unwrap();
    let prompt = world.submit(play()).unwrap();
    world.prepare(true);
    world.sip(bye);
    assert_eq!(world.ends_of(waiting), [(OperationEnd::HungUpWithoutAudio, 8513)]);
    assert_eq!(world.ends_of(prompt), [(OperationEnd::Canceled, 8508)]);
    world.close_leg(false);
    assert_eq!(world.over, 0);
    world.make_safe(true);
    assert_eq!(world.ends_of(running), [(OperationEnd::HungUpWithAudio, 8588)]);
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::PeerHungUp));
}

#[test]
fn a_clip_on_a_slow_disk_delays_the_end_of_the_call_and_is_not_given_up() {
    let mut world = World::established();
    let running = world.submit(record(false)).unwrap();
    world.prepare(true);
    world.sip(bye);
    world.close_leg(false);
    for _ in 0..20 {
        world.wait(Duration::from_secs(16));
        assert_eq!((world.ends_of(running).len(), world.over), (0, 0));
    }
    world.make_safe(true);
    assert_eq!(world.ends_of(running), [(OperationEnd::HungUpWithAudio, 8588)]);
    world.check();
}

#[test]
fn a_leg_that_vanishes_without_a_word_loses_no_clip() {
    for (duration_ms, end) in [
        (1_000, (OperationEnd::HungUpWithAudio, 8588)),
        (0, (OperationEnd::HungUpWithoutAudio, 8513)),
    ] {
        let mut world = World::established();
        let running = world.submit(record(false)).unwrap();
        world.prepare(true);
        world.running = None;
        world.leg_open = false;
        world.input(Input::LegFailed);
        assert_eq!(world.sealing, [running]);
        let clip = SafeClip {
            bytes: 44 + 32 * duration_ms,
            samples: 16 * duration_ms,
            is_cut_short: false,
        };
        world.input(Input::ClipSafe(running, Ok(clip)));
        assert_eq!(world.ends_of(running), [end]);
        let told = world.events().into_iter().find_map(|event| match event {
            Event::OperationEnded { operation } => Some(operation.recording.clone()),
            _ => None,
        });
        let told = told.unwrap().map(|recorded| recorded.duration_ms);
        assert_eq!(told, (duration_ms > 0).then_some(duration_ms));
        assert_eq!(world.machine.call().termination, Some(Termination::Internal));
        world.check();
    }
}

#[test]
fn a_leg_that_closes_by_itself_ends_the_call() {
    let mut world = World::established();
    world.leg_open = false;
    world.input(Input::LegClosed);
    assert_eq!(world.machine.call().termination, Some(Termination::Internal));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Bye { .. })));
    world.check();
}

#[test]
fn a_call_to_a_line_does_not_last_for_ever() {
    let mut world = World::new(Owner::Line(LineScript::Echo));
    world.open_leg();
    world.sip(acknowledged(None));
    world.wait(settings().line_limit - Duration::from_secs(1));
    assert_eq!(world.machine.call().state, CallState::Established);
    world.wait(Duration::from_secs(1));
    world.close_leg(false);
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::LineEnded));
}

#[test]
fn a_change_that_the_store_refuses_ends_the_call() {
    let mut world = World::established();
    world.input(Input::NotCommitted);
    world.close_leg(false);
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::Internal));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Bye { .. })));
}

#[test]
fn the_time_to_answer_and_the_lease_run_out() {
    let mut world = World::bot();
    world.wait(Duration::from_secs(15));
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::NotAnswered));
    assert!(matches!(
        world.signals[1],
        endpoint::Command::Refuse { status: Status::TEMPORARILY_UNAVAILABLE, .. }
    ));

    let mut world = World::established();
    world.wait(Duration::from_secs(2000));
    world.command(Command::KeepAlive).unwrap();
    world.wait(Duration::from_secs(2000));
    assert_eq!(world.machine.call().state, CallState::Established);
    world.wait(Duration::from_secs(701));
    world.close_leg(false);
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::KeepAliveExpired));
}

#[test]
fn what_does_not_fit_the_state_is_refused_and_changes_nothing() {
    let answer = || Command::Answer { callback_uri: None, media_config: None };
    let mut world = World::bot();
    assert_eq!(world.submit(play()), Err(CallError::NotEstablished));
    world.command(answer()).unwrap();
    assert_eq!(world.command(answer()), Err(CallError::WrongState));
    let reject = Command::Reject { reason: RejectReason::Busy, callback_uri: None };
    assert_eq!(world.command(reject), Err(CallError::WrongState));
    world.open_leg();
    world.sip(acknowledged(None));
    world.command(Command::HangUp(Termination::ApplicationHungUp)).unwrap();
    assert_eq!(world.submit(play()), Err(CallError::Terminated));
    assert_eq!(world.command(answer()), Err(CallError::Terminated));
    world.close_leg(false);
    assert_eq!(world.command(Command::KeepAlive), Err(CallError::NotFound));
    world.check();
}

#[test]
fn either_side_is_muted_by_itself_and_nothing_is_told() {
    let mut world = World::established();
    let told = world.events().len();
    world.submit(OperationKind::Mute { side: Side::Ours }).unwrap();
    assert_eq!(world.muted, (true, false));
    world.submit(OperationKind::Mute { side: Side::Peers }).unwrap();
    assert_eq!(world.muted, (true, true));
    world.submit(OperationKind::Unmute { side: Side::Ours }).unwrap();
    assert_eq!(world.muted, (false, true));
    let status = RecordingStatus::Recording;
    world.submit(OperationKind::UpdateRecordingStatus { status }).unwrap();
    let call = world.changes.last().unwrap().call.as_ref().unwrap();
    assert_eq!(call.recording_status, Some(RecordingStatus::Recording));
    assert!(call.peer_is_muted && !call.is_muted);
    assert_eq!(world.events().len(), told);
    world.finish();
    world.check();
}

#[test]
fn keys_and_hold_music_take_their_turn() {
    let mut world = World::established();
    let tones = vec![Tone::POUND];
    let first = world.submit(play()).unwrap();
    let keys = OperationKind::SendDtmfTones(SendTonesRequest { tones, delay_ms: 0 });
    let keys = world.submit(keys).unwrap();
    let music = world.submit(OperationKind::StartHoldMusic { prompt: None }).unwrap();
    (0..3).for_each(|_| world.prepare(true));
    for id in [first, keys, music] {
        assert_eq!(world.running.as_ref().map(|(id, _)| *id), Some(id));
        world.end_media(OperationEnd::Done);
        assert_eq!(world.ends_of(id), [(OperationEnd::Done, 0)]);
    }
    world.finish();
    world.check();
}

#[test]
fn a_redirected_caller_is_told_to_whom() {
    let mut world = World::bot();
    let target: Uri = "sip:carol@pbx.example".parse().unwrap();
    let redirect = || Command::Redirect {
        target: Box::new(target.clone()),
        callback_uri: Some("http://bot/last".to_owned()),
    };
    world.command(redirect()).unwrap();
    let Some(endpoint::Command::Refuse { status, headers, .. }) = world.signals.last() else {
        panic!("{:?}", world.signals);
    };
    assert_eq!(*status, 302);
    assert_eq!(headers[..], [("Contact".to_owned(), "<sip:carol@pbx.example>".to_owned())]);
    assert_eq!(world.machine.call().termination, Some(Termination::Redirected));
    let last = world.changes.iter().flat_map(|change| &change.notifications).next_back().unwrap();
    assert_eq!(last.callback_uri, "http://bot/last");
    world.check();
    assert_eq!(World::established().command(redirect()), Err(CallError::WrongState));
}

#[test]
fn a_voicemail_call_plays_back_and_says_goodbye() {
    let mut world = World::new(Owner::Line(LineScript::voicemail()));
    world.open_leg();
    world.sip(acknowledged(None));
    world.prepare(true);
    world.input(Input::Tone(Tone::parse("1").unwrap()));
    world.end_media(OperationEnd::StopToneDetected);
    world.make_safe(true);
    world.prepare(true);
    assert!(world.running.is_some(), "played back");
    world.input(Input::Tone(Tone::POUND));
    world.end_media(OperationEnd::Canceled);
    world.prepare(true);
    world.end_media(OperationEnd::Done);
    world.close_leg(false);
    world.check();
    assert_eq!(world.machine.call().termination, Some(Termination::LineEnded));
    assert!(world.events().is_empty());
}

#[test]
fn keys_faster_than_a_person_are_not_told_and_the_next_one_shows_the_gap() {
    let mut world = World::established();
    world.submit(OperationKind::SubscribeToTone).unwrap();
    let pressed = 500;
    for _ in 0..pressed {
        world.wait(Duration::from_millis(20));
        world.input(Input::Tone(Tone::POUND));
    }
    let told = |world: &World| -> Vec<u64> {
        let sequence = |event: &&Event| match event {
            Event::ToneHeard { sequence, .. } => Some(*sequence),
            _ => None,
        };
        world.events().iter().filter_map(sequence).collect()
    };
    let first = told(&world);
    assert!((100..=120).contains(&first.len()), "{} told of {pressed} in 10 s", first.len());
    assert_eq!(world.machine.tones_passed_over(), pressed - first.len() as u64);
    world.wait(Duration::from_secs(1));
    world.input(Input::Tone(Tone::POUND));
    assert_eq!(told(&world).last(), Some(&(pressed + 1)));
}

#[test]
fn a_call_that_is_handed_over_goes_on_with_the_other_peer() {
    let mut world = World::established();
    let operation = world.submit(record(false)).unwrap();
    world.prepare(true);
    let new = DialogId(8);
    world.input(Input::Replaced(new, Some(OFFER.as_bytes().to_vec()), terms()));
    let [.., answer, bye] = world.signals.as_slice() else { panic!("{:?}", world.signals) };
    assert!(matches!(answer, endpoint::Command::Answer { dialog, .. } if *dialog == new));
    assert!(matches!(bye, endpoint::Command::Bye { dialog, .. } if *dialog == DialogId(7)));
    assert_eq!(world.machine.dialog(), new);
    assert_eq!(world.running.map(|(id, _)| id), Some(operation), "it records on");
    assert!(!world.connected.last().unwrap().direction.sends(), "nobody has shown who it is");
    world.sip(acknowledged(None));
    assert!(world.connected.last().unwrap().direction.sends());
    world.input(Input::Replaced(DialogId(9), Some(b"no offer".to_vec()), terms()));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Refuse { .. })));
    assert_eq!(world.machine.dialog(), new);
}

#[test]
fn events_of_a_peer_that_was_replaced_do_not_touch_the_call() {
    let mut world = World::established();
    let key = |dialog| endpoint::Event::Info { dialog, tone: Tone::POUND };
    let before = world.machine.dialog();
    world.sip(key);
    world.input(Input::Replaced(DialogId(8), Some(OFFER.as_bytes().to_vec()), terms()));
    assert_eq!(world.machine.role(before), DialogRole::Former);
    world.input(Input::Sip(key(before)));
    assert_eq!(world.pressed, [Tone::POUND]);
    world.input(Input::Sip(bye(before)));
    assert_eq!(world.machine.call().state, CallState::Established);
}

/// Our offer is answered in the ACK of a re-INVITE without one.
fn answer_our_offer(world: &mut World, lines: &str) {
    world.sip(|dialog| endpoint::Event::Reinvite {
        dialog,
        offer: None,
        path: path(),
        is_proved: true,
    });
    let text = format!("v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\n{lines}");
    world.sip(acknowledged(Some(text.into_bytes())));
}

#[test]
fn an_answer_that_refuses_the_audio_puts_an_established_call_on_hold() {
    for held in
        ["m=audio 0 RTP/AVP 0 101\r\n", "m=audio 0 RTP/AVP 0 101\r\nm=video 0 RTP/AVP 96\r\n"]
    {
        let mut world = World::established();
        // The second time, the call is on hold already.
        for _ in 0..2 {
            answer_our_offer(&mut world, held);
            assert_eq!(world.machine.call().state, CallState::Established, "{held}");
            assert_eq!(world.machine.call().media, Some(MediaState::Inactive), "{held}");
            let plan = world.connected.last().unwrap();
            assert_eq!((plan.direction, plan.remote), (sdp::Direction::Inactive, None), "{held}");
        }
        answer_our_offer(&mut world, "m=audio 4000 RTP/AVP 0\r\nm=video 0 RTP/AVP 96\r\n");
        assert_eq!(world.machine.call().media, Some(MediaState::Active), "{held}");
        let bye = |signal: &endpoint::Command| matches!(signal, endpoint::Command::Bye { .. });
        assert!(!world.signals.iter().any(bye), "{:?}", world.signals);
    }
}

#[test]
fn a_new_peer_without_audio_cannot_put_the_call_on_hold() {
    let mut world = World::established();
    world.input(Input::Replaced(DialogId(8), None, terms()));
    let text = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 0 RTP/AVP 0\r\n";
    world.sip(acknowledged(Some(text.as_bytes().to_vec())));
    let bye = |signal: &endpoint::Command| matches!(signal, endpoint::Command::Bye { dialog, .. } if *dialog == DialogId(8));
    assert!(world.signals.iter().any(bye), "{:?}", world.signals);
}

#[test]
fn a_transfer_is_over_when_its_peer_is_replaced() {
    let mut world = transferring();
    world.input(Input::Replaced(DialogId(8), Some(OFFER.as_bytes().to_vec()), terms()));
    assert_eq!(world.machine.call().state, CallState::Established);
    world.sip(acknowledged(None));
    let target = Box::new("sip:400@pbx.example".parse().unwrap());
    world.command(Command::Transfer { target, replaces: None }).unwrap();
}

#[test]
fn the_peer_is_told_why_we_hang_up() {
    let mut world = World::established();
    world.command(Command::HangUp(Termination::ApplicationHungUp)).unwrap();
    let Some(endpoint::Command::Bye { reason, .. }) = world.signals.last() else {
        panic!("{:?}", world.signals)
    };
    assert_eq!(reason.as_deref(), Some("Q.850;cause=16;text=\"Normal call clearing\""));
}

fn transferring() -> World {
    let mut world = World::established();
    let target: Box<Uri> = Box::new("sip:300@pbx.example".parse().unwrap());
    world.command(Command::Transfer { target: target.clone(), replaces: None }).unwrap();
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Refer { .. })));
    let again = world.command(Command::Transfer { target, replaces: None });
    assert_eq!(again, Err(CallError::Conflict));
    world.sip(referred(Status::TRYING));
    world.sip(referred(Status::TRYING));
    assert_eq!(world.machine.call().state, CallState::Transferring);
    assert_eq!(world.machine.call().media, Some(MediaState::Inactive));
    world
}

#[test]
fn a_transfer_that_succeeds_ends_the_call() {
    let mut world = transferring();
    world.sip(referred(Status::OK));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Bye { .. })));
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::Transferred));
    let last = [CallState::Transferring, CallState::TransferAccepted, CallState::Terminated];
    assert_eq!(world.states()[world.states().len() - 3..], last);
    world.check();

    // A phone that reports ringing and then hangs up has reached the transfer target.
    let mut world = transferring();
    world.sip(referred(Status::RINGING));
    world.sip(bye);
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::Transferred));
    assert_eq!(world.states()[world.states().len() - 3..], last);
    world.check();
}

#[test]
fn a_peer_that_gives_up_while_it_is_transferred_has_just_hung_up() {
    let mut world = transferring();
    world.sip(bye);
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::PeerHungUp));
    let last = [CallState::Established, CallState::Transferring, CallState::Terminated];
    assert_eq!(world.states()[world.states().len() - 3..], last);
    world.check();
}

#[test]
fn a_transfer_that_fails_leaves_the_call_as_it_was() {
    let mut world = transferring();
    world.sip(referred(Status::RINGING));
    world.sip(referred(Status::BUSY_HERE));
    assert_eq!(world.machine.call().state, CallState::Established);
    assert_eq!(world.machine.call().media, Some(MediaState::Active));
    let Some(Event::TransferFailed { transfer, .. }) = world.events().pop() else {
        panic!("{:?}", world.events());
    };
    assert_eq!(*transfer, TransferKind::Blind);
    // The failure is in the notification only: a call that goes on has no result.
    assert_eq!(world.machine.call().result(), None);
    world.submit(record(false)).unwrap();
    world.finish();
    world.check();
}

#[test]
fn a_placed_call_is_located_dialed_and_established() {
    let mut world = World::placed();
    assert_eq!(world.machine.call().state, CallState::Establishing);
    assert_eq!(world.submit(record(false)), Err(CallError::NotEstablished));
    world.locate(true);
    world.open_leg();
    assert!(world.dialed);
    world.sip(progress(Status::TRYING));
    assert_eq!(world.machine.call().state, CallState::Establishing);
    world.sip(progress(Status::RINGING));
    assert_eq!(world.machine.call().state, CallState::Ringing);
    assert_eq!(world.states(), [CallState::Establishing], "ringing is not told");
    world.sip(answered(Some(OFFER.as_bytes().to_vec())));
    assert_eq!(world.machine.call().state, CallState::Established);
    world.wait(Duration::from_secs(60));
    assert_eq!(world.machine.call().state, CallState::Established, "the time to ring is over");
    world.submit(record(false)).unwrap();
    world.sip(bye);
    world.close_leg(false);
    world.make_safe(true);
    assert_eq!(world.machine.call().termination, Some(Termination::TelephoneHungUp));
    world.check();
}

#[test]
fn an_answer_that_answers_nothing_ends_the_call() {
    let mut world = World::placed();
    world.locate(true);
    world.open_leg();
    world.sip(answered(None));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Bye { .. })));
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::MediaRefused));
}

#[test]
fn a_placed_call_that_is_refused_says_by_what() {
    let mut world = World::placed();
    world.locate(true);
    world.open_leg();
    world.sip(refused(Status::BUSY_HERE));
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::Refused(Status::BUSY_HERE)));
    let result = world.machine.call().termination.unwrap().result();
    assert_eq!((result.code, result.subcode), (486, 8539));
    world.check();
}

#[test]
fn a_placed_call_that_nobody_answers_is_canceled() {
    let mut world = World::placed();
    world.locate(true);
    world.open_leg();
    world.wait(Duration::from_secs(30));
    assert!(matches!(world.signals.last(), Some(endpoint::Command::Bye { .. })));
    world.close_leg(false);
    assert_eq!(world.machine.call().termination, Some(Termination::NoAnswer));
    world.check();
}

#[test]
fn a_placed_call_without_a_way_to_go_ends_at_once() {
    let mut world = World::placed();
    world.locate(false);
    assert_eq!(
        world.machine.call().termination,
        Some(Termination::Refused(Status::SERVICE_UNAVAILABLE))
    );
    assert!(world.signals.is_empty());
    world.check();
}

#[test]
fn a_call_to_a_user_without_a_phone_ends_as_one_that_is_not_there() {
    let mut world = World::placed();
    world.input(Input::NoEndpoint);
    let result = world.machine.call().termination.unwrap().result();
    assert_eq!((result.code, result.subcode), (480, 10_037));
    assert!(world.signals.is_empty());
    world.check();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// In any order of events, every operation ends exactly once and is reported once, every clip
    /// has one outcome, and the call ends once, after everything else.
    #[test]
    fn everything_ends_exactly_once(
        steps in prop::collection::vec((0u8..37, any::<bool>()), 0..80),
        kind in 0..3,
    ) {
        let mut world = match kind {
            0 => World::new(Owner::Line(LineScript::voicemail())),
            1 => World::placed(),
            _ => World::bot(),
        };
        let mut referrals = 0;
        for (step, flag) in steps {
            match step {
                0 => {
                    let answer = Command::Answer { callback_uri: None, media_config: None };
                    let _ = world.command(answer);
                }
                1 if flag => {
                    let reason = RejectReason::Busy;
                    let _ = world.command(Command::Reject { reason, callback_uri: None });
                }
                2 | 3 => world.open_leg(),
                4 | 5 => world.sip(acknowledged(None)),
                6 => { let _ = world.submit(record(flag)); }
                7 => { let _ = world.submit(play()); }
                8 => { let _ = world.submit(OperationKind::CancelMediaProcessing); }
                9 => { let _ = world.submit(OperationKind::SubscribeToTone); }
                10 | 11 => world.prepare(true),
                12 => world.prepare(flag),
                13 => world.end_media(OperationEnd::StopToneDetected),
                14 => world.end_media(if flag { OperationEnd::Done } else { OperationEnd::InitialSilenceTimeout }),
                15 if !world.canceled.is_empty() => world.end_media(OperationEnd::Canceled),
                16 => world.make_safe(flag),
                17 => world.input(Input::Tone(Tone::POUND)),
                18 => world.wait(Duration::from_secs(if flag { 1 } else { 16 })),
                19 if flag => world.sip(bye),
                20 => world.close_leg(flag),
                21 if flag => world.sip(|dialog| endpoint::Event::Lost { dialog, how: Loss::NotAcknowledged }),
                22 => world.locate(flag),
                23 if world.dialed => {
                    let answer = flag.then(|| OFFER.as_bytes().to_vec());
                    world.sip(answered(answer));
                }
                24 if world.dialed && flag => world.sip(refused(Status::BUSY_HERE)),
                25 if flag => world.referral_sip(progress(Status::RINGING)),
                25 if world.dialed => world.sip(progress(Status::SESSION_PROGRESS)),
                26 => {
                    // Each referral has a dialog of its own.
                    referrals += 1;
                    world.input(Input::ReferAsked(DialogId(DialogId::FIRST_OUTGOING + referrals), terms()));
                }
                27 => world.locate_referral(flag),
                28 => world.referral_sip(answered(flag.then(|| OFFER.as_bytes().to_vec()))),
                29 => world.referral_sip(refused(Status::BUSY_HERE)),
                30 => { let _ = world.submit(OperationKind::Mute { side: Side::Peers }); }
                31 => { let _ = world.submit(OperationKind::StartHoldMusic { prompt: None }); }
                32 => { let _ = world.submit(OperationKind::StopHoldMusic); }
                33 if flag => {
                    let target = Box::new("sip:carol@pbx.example".parse().unwrap());
                    let _ = world.command(Command::Redirect { target, callback_uri: None });
                }
                34 => world.say(),
                35 => world.hear(),
                _ => { let _ = world.command(Command::KeepAlive); }
            }
        }
        world.finish();
        world.check();
    }
}
