//! Which calls there are, and whether there is room for one more.

use std::{collections::HashMap, net::IpAddr};

use tokio::sync::mpsc;

use super::call_task::{Mail, Message};
use crate::{
    call::CallError,
    model::CallId,
    proto::sip::{diary::Diary, endpoint::DialogId},
};

/// One stranger may have this part of all calls: there is room for three more like it.
const SHARE: usize = 4;
/// Strangers together may have this part of all calls while they have not acknowledged an answer, as
/// nobody does who has forged where it is.
const HALF_OPEN: usize = 2;
/// One of them may have this part.
const HALF_OPEN_SHARE: usize = 8;
/// Strangers leave this part of all calls to users, trunks, trusted peers and applications.
const RESERVE: usize = 8;

/// The calls that are, and their dialogs.
#[derive(Default)]
pub(super) struct Registry {
    pub calls: HashMap<CallId, Entry>,
    pub dialogs: HashMap<DialogId, Line>,
    /// Strangers whose refusals were told.
    pub refused: Diary,
}

/// A dialog that is not over.
pub(super) struct Line {
    pub call: CallId,
    /// The trunk that it goes out by.
    pub trunk: Option<String>,
    /// The place of its last event with the call's task.
    pub last: mpsc::OwnedPermit<Message>,
}

/// One call.
pub(super) struct Entry {
    pub application: String,
    /// The source that a stranger calls from.
    pub stranger: Option<IpAddr>,
    /// Its caller has acknowledged our answer.
    pub is_acknowledged: bool,
    /// Ways to its task.
    pub mail: Mail,
}

impl Entry {
    /// A call that an application places.
    pub fn of_application(application: &str, mail: Mail) -> Self {
        let application = application.to_owned();
        Self { application, stranger: None, is_acknowledged: false, mail }
    }
}

impl Registry {
    /// Whether one more call may be, of a stranger or of somebody that is known.
    ///
    /// # Errors
    /// There is no room.
    pub fn admit(&self, stranger: Option<IpAddr>, max_calls: usize) -> Result<(), CallError> {
        let full = Err(CallError::Overloaded { retry_after: 5 });
        if self.calls.len() >= max_calls {
            return full;
        }
        let Some(source) = stranger else { return Ok(()) };
        let part = |part: usize| (max_calls / part).max(1);
        let strangers = || self.calls.values().filter(|entry| entry.stranger.is_some());
        let of_source = || strangers().filter(|entry| entry.stranger == Some(source));
        let is_half_open = |entry: &&Entry| !entry.is_acknowledged;
        let has_room = self.calls.len() < max_calls - max_calls / RESERVE
            && of_source().count() < part(SHARE)
            && of_source().filter(is_half_open).count() < part(HALF_OPEN_SHARE)
            && strangers().filter(is_half_open).count() < part(HALF_OPEN);
        if has_room { Ok(()) } else { full }
    }

    /// Notes a dialog, of a trunk that may have `room` of them.
    ///
    /// # Errors
    /// It has as many.
    pub fn add_line(
        &mut self,
        dialog: DialogId,
        line: Line,
        room: Option<usize>,
    ) -> Result<(), CallError> {
        if let (Some(trunk), Some(room)) = (&line.trunk, room)
            && self.dialogs_by(trunk) >= room
        {
            return Err(CallError::TrunkFull);
        }
        self.dialogs.insert(dialog, line);
        Ok(())
    }

    /// How many dialogs go out by this trunk.
    pub fn dialogs_by(&self, trunk: &str) -> usize {
        self.dialogs.values().filter(|line| line.trunk.as_deref() == Some(trunk)).count()
    }

    /// The caller has acknowledged our answer: it is where it says.
    pub fn acknowledged(&mut self, dialog: DialogId) {
        let call = self.dialogs.get(&dialog).map(|line| line.call);
        if let Some(entry) = call.and_then(|call| self.calls.get_mut(&call)) {
            entry.is_acknowledged = true;
        }
    }

    /// Takes a call out; its dialogs that were not over.
    pub fn remove(&mut self, call: CallId) -> Vec<DialogId> {
        self.calls.remove(&call);
        let of_call = |(_, line): &(&DialogId, &Line)| line.call == call;
        let dialogs: Vec<DialogId> =
            self.dialogs.iter().filter(of_call).map(|(dialog, _)| *dialog).collect();
        for dialog in &dialogs {
            self.dialogs.remove(dialog);
        }
        dialogs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switchboard::call_task::mailbox;

    const MAX_CALLS: usize = 80;

    fn source(number: u8) -> Option<IpAddr> {
        Some([198, 51, 100, number].into())
    }

    fn id(number: usize) -> CallId {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        CallId::from_random(bytes)
    }

    fn line(call: usize, trunk: Option<&str>) -> Line {
        let (sender, _receiver) = mpsc::channel(1);
        let last = sender.try_reserve_owned().expect("it is empty");
        Line { call: id(call), trunk: trunk.map(str::to_owned), last }
    }

    /// Enters a call if it is admitted.
    fn enter(registry: &mut Registry, stranger: Option<IpAddr>, is_acknowledged: bool) -> bool {
        let is_admitted = registry.admit(stranger, MAX_CALLS).is_ok();
        if is_admitted {
            let (mail, _) = mailbox();
            let application = String::new();
            let entry = Entry { application, stranger, is_acknowledged, mail };
            let number = registry.calls.len();
            registry.calls.insert(id(number), entry);
        }
        is_admitted
    }

    /// How many of 100 calls are taken.
    fn taken(registry: &mut Registry, stranger: Option<IpAddr>, is_acknowledged: bool) -> usize {
        (0..100).filter(|_| enter(registry, stranger, is_acknowledged)).count()
    }

    #[test]
    fn a_stranger_has_its_share_and_less_of_what_it_has_not_acknowledged() {
        let mut registry = Registry::default();
        assert_eq!(taken(&mut registry, source(1), false), 10);
        assert_eq!(taken(&mut registry, source(2), true), 20);
    }

    #[test]
    fn calls_that_nobody_acknowledges_take_half_of_the_room_and_no_more() {
        let mut registry = Registry::default();
        let forged: usize =
            (1..100).map(|number| taken(&mut registry, source(number), false)).sum();
        assert_eq!(forged, 40);
        assert_eq!(taken(&mut registry, source(200), true), 0, "who is heard comes later");
        assert_eq!(taken(&mut registry, None, false), 40, "who is known has the rest");
    }

    #[test]
    fn strangers_leave_room_for_those_that_are_known() {
        let mut registry = Registry::default();
        let strangers: usize =
            (1..100).map(|number| taken(&mut registry, source(number), true)).sum();
        assert_eq!(strangers, 70);
        assert_eq!(taken(&mut registry, None, false), 10);
        assert!(matches!(registry.admit(None, MAX_CALLS), Err(CallError::Overloaded { .. })));
    }

    #[test]
    fn a_house_with_room_for_one_call_takes_that_of_a_stranger() {
        assert!(Registry::default().admit(source(1), 1).is_ok());
    }

    #[test]
    fn a_trunk_has_as_many_dialogs_as_it_may() {
        let mut registry = Registry::default();
        let line = |trunk: &str| line(1, Some(trunk));
        let mut add = |dialog, trunk, room| registry.add_line(DialogId(dialog), line(trunk), room);
        assert!(add(1, "one", Some(2)).is_ok() && add(2, "one", Some(2)).is_ok());
        assert_eq!(add(3, "one", Some(2)), Err(CallError::TrunkFull));
        assert!(add(4, "two", Some(1)).is_ok() && add(5, "three", None).is_ok());
    }

    #[test]
    fn a_call_leaves_with_its_dialogs_and_tells_which_were_not_over() {
        let mut registry = Registry::default();
        enter(&mut registry, None, true);
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
