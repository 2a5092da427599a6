-- A schema that the path does not name is searched for tables and types all the same, and before all others: that of the
-- session's temporary ones. Named last, it comes after PostgreSQL's own, so that nobody who calls a function can put
-- something of theirs in the place of what the function means, with the rights of its owner.
DO $$
declare
	v_function record;
begin
	for v_function in
		select oid::regprocedure as signature
		from pg_proc
		where pronamespace = 'psqlqueue'::regnamespace and 'search_path=pg_catalog' = any (proconfig)
	loop
		execute format('alter function %s set search_path = pg_catalog, pg_temp', v_function.signature);
	end loop;
end $$;
