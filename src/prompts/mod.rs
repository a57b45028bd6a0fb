//! URI to decoded audio, by way of a cache and a fence.
