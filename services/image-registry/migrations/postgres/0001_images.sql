-- The tables of migrations/sqlite, all in one. Text is compared byte by byte, as SQLite does: lists come in the same order from both.

-- Images by reference, in normal form: the tag is always there, Docker Hub's own name never is.
CREATE TABLE images (
    reference      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    uid            TEXT COLLATE "C" NOT NULL UNIQUE,
    create_time_us BIGINT NOT NULL
);

-- What hosts said of them.
CREATE TABLE presences (
    reference       TEXT COLLATE "C" NOT NULL REFERENCES images (reference) ON DELETE CASCADE,
    host            TEXT COLLATE "C" NOT NULL,
    runtime         TEXT COLLATE "C" NOT NULL,
    present         BOOLEAN NOT NULL,
    digest          TEXT COLLATE "C" NOT NULL,
    format          TEXT COLLATE "C" NOT NULL,
    size_bytes      BIGINT NOT NULL,
    architecture    TEXT COLLATE "C" NOT NULL,
    observe_time_us BIGINT NOT NULL,
    PRIMARY KEY (reference, host, runtime)
);

-- Bytes in the store, by `sha256:` and their SHA-256. `image_ids` are joined by commas. `problem` is not empty for bytes that are no longer what they were.
CREATE TABLE blobs (
    digest             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    size_bytes         BIGINT NOT NULL,
    format             TEXT COLLATE "C" NOT NULL,
    virtual_size_bytes BIGINT NOT NULL,
    architecture       TEXT COLLATE "C" NOT NULL,
    image_ids          TEXT COLLATE "C" NOT NULL,
    problem            TEXT COLLATE "C" NOT NULL,
    store_time_us      BIGINT NOT NULL,
    verify_time_us     BIGINT NOT NULL
);

-- Which bytes an image is.
CREATE TABLE stored (
    reference TEXT COLLATE "C" NOT NULL PRIMARY KEY REFERENCES images (reference) ON DELETE CASCADE,
    digest    TEXT COLLATE "C" NOT NULL REFERENCES blobs (digest)
);
CREATE INDEX stored_digest ON stored (digest);

-- Which kinds an image is for. At most one image of a kind is preferred.
CREATE TABLE image_kinds (
    reference TEXT COLLATE "C" NOT NULL REFERENCES stored (reference) ON DELETE CASCADE,
    kind      TEXT COLLATE "C" NOT NULL,
    version   TEXT COLLATE "C" NOT NULL,
    preferred BOOLEAN NOT NULL,
    PRIMARY KEY (reference, kind)
);
CREATE UNIQUE INDEX one_preferred ON image_kinds (kind) WHERE preferred;

-- Uploads that are not over. How far one is, and when it last went on, its file says. `kinds` is JSON.
CREATE TABLE uploads (
    id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    reference      TEXT COLLATE "C" NOT NULL,
    digest         TEXT COLLATE "C" NOT NULL,
    size_bytes     BIGINT NOT NULL,
    format         TEXT COLLATE "C" NOT NULL,
    kinds          TEXT COLLATE "C" NOT NULL,
    file_name      TEXT COLLATE "C" NOT NULL,
    create_time_us BIGINT NOT NULL
);

-- The key that the scheduler signs tickets with: one row at most. It outlives this service, so that a host goes on reading after a restart.
CREATE TABLE ticket_key (
    one BOOLEAN NOT NULL PRIMARY KEY CHECK (one),
    key BYTEA NOT NULL
);

-- Which catalogue this is: one row. Stores of bytes carry it, so that one that is not these rows' is never cleared of what these rows do not know.
CREATE TABLE catalogue (
    one BOOLEAN NOT NULL PRIMARY KEY CHECK (one),
    id  TEXT COLLATE "C" NOT NULL
);
