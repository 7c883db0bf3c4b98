-- What the extension consists of.  The types of tables' rows, which only newer
-- servers list, are left out.
SET client_min_messages = warning;
CREATE EXTENSION sixtyfour;
\pset format unaligned

SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sixtyfour')
	AND classid <> 'pg_type'::regclass
ORDER BY object;

-- functions: how they are called, and how the planner sees them
SELECT format('%s(%s)', p.proname, pg_get_function_arguments(p.oid)) COLLATE "C" AS function,
	pg_get_function_result(p.oid) AS result,
	p.provolatile AS volatility, p.proparallel AS parallel, p.procost AS cost,
	p.proisstrict AS strict, p.prosecdef AS definer, replace(p.proacl::text, current_user, 'owner') AS acl
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sixtyfour')
ORDER BY function;

-- every object has a comment
SELECT pg_describe_object(classid, objid, 0) COLLATE "C" AS object
FROM pg_depend
WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sixtyfour')
	AND classid <> 'pg_type'::regclass
	AND coalesce(obj_description(objid, classid::regclass::name), '') = ''
ORDER BY object;

-- nothing is left behind
DROP EXTENSION sixtyfour CASCADE;
SELECT count(*) FROM pg_proc WHERE proname LIKE 'sixtyfour%';
SELECT count(*) FROM pg_foreign_data_wrapper WHERE fdwname LIKE 'sixtyfour%';
SELECT count(*) FROM pg_class WHERE relname LIKE 'sixtyfour%';
SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'sixtyfour%';
