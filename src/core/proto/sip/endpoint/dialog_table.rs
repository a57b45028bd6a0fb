//! All dialogs of one endpoint, and the outgoing calls that may become dialogs: found by id and by
//! key, driven by one schedule.
//!
//! Comes in: new dialogs and calls, changes to them, time. Goes out: which dialog a message belongs
//! to, and which deadline has passed. The table sends nothing and opens no transactions; the
//! endpoint does.

use std::{collections::BTreeMap, time::Instant};

use crate::proto::sip::{
    dialog::{Dialog, DialogId, DialogKey},
    in_dialog_request::InDialogRequest,
    outgoing::{Fork, Outgoing},
    path::ConnectionId,
    timers::Schedule,
};

/// The dialogs and outgoing calls, their keys, and their deadlines.
#[derive(Debug)]
pub(super) struct DialogTable {
    last_id: u64,
    dialogs: BTreeMap<DialogId, Dialog>,
    by_key: BTreeMap<DialogKey, DialogId>,
    /// Calls that we place, and answered ones to which a further fork may still send a 2xx.
    outgoing: BTreeMap<DialogId, Outgoing>,
    /// The same calls by Call-ID and our tag, for requests within an early dialog.
    outgoing_by_name: BTreeMap<(String, String), DialogId>,
    /// Deadlines of all but `lent`.
    schedule: Schedule<DialogId>,
    /// The dialog or call that was handed out for a change last: its deadline may have changed.
    lent: Option<DialogId>,
}

impl DialogTable {
    pub(super) fn new() -> Self {
        Self {
            last_id: 0,
            dialogs: BTreeMap::new(),
            by_key: BTreeMap::new(),
            outgoing: BTreeMap::new(),
            outgoing_by_name: BTreeMap::new(),
            schedule: Schedule::new(),
            lent: None,
        }
    }

    // -- dialogs -----------------------------------------------------------------------------

    /// The id of a dialog that a peer begins.
    pub(super) fn fresh_id(&mut self) -> DialogId {
        self.last_id += 1;
        DialogId(self.last_id)
    }

    pub(super) fn insert(&mut self, id: DialogId, dialog: Dialog) {
        self.lend(id);
        self.by_key.insert(dialog.key().clone(), id);
        self.dialogs.insert(id, dialog);
    }

    pub(super) fn remove(&mut self, id: DialogId) -> Option<Dialog> {
        self.lend(id);
        let dialog = self.dialogs.remove(&id)?;
        self.by_key.remove(dialog.key());
        Some(dialog)
    }

    /// The dialog with these tags and Call-ID.
    pub(super) fn find(&self, key: &DialogKey) -> Option<DialogId> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get(&self, id: DialogId) -> Option<&Dialog> {
        self.dialogs.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: DialogId) -> Option<&mut Dialog> {
        self.lend(id);
        self.dialogs.get_mut(&id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Dialog> {
        self.dialogs.values()
    }

    /// The number of dialogs, without calls that are not answered.
    pub(super) fn len(&self) -> usize {
        self.dialogs.len()
    }

    // -- outgoing calls ----------------------------------------------------------------------

    pub(super) fn insert_outgoing(&mut self, id: DialogId, outgoing: Outgoing) {
        self.lend(id);
        self.outgoing_by_name.insert(outgoing.name(), id);
        self.outgoing.insert(id, outgoing);
    }

    pub(super) fn remove_outgoing(&mut self, id: DialogId) -> Option<Outgoing> {
        self.lend(id);
        let outgoing = self.outgoing.remove(&id)?;
        self.outgoing_by_name.remove(&outgoing.name());
        Some(outgoing)
    }

    pub(super) fn outgoing(&self, id: DialogId) -> Option<&Outgoing> {
        self.outgoing.get(&id)
    }

    pub(super) fn outgoing_mut(&mut self, id: DialogId) -> Option<&mut Outgoing> {
        self.lend(id);
        self.outgoing.get_mut(&id)
    }

    /// Whether this is the dialog of a fork of an outgoing call: it rings, or has answered after
    /// another one.
    pub(super) fn has_fork(&self, key: &DialogKey) -> bool {
        let id = self.outgoing_by_name.get(&key.outgoing_name());
        let outgoing = id.and_then(|id| self.outgoing.get(id));
        let tag = key.remote_tag.as_deref();
        outgoing.zip(tag).is_some_and(|(outgoing, tag)| outgoing.has_fork(tag))
    }

    /// The fork of an outgoing call with this dialog.
    pub(super) fn fork_mut(&mut self, key: &DialogKey) -> Option<&mut Fork> {
        let id = *self.outgoing_by_name.get(&key.outgoing_name())?;
        self.outgoing_mut(id)?.fork(key.remote_tag.as_deref()?)
    }

    // -- both --------------------------------------------------------------------------------

    /// Whether there is such a dialog, or a call of ours that may still create it.
    pub(super) fn is_known(&self, id: DialogId) -> bool {
        self.dialogs.contains_key(&id)
            || self.outgoing.get(&id).is_some_and(|outgoing| outgoing.winner().is_none())
    }

    /// Whether there is neither a dialog nor an outgoing call.
    pub(super) fn is_empty(&self) -> bool {
        self.dialogs.is_empty() && self.outgoing.is_empty()
    }

    /// Whether a dialog is left, or a call of ours that still waits for an answer.
    pub(super) fn is_in_use(&self) -> bool {
        let is_awaited = |call: &Outgoing| call.winner().is_none() && !call.is_over();
        !self.dialogs.is_empty() || self.outgoing.values().any(is_awaited)
    }

    /// The dialog of a request of ours: an established one, or that of a fork of an outgoing call.
    pub(super) fn of_request(&mut self, request: &InDialogRequest) -> Option<&mut Dialog> {
        self.lend(request.dialog);
        match self.dialogs.get_mut(&request.dialog) {
            Some(dialog) if dialog.key().remote_tag == request.remote_tag => Some(dialog),
            Some(_) | None => {
                let tag = request.remote_tag.as_deref()?;
                Some(&mut self.outgoing.get_mut(&request.dialog)?.fork(tag)?.dialog)
            }
        }
    }

    /// A stream is closed.
    pub(super) fn handle_connection_lost(&mut self, connection: ConnectionId) {
        let early = self.outgoing.values_mut().flat_map(Outgoing::early_dialogs);
        for dialog in self.dialogs.values_mut().chain(early) {
            dialog.target.stream_lost(connection);
        }
    }

    /// A dialog or call whose deadline has passed.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<DialogId> {
        self.settle();
        self.schedule.pop_due(now)
    }

    /// When [`Self::pop_due`] has to be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let lent = self.lent.and_then(|id| self.deadline(id));
        self.schedule.next().into_iter().chain(lent).min()
    }

    /// Takes `id` off the schedule while it may change.
    fn lend(&mut self, id: DialogId) {
        if self.lent != Some(id) {
            self.settle();
            self.schedule.set(id, None);
            self.lent = Some(id);
        }
    }

    /// Puts what was lent back on the schedule.
    fn settle(&mut self) {
        if let Some(id) = self.lent.take() {
            self.schedule.set(id, self.deadline(id));
        }
    }

    /// The deadline of a dialog, or of a call that is not a dialog yet.
    fn deadline(&self, id: DialogId) -> Option<Instant> {
        match self.dialogs.get(&id) {
            Some(dialog) => dialog.poll_timeout(),
            None => self.outgoing.get(&id)?.poll_timeout(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::sip::{dialog::HangUp, outgoing::OutgoingCall, timers::SIXTY_FOUR_T1};

    #[test]
    fn the_schedule_follows_each_change_of_what_was_handed_out() {
        let now = Instant::now();
        let mut table = DialogTable::new();
        let (canceled, other) = (DialogId(1), DialogId(2));
        table.insert_outgoing(canceled, outgoing("canceled"));
        table.insert_outgoing(other, outgoing("other"));
        assert_eq!(table.poll_timeout(), None);

        let call = table.outgoing_mut(canceled).unwrap();
        assert!(!call.proceed(now));
        call.hang_up(HangUp { reason: None }, now);
        let end = now + SIXTY_FOUR_T1;
        assert_eq!(table.poll_timeout(), Some(end));
        assert!(table.outgoing_mut(other).is_some());
        assert_eq!(table.poll_timeout(), Some(end));

        assert_eq!(table.pop_due(now), None);
        assert_eq!(table.pop_due(end), Some(canceled));
        assert!(table.remove_outgoing(canceled).is_some());
        assert_eq!(table.poll_timeout(), None);
        assert!(table.is_known(other) && !table.is_known(canceled));
    }

    fn outgoing(call_id: &str) -> Outgoing {
        let call = OutgoingCall {
            call_id: call_id.to_owned(),
            targets: Vec::new(),
            request_uri: "sip:100@192.0.2.1".parse().unwrap(),
            from: "<sip:us@192.0.2.2>".parse().unwrap(),
            to: "<sip:100@192.0.2.1>".parse().unwrap(),
            routes: Vec::new(),
            further: Vec::new(),
            headers: Vec::new(),
            credentials: None,
            offer: Vec::new(),
        };
        Outgoing::new(call, "tag")
    }
}
