-- The node that the disk of a virtual machine was first made for, where it came from another host, and whether it is still to come.
ALTER TABLE nodes ADD COLUMN disk_of TEXT COLLATE "C";

ALTER TABLE nodes ADD COLUMN disk_due BIGINT NOT NULL DEFAULT 0;
