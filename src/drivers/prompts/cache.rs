//! Decoded prompts in memory, up to a size and a number: the least recently used ones make room.

use std::{hash::RandomState, time::Instant};

use hashlink::LruCache;

use super::freshness::CachedAnswer;
use aftertone_core::audio::Clip;

/// The key of a cache entry: the application, and the prompt's `resourceId` or else its URI.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct PromptKey {
    pub application: String,
    pub name: PromptName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum PromptName {
    Uri(String),
    ResourceId(String),
}

/// A cache entry.
#[derive(Clone)]
pub(super) struct CachedPrompt {
    pub uri: String,
    pub clip: Clip,
    /// The answer that the copy came with, to check it; `None` for a file of the folder.
    pub answer: Option<CachedAnswer>,
    pub good_until: Instant,
}

/// The cache.
pub(super) struct PromptCache {
    entries: LruCache<PromptKey, CachedPrompt, RandomState>,
    /// Size of all entries.
    bytes: usize,
    most_bytes: usize,
}

/// Prompts that are kept at most, however short.
const MOST_ENTRIES: usize = 10_000;

impl PromptCache {
    /// An empty cache for `most_bytes`.
    pub(super) fn new(most_bytes: usize) -> Self {
        let entries = LruCache::with_hasher(usize::MAX, RandomState::new());
        Self { entries, bytes: 0, most_bytes }
    }

    /// An entry, which is the most recently used one from now on.
    pub(super) fn get(&mut self, key: &PromptKey) -> Option<&CachedPrompt> {
        self.entries.get(key)
    }

    /// Adds or replaces an entry, and removes others until the limits hold. A prompt that is larger
    /// than the whole cache is not kept.
    pub(super) fn insert(&mut self, key: PromptKey, copy: CachedPrompt) {
        let size = copy.bytes();
        if size > self.most_bytes {
            return;
        }
        let old = self.entries.insert(key, copy);
        self.bytes = self.bytes + size - old.map_or(0, |old| old.bytes());
        while self.bytes > self.most_bytes || self.entries.len() > MOST_ENTRIES {
            let Some((_, oldest)) = self.entries.remove_lru() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, key: &PromptKey) {
        if let Some(copy) = self.entries.remove(key) {
            self.bytes -= copy.bytes();
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl CachedPrompt {
    /// Whether the copy may be used for this prompt without a request to the server.
    pub(super) fn is_good(&self, key: &PromptKey, uri: &str) -> bool {
        match key.name {
            // With a resource id, the client promises that the prompt is the same.
            PromptName::ResourceId(_) => self.uri == uri,
            PromptName::Uri(_) => Instant::now() < self.good_until,
        }
    }

    /// Memory that the prompt takes, in bytes. Its address counts twice: it may also be its key.
    fn bytes(&self) -> usize {
        let answer = self.answer.as_ref().map_or(0, CachedAnswer::bytes);
        self.clip.bytes() + 2 * self.uri.len() + answer
    }
}
