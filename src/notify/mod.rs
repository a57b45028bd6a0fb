//! The outbox, delivered: in order per call, at least once.
