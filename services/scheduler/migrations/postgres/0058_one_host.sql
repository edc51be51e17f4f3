-- Case tells no hosts apart. Of two rows of one, the first is the host that nodes were placed on.
DELETE FROM hosts WHERE EXISTS (SELECT 1 FROM hosts AS first WHERE lower(first.id) = lower(hosts.id) AND first.uid < hosts.uid);
CREATE UNIQUE INDEX hosts_by_folded_id ON hosts (lower(id));
