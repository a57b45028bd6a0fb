//! The database: calls, operations, recordings, outbox; one journal writes.
