-- Which catalogue this is: one row. Stores of bytes carry it, so that one that is not these rows' is never cleared of what these rows do not know.
CREATE TABLE catalogue (
    one BOOLEAN NOT NULL PRIMARY KEY CHECK (one),
    id  TEXT    NOT NULL
);
