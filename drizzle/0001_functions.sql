-- What the schema builder has no words for: storage parameters, the archive's partitions, functions.

-- Leases find room on the row's own page. Vacuum by dead rows and not by share of the table, without sleeping, and without
-- truncation, which takes an exclusive lock.
ALTER TABLE "psqlqueue"."messages" SET (
	fillfactor = 90,
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
	autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000,
	autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 500000,
	autovacuum_vacuum_cost_delay = 0,
	vacuum_truncate = off, toast.vacuum_truncate = off
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."publish_batches" SET (
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
	vacuum_truncate = off
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."archived_messages" ADD CONSTRAINT "archived_messages_outcome" CHECK (outcome in ('acked', 'expired'));
--> statement-breakpoint
-- Catches what no day takes, so that an ack never fails; stays empty as long as keep_archive runs.
CREATE TABLE "psqlqueue"."archived_messages_default" PARTITION OF "psqlqueue"."archived_messages" DEFAULT;
--> statement-breakpoint
-- The id of the n-th copy of a fan-out: a ULID whose last four characters count the copies, so that the ids of one topic
-- publish are made before its first try without knowing how many there will be, and rise in order of publication.
CREATE FUNCTION "psqlqueue"."copy_id" (p_prefix text, p_n int) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	select left(p_prefix, 22)
		|| substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (p_n >> 15 & 31) + 1, 1)
		|| substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (p_n >> 10 & 31) + 1, 1)
		|| substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (p_n >> 5 & 31) + 1, 1)
		|| substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (p_n & 31) + 1, 1)
$$;
--> statement-breakpoint
-- Does a message with these attributes pass a subscription's filter? AND over keys, OR within a list; null and {} pass all,
-- a null list passes nothing.
CREATE FUNCTION "psqlqueue"."filter_matches" (p_filters jsonb, p_attributes jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	select case
		when p_filters is null or jsonb_typeof(p_filters) <> 'object' then true
		else not exists (
			select
			from jsonb_each(p_filters) as filter (key, list)
			where not coalesce(jsonb_typeof(filter.list) = 'array' and filter.list ? (p_attributes ->> filter.key), false)
		)
	end
$$;
--> statement-breakpoint
-- Makes the days up to p_days_ahead from now and drops those past ones in which every row has expired. Returns how many it
-- dropped. Run by one server at a time, before its first request and then hourly. Attaching and dropping lock the table, and
-- whoever comes after them waits too: hence the short lock_timeout. On 55P03 (somebody is reading) try again later.
CREATE FUNCTION "psqlqueue"."keep_archive" (p_days_ahead int) RETURNS int
LANGUAGE plpgsql SET lock_timeout = '500ms' AS $$
declare
	v_today date := (now() at time zone 'utc')::date;
	v_day date;
	v_name text;
	v_is_old boolean;
	v_dropped int := 0;
begin
	for v_day in select day::date from generate_series(v_today, v_today + p_days_ahead, interval '1 day') as day loop
		v_name := 'archived_messages_' || to_char(v_day, 'YYYYMMDD');
		if to_regclass('psqlqueue.' || v_name) is null then
			execute format(
				'create table psqlqueue.%I (like psqlqueue.archived_messages including defaults including constraints)', v_name);
			-- Rows of that day in the default partition (nobody ran this in time) would refuse the new one.
			execute format(
				'with late as (
					delete from psqlqueue.archived_messages_default where archived_at >= %L and archived_at < %L returning *
				)
				insert into psqlqueue.%I select * from late',
				v_day || ' 00:00:00+00', v_day + 1 || ' 00:00:00+00', v_name);
			execute format(
				'alter table psqlqueue.archived_messages attach partition psqlqueue.%I for values from (%L) to (%L)',
				v_name, v_day || ' 00:00:00+00', v_day + 1 || ' 00:00:00+00');
		end if;
	end loop;

	for v_name in
		select child.relname
		from pg_inherits
		join pg_class as child on child.oid = pg_inherits.inhrelid
		where pg_inherits.inhparent = 'psqlqueue.archived_messages'::regclass
			and child.relname ~ '^archived_messages_[0-9]{8}$' and right(child.relname, 8) < to_char(v_today, 'YYYYMMDD')
		order by child.relname
	loop
		execute format('select coalesce(max(expires_at) <= now(), true) from psqlqueue.%I', v_name) into v_is_old;
		if v_is_old then
			execute format('drop table psqlqueue.%I', v_name);
			v_dropped := v_dropped + 1;
		end if;
	end loop;
	return v_dropped;
end $$;
--> statement-breakpoint
-- How long after its n-th delivery ended a message stays hidden (seconds). The exponent is capped, so no number overflows.
CREATE FUNCTION "psqlqueue"."backoff_seconds" (
	p_attempts int, p_min int, p_max int, p_multiplier double precision, p_jitter text
) RETURNS double precision LANGUAGE plpgsql VOLATILE AS $$
declare
	v_base double precision := least(p_max, p_min * power(p_multiplier, least(greatest(p_attempts, 1) - 1, 30)));
begin
	return case p_jitter
		when 'full' then v_base * random()
		when 'equal' then v_base / 2 + v_base / 2 * random()
		else v_base
	end;
end $$;
--> statement-breakpoint
ALTER TABLE "psqlqueue"."deduplications" SET (
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
	vacuum_truncate = off
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" SET (
	autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
	vacuum_truncate = off
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD CONSTRAINT "queues_dead_letter"
	CHECK ((dead_queue_no is null) = (message_max_deliveries is null) and dead_queue_no <> no);
--> statement-breakpoint
-- What a dead-lettered message says of its past.
CREATE FUNCTION "psqlqueue"."dead_letter" (p_source_queue_id text, p_reason text, p_error text, p_attempts int) RETURNS jsonb
LANGUAGE sql STABLE AS $$
	select jsonb_build_object(
		'source_queue_id', p_source_queue_id, 'reason', p_reason, 'error', p_error, 'attempts', p_attempts,
		'dead_at', to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
$$;
--> statement-breakpoint
-- A message id: 10 characters of time as in a ULID, 8 that count up, 8 at random. Messages that were moved together are ready
-- at the same time and come by id: the count keeps those of one millisecond in the order of the calls.
CREATE FUNCTION "psqlqueue"."make_id" () RETURNS text LANGUAGE plpgsql VOLATILE AS $$
declare
	v_alphabet constant text := '0123456789ABCDEFGHJKMNPQRSTVWXYZ';
	v_ms bigint := floor(extract(epoch from clock_timestamp()) * 1000);
	-- The outbox numbers its rows from it too, so it rises with every call, in every session.
	v_count bigint := nextval('psqlqueue.outbox_seq_seq');
	v_random bytea := decode(replace(gen_random_uuid()::text, '-', ''), 'hex');
	v_id text := '';
begin
	for i in reverse 9..0 loop
		v_id := v_id || substr(v_alphabet, ((v_ms >> (5 * i)) & 31)::int + 1, 1);
	end loop;
	for i in reverse 7..0 loop
		v_id := v_id || substr(v_alphabet, ((v_count >> (5 * i)) & 31)::int + 1, 1);
	end loop;
	for i in 8..15 loop
		v_id := v_id || substr(v_alphabet, (get_byte(v_random, i) & 31) + 1, 1);
	end loop;
	return v_id;
end $$;
--> statement-breakpoint
-- Refuses in the words of the HTTP API: SQLSTATE PQ + the code, the details as DETAIL.
CREATE FUNCTION "psqlqueue"."refuse" (p_code int, p_message text, p_detail text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql AS $$
begin
	if p_detail is null then
		raise exception using errcode = 'PQ' || lpad(p_code::text, 3, '0'), message = p_message;
	end if;
	raise exception using errcode = 'PQ' || lpad(p_code::text, 3, '0'), message = p_message, detail = p_detail;
end $$;
--> statement-breakpoint
-- A queue's dead letters must not come back to it, however long the way. One change of a chain at a time: two at once would
-- each find the other's link missing. The walk is a statement of its own, so that it sees what was committed during the wait.
CREATE FUNCTION "psqlqueue"."refuse_dead_letter_loop" () RETURNS trigger LANGUAGE plpgsql AS $$
begin
	perform pg_advisory_xact_lock(hashtextextended('psqlqueue:dead_letter_chain', 0));
	if exists (
		with recursive step (no) as (
			select new.dead_queue_no
			union
			select queue.dead_queue_no from step join psqlqueue.queues as queue on queue.no = step.no
		)
		select from step where step.no = new.no
	) then
		perform psqlqueue.refuse(3, 'request validation failed', 'dead_queue_id: must not lead back to the queue.');
	end if;
	return new;
end $$;
--> statement-breakpoint
CREATE TRIGGER "queues_dead_letter_chain" BEFORE UPDATE OF "dead_queue_no" ON "psqlqueue"."queues" FOR EACH ROW
	WHEN (new.dead_queue_no is not null and new.dead_queue_no is distinct from old.dead_queue_no)
	EXECUTE FUNCTION "psqlqueue"."refuse_dead_letter_loop" ();
--> statement-breakpoint
-- The rules of a publish over HTTP, for one message; p_prefix names it in a list.
CREATE FUNCTION "psqlqueue"."check_message" (
	p_prefix text, p_body text, p_label text, p_attributes jsonb, p_options jsonb
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
declare
	v_problems text[] := '{}';
	v_number jsonb;
	v_name text;
	v_max numeric;
	v_min numeric;
begin
	if coalesce(p_body, '') = '' then
		v_problems := v_problems || (p_prefix || 'body: cannot be blank');
	end if;
	if octet_length(p_label) > 255 then
		v_problems := v_problems || (p_prefix || 'label: the length must be no more than 255');
	end if;
	if jsonb_typeof(coalesce(p_attributes, '{}')) not in ('object', 'null') or exists (
		select from jsonb_each(case when jsonb_typeof(p_attributes) = 'object' then p_attributes else '{}' end) as entry (key, value)
		where jsonb_typeof(entry.value) <> 'string'
	) then
		v_problems := v_problems || (p_prefix || 'attributes: must be in a valid format');
	end if;
	if jsonb_typeof(coalesce(p_options, '{}')) <> 'object' then
		v_problems := v_problems || (p_prefix || 'options: must be in a valid format');
		p_options := '{}';
	end if;
	for v_name, v_min, v_max in
		select * from (values ('delay_seconds', 0, 31536000), ('ttl_seconds', 1, 2147483647)) as rule (name, min, max)
	loop
		v_number := p_options -> v_name;
		if v_number is not null and jsonb_typeof(v_number) <> 'null' then
			if jsonb_typeof(v_number) <> 'number' or (v_number #>> '{}')::numeric % 1 <> 0 then
				v_problems := v_problems || (p_prefix || v_name || ': must be in a valid format');
			elsif (v_number #>> '{}')::numeric < v_min then
				v_problems := v_problems || (p_prefix || v_name || ': must be no less than ' || v_min);
			elsif (v_number #>> '{}')::numeric > v_max then
				v_problems := v_problems || (p_prefix || v_name || ': must be no greater than ' || v_max);
			end if;
		end if;
	end loop;
	if p_options ->> 'dedup_id' !~ '^[!-~]{1,128}$' then
		v_problems := v_problems || (p_prefix || 'dedup_id: must be in a valid format');
	end if;
	if p_options ->> 'delay_seconds' is not null and p_options ->> 'deliver_at' is not null then
		v_problems := v_problems || (p_prefix || 'delay_seconds: must not be given together with deliver_at');
	end if;
	if p_options ->> 'ttl_seconds' is not null and p_options ->> 'expires_at' is not null then
		v_problems := v_problems || (p_prefix || 'expires_at: must not be given together with ttl_seconds');
	end if;
	if p_options ->> 'ordering_key' is not null then
		v_problems := v_problems || (p_prefix || 'ordering_key: is not enabled for this queue');
	end if;
	if coalesce(p_options ->> 'priority', '0') <> '0' then
		v_problems := v_problems || (p_prefix || 'priority: is not enabled for this queue');
	end if;
	for v_name in select * from (values ('deliver_at'), ('expires_at')) as rule (name) loop
		-- As over HTTP: a cast alone would take 'tomorrow', and read a time without a zone by the session's.
		if p_options ->> v_name !~ '^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$' then
			v_problems := v_problems || (p_prefix || v_name || ': must be in a valid format');
			p_options := p_options - v_name;
		end if;
	end loop;
	begin
		if (p_options ->> 'deliver_at')::timestamptz > now() + interval '31536000 seconds' then
			v_problems := v_problems || (p_prefix || 'deliver_at: must be no greater than a year from now');
		end if;
		if (p_options ->> 'expires_at')::timestamptz <= now() then
			v_problems := v_problems || (p_prefix || 'expires_at: must be in the future');
		end if;
	exception when data_exception then
		v_problems := v_problems || (p_prefix || 'deliver_at, expires_at: must be in a valid format');
	end;
	if cardinality(v_problems) > 0 then
		perform psqlqueue.refuse(3, 'request validation failed', array_to_string(v_problems, '; ') || '.');
	end if;
end $$;
--> statement-breakpoint
-- Puts one message for one queue into the outbox. Touches nothing that others wait for: the caller's transaction may stay
-- open for minutes. A server moves it to the queue after the commit.
CREATE FUNCTION "psqlqueue"."put_outbox" (
	p_queue_no int, p_id text, p_body text, p_label text, p_attributes jsonb, p_options jsonb
) RETURNS void LANGUAGE sql SET search_path = pg_catalog AS $$
	insert into psqlqueue.outbox (
		queue_no, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, body_hash)
	values (
		p_queue_no, p_id, p_body, p_label, nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
		(p_options ->> 'deliver_at')::timestamptz, (p_options ->> 'ttl_seconds')::numeric::int,
		(p_options ->> 'expires_at')::timestamptz,
		translate(rtrim(encode(sha256(convert_to('id:' || (p_options ->> 'dedup_id'), 'UTF8')), 'base64'), '='), '+/', '-_'),
		translate(rtrim(encode(sha256(convert_to('body:' || p_body, 'UTF8')), 'base64'), '='), '+/', '-_'))
$$;
--> statement-breakpoint
-- Publishes when the caller's transaction commits, and not at all when it rolls back. Returns the id the message will have.
-- NOTIFY goes out once per transaction unless options say "notify": false; then a poll finds the message within a second.
CREATE FUNCTION "psqlqueue"."publish" (
	queue text, body text, label text DEFAULT NULL, attributes jsonb DEFAULT NULL, options jsonb DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
declare
	v_queue record;
	v_id text := psqlqueue.make_id();
begin
	perform psqlqueue.check_message('', body, label, attributes, options);
	select known.no, known.publish_paused into v_queue from psqlqueue.queues as known where known.id = queue;
	if not found then
		perform psqlqueue.refuse(5, 'queue not found');
	elsif v_queue.publish_paused then
		perform psqlqueue.refuse(17, 'queue closed');
	end if;
	perform psqlqueue.put_outbox(v_queue.no, v_id, body, label, attributes, options);
	if coalesce((options ->> 'notify')::boolean, true) then
		perform pg_notify('psqlqueue_outbox', '');
	end if;
	return v_id;
end $$;
--> statement-breakpoint
-- Publishes a list of objects, each with the members of a publish over HTTP, in order. Returns their ids.
CREATE FUNCTION "psqlqueue"."publish_batch" (queue text, messages jsonb) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
declare
	v_queue record;
	v_message jsonb;
	v_n int := 0;
	v_id text;
	v_notify boolean := false;
begin
	if messages is null or jsonb_typeof(messages) <> 'array' or jsonb_array_length(messages) = 0 then
		perform psqlqueue.refuse(3, 'request validation failed', 'messages: cannot be blank.');
	elsif jsonb_array_length(messages) > 1000 then
		perform psqlqueue.refuse(3, 'request validation failed', 'messages: the length must be no more than 1000.');
	end if;
	select known.no, known.publish_paused into v_queue from psqlqueue.queues as known where known.id = queue;
	if not found then
		perform psqlqueue.refuse(5, 'queue not found');
	elsif v_queue.publish_paused then
		perform psqlqueue.refuse(17, 'queue closed');
	end if;
	for v_message in select item.value from jsonb_array_elements(messages) as item loop
		perform psqlqueue.check_message(format('messages[%s].', v_n), v_message ->> 'body', v_message ->> 'label',
			v_message -> 'attributes', v_message);
		v_id := psqlqueue.make_id();
		perform psqlqueue.put_outbox(v_queue.no, v_id, v_message ->> 'body', v_message ->> 'label',
			v_message -> 'attributes', v_message);
		v_notify := v_notify or coalesce((v_message ->> 'notify')::boolean, true);
		v_n := v_n + 1;
		return next v_id;
	end loop;
	if v_notify then
		perform pg_notify('psqlqueue_outbox', '');
	end if;
end $$;
--> statement-breakpoint
-- Publishes to the subscriptions that the caller's transaction sees. Returns the number of queues.
CREATE FUNCTION "psqlqueue"."publish_topic" (
	topic text, body text, label text DEFAULT NULL, attributes jsonb DEFAULT NULL, options jsonb DEFAULT NULL
) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
declare
	v_queue record;
	v_count int := 0;
begin
	perform psqlqueue.check_message('', body, label, attributes, options);
	if not exists (select from psqlqueue.topics as known where known.id = topic) then
		perform psqlqueue.refuse(8, 'topic not found');
	end if;
	for v_queue in
		select known.no, known.publish_paused
		from psqlqueue.subscriptions as subscription
		join psqlqueue.queues as known on known.no = subscription.queue_no
		where subscription.topic_id = topic
			and psqlqueue.filter_matches(subscription.message_filters, coalesce(attributes, '{}'))
		order by known.no
	loop
		if v_queue.publish_paused then
			perform psqlqueue.refuse(17, 'queue closed');
		end if;
		perform psqlqueue.put_outbox(v_queue.no, psqlqueue.make_id(), body, label, attributes, options);
		v_count := v_count + 1;
	end loop;
	if v_count > 0 and coalesce((options ->> 'notify')::boolean, true) then
		perform pg_notify('psqlqueue_outbox', '');
	end if;
	return v_count;
end $$;
--> statement-breakpoint
-- Acks in the caller's own transaction: processing exactly once where work and queue share the database. False when the token
-- is stale; then roll back.
CREATE FUNCTION "psqlqueue"."ack" (queue text, id text, token text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
#variable_conflict use_column
declare
	v_queue record;
	-- What is no token of ours holds nothing.
	v_token bigint := case
		when token !~ '^[1-9][0-9]{0,18}$' then -1
		when token::numeric > 9223372036854775807 then -1
		else token::bigint
	end;
begin
	select known.* into v_queue from psqlqueue.queues as known where known.id = ack.queue;
	if not found then
		perform psqlqueue.refuse(5, 'queue not found');
	end if;
	with gone as (
		delete from psqlqueue.messages as message
		where message.queue_no = v_queue.no and message.id = ack.id and message.lease_token = v_token
			and (not v_queue.strict_leases or message.lease_expires_at > clock_timestamp())
			and (message.expires_at > clock_timestamp() or message.lease_expires_at > clock_timestamp())
		returning message.*
	), archived as (
		insert into psqlqueue.archived_messages (
			queue_no, id, body, label, attributes, priority, delivery_attempts, lease_token, created_at, last_error, dead,
			outcome, expires_at)
		select
			gone.queue_no, gone.id, gone.body, gone.label, gone.attributes, gone.priority, gone.delivery_attempts, v_token,
			gone.created_at, gone.last_error, gone.dead, 'acked',
			now() + coalesce(v_queue.archive_retention_seconds, v_queue.message_retention_seconds) * interval '1 second'
		from gone
		where coalesce(v_queue.archive_retention_seconds, v_queue.message_retention_seconds) > 0
	)
	select 1 into v_queue from gone;
	if found then
		return true;
	end if;
	return exists (
		select
		from psqlqueue.archived_messages as past
		join psqlqueue.queues as known on known.no = past.queue_no
		where known.id = ack.queue and past.id = ack.id and past.outcome = 'acked' and past.lease_token = v_token
			and past.expires_at > now()
	);
end $$;
--> statement-breakpoint
-- Granted to nobody by default: GRANT EXECUTE ON FUNCTION psqlqueue.publish, … TO role; with USAGE on the schema. A role needs
-- no right on any table.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
