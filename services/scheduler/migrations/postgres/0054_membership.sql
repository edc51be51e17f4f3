-- Hosts that join: where they are, which certificate they were last given. Both are empty for hosts of the configuration.
ALTER TABLE hosts ADD COLUMN address TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE hosts ADD COLUMN certificate_serial TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE hosts ADD COLUMN certificate_expire_us BIGINT NOT NULL DEFAULT 0;
ALTER TABLE hosts ADD COLUMN labels_json TEXT COLLATE "C" NOT NULL DEFAULT '{}';
ALTER TABLE hosts ADD COLUMN cordoned BIGINT NOT NULL DEFAULT 0;

-- Leave to join, by the hash of the secret. One that was used stays for a while, to tell that from one that never was.
CREATE TABLE host_tokens (
    hash      TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    expire_us BIGINT NOT NULL,
    used_us   BIGINT NOT NULL DEFAULT 0,
    host      TEXT COLLATE "C" NOT NULL DEFAULT '',
    key_hash  TEXT COLLATE "C" NOT NULL DEFAULT ''
);
