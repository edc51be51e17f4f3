-- How many deploys of a lab succeeded: hosts keep what nodes made of files until the next one does.

ALTER TABLE labs ADD COLUMN deploys BIGINT NOT NULL DEFAULT 0;
