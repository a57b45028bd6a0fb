//! The current master key of one direction, and the former one.

use std::mem;

use super::{MasterKey, Mki, session_keys::SessionKeys};

/// Session keys with the state of their streams, for the current and for the former master key.
#[derive(Debug)]
pub(super) struct KeyHistory<S> {
    pub(super) current: KeyState<S>,
    pub(super) former: Option<KeyState<S>>,
}

/// The session keys of one master key, and the state of the streams that they protect. The state
/// belongs to the bytes of the key: with the same bytes, indices go on.
#[derive(Debug)]
pub(super) struct KeyState<S> {
    pub(super) keys: SessionKeys,
    pub(super) streams: S,
}

impl<S: Default> KeyHistory<S> {
    pub(super) fn new(key: MasterKey, mki: Option<Mki>) -> Self {
        let keys = SessionKeys::new(key, mki);
        Self { current: KeyState { keys, streams: S::default() }, former: None }
    }

    /// Changes to a master key. If it is the current or the former one, the state of its streams is
    /// kept. Returns whether it is another one than before.
    pub(super) fn replace(&mut self, key: MasterKey, mki: Option<Mki>) -> bool {
        let is_other = !self.current.keys.are_of(&key);
        let mut streams = S::default();
        if is_other {
            let returning = self.former.take_if(|former| former.keys.are_of(&key));
            streams = returning.map_or(streams, |former| former.streams);
        } else {
            mem::swap(&mut streams, &mut self.current.streams);
        }
        let next = KeyState { keys: SessionKeys::new(key, mki), streams };
        let former = mem::replace(&mut self.current, next);
        if is_other {
            self.former = Some(former);
        }
        is_other
    }
}
