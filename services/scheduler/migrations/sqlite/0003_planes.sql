-- Why a link is carried by what carries it.

ALTER TABLE links ADD COLUMN plane_reason TEXT NOT NULL DEFAULT '';
