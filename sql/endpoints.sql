-- The endpoints of the service that are known.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;

SELECT * FROM sixtyfour_endpoints();

-- each operation once, each path once per method
SELECT count(*) - count(DISTINCT operation), count(*) - count(DISTINCT (method, path)) FROM sixtyfour_endpoints();
SELECT operation FROM sixtyfour_endpoints() WHERE async_path <> path || '-async' OR bulk_path <> path || '-bulk-async';

DROP EXTENSION sixtyfour CASCADE;
