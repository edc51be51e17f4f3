-- What a lab had of a host when the operation that runs on it began, for as long as a cancel may give it back.
CREATE TABLE kept (
    lab_uid      TEXT NOT NULL,
    host         TEXT NOT NULL,
    cpu_millis   BIGINT NOT NULL,
    memory_bytes BIGINT NOT NULL,
    disk_bytes   BIGINT NOT NULL,
    PRIMARY KEY (lab_uid, host)
);

-- What runs now keeps what its lab has, and what it set aside.
INSERT INTO kept SELECT lab_uid, host, SUM(cpu), SUM(memory), SUM(disk) FROM
    (SELECT lab_uid, host, MAX(cpu_millis) AS cpu, MAX(memory_bytes) AS memory, MAX(disk_bytes) AS disk FROM nodes
     WHERE host IS NOT NULL AND wanted <> 'ABSENT' AND lab_uid IN (SELECT lab_uid FROM operations WHERE state = 'RUNNING' AND kind <> 'DESTROY')
     GROUP BY lab_uid, host, folded) AS of_nodes GROUP BY lab_uid, host;
