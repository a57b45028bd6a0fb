-- From here on, what is waited for or has an age is in the time of the steady clock, which begins as
-- the wall clock's: recordings.expires_at, outbox.created_at and next_attempt_at,
-- requests.created_at, signing_keys.created_at, calls.ended_at.

-- One row: what the next process has to know of the steady clock.
CREATE TABLE clock (
    id        BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    -- The run of the kernel; NULL when it has no name.
    boot_id   TEXT,
    -- Steady time less CLOCK_BOOTTIME.
    offset_ms BIGINT NOT NULL,
    -- The newest time that was told.
    seen      BIGINT NOT NULL,
    -- Wall time less steady time.
    lag_ms    BIGINT NOT NULL
);

-- Files in lost+found: their time of change, as the file says, and since when they are so by the
-- steady clock.
CREATE TABLE lost_files (
    name     TEXT   NOT NULL PRIMARY KEY,
    modified BIGINT NOT NULL,
    since    BIGINT NOT NULL
);
