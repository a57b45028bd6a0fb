-- Requests that bore an Idempotency-Key, for a day. `status` is NULL until the first is answered.
CREATE TABLE requests (
    application TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    -- SHA-256 of method, target and body: the same key for something else is a mistake.
    fingerprint TEXT   NOT NULL,
    created_at  BIGINT NOT NULL,
    status      BIGINT,
    location    TEXT,
    body        TEXT,
    PRIMARY KEY (application, key)
);
CREATE INDEX requests_by_time ON requests (created_at);
