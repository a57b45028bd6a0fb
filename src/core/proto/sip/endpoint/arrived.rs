//! A request while it is handled.

use std::time::Instant;

use crate::proto::sip::{
    dialog::DialogId,
    message::{Method, Request},
    path::Path,
    transaction::TransactionKey,
};

/// A received request, with what its answer needs.
#[derive(Debug)]
pub(super) struct Arrived {
    pub request: Request,
    /// Identifies its transaction.
    pub key: TransactionKey,
    /// The path that it took, and that its answer takes back.
    pub path: Path,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its dialog, if that has an unproven address: the answer counts against the allowance.
    pub limited: Option<DialogId>,
    pub now: Instant,
}

impl Arrived {
    pub(super) fn new(request: Request, path: Path, bytes: usize, now: Instant) -> Self {
        let key = TransactionKey::of(&request);
        Self { request, key, path, bytes, limited: None, now }
    }

    pub(super) fn method(&self) -> &Method {
        self.request.method()
    }
}
