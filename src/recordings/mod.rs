//! Clips on disk: written, handed out, purged.
