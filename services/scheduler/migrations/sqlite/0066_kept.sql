-- What a lab had of a host when the operation that runs on it began, for as long as a cancel may give it back.
CREATE TABLE kept (
    lab_uid      TEXT NOT NULL,
    host         TEXT NOT NULL,
    cpu_millis   BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    disk_bytes   BIGINT NOT NULL,
    PRIMARY KEY (lab_uid, host)
);
