-- The database of the image registry, beside the scheduler's.
CREATE DATABASE images OWNER netloom;
