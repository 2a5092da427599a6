CREATE TABLE "psqlqueue"."api_keys" (
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone,
	"last_used_at" timestamp with time zone,
	"rate_tokens" double precision,
	"rate_at" timestamp with time zone,
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"secret_hash" text collate "C" NOT NULL,
	"scopes" jsonb NOT NULL,
	"namespace" text collate "C",
	"rate_limit" jsonb,
	"encrypted_secret" text collate "C",
	"encryption_key_id" text collate "C"
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."sql_rights" (
	"role" text collate "C" NOT NULL,
	"action" text collate "C" NOT NULL,
	"pattern" text collate "C" NOT NULL,
	CONSTRAINT "sql_rights_role_action_pattern_pk" PRIMARY KEY("role","action","pattern")
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "first_leased_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "extras" jsonb;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "extras" jsonb;--> statement-breakpoint
-- May whoever calls a function of ours do this to this queue or topic? The caller is who set the role, else who logged in:
-- inside such a function the current user is its owner. A role for which nothing was said may use all, as before.
CREATE FUNCTION "psqlqueue"."check_right" (p_action text, p_id text) RETURNS void
LANGUAGE plpgsql STABLE SET search_path = pg_catalog SET standard_conforming_strings = on AS $$
declare
	v_caller text := case current_setting('role') when 'none' then session_user else current_setting('role') end;
begin
	if exists (
		select from psqlqueue.sql_rights as given
		join pg_roles as known on known.rolname = given.role
		where given.action = p_action and pg_has_role(v_caller, known.oid, 'USAGE')
	) and not exists (
		select from psqlqueue.sql_rights as given
		join pg_roles as known on known.rolname = given.role
		where given.action = p_action and pg_has_role(v_caller, known.oid, 'USAGE')
			and p_id like replace(replace(replace(replace(given.pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
	) then
		perform psqlqueue.refuse(16, 'forbidden', format('the role %s may not %s %s.', v_caller, p_action, p_id));
	end if;
end $$;
--> statement-breakpoint
-- Each of them asks before it does anything else. What they do is left as it is, whichever migration it is of.
DO $$
declare
	v_function record;
	v_text text;
	v_asking text;
begin
	for v_function in
		select * from (values
			('psqlqueue.publish(text,text,text,jsonb,jsonb)', 'publish', 'queue'),
			('psqlqueue.publish_batch(text,jsonb)', 'publish', 'queue'),
			('psqlqueue.publish_topic(text,text,text,jsonb,jsonb)', 'publish', 'topic'),
			('psqlqueue.ack(text,text,text)', 'ack', 'queue')
		) as own (signature, action, parameter)
	loop
		v_text := pg_get_functiondef(v_function.signature::regprocedure);
		v_asking := regexp_replace(v_text, E'\nbegin\n',
			format(E'\nbegin\n\tperform psqlqueue.check_right(%L, %s);\n', v_function.action, v_function.parameter));
		if v_asking = v_text then
			raise exception 'the function % has no beginning that is known', v_function.signature;
		end if;
		execute v_asking;
	end loop;
end $$;
--> statement-breakpoint
-- Lets a role publish to the queues and topics of a pattern (`orders*`), and to no others. Repeatable; patterns add up.
CREATE FUNCTION "psqlqueue"."grant_publish" (role name, pattern text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET standard_conforming_strings = on AS $$
begin
	execute format('grant usage on schema psqlqueue to %I', role);
	execute format('grant execute on function psqlqueue.publish, psqlqueue.publish_batch, psqlqueue.publish_topic to %I', role);
	insert into psqlqueue.sql_rights (role, action, pattern) values (role, 'publish', pattern) on conflict do nothing;
end $$;
--> statement-breakpoint
-- The same for acks.
CREATE FUNCTION "psqlqueue"."grant_ack" (role name, pattern text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET standard_conforming_strings = on AS $$
begin
	execute format('grant usage on schema psqlqueue to %I', role);
	execute format('grant execute on function psqlqueue.ack to %I', role);
	insert into psqlqueue.sql_rights (role, action, pattern) values (role, 'ack', pattern) on conflict do nothing;
end $$;
--> statement-breakpoint
-- Takes a pattern away, and with the last one the right to publish at all. Repeatable.
CREATE FUNCTION "psqlqueue"."revoke_publish" (role name, pattern text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET standard_conforming_strings = on AS $$
#variable_conflict use_variable
begin
	delete from psqlqueue.sql_rights as given
	where given.role = revoke_publish.role and given.action = 'publish' and given.pattern = revoke_publish.pattern;
	if not exists (
		select from psqlqueue.sql_rights as given where given.role = revoke_publish.role and given.action = 'publish'
	) then
		execute format('revoke execute on function psqlqueue.publish, psqlqueue.publish_batch, psqlqueue.publish_topic from %I', role);
	end if;
end $$;
--> statement-breakpoint
CREATE FUNCTION "psqlqueue"."revoke_ack" (role name, pattern text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET standard_conforming_strings = on AS $$
#variable_conflict use_variable
begin
	delete from psqlqueue.sql_rights as given
	where given.role = revoke_ack.role and given.action = 'ack' and given.pattern = revoke_ack.pattern;
	if not exists (select from psqlqueue.sql_rights as given where given.role = revoke_ack.role and given.action = 'ack') then
		execute format('revoke execute on function psqlqueue.ack from %I', role);
	end if;
end $$;
--> statement-breakpoint
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
