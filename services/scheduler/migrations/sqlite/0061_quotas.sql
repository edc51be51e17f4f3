-- What the labs of a project may ask for together; NULL is without limit. The name is in lower case, and as it was first written.
CREATE TABLE quotas (
    folded       TEXT NOT NULL PRIMARY KEY,
    project      TEXT NOT NULL,
    nodes        INTEGER,
    cpu_millis   INTEGER,
    memory_bytes INTEGER
);
