-- One row: how many transactions the journal has committed. Readiness reads it on another connection.
CREATE TABLE journal (
    commits BIGINT NOT NULL
);

INSERT INTO journal (commits) VALUES (0);
