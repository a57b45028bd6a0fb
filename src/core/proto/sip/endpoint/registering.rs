//! Commands to register at trunks, and the transactions of the REGISTER requests.

use std::time::Instant;

use super::{Endpoint, TrunkAccount, trunks::Register};
use crate::proto::sip::{
    message::{Method, Response},
    path::Path,
    registration::TrunkStatus,
    transaction::{Sends, TransactionUser},
};

impl Endpoint {
    /// Registers at a trunk as soon as a path to it is known. If the account exists already, only
    /// its paths are replaced.
    pub fn register(&mut self, trunk: TrunkAccount, now: Instant) {
        self.trunks.register(trunk, now);
        self.send_registers(now);
    }

    /// Removes a trunk, or its old version if its configuration has changed. Our contact there is
    /// unregistered, and callers from there are strangers. Another account of the same name may
    /// follow at once.
    pub fn leave_trunk(&mut self, name: &str, now: Instant) {
        self.trunks.leave(name, now);
        self.send_registers(now);
    }

    /// Unregisters at all trunks; a trunk is `Idle` when that is done.
    pub fn unregister(&mut self, now: Instant) {
        self.trunks.unregister(now);
        self.send_registers(now);
    }

    /// The registration status of each trunk, by name.
    pub fn trunks(&self) -> impl Iterator<Item = (&str, TrunkStatus)> {
        self.trunks.statuses()
    }

    /// A REGISTER got its final response, over `path`.
    pub(super) fn register_answered(
        &mut self,
        number: u64,
        response: &Response,
        path: Path,
        now: Instant,
    ) {
        self.trunks.handle_response(number, response, path, now);
        self.send_registers(now);
        self.plan_keep_alives(now);
    }

    /// A REGISTER got no response.
    pub(super) fn register_unanswered(&mut self, number: u64, now: Instant) {
        self.trunks.handle_failure(number, now);
        self.send_registers(now);
    }

    /// Sends the REGISTER requests that a change of the trunks has led to.
    pub(super) fn send_registers(&mut self, now: Instant) {
        while let Some(Register { number, branch, transmit }) = self.trunks.poll_output() {
            let key = (branch, Method::Register.as_str());
            let user = (TransactionUser::Register(number), None);
            let transmit = self.transactions.request(key, user, transmit, Sends::Repeatedly, now);
            self.transmit(transmit);
        }
    }
}
