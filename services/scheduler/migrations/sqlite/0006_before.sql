-- What the nodes and links of a lab were when its active operation began: a cancel gives that back.

CREATE TABLE before_operations (
    operation_id TEXT PRIMARY KEY,
    before_json TEXT NOT NULL
);
