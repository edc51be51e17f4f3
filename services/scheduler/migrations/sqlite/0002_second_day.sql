-- What a lab needs on its second day: nodes that are stopped and started, links that are unplugged, stages, certificates.

ALTER TABLE nodes ADD COLUMN restarts BIGINT NOT NULL DEFAULT 0;
-- Which of its stages were entered and are over, since the row was made.
ALTER TABLE nodes ADD COLUMN stages_json TEXT NOT NULL DEFAULT '{}';

ALTER TABLE links ADD COLUMN enabled BIGINT NOT NULL DEFAULT 1;

-- Certificates with their private keys, by lab and node id in lower case; the one of the lab's authority has an empty node. They outlive the node's row, so
-- that a node made anew keeps its own.
CREATE TABLE certificates (
    lab_uid         TEXT NOT NULL,
    node            TEXT NOT NULL,
    request         TEXT NOT NULL,
    certificate_pem TEXT NOT NULL,
    key_pem         TEXT NOT NULL,
    expire_us       BIGINT NOT NULL,
    PRIMARY KEY (lab_uid, node)
);
