//! How a call ends: the peer is told, the leg closes, every clip becomes safe, and then the end is
//! reported.

use std::time::Duration;

use super::{Action, LegState, Machine, Now, Phase, refuse};
use crate::{
    call::{queue::Stage, reason, refusal::Refusal},
    model::{CallState, Event, OperationEnd, Recorded, RecordingChange, Termination},
    proto::sip::endpoint,
};

/// How long the leg may take to close before it counts as gone. Clips have no deadline: a slow disk
/// delays the end of the call, and no finished audio is given up.
const ENDING_DEADLINE: Duration = Duration::from_secs(15);

impl Machine {
    /// Ends the call without a message to the peer, which has left or was never reached.
    pub(super) fn peer_gone(&mut self, termination: Termination, now: Now) {
        let may_stay = matches!(termination, Termination::PeerHungUp | Termination::PeerLost);
        if may_stay && self.is_referred() {
            return;
        }
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over) {
            return;
        }
        let is_heard_of = self.transfer.is_some_and(|transfer| transfer.is_heard_of);
        let is_hung_up = termination == Termination::PeerHungUp;
        let termination = if is_hung_up && is_heard_of {
            // Phones hang up as soon as they have reached the transfer target, and then send no
            // more NOTIFY. A phone that has reported no progress has simply hung up.
            self.set_state(CallState::TransferAccepted);
            Termination::Transferred
        } else if is_hung_up && self.call.is_telephone {
            Termination::TelephoneHungUp
        } else {
            termination
        };
        self.begin_ending(termination, now);
    }

    /// Ends the call from our side: with `refusal` if it is not answered yet, else with BYE.
    pub(super) fn end(&mut self, termination: Termination, refusal: Option<Refusal>, now: Now) {
        match self.phase {
            Phase::Ending { .. } | Phase::Over => return,
            // No INVITE has been sent yet.
            Phase::Locating => {}
            Phase::Opening if self.ring_until.is_some() => {}
            Phase::Offered { .. } | Phase::Opening => {
                let refusal = refusal.unwrap_or(Refusal::Internal);
                self.signal(refuse(self.dialog, &refusal));
            }
            Phase::Dialing | Phase::Answered | Phase::Up => {
                let reason = Some(reason::of_end(termination));
                self.signal(endpoint::Command::Bye { dialog: self.dialog, reason });
            }
        }
        if termination == Termination::ApplicationHungUp {
            self.call.state = CallState::Terminating;
            self.tell_changed();
        }
        self.begin_ending(termination, now);
    }

    /// Ends the call at once to make room for others: the endpoint does not wait for its ACK.
    pub(super) fn make_room(&mut self, now: Now) {
        match self.phase {
            Phase::Ending { .. } | Phase::Over => return,
            Phase::Offered { .. } | Phase::Opening | Phase::Answered => {
                self.signal(endpoint::Command::MakeRoom { dialog: self.dialog });
            }
            Phase::Locating | Phase::Dialing | Phase::Up => {
                self.end(Termination::MadeRoom, None, now);
                return;
            }
        }
        self.begin_ending(Termination::MadeRoom, now);
    }

    fn begin_ending(&mut self, termination: Termination, now: Now) {
        self.phase = Phase::Ending { termination, until: now.instant + ENDING_DEADLINE };
        self.give_up_referral();
        self.lease_until = None;
        self.call.state = CallState::Terminating;
        let is_wanted = termination == Termination::ApplicationHungUp;
        for entry in self.queue.take_waiting() {
            let end = if entry.operation.kind.is_record() && !is_wanted {
                OperationEnd::HungUpWithoutAudio
            } else {
                OperationEnd::Canceled
            };
            self.conclude(entry, end, None, now);
        }
        self.close_leg();
        self.try_finish(now);
    }

    pub(super) fn close_leg(&mut self) {
        match self.leg {
            LegState::Open => {
                self.leg = LegState::Closing;
                self.actions.push_back(Action::CloseLeg);
            }
            LegState::None => self.leg = LegState::Closed,
            LegState::Closing | LegState::Closed => {}
        }
    }

    /// The leg is gone: ends the operations that it left unfinished.
    pub(super) fn leg_gone(&mut self, now: Now) {
        for entry in self.queue.take_said() {
            self.conclude(entry, OperationEnd::Done, None, now);
        }
        if let Some(running) = self.queue.running() {
            let id = running.operation.id;
            match running.recording {
                Some(clip) => {
                    let recorded = Recorded {
                        id: clip,
                        duration_ms: 0,
                        speech_ms: 0,
                        speech_ended_at_ms: None,
                    };
                    self.queue.finish(id, OperationEnd::HungUpWithAudio, recorded);
                    self.actions.push_back(Action::SealClip(id, clip));
                }
                None => {
                    if let Some(entry) = self.queue.take(id) {
                        self.conclude(entry, OperationEnd::Unspecified, None, now);
                    }
                }
            }
        }
        self.try_finish(now);
    }

    /// The leg did not close in time. The clip that it was recording is sealed; all other
    /// operations end without the leg.
    pub(super) fn ending_is_late(&mut self, now: Now) {
        if let Phase::Ending { until, .. } = &mut self.phase {
            *until = now.instant + ENDING_DEADLINE;
        }
        if self.leg != LegState::Closed {
            self.leg = LegState::Closed;
            self.leg_gone(now);
        }
        let entries = self.queue.entries().iter();
        let rest = entries.filter(|entry| !matches!(entry.stage, Stage::Finishing { .. }));
        let rest: Vec<_> = rest.map(|entry| entry.operation.id).collect();
        for id in rest {
            if let Some(entry) = self.queue.take(id) {
                self.conclude(entry, OperationEnd::Unspecified, None, now);
            }
        }
        self.try_finish(now);
    }

    pub(super) fn try_finish(&mut self, now: Now) {
        let Phase::Ending { termination, .. } = self.phase else { return };
        if self.leg != LegState::Closed || !self.queue.entries().is_empty() {
            return;
        }
        self.phase = Phase::Over;
        self.call.state = CallState::Terminated;
        self.call.ended_at = Some(now.wall);
        self.call.termination = Some(termination);
        self.call.media = None;
        self.change.call = Some(self.call.clone());
        self.change.recordings.push(RecordingChange::Expire {
            call: self.call.id,
            ended_at: now.steady,
            retention: self.settings.retention,
        });
        self.tell(Event::CallEnded { call: self.call.clone() });
        self.actions.push_back(Action::Over);
    }
}
