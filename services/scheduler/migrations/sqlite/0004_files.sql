-- Which files were put on its host for a node, hashed: others are to be sent.

ALTER TABLE nodes ADD COLUMN files TEXT NOT NULL DEFAULT '';
