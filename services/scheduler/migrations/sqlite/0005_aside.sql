-- Whether what was set aside for an operation is being removed: from then on it cannot be taken back.

ALTER TABLE operations ADD COLUMN released BIGINT NOT NULL DEFAULT 0;
