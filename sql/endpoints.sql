-- The endpoints of the service that are known.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;

SELECT operation, method, path, async_path, bulk_path, cents FROM sixtyfour_endpoints();
\pset format unaligned
SELECT operation, array_to_string(fields, ', ') AS fields FROM sixtyfour_endpoints();
\pset format aligned

-- each operation once, each path once per method
SELECT count(*) - count(DISTINCT operation), count(*) - count(DISTINCT (method, path)) FROM sixtyfour_endpoints();
SELECT operation FROM sixtyfour_endpoints() WHERE async_path <> path || '-async' OR bulk_path <> path || '-bulk-async';

DROP EXTENSION sixtyfour CASCADE;
