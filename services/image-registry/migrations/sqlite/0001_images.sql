-- Images by reference, in normal form: the tag is always there, Docker Hub's own name never is.
CREATE TABLE images (
    reference      TEXT   NOT NULL PRIMARY KEY,
    uid            TEXT   NOT NULL UNIQUE,
    create_time_us BIGINT NOT NULL
);

-- What hosts said of them.
CREATE TABLE presences (
    reference       TEXT    NOT NULL REFERENCES images (reference) ON DELETE CASCADE,
    host            TEXT    NOT NULL,
    runtime         TEXT    NOT NULL,
    present         BOOLEAN NOT NULL,
    digest          TEXT    NOT NULL,
    format          TEXT    NOT NULL,
    size_bytes      BIGINT  NOT NULL,
    architecture    TEXT    NOT NULL,
    observe_time_us BIGINT  NOT NULL,
    PRIMARY KEY (reference, host, runtime)
);
