-- Times are milliseconds since 1970-01-01T00:00:00Z. `body` is the whole value as JSON; the other
-- columns repeat what the queries look for.

CREATE TABLE calls (
    id            TEXT   NOT NULL PRIMARY KEY,
    application   TEXT   NOT NULL,
    state         TEXT   NOT NULL,
    created_at    BIGINT NOT NULL,
    ended_at      BIGINT,
    -- Number of the call's last notification. Delivered rows go, so the outbox cannot tell it.
    notifications BIGINT NOT NULL DEFAULT 0,
    body          TEXT   NOT NULL
);
CREATE INDEX calls_by_state ON calls (state, ended_at);

CREATE TABLE operations (
    id         TEXT   NOT NULL PRIMARY KEY,
    call_id    TEXT   NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    status     TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    ended_at   BIGINT,
    -- Place in the order in which the call accepted them.
    place      BIGINT NOT NULL,
    body       TEXT   NOT NULL
);
CREATE INDEX operations_by_call ON operations (call_id, place);

-- No cascade: a call with a recording cannot go before the bytes and the row of the recording.
CREATE TABLE recordings (
    id           TEXT   NOT NULL PRIMARY KEY,
    call_id      TEXT   NOT NULL REFERENCES calls (id),
    operation_id TEXT   NOT NULL,
    application  TEXT   NOT NULL,
    -- writing, ready, discarded or deleting
    state        TEXT   NOT NULL,
    bytes        BIGINT NOT NULL DEFAULT 0,
    created_at   BIGINT NOT NULL,
    -- NULL while the call lives; 0 for what is to go at once
    expires_at   BIGINT
);
CREATE INDEX recordings_by_call ON recordings (call_id);
CREATE INDEX recordings_by_expiry ON recordings (expires_at);

CREATE TABLE outbox (
    call_id         TEXT   NOT NULL REFERENCES calls (id) ON DELETE CASCADE,
    -- Counts the notifications of the call from 1.
    sequence        BIGINT NOT NULL,
    application     TEXT   NOT NULL,
    callback_uri    TEXT   NOT NULL,
    -- Application and origin of the URI: those who share it are slow or dead together.
    receiver        TEXT   NOT NULL,
    -- pending or given_up; a delivered row is deleted
    state           TEXT   NOT NULL,
    attempts        BIGINT NOT NULL DEFAULT 0,
    created_at      BIGINT NOT NULL,
    -- 0 before the first attempt
    next_attempt_at BIGINT NOT NULL,
    last_error      TEXT,
    body            TEXT   NOT NULL,
    PRIMARY KEY (call_id, sequence)
);
CREATE INDEX outbox_by_receiver ON outbox (state, receiver, next_attempt_at);
CREATE INDEX outbox_by_time ON outbox (state, next_attempt_at);
CREATE INDEX outbox_by_application ON outbox (application, state);
