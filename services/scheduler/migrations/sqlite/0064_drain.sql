-- Hosts that are drained: 0 is one that is not, 1 one that is, 2 one that disks of virtual machines may be lost on for it.
ALTER TABLE hosts ADD COLUMN drain BIGINT NOT NULL DEFAULT 0;
