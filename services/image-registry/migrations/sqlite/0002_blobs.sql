-- Bytes in the store, by `sha256:` and their SHA-256. `image_ids` are joined by commas. `problem` is not empty for bytes that are no longer what they were.
CREATE TABLE blobs (
    digest             TEXT   NOT NULL PRIMARY KEY,
    size_bytes         BIGINT NOT NULL,
    format             TEXT   NOT NULL,
    virtual_size_bytes BIGINT NOT NULL,
    architecture       TEXT   NOT NULL,
    image_ids          TEXT   NOT NULL,
    problem            TEXT   NOT NULL,
    store_time_us      BIGINT NOT NULL,
    verify_time_us     BIGINT NOT NULL
);

-- Which bytes an image is.
CREATE TABLE stored (
    reference TEXT NOT NULL PRIMARY KEY REFERENCES images (reference) ON DELETE CASCADE,
    digest    TEXT NOT NULL REFERENCES blobs (digest)
);
CREATE INDEX stored_digest ON stored (digest);

-- Which kinds an image is for. At most one image of a kind is preferred.
CREATE TABLE image_kinds (
    reference TEXT    NOT NULL REFERENCES stored (reference) ON DELETE CASCADE,
    kind      TEXT    NOT NULL,
    version   TEXT    NOT NULL,
    preferred BOOLEAN NOT NULL,
    PRIMARY KEY (reference, kind)
);
CREATE UNIQUE INDEX one_preferred ON image_kinds (kind) WHERE preferred;

-- Uploads that are not over. How far one is, and when it last went on, its file says. `kinds` is JSON.
CREATE TABLE uploads (
    id             TEXT   NOT NULL PRIMARY KEY,
    reference      TEXT   NOT NULL,
    digest         TEXT   NOT NULL,
    size_bytes     BIGINT NOT NULL,
    format         TEXT   NOT NULL,
    kinds          TEXT   NOT NULL,
    file_name      TEXT   NOT NULL,
    create_time_us BIGINT NOT NULL
);
