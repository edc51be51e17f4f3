-- Three kinds of state, never mixed in one column: what was asked (spec), what was decided (host, wire ids), what was read back (state, observed).
-- Ids are TEXT, times BIGINT microseconds since 1970, structures JSON as TEXT.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE hosts (
    id           TEXT NOT NULL PRIMARY KEY,
    uid          TEXT NOT NULL UNIQUE,
    compute_json TEXT NOT NULL,
    network_json TEXT NOT NULL,
    heard_us     BIGINT NOT NULL
);

CREATE TABLE labs (
    uid            TEXT NOT NULL PRIMARY KEY,
    id             TEXT NOT NULL,
    folded         TEXT NOT NULL UNIQUE,
    spec_json      TEXT NOT NULL,
    completed_json TEXT,
    generation     BIGINT NOT NULL,
    wanted         TEXT NOT NULL,
    traceparent    TEXT NOT NULL,
    create_us      BIGINT NOT NULL,
    update_us      BIGINT NOT NULL
);

-- Hosts that may hold files or networks of a lab.
CREATE TABLE lab_hosts (
    lab_uid TEXT NOT NULL,
    host    TEXT NOT NULL,
    PRIMARY KEY (lab_uid, host)
);

-- Every wire id ever given, so that none is given twice; those removed stay as tombstones for some days.
CREATE TABLE wire_ids (
    id         BIGINT NOT NULL PRIMARY KEY,
    lab_uid    TEXT NOT NULL,
    removed_us BIGINT
);

-- A replaced row is the former self of a node: it goes away, and the row that replaced it waits for that.
CREATE TABLE nodes (
    uid             TEXT NOT NULL PRIMARY KEY,
    lab_uid         TEXT NOT NULL,
    id              TEXT NOT NULL,
    folded          TEXT NOT NULL,
    replaced        BIGINT NOT NULL,
    runtime         TEXT NOT NULL,
    wanted          TEXT NOT NULL,
    spec_json       TEXT NOT NULL,
    spec_hash       TEXT NOT NULL,
    cpu_millis      BIGINT NOT NULL,
    memory_bytes    BIGINT NOT NULL,
    host            TEXT,
    segment         BIGINT,
    rejections_json TEXT NOT NULL,
    image_step      TEXT NOT NULL,
    image_detail    TEXT NOT NULL,
    removal         TEXT NOT NULL,
    settled_start   TEXT NOT NULL,
    state           TEXT NOT NULL,
    reason          TEXT NOT NULL,
    observed_json   TEXT,
    create_us       BIGINT NOT NULL,
    update_us       BIGINT NOT NULL
);
CREATE UNIQUE INDEX nodes_name ON nodes (lab_uid, folded) WHERE replaced = 0;
CREATE INDEX nodes_host ON nodes (host);
CREATE INDEX nodes_tally ON nodes (lab_uid, replaced, runtime, wanted, state);

CREATE TABLE links (
    uid       TEXT NOT NULL PRIMARY KEY,
    lab_uid   TEXT NOT NULL,
    id        TEXT NOT NULL,
    replaced  BIGINT NOT NULL,
    wire_id   BIGINT NOT NULL UNIQUE,
    wanted    TEXT NOT NULL,
    spec_json TEXT NOT NULL,
    host      TEXT,
    state     TEXT NOT NULL,
    reason    TEXT NOT NULL,
    plane     TEXT NOT NULL,
    create_us BIGINT NOT NULL,
    update_us BIGINT NOT NULL
);
CREATE UNIQUE INDEX links_name ON links (lab_uid, id) WHERE replaced = 0;
CREATE INDEX links_tally ON links (lab_uid, replaced, state);

CREATE TABLE nics (
    wire_id        BIGINT NOT NULL PRIMARY KEY,
    lab_uid        TEXT NOT NULL,
    node_uid       TEXT NOT NULL,
    link_uid       TEXT NOT NULL,
    interface      TEXT NOT NULL,
    port           BIGINT NOT NULL,
    absent         BIGINT NOT NULL,
    host           TEXT,
    mac            TEXT NOT NULL,
    mtu            BIGINT NOT NULL,
    addresses_json TEXT NOT NULL,
    present        BIGINT NOT NULL,
    carrier        BIGINT NOT NULL
);
CREATE INDEX nics_lab ON nics (lab_uid);

CREATE TABLE operations (
    id            TEXT NOT NULL PRIMARY KEY,
    lab_uid       TEXT NOT NULL,
    lab           TEXT NOT NULL,
    kind          TEXT NOT NULL,
    state         TEXT NOT NULL,
    plan_json     TEXT NOT NULL,
    progress_json TEXT NOT NULL,
    error_json    TEXT,
    request_id    TEXT UNIQUE,
    traceparent   TEXT NOT NULL,
    create_us     BIGINT NOT NULL,
    update_us     BIGINT NOT NULL,
    end_us        BIGINT NOT NULL
);
CREATE UNIQUE INDEX operations_active ON operations (lab_uid) WHERE state = 'RUNNING';

CREATE TABLE events (
    sequence    BIGINT NOT NULL PRIMARY KEY,
    time_us     BIGINT NOT NULL,
    lab         TEXT NOT NULL,
    deleted     BIGINT NOT NULL,
    object_json TEXT NOT NULL
);

CREATE TABLE files (
    digest  TEXT NOT NULL PRIMARY KEY,
    content BLOB NOT NULL,
    time_us BIGINT NOT NULL
);

-- Uids of removed nodes: what a host still has of them is removed there too.
CREATE TABLE removed (
    uid     TEXT NOT NULL PRIMARY KEY,
    lab_uid TEXT NOT NULL,
    time_us BIGINT NOT NULL
);
