
--
-- The background processes
--

CREATE FUNCTION sixtyfour.worker_rows(OUT database name, OUT pid integer,
	OUT kind text, OUT state text, OUT last_turn timestamptz,
	OUT in_flight integer, OUT message text)
	RETURNS SETOF record AS 'MODULE_PATHNAME', 'sixtyfour_workers'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;
COMMENT ON FUNCTION sixtyfour.worker_rows() IS
'what the view sixtyfour.workers shows';

CREATE VIEW sixtyfour.workers AS
	SELECT database, pid, kind, state, last_turn, in_flight, message
	FROM sixtyfour.worker_rows();
GRANT SELECT ON sixtyfour.workers TO PUBLIC;
COMMENT ON VIEW sixtyfour.workers IS
'the background processes: the launcher, and the worker and the writer of each database that has the extension; no rows if the library is not preloaded; members of pg_monitor see all databases, others their own, and messages only if they own it';
COMMENT ON COLUMN sixtyfour.workers.pid IS 'NULL: not running';
COMMENT ON COLUMN sixtyfour.workers.state IS
'what the process is doing; or, while it is not running: asleep (nothing to do), starting, waiting to start (see message), kept away (by a command such as DROP DATABASE or ALTER EXTENSION), not allowed (by sixtyfour.databases, or a template)';
COMMENT ON COLUMN sixtyfour.workers.last_turn IS 'when it last looked for something to do';
COMMENT ON COLUMN sixtyfour.workers.in_flight IS 'requests that await their reply';
COMMENT ON COLUMN sixtyfour.workers.message IS 'what is wrong, or why it last ended';
