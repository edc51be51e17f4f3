-- How many deploys of a lab succeeded: hosts keep what nodes made of files until the next one does.

ALTER TABLE labs ADD COLUMN deploys BIGINT NOT NULL DEFAULT 0;

-- Whether a node ever had its place, and whose network namespace it was made to share: told by no instance that is not seen for a moment.

ALTER TABLE nodes ADD COLUMN placed BIGINT NOT NULL DEFAULT 1;

ALTER TABLE nodes ADD COLUMN shares TEXT;
