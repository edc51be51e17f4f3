-- The generation of a lab's spec that last changed how long leases of its instances are.
ALTER TABLE labs ADD COLUMN leases BIGINT NOT NULL DEFAULT 0;
