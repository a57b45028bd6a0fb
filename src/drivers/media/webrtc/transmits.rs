//! Datagrams of a session that wait to be sent: answers to checks, and the handshake. Media never
//! wait here.

use std::{collections::VecDeque, net::SocketAddr};

/// How many wait at most: a flight of a handshake is four datagrams. The newest are dropped, which
/// the peer and we send again.
const MOST: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Transmits(VecDeque<(SocketAddr, Vec<u8>)>);

impl Transmits {
    pub(super) fn push(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        if self.0.len() < MOST {
            self.0.push_back((to, datagram));
        }
    }

    pub(super) fn pop(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.0.pop_front()
    }
}
