-- The files that were last put on its host for a node: what it goes on with while the spec's are for its successor.

ALTER TABLE nodes ADD COLUMN own_files_json TEXT NOT NULL DEFAULT '[]';
