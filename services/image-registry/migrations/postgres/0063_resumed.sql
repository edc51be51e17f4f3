-- True of an upload that was found again by the name of its file: what came may be of two files, and whoever finishes it says the digest.
ALTER TABLE uploads ADD COLUMN resumed BIGINT NOT NULL DEFAULT 0;
