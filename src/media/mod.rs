//! RTP legs on shard threads: one tick every 20 ms per leg.
