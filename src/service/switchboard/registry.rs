//! The list of calls and dialogs, and admission control.

use std::{collections::HashMap, net::IpAddr, time::Instant};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::mailbox::{CallMessage, Mail};
use aftertone_core::{
    call::{CallError, Refusal},
    model::CallId,
    proto::sip::{
        endpoint::DialogId,
        log_limiter::{LineLimiter, LogLimiter},
        path::Path,
        standing::{
            CALLS_OF_A_SOURCE, DISPLACEMENT_PERIOD, HALF_OPEN_CALLS, HALF_OPEN_CALLS_OF_A_SOURCE,
            HALF_OPEN_UNDER_PRESSURE, LEAVING_CALLS, PRESSURE, RESERVED_CALLS, Share, SourceProof,
        },
    },
};

/// The current calls and their dialogs.
#[derive(Default)]
pub(super) struct Registry {
    pub calls: HashMap<CallId, LiveCall>,
    pub dialogs: HashMap<DialogId, CallDialog>,
    /// Log limiter for refused calls, per stranger.
    pub refused: LogLimiter,
    /// When the current displacement period began, and how many calls strangers have displaced in
    /// it.
    displacing: Option<(Instant, usize)>,
    /// Log limiter for the message that calls are displaced.
    crowded: LineLimiter,
}

/// A dialog that has not ended.
pub(super) struct CallDialog {
    pub call: CallId,
    /// The trunk that carries it, if it is outgoing.
    pub trunk: Option<String>,
    /// Reserved slot in the task's mailbox for the last event of the dialog.
    pub last: mpsc::OwnedPermit<CallMessage>,
}

/// One call.
pub(super) struct LiveCall {
    /// The application that owns it; `None` for a built-in line.
    pub application: Option<String>,
    /// The caller, if it is neither a user, nor a trunk, nor trusted.
    pub stranger: Option<Stranger>,
    /// Senders to the call's task.
    pub mail: Mail,
}

/// Why a call, or one more dialog of a call, is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAdmitted {
    /// We are shutting down.
    Draining,
    /// There are as many calls as there may be, or as the caller may have.
    Full,
    /// The trunk carries as many dialogs as it may.
    TrunkFull,
}

impl From<NotAdmitted> for CallError {
    fn from(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Draining | NotAdmitted::Full => Self::Overloaded { retry_after: 5 },
            NotAdmitted::TrunkFull => Self::TrunkFull,
        }
    }
}

impl From<NotAdmitted> for Refusal {
    fn from(why: NotAdmitted) -> Self {
        match why {
            NotAdmitted::Draining => Self::Draining,
            NotAdmitted::Full | NotAdmitted::TrunkFull => Self::Full,
        }
    }
}

/// An unauthenticated caller that is neither a user, nor a trunk, nor trusted.
pub(super) struct Stranger {
    source: IpAddr,
    /// Calls of callers with a weaker proof are displaced before those with a better one.
    proof: SourceProof,
    /// When the call arrived.
    since: Instant,
    /// The call was displaced by another one and is about to end.
    is_leaving: bool,
}

impl LiveCall {
    /// The entry of a call that an application places.
    pub(super) fn of_application(application: &str, mail: Mail) -> Self {
        Self { application: Some(application.to_owned()), stranger: None, mail }
    }

    fn is_leaving(&self) -> bool {
        self.stranger.as_ref().is_some_and(|stranger| stranger.is_leaving)
    }
}

impl Stranger {
    /// The caller of a call that arrived over `path`.
    pub(super) fn new(source: IpAddr, path: Path, now: Instant) -> Self {
        let proof = SourceProof::of_invite(path.transport);
        Self { source, proof, since: now, is_leaving: false }
    }

    fn is_half_open(&self) -> bool {
        self.proof.is_half_open()
    }
}

impl Registry {
    /// Checks whether one more call is admitted. `stranger` is the caller if it is a stranger, else
    /// `None`. Returns the call that must be displaced first, if one must: a half-open call of a
    /// stranger, and of the same stranger if that has used up its share.
    ///
    /// # Errors
    /// There is no capacity for the call.
    pub(super) fn admit(
        &self,
        stranger: Option<&Stranger>,
        max_calls: usize,
        now: Instant,
    ) -> Result<Option<CallId>, NotAdmitted> {
        let part = |share: Share| share.at_least_one_of(max_calls);
        let calls = self.calls.values().filter(|entry| !entry.is_leaving()).count();
        let leaving = self.calls.len() - calls;
        let oldest = match stranger {
            Some(Stranger { source, .. }) => {
                let of_source = || self.strangers().filter(|(_, it)| it.source == *source);
                let half_open = |(_, it): &(CallId, &Stranger)| it.is_half_open();
                if of_source().count() >= part(CALLS_OF_A_SOURCE)
                    || of_source().filter(half_open).count() >= part(HALF_OPEN_CALLS_OF_A_SOURCE)
                {
                    oldest(of_source())
                } else if calls >= RESERVED_CALLS.rest_of(max_calls)
                    || self.strangers().filter(half_open).count() >= part(HALF_OPEN_CALLS)
                {
                    oldest(self.strangers())
                } else {
                    return Ok(None);
                }
            }
            None if calls >= max_calls => oldest(self.strangers()),
            None => return Ok(None),
        };
        let is_too_often = stranger.is_some()
            && self.displacing.is_some_and(|(since, count)| {
                now.saturating_duration_since(since) < DISPLACEMENT_PERIOD
                    && count >= part(HALF_OPEN_CALLS)
            });
        match oldest {
            Some(oldest) if leaving < part(LEAVING_CALLS) && !is_too_often => Ok(Some(oldest)),
            Some(_) | None => Err(NotAdmitted::Full),
        }
    }

    /// Ends a call to make space for another one. Returns whether the call's task could be told.
    pub(super) fn displace(&mut self, call: CallId, now: Instant) -> bool {
        match &mut self.displacing {
            Some((since, count)) if now.saturating_duration_since(*since) < DISPLACEMENT_PERIOD => {
                *count += 1;
            }
            displacing => *displacing = Some((now, 1)),
        }
        self.end(call, now)
    }

    fn end(&mut self, call: CallId, now: Instant) -> bool {
        let Some(entry) = self.calls.get_mut(&call) else { return true };
        let Some(stranger) = &mut entry.stranger else { return false };
        if entry.mail.sip.try_send(CallMessage::MakeRoom).is_err() {
            return false;
        }
        stranger.is_leaving = true;
        debug!(call.id = %call, source = %stranger.source, "a half-open call makes room");
        if let Some(tell) = self.crowded.note(now) {
            let unsaid = tell.unsaid;
            warn!(unsaid, "Too many calls of strangers are half-open; the oldest make room");
        }
        true
    }

    /// Under pressure, ends calls that came by datagram and have been half-open for too long.
    pub(super) fn shorten_waits(&mut self, max_calls: usize, now: Instant) {
        let half_open = || self.strangers().filter(|(_, stranger)| stranger.is_half_open());
        if half_open().count() <= PRESSURE.of(max_calls) {
            return;
        }
        let is_late = |(_, stranger): &(CallId, &Stranger)| {
            stranger.proof == SourceProof::Forgeable
                && now.saturating_duration_since(stranger.since) >= HALF_OPEN_UNDER_PRESSURE
        };
        let late: Vec<CallId> = half_open().filter(is_late).map(|(call, _)| call).collect();
        for call in late {
            self.end(call, now);
        }
    }

    /// The calls of strangers that are not displaced.
    fn strangers(&self) -> impl Iterator<Item = (CallId, &Stranger)> {
        let strangers = self.calls.iter().filter_map(|(id, it)| Some((*id, it.stranger.as_ref()?)));
        strangers.filter(|(_, stranger)| !stranger.is_leaving)
    }

    /// Adds a dialog. `room` is the limit of dialogs of its trunk, if there is one.
    ///
    /// # Errors
    /// The trunk is at its limit.
    pub(super) fn add_line(
        &mut self,
        dialog: DialogId,
        line: CallDialog,
        room: Option<usize>,
    ) -> Result<(), NotAdmitted> {
        if let (Some(trunk), Some(room)) = (&line.trunk, room)
            && self.dialogs_by(trunk) >= room
        {
            return Err(NotAdmitted::TrunkFull);
        }
        self.dialogs.insert(dialog, line);
        Ok(())
    }

    /// Number of dialogs that a trunk carries.
    pub(super) fn dialogs_by(&self, trunk: &str) -> usize {
        self.dialogs.values().filter(|line| line.trunk.as_deref() == Some(trunk)).count()
    }

    /// Notes that the caller has sent a message with our tag, which proves its source address.
    pub(super) fn heard(&mut self, dialog: DialogId) {
        let call = self.dialogs.get(&dialog).map(|line| line.call);
        let entry = call.and_then(|call| self.calls.get_mut(&call));
        if let Some(stranger) = entry.and_then(|entry| entry.stranger.as_mut()) {
            stranger.proof = SourceProof::Heard;
        }
    }

    /// Removes a call. Returns its dialogs that had not ended.
    pub(super) fn remove(&mut self, call: CallId) -> Vec<DialogId> {
        self.calls.remove(&call);
        let of_call = |(_, line): &(&DialogId, &CallDialog)| line.call == call;
        let dialogs: Vec<DialogId> =
            self.dialogs.iter().filter(of_call).map(|(dialog, _)| *dialog).collect();
        for dialog in &dialogs {
            self.dialogs.remove(dialog);
        }
        dialogs
    }
}

/// The half-open call to displace: the one with the weakest proof, and among those the oldest.
fn oldest<'a>(strangers: impl Iterator<Item = (CallId, &'a Stranger)>) -> Option<CallId> {
    let half_open = strangers.filter(|(_, stranger)| stranger.is_half_open());
    half_open.min_by_key(|(_, stranger)| (stranger.proof, stranger.since)).map(|(call, _)| call)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::service::switchboard::mailbox::{Mailbox, mailbox};

    const MAX_CALLS: usize = 80;

    fn id(number: usize) -> CallId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        CallId::from_random(bytes)
    }

    fn line(call: usize, trunk: Option<&str>) -> CallDialog {
        let (sender, _receiver) = mpsc::channel(1);
        let last = sender.try_reserve_owned().expect("it is empty");
        CallDialog { call: id(call), trunk: trunk.map(str::to_owned), last }
    }

    /// A registry, the mailboxes of the calls that have entered it, and the time.
    struct Fixture {
        registry: Registry,
        mailboxes: Vec<Mailbox>,
        now: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self { registry: Registry::default(), mailboxes: Vec::new(), now: Instant::now() }
        }

        fn stranger(&self, number: u8, proof: SourceProof) -> Option<Stranger> {
            let source = [198, 51, 100, number].into();
            Some(Stranger { source, proof, since: self.now, is_leaving: false })
        }

        /// Lets a call enter one millisecond after the previous one; returns its number if it is
        /// admitted.
        fn enter(&mut self, stranger: Option<Stranger>) -> Option<usize> {
            self.now += Duration::from_millis(1);
            let room = self.registry.admit(stranger.as_ref(), MAX_CALLS, self.now).ok()?;
            if let Some(room) = room {
                assert!(self.registry.displace(room, self.now));
            }
            let (mail, mailbox) = mailbox();
            let number = self.mailboxes.len();
            self.mailboxes.push(mailbox);
            let entry = LiveCall { application: None, stranger, mail };
            self.registry.calls.insert(id(number), entry);
            Some(number)
        }

        fn enter_of(&mut self, number: u8, proof: SourceProof) -> Option<usize> {
            let stranger = self.stranger(number, proof);
            self.enter(stranger)
        }

        /// How many of 100 calls of one stranger are admitted.
        fn taken(&mut self, number: u8, proof: SourceProof) -> usize {
            (0..100).filter(|_| self.enter_of(number, proof).is_some()).count()
        }

        /// Ends the displaced calls; returns their numbers.
        fn left(&mut self) -> Vec<usize> {
            let mut left = Vec::new();
            for (number, mailbox) in self.mailboxes.iter_mut().enumerate() {
                if matches!(mailbox.sip.try_recv(), Ok(CallMessage::MakeRoom)) {
                    self.registry.remove(id(number));
                    left.push(number);
                }
            }
            left
        }

        /// Number of calls that are not displaced.
        fn staying(&self) -> usize {
            self.registry.calls.values().filter(|entry| !entry.is_leaving()).count()
        }
    }

    #[test]
    fn a_stranger_has_its_share_and_less_of_what_is_half_open() {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.taken(2, SourceProof::Heard), 20);
        for proof in [SourceProof::Forgeable, SourceProof::Connected] {
            let mut fixture = Fixture::new();
            for number in 0..15 {
                assert_eq!(fixture.enter_of(1, proof), Some(number));
            }
            assert_eq!(fixture.staying(), 10);
            assert_eq!(fixture.left(), [0, 1, 2, 3, 4], "its own, the oldest first");
        }
    }

    #[test]
    fn the_oldest_half_open_call_of_a_stranger_makes_room() {
        let mut fixture = Fixture::new();
        for number in 1..=40 {
            assert!(fixture.enter_of(number, SourceProof::Forgeable).is_some());
        }
        assert!(fixture.left().is_empty() && fixture.staying() == 40);
        // The caller of call 0 sends a message with our tag, so its call stays.
        let dialog = DialogId(1);
        fixture.registry.add_line(dialog, line(0, None), None).unwrap();
        fixture.registry.heard(dialog);
        for number in 41..=50 {
            assert!(fixture.enter_of(number, SourceProof::Forgeable).is_some(), "{number}");
        }
        assert_eq!(fixture.left(), (1..=9).collect::<Vec<_>>());
        assert_eq!(fixture.staying(), 41);
    }

    #[test]
    fn forged_datagrams_displace_no_stream_while_there_are_others() {
        let mut fixture = Fixture::new();
        for number in 1..=10 {
            assert!(fixture.enter_of(number, SourceProof::Connected).is_some());
        }
        for number in 11..=60 {
            assert!(fixture.enter_of(number, SourceProof::Forgeable).is_some());
            fixture.left().iter().for_each(|left| assert!(*left >= 10, "{left}"));
        }
    }

    #[test]
    fn who_is_known_displaces_a_half_open_call_when_the_house_is_full() {
        let mut fixture = Fixture::new();
        for number in 1..=40 {
            fixture.enter_of(number, SourceProof::Forgeable);
        }
        for _ in 0..40 {
            assert!(fixture.enter(None).is_some());
        }
        assert!(fixture.left().is_empty());
        for _ in 0..40 {
            assert!(fixture.enter(None).is_some());
            assert_eq!(fixture.left().len(), 1);
        }
        assert!(fixture.enter(None).is_none(), "none is half-open");
    }

    #[test]
    fn strangers_leave_room_for_those_that_are_known() {
        let mut fixture = Fixture::new();
        let strangers: usize =
            (1..100).map(|number| fixture.taken(number, SourceProof::Heard)).sum();
        assert_eq!(strangers, 70);
        assert_eq!((0..100).filter(|_| fixture.enter(None).is_some()).count(), 10);
        let full = fixture.registry.admit(None, MAX_CALLS, fixture.now);
        assert!(matches!(full, Err(NotAdmitted::Full)));
    }

    #[test]
    fn a_flood_displaces_only_so_many_in_a_time() {
        let mut fixture = Fixture::new();
        let mut taken = 0;
        for number in 0..200 {
            taken += usize::from(fixture.enter_of(number, SourceProof::Forgeable).is_some());
            fixture.left();
        }
        assert_eq!(taken, 80, "as many as fit, and as many again");
        fixture.now += DISPLACEMENT_PERIOD;
        assert!(fixture.enter_of(201, SourceProof::Forgeable).is_some());
        // A displaced call takes memory until it has ended.
        let mut fixture = Fixture::new();
        let taken = (0..100).filter_map(|it| fixture.enter_of(it, SourceProof::Forgeable)).count();
        assert_eq!(taken, 40 + 20);
    }

    #[test]
    fn under_pressure_no_call_is_half_open_for_long() {
        let mut fixture = Fixture::new();
        for number in 1..=20 {
            fixture.enter_of(number, SourceProof::Forgeable);
        }
        fixture.now += Duration::from_secs(60);
        fixture.registry.shorten_waits(MAX_CALLS, fixture.now);
        assert!(fixture.left().is_empty(), "there is room for as many again");
        fixture.enter_of(21, SourceProof::Forgeable);
        fixture.enter_of(22, SourceProof::Connected);
        fixture.now += Duration::from_secs(7);
        fixture.registry.shorten_waits(MAX_CALLS, fixture.now);
        assert_eq!(fixture.left().len(), 20);
        assert_eq!(fixture.staying(), 2);
    }

    #[test]
    fn a_house_with_room_for_one_call_takes_that_of_a_stranger() {
        let fixture = Fixture::new();
        let stranger = fixture.stranger(1, SourceProof::Forgeable);
        assert_eq!(fixture.registry.admit(stranger.as_ref(), 1, fixture.now), Ok(None));
    }

    #[test]
    fn a_trunk_has_as_many_dialogs_as_it_may() {
        let mut registry = Registry::default();
        let line = |trunk: &str| line(1, Some(trunk));
        let mut add = |dialog, trunk, room| registry.add_line(DialogId(dialog), line(trunk), room);
        assert!(add(1, "one", Some(2)).is_ok() && add(2, "one", Some(2)).is_ok());
        assert_eq!(add(3, "one", Some(2)), Err(NotAdmitted::TrunkFull));
        assert!(add(4, "two", Some(1)).is_ok() && add(5, "three", None).is_ok());
    }

    #[test]
    fn a_call_leaves_with_its_dialogs_and_tells_which_were_not_over() {
        let mut registry = Registry::default();
        let entry = LiveCall { application: None, stranger: None, mail: mailbox().0 };
        registry.calls.insert(id(0), entry);
        for dialog in [1, 2] {
            registry.add_line(DialogId(dialog), line(0, None), None).unwrap();
        }
        registry.add_line(DialogId(3), line(7, None), None).unwrap();
        let mut left = registry.remove(id(0));
        left.sort();
        assert_eq!(left, [DialogId(1), DialogId(2)]);
        assert!(registry.calls.is_empty() && registry.dialogs.len() == 1);
    }
}
