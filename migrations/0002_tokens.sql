-- The keys that sign our tokens (RS256). Who can read this table can sign in our name.
CREATE TABLE signing_keys (
    id         TEXT   NOT NULL PRIMARY KEY,
    created_at BIGINT NOT NULL,
    pem        TEXT   NOT NULL
);

-- The correlation id of the call, told in a header of each notification.
ALTER TABLE outbox ADD COLUMN chain_id TEXT NOT NULL DEFAULT '';
