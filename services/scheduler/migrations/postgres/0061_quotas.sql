-- What the labs of a project may ask for together; NULL is without limit. The name is in lower case, and as it was first written.
CREATE TABLE quotas (
    folded       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    project      TEXT COLLATE "C" NOT NULL,
    nodes        BIGINT,
    cpu_millis   BIGINT,
    memory_bytes BIGINT
);
