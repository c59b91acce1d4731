-- What only MariaDB has.
CREATE TABLE own (id INT PRIMARY KEY, u UUID, i6 INET6, j JSON, ct TEXT COMPRESSED, cv VARCHAR(300) COMPRESSED CHARACTER SET latin1,
  cb BLOB COMPRESSED, cvb VARBINARY(300) COMPRESSED);
INSERT INTO own VALUES (1, '123e4567-e89b-12d3-a456-426655440000', '::ffff:1.2.3.4', '{"a": 1.10, "b":[]}', REPEAT('é long ', 100),
  REPEAT('é long ', 40), REPEAT('x', 1000), REPEAT('y', 300)), (2, '00000000-0000-0000-0000-000000000000', '::', '"x"', 'short', 'é', 'b', 'vb'),
 (3, 'ffffffff-ffff-7fff-bfff-ffffffffff00', '2001:db8::1', '[1, 2]', '', '', '', ''), (4, '018ef0b0-0000-7abc-8def-000000000000', '::1.2.3.4', '0', NULL, NULL, NULL, NULL),
 (5, '12345678-9abc-1ef0-1234-56789abcde00', '::1', 'null', NULL, NULL, NULL, NULL),
 (6, NULL, '::ffff', NULL, NULL, NULL, NULL, NULL), (7, NULL, '::1:0', NULL, NULL, NULL, NULL, NULL), (8, NULL, '1:0:2:3:4:5:6:7', NULL, NULL, NULL, NULL, NULL),
 (9, NULL, '1:0:0:2:0:0:3:4', NULL, NULL, NULL, NULL, NULL), (10, NULL, '1:0:2:0:0:3:0:0', NULL, NULL, NULL, NULL, NULL),
 (11, NULL, '1:2:3:4:5:6:0:0', NULL, NULL, NULL, NULL, NULL), (12, NULL, '64:ff9b::1.2.3.4', NULL, NULL, NULL, NULL, NULL), (13, NULL, '1:2:3:4:5:6:7:8', NULL, NULL, NULL, NULL, NULL);
CREATE TABLE versioned (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING;
SET @@timestamp = 1700000000.25;
INSERT INTO versioned VALUES (1, 1);
SET @@timestamp = 1700000001.5;
UPDATE versioned SET a = 2;
SET @@timestamp = DEFAULT;
SET GLOBAL mysql56_temporal_format = OFF;
CREATE TABLE old_times (id INT PRIMARY KEY, t TIME, dt DATETIME, ts TIMESTAMP NULL);
SET GLOBAL mysql56_temporal_format = ON;
INSERT INTO old_times VALUES (1, '-838:59:59', '2026-11-22 14:06:07', '2026-11-22 14:06:07'), (2, '100:01:02', '0000-00-00 00:00:00', '0000-00-00 00:00:00'),
 (3, '-00:00:01', '9999-12-31 23:59:59', '2038-01-19 03:14:07');
SET GLOBAL log_bin_compress = 1; SET GLOBAL log_bin_compress_min_len = 10;
CREATE TABLE compressed_events (id INT PRIMARY KEY, t VARCHAR(200));
INSERT INTO compressed_events VALUES (1, REPEAT('a', 200)), (2, REPEAT('b', 200));
UPDATE compressed_events SET t = REPEAT('c', 200) WHERE id = 2;
DELETE FROM compressed_events WHERE id = 1;
SET GLOBAL log_bin_compress = 0;
