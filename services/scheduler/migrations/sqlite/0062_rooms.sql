-- Disk that nodes ask for, and that projects may.
ALTER TABLE nodes ADD COLUMN disk_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE quotas ADD COLUMN disk_bytes INTEGER;

-- Grows with each write that reserves on a host, or changes what it offers.
ALTER TABLE hosts ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
