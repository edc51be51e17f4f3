-- The image that was judged for a node is the one it is made from.

ALTER TABLE nodes ADD COLUMN image_digest TEXT NOT NULL DEFAULT '';
