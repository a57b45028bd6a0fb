//! The peer hands the call over to another party.

use std::time::Duration;

use super::world::{OFFER, World, answered, bye, progress, record, refused, terms};
use crate::{
    call::{CallError, Command, Input},
    model::{CallState, OperationEnd, Termination},
    proto::sip::{
        Status,
        endpoint::{
            Command::{self as Signal, Bye, TellReferrer},
            DialogId,
        },
    },
};

const FIRST: DialogId = DialogId(7);
const NEXT: DialogId = DialogId(DialogId::FIRST_OUTGOING);

/// An application's call that records; its peer has referred us to another party, which is being
/// called.
fn referred() -> World {
    let mut world = World::established();
    world.submit(record(false)).unwrap();
    world.prepare(true);
    world.signals.clear();
    world.input(Input::ReferAsked(NEXT, terms()));
    world.locate_referral(true);
    assert!(world.signals.is_empty(), "{:?}", world.signals);
    world
}

fn answer() -> Option<Vec<u8>> {
    Some(OFFER.replace("192.0.2.1", "192.0.2.77").into_bytes())
}

#[test]
fn the_call_goes_on_with_whom_the_peer_has_named() {
    let mut world = referred();
    world.referral_sip(progress(Status::RINGING));
    world.referral_sip(answered(answer()));
    assert_eq!(world.machine.dialog(), NEXT);
    let [ringing, there, Bye { dialog: FIRST, .. }] = world.signals.as_slice() else {
        panic!("{:?}", world.signals)
    };
    assert_eq!(*ringing, TellReferrer { dialog: FIRST, status: Status::RINGING });
    assert_eq!(*there, TellReferrer { dialog: FIRST, status: Status::OK });
    let remote = world.connected.last().unwrap().remote;
    assert_eq!(remote, Some("192.0.2.77:4000".parse().unwrap()));
    assert!(world.running.is_some(), "the recording goes on");
    world.wait(Duration::from_secs(61));
    assert_eq!(world.machine.call().state, CallState::Established, "nothing rings any more");
    world.finish();
    world.check();
}

#[test]
fn who_will_not_come_leaves_the_call_as_it_was() {
    let mut world = referred();
    world.referral_sip(refused(Status::BUSY_HERE));
    assert_eq!(world.signals, [TellReferrer { dialog: FIRST, status: Status::BUSY_HERE }]);
    assert_eq!(world.machine.dialog(), FIRST);

    world.signals.clear();
    world.input(Input::ReferAsked(NEXT, terms()));
    world.locate_referral(false);
    assert_eq!(
        world.signals,
        [TellReferrer { dialog: FIRST, status: Status::SERVICE_UNAVAILABLE }]
    );

    world.signals.clear();
    world.input(Input::ReferAsked(NEXT, terms()));
    world.locate_referral(true);
    world.wait(Duration::from_secs(60));
    let [Bye { dialog: NEXT, .. }, told] = world.signals.as_slice() else {
        panic!("{:?}", world.signals)
    };
    assert_eq!(*told, TellReferrer { dialog: FIRST, status: Status::REQUEST_TIMEOUT });

    world.signals.clear();
    world.input(Input::ReferAsked(NEXT, terms()));
    world.locate_referral(true);
    world.referral_sip(answered(None));
    let [Bye { dialog: NEXT, .. }, told] = world.signals.as_slice() else {
        panic!("{:?}", world.signals)
    };
    assert_eq!(*told, TellReferrer { dialog: FIRST, status: Status::BAD_REQUEST });
    assert_eq!(world.machine.call().state, CallState::Established);
    world.finish();
    world.check();
}

#[test]
fn a_peer_that_hangs_up_at_once_is_replaced_all_the_same() {
    let mut world = referred();
    world.sip(bye);
    assert_eq!(world.machine.call().state, CallState::Established);
    assert!(!world.connected.last().unwrap().direction.sends());
    world.referral_sip(progress(Status::SESSION_PROGRESS));
    world.referral_sip(answered(answer()));
    assert_eq!(world.machine.dialog(), NEXT);
    assert!(world.connected.last().unwrap().direction.sends());
    assert!(!world.signals.iter().any(|signal| matches!(signal, Bye { .. })));
    world.finish();
    world.check();

    let mut world = referred();
    let id = world.running.unwrap().0;
    world.sip(bye);
    world.referral_sip(refused(Status::DECLINE));
    world.close_leg(false);
    world.make_safe(true);
    assert_eq!(world.machine.call().termination, Some(Termination::PeerHungUp));
    assert_eq!(world.ends_of(id)[0].0, OperationEnd::HungUpWithAudio);
    world.check();
}

#[test]
fn the_end_of_the_call_is_the_end_of_the_other_one() {
    let mut world = referred();
    world.command(Command::HangUp(Termination::ApplicationHungUp)).unwrap();
    let ended: Vec<DialogId> = world.signals.iter().map(Signal::dialog).collect();
    assert_eq!(ended, [FIRST, NEXT]);
    world.input(Input::Sip(answered(answer())(NEXT)));
    assert_eq!(world.machine.dialog(), FIRST, "too late");
    world.finish();
    world.check();
}

#[test]
fn one_transfer_at_a_time() {
    let mut world = referred();
    let target = Box::new("sip:300@pbx.example".parse().unwrap());
    let transfer = Command::Transfer { target, replaces: None };
    assert_eq!(world.command(transfer), Err(CallError::Conflict));
    world.input(Input::ReferAsked(DialogId(NEXT.0 + 1), terms()));
    assert_eq!(world.signals, [TellReferrer { dialog: FIRST, status: Status::DECLINE }]);
    assert_eq!(world.machine.referral(), Some(NEXT));
}
