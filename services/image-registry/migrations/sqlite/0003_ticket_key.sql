-- The key that the scheduler signs tickets with: one row at most. It outlives this service, so that a host goes on reading after a restart.
CREATE TABLE ticket_key (
    one BOOLEAN NOT NULL PRIMARY KEY CHECK (one),
    key BLOB    NOT NULL
);
