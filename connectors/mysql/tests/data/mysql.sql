-- What only MySQL has.
CREATE TABLE documents (id INT PRIMARY KEY, j JSON, k JSON);
INSERT INTO documents VALUES (1, '{"a": 1, "bb": [1, 2.5, "x", null, true, false, {"c": {}}], "": []}', '[]'),
 (2, '-32768', '65535'), (3, '-2147483648', '4294967295'), (4, '-9223372036854775808', '18446744073709551615'),
 (5, '1.0', '1e100'), (6, '0.1', '-0.0'), (7, '1e15', '123456789012345.6'), (8, '1e-15', '1.5e-16'), (9, '100000000000000.0', '1e22'),
 (10, '"q\\"uo\\\\te\\n\\u0001\\t\\b\\f\\r\\/é漢😀"', '{"k\\"ey\\n": 1}'), (11, 'null', 'true'), (12, '{}', NULL),
 (13, JSON_ARRAY(CAST(1.10 AS DECIMAL(10,2)), CAST(-99999999999999999999.99 AS DECIMAL(30,2)), CAST('2026-11-22' AS DATE),
   CAST('2026-11-22 14:06:07.5' AS DATETIME(6)), CAST('-100:01:02.000003' AS TIME(6)), CAST('01:02:03' AS TIME),
   CAST('2026-11-22 14:06:07' AS DATETIME)), JSON_ARRAY(CAST(x'00ff' AS BINARY), b'101', CAST('2026' AS YEAR), ST_GeomFromText('POINT(1 2)'))),
 (14, JSON_OBJECT('long', REPEAT('x', 300), 'n', 70000, 'm', -70000), NULL),
 (15, '12345678901234567890123', '0.30000000000000004'), (16, '5e-324', '1.7976931348623157e308');
SET SESSION binlog_row_value_options = PARTIAL_JSON;
CREATE TABLE partial (id INT PRIMARY KEY, j JSON, n INT, k JSON);
INSERT INTO partial VALUES (1, '{"a": 1, "b": ["x", "y", {"deep": "value"}], "name": "a long enough name that partial updates pay", "z z": 1}', 1,
  '{"other": "a long enough text to make a partial update worth it", "n": [1, 2, 3]}'), (2, '[1, 2, 3, "long long long long long long text"]', 2, NULL);
UPDATE partial SET j = JSON_SET(j, '$.a', 2, '$.b[1]', 'changed'), n = 2 WHERE id = 1;
UPDATE partial SET j = JSON_SET(j, '$.b[2].deep', 'v2'), k = JSON_SET(k, '$.n[0]', 100) WHERE id = 1;
UPDATE partial SET j = JSON_REMOVE(j, '$.b[0]'), k = JSON_REMOVE(k, '$.n') WHERE id = 1;
UPDATE partial SET j = JSON_SET(j, '$.new', 5, '$.c', JSON_ARRAY(1), '$."z z"', 2) WHERE id = 1;
UPDATE partial SET j = JSON_SET(j, '$[0]', 10, '$[7]', CAST(1.50 AS DECIMAL(5,2))) WHERE id = 2;
UPDATE partial SET n = n + 1;
SET SESSION binlog_row_image = MINIMAL;
UPDATE partial SET j = JSON_SET(j, '$.a', 3) WHERE id = 1;
SET SESSION binlog_row_image = FULL;
UPDATE partial SET n = n + 1;
SET SESSION binlog_row_value_options = '';
-- A document of more than 64 KiB, which has another form; compressed, so that it is small here.
SET SESSION binlog_transaction_compression = ON;
CREATE TABLE large (id INT PRIMARY KEY, j JSON);
INSERT INTO large VALUES (1, JSON_OBJECT('a', REPEAT('é', 20000), 'b', JSON_ARRAY(REPEAT('y', 40000), 7, 70000, -70000, 1.5, 3000000000, 5e9)));
SET SESSION binlog_transaction_compression = OFF;
CREATE TABLE vectors (id INT PRIMARY KEY, v VECTOR(3));
INSERT INTO vectors VALUES (1, STRING_TO_VECTOR('[1,-2.5,0.1]')), (2, NULL), (3, STRING_TO_VECTOR('[1e10]'));
CREATE TABLE hidden (id INT PRIMARY KEY, t VARCHAR(20), j JSON, KEY f ((LOWER(t))), KEY m ((CAST(j->'$.n' AS UNSIGNED ARRAY))));
INSERT INTO hidden VALUES (1, 'ABC', '{"n": [1, 2]}');
UPDATE hidden SET t = 'DEF';
SET SESSION binlog_transaction_compression = ON;
CREATE TABLE payload (id INT PRIMARY KEY, t VARCHAR(200));
BEGIN; INSERT INTO payload VALUES (1, REPEAT('a', 200)), (2, REPEAT('b', 200)); UPDATE payload SET t = 'c' WHERE id = 2; COMMIT;
SET SESSION binlog_transaction_compression = OFF;
SET gtid_next = 'AUTOMATIC:some_tag';
INSERT INTO keyless VALUES (7, 7);
SET gtid_next = 'AUTOMATIC';
XA START 'branch', 'b', 7; INSERT INTO keyless VALUES (8, 8); XA END 'branch', 'b', 7; XA PREPARE 'branch', 'b', 7;
XA COMMIT 'branch', 'b', 7;
