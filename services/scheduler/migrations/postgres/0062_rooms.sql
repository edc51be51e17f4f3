-- Disk that nodes ask for, and that projects may.
ALTER TABLE nodes ADD COLUMN disk_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE quotas ADD COLUMN disk_bytes BIGINT;

-- Grows with each write that reserves on a host, or changes what it offers.
ALTER TABLE hosts ADD COLUMN generation BIGINT NOT NULL DEFAULT 0;
