//! The module with real sockets: calls over every transport, streams that break, and peers that do
//! not answer.

mod calls;
mod limits;
mod outgoing;
mod peers;
mod secure;
mod storms;
mod trunks;
mod websocket;
