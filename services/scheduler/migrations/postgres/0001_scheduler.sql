-- The tables of migrations/sqlite, all in one. Text is compared byte by byte, as SQLite does: lists come in the same order from both.

CREATE TABLE meta (
    key   TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (key)
);

CREATE TABLE hosts (
    id           TEXT COLLATE "C" NOT NULL,
    uid          TEXT COLLATE "C" NOT NULL UNIQUE,
    compute_json TEXT COLLATE "C" NOT NULL,
    network_json TEXT COLLATE "C" NOT NULL,
    heard_us     BIGINT NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE labs (
    uid            TEXT COLLATE "C" NOT NULL,
    id             TEXT COLLATE "C" NOT NULL,
    folded         TEXT COLLATE "C" NOT NULL UNIQUE,
    spec_json      TEXT COLLATE "C" NOT NULL,
    completed_json TEXT COLLATE "C",
    generation     BIGINT NOT NULL,
    wanted         TEXT COLLATE "C" NOT NULL,
    traceparent    TEXT COLLATE "C" NOT NULL,
    create_us      BIGINT NOT NULL,
    update_us      BIGINT NOT NULL,
    deploys        BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (uid)
);

-- Hosts that may hold files or networks of a lab.
CREATE TABLE lab_hosts (
    lab_uid TEXT COLLATE "C" NOT NULL,
    host    TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (lab_uid, host)
);

-- Every wire id ever given, so that none is given twice; those removed stay as tombstones for some days.
CREATE TABLE wire_ids (
    id         BIGINT NOT NULL,
    lab_uid    TEXT COLLATE "C" NOT NULL,
    removed_us BIGINT,
    PRIMARY KEY (id)
);

-- A replaced row is the former self of a node: it goes away, and the row that replaced it waits for that.
CREATE TABLE nodes (
    uid             TEXT COLLATE "C" NOT NULL,
    lab_uid         TEXT COLLATE "C" NOT NULL,
    id              TEXT COLLATE "C" NOT NULL,
    folded          TEXT COLLATE "C" NOT NULL,
    replaced        BIGINT NOT NULL,
    runtime         TEXT COLLATE "C" NOT NULL,
    wanted          TEXT COLLATE "C" NOT NULL,
    spec_json       TEXT COLLATE "C" NOT NULL,
    spec_hash       TEXT COLLATE "C" NOT NULL,
    cpu_millis      BIGINT NOT NULL,
    memory_bytes    BIGINT NOT NULL,
    host            TEXT COLLATE "C",
    segment         BIGINT,
    rejections_json TEXT COLLATE "C" NOT NULL,
    image_step      TEXT COLLATE "C" NOT NULL,
    image_detail    TEXT COLLATE "C" NOT NULL,
    removal         TEXT COLLATE "C" NOT NULL,
    settled_start   TEXT COLLATE "C" NOT NULL,
    state           TEXT COLLATE "C" NOT NULL,
    reason          TEXT COLLATE "C" NOT NULL,
    observed_json   TEXT COLLATE "C",
    create_us       BIGINT NOT NULL,
    update_us       BIGINT NOT NULL,
    restarts        BIGINT NOT NULL DEFAULT 0,
    stages_json     TEXT COLLATE "C" NOT NULL DEFAULT '{}',
    files           TEXT COLLATE "C" NOT NULL DEFAULT '',
    placed          BIGINT NOT NULL DEFAULT 1,
    shares          TEXT COLLATE "C",
    image_digest    TEXT COLLATE "C" NOT NULL DEFAULT '',
    own_files_json  TEXT COLLATE "C" NOT NULL DEFAULT '[]',
    wipes           BIGINT NOT NULL DEFAULT 0,
    restore         TEXT COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (uid)
);
CREATE UNIQUE INDEX nodes_name ON nodes (lab_uid, folded) WHERE replaced = 0;
CREATE INDEX nodes_host ON nodes (host);
CREATE INDEX nodes_tally ON nodes (lab_uid, replaced, runtime, wanted, state);

CREATE TABLE links (
    uid          TEXT COLLATE "C" NOT NULL,
    lab_uid      TEXT COLLATE "C" NOT NULL,
    id           TEXT COLLATE "C" NOT NULL,
    replaced     BIGINT NOT NULL,
    wire_id      BIGINT NOT NULL UNIQUE,
    wanted       TEXT COLLATE "C" NOT NULL,
    spec_json    TEXT COLLATE "C" NOT NULL,
    host         TEXT COLLATE "C",
    state        TEXT COLLATE "C" NOT NULL,
    reason       TEXT COLLATE "C" NOT NULL,
    plane        TEXT COLLATE "C" NOT NULL,
    create_us    BIGINT NOT NULL,
    update_us    BIGINT NOT NULL,
    enabled      BIGINT NOT NULL DEFAULT 1,
    plane_reason TEXT COLLATE "C" NOT NULL DEFAULT '',
    PRIMARY KEY (uid)
);
CREATE UNIQUE INDEX links_name ON links (lab_uid, id) WHERE replaced = 0;
CREATE INDEX links_tally ON links (lab_uid, replaced, state);

CREATE TABLE nics (
    wire_id        BIGINT NOT NULL,
    lab_uid        TEXT COLLATE "C" NOT NULL,
    node_uid       TEXT COLLATE "C" NOT NULL,
    link_uid       TEXT COLLATE "C" NOT NULL,
    interface      TEXT COLLATE "C" NOT NULL,
    port           BIGINT NOT NULL,
    absent         BIGINT NOT NULL,
    host           TEXT COLLATE "C",
    mac            TEXT COLLATE "C" NOT NULL,
    mtu            BIGINT NOT NULL,
    addresses_json TEXT COLLATE "C" NOT NULL,
    present        BIGINT NOT NULL,
    carrier        BIGINT NOT NULL,
    PRIMARY KEY (wire_id)
);
CREATE INDEX nics_lab ON nics (lab_uid);

CREATE TABLE operations (
    id            TEXT COLLATE "C" NOT NULL,
    lab_uid       TEXT COLLATE "C" NOT NULL,
    lab           TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,
    plan_json     TEXT COLLATE "C" NOT NULL,
    progress_json TEXT COLLATE "C" NOT NULL,
    error_json    TEXT COLLATE "C",
    request_id    TEXT COLLATE "C" UNIQUE,
    traceparent   TEXT COLLATE "C" NOT NULL,
    create_us     BIGINT NOT NULL,
    update_us     BIGINT NOT NULL,
    end_us        BIGINT NOT NULL,
    released      BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (id)
);
CREATE UNIQUE INDEX operations_active ON operations (lab_uid) WHERE state = 'RUNNING';

CREATE TABLE events (
    sequence    BIGINT NOT NULL,
    time_us     BIGINT NOT NULL,
    lab         TEXT COLLATE "C" NOT NULL,
    deleted     BIGINT NOT NULL,
    object_json TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (sequence)
);

CREATE TABLE files (
    digest  TEXT COLLATE "C" NOT NULL,
    content BYTEA NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (digest)
);

-- Uids of removed nodes: what a host still has of them is removed there too.
CREATE TABLE removed (
    uid     TEXT COLLATE "C" NOT NULL,
    lab_uid TEXT COLLATE "C" NOT NULL,
    time_us BIGINT NOT NULL,
    PRIMARY KEY (uid)
);

-- Certificates with their private keys, by lab and node id in lower case; the one of the lab's authority has an empty node.
CREATE TABLE certificates (
    lab_uid         TEXT COLLATE "C" NOT NULL,
    node            TEXT COLLATE "C" NOT NULL,
    request         TEXT COLLATE "C" NOT NULL,
    certificate_pem TEXT COLLATE "C" NOT NULL,
    key_pem         TEXT COLLATE "C" NOT NULL,
    expire_us       BIGINT NOT NULL,
    PRIMARY KEY (lab_uid, node)
);

-- What the nodes and links of a lab were when its active operation began: a cancel gives that back.
CREATE TABLE before_operations (
    operation_id TEXT COLLATE "C" NOT NULL,
    before_json  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (operation_id)
);
