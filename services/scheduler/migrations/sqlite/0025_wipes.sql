-- How often a node was wiped, and the snapshot that its last start that was asked for begins from.

ALTER TABLE nodes ADD COLUMN wipes BIGINT NOT NULL DEFAULT 0;

ALTER TABLE nodes ADD COLUMN restore TEXT NOT NULL DEFAULT '';
