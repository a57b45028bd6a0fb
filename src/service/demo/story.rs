//! The report that the demo prints.

use std::time::Instant;

use super::phone::Phone;
use crate::service::telemetry::escaped;

/// Prints each step, with the time since the start.
#[derive(Clone, Copy)]
pub(super) struct Story {
    begun: Instant,
}

impl Story {
    pub(super) fn begin() -> Self {
        println!("aftertone demo: one call, from the first INVITE to the purge of its recording\n");
        Self { begun: Instant::now() }
    }

    pub(super) fn tell(self, who: &str, what: &str) {
        self.tell_at(Instant::now(), who, what);
    }

    pub(super) fn tell_at(self, at: Instant, who: &str, what: &str) {
        let seconds = at.saturating_duration_since(self.begun).as_secs_f64();
        println!("{seconds:8.3} s  {who:<7} {}", escaped(what));
    }

    pub(super) fn tell_sip(self, phone: &Phone, told: usize) -> usize {
        let seen = phone.seen();
        for message in &seen[told.min(seen.len())..] {
            let arrow = if message.sent { "──▶" } else { "◀──" };
            self.tell_at(message.at, "sip", &format!("{arrow} {}", message.line));
        }
        seen.len()
    }
}
