-- One row: the id of this database, made at the first start. The folder of the recordings holds it too.
CREATE TABLE identity (
    id TEXT NOT NULL
);
