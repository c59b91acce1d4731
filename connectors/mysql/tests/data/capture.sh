#!/usr/bin/env bash
# Takes what tests/captured.rs reads from a running server: its log, its catalog, and its rows as a query tells them.
#
#   capture.sh OUT DATADIR "CLIENT COMMAND" FILE.sql…
#
# The client runs as root on the server; DATADIR is where its log is. OUT.binlog, OUT.catalog and OUT.rows are written.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 datadir=$2 client=$3
shift 3
sql() { $client -N -B --raw "$@"; }
sql -e 'DROP DATABASE IF EXISTS captured; CREATE DATABASE captured CHARACTER SET utf8mb4; FLUSH BINARY LOGS'
log=$(sql -e 'SHOW BINARY LOGS' | tail -1 | cut -f1)
for file in "$@"; do sql --default-character-set=utf8mb4 captured <"$here/$file"; done
sql -e 'FLUSH BINARY LOGS'
cp "$datadir/$log" "$out.binlog"
json='(SELECT COUNT(*) FROM information_schema.check_constraints k WHERE k.constraint_schema = c.table_schema
       AND k.constraint_name = c.column_name AND k.check_clause LIKE "json_valid(%")'
sql -e "SELECT c.table_name, c.ordinal_position, HEX(c.column_name), HEX(c.column_type), IFNULL(c.character_set_name, '-'), $json > 0,
          IFNULL((SELECT s.seq_in_index FROM information_schema.statistics s WHERE s.table_schema = c.table_schema AND s.table_name = c.table_name
                  AND s.index_name = 'PRIMARY' AND s.column_name = c.column_name), 0), IFNULL(c.generation_expression, '') = 'ROW END'
        FROM information_schema.columns c WHERE c.table_schema = 'captured' ORDER BY 1, 2" >"$out.catalog"
: >"$out.rows"
for table in $(sql -e "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'captured' AND table_name <> 'large'"); do
  # HEX of a number is not that of its text, so CONCAT makes a text of it, as the text protocol would.
  select=$(sql -e "SET group_concat_max_len = 1000000; SELECT CONCAT('SELECT ''$table''', GROUP_CONCAT(
    ', IFNULL(', IF(data_type = 'bit', CONCAT('LPAD(HEX(\`', column_name, '\`), ', 2 * CEIL(numeric_precision / 8), ', ''0'')'), CONCAT('HEX(', CASE WHEN data_type = 'float' THEN CONCAT('CONCAT(\`', REPLACE(column_name, '\`', '\`\`'), '\` + 0e0)')
      WHEN data_type IN ('enum', 'set') THEN CONCAT('CONCAT(CAST(\`', column_name, '\` AS UNSIGNED))')
      WHEN data_type IN ('geometry', 'point', 'linestring', 'vector') OR data_type LIKE '%blob' OR data_type LIKE '%binary'
        OR IFNULL(character_set_name, 'utf8mb4') NOT IN ('utf8mb4', 'utf8mb3', 'ascii') THEN CONCAT('\`', column_name, '\`')
      ELSE CONCAT('CONCAT(\`', REPLACE(column_name, '\`', '\`\`'), '\`)') END, ')')), ', ''NULL'')' ORDER BY ordinal_position SEPARATOR ''),
    ' FROM captured.\`$table\`') FROM information_schema.columns WHERE table_schema = 'captured' AND table_name = '$table'")
  sql --default-character-set=utf8mb4 -e "SET time_zone = '+00:00'; $select" >>"$out.rows"
done
