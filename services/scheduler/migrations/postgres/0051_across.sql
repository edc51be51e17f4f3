-- Links between two hosts: the host of the second end, with what is known of the way there, and the network identifier that both hosts have for the link. No two links
-- ever have the same; one that is removed keeps its own until both hosts said that it is gone.

ALTER TABLE links ADD COLUMN far_json TEXT COLLATE "C";

ALTER TABLE links ADD COLUMN vni BIGINT;
CREATE UNIQUE INDEX links_vni ON links (vni);

-- Whether the node of an interface lives and has it set up, as its host last said.

ALTER TABLE nics ADD COLUMN alive BIGINT NOT NULL DEFAULT 0;
