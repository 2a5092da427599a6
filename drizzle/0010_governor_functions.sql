ALTER TABLE "psqlqueue"."queues" ADD CONSTRAINT "queues_aging"
	CHECK (priority_aging_seconds is null or priority_enabled);
--> statement-breakpoint
-- Once a queue has had priorities it keeps looking for them, and so does where its dead messages go, and theirs.
CREATE FUNCTION "psqlqueue"."keep_priorities" () RETURNS trigger LANGUAGE plpgsql AS $$
begin
	if tg_when = 'BEFORE' then
		new.has_priorities := new.has_priorities or new.priority_enabled;
		return new;
	end if;
	update psqlqueue.queues as dead
	set has_priorities = true
	where dead.no = new.dead_queue_no and not dead.has_priorities;
	return null;
end $$;
--> statement-breakpoint
CREATE TRIGGER "queues_priorities" BEFORE INSERT OR UPDATE OF "priority_enabled" ON "psqlqueue"."queues" FOR EACH ROW
	WHEN (new.priority_enabled) EXECUTE FUNCTION "psqlqueue"."keep_priorities" ();
--> statement-breakpoint
CREATE TRIGGER "queues_priorities_of_dead" AFTER INSERT OR UPDATE ON "psqlqueue"."queues" FOR EACH ROW
	WHEN (new.has_priorities and new.dead_queue_no is not null) EXECUTE FUNCTION "psqlqueue"."keep_priorities" ();
--> statement-breakpoint
-- The priorities that messages of a queue have, from high to low: one step along the receive index for each.
CREATE FUNCTION "psqlqueue"."levels_of" (p_queue_no int) RETURNS smallint[] LANGUAGE plpgsql AS $$
declare
	v_levels smallint[] := '{}';
	v_level smallint := 32767;
begin
	loop
		select message.priority into v_level
		from psqlqueue.messages as message
		where message.queue_no + 0 = p_queue_no and message.priority < v_level
		order by message.priority desc
		limit 1;
		exit when not found;
		v_levels := v_levels || v_level;
	end loop;
	return v_levels;
end $$;
--> statement-breakpoint
-- Leases up to p_limit messages of a queue with priorities, a cap or a rate. The first row says how it went and has no id.
-- Counted under the lock of the queue's governor, in statements after it: so there are at no moment more leases than allowed.
CREATE FUNCTION "psqlqueue"."lease_governed" (
	p_queue_id text, p_label text, p_lease_seconds int, p_limit int, p_lease_tokens bigint[], p_bytes_max bigint,
	p_is_one_free boolean
) RETURNS TABLE (
	is_governed boolean, is_counted boolean, throttled text, retry_ms int, wait_seconds int, max_lease_seconds int,
	is_lease_too_long boolean, is_cut boolean, verdict text, was_leased boolean, bytes int, id text, label text, body text,
	attributes text, delivery_attempts int, created_at timestamptz, lease_token bigint, lease_expires_at timestamptz,
	ready_at timestamptz, last_error text, dead text, expires_at timestamptz, ordering_key text, priority smallint
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue psqlqueue.queues;
	v_governor psqlqueue.governors;
	v_lease_seconds int;
	v_is_too_long boolean;
	v_is_counted boolean;
	v_levels smallint[] := '{0}';
	v_left int := p_limit;
	v_tokens double precision;
	v_counted_at timestamptz;
	v_throttled text;
	v_retry_ms int;
	v_tids tid[];
	v_is_cut boolean := false;
	v_count int := 0;
begin
	select queue.* into v_queue from psqlqueue.queues as queue where queue.id = p_queue_id;
	if not found then
		return;
	end if;
	v_lease_seconds := coalesce(p_lease_seconds, v_queue.ack_deadline_seconds);
	v_is_too_long := coalesce(p_lease_seconds > v_queue.max_lease_seconds and v_queue.max_lease_seconds > 0, false);
	v_is_counted := v_queue.max_in_flight is not null or v_queue.rate_count is not null;
	if not v_queue.is_governed or v_queue.consume_paused or v_is_too_long or p_limit = 0 then
		v_left := 0;
	elsif v_is_counted or v_queue.priority_aging_seconds is not null then
		insert into psqlqueue.governors as governor (queue_no, tokens, refilled_at)
		values (v_queue.no, coalesce(v_queue.rate_burst, 0), clock_timestamp())
		on conflict do nothing;
		select governor.* into v_governor from psqlqueue.governors as governor where governor.queue_no = v_queue.no for update;
	end if;

	if v_left > 0 and v_queue.max_in_flight is not null then
		-- Leases made before the queue had a cap, also by statements that had begun before.
		if v_governor.marked_at is null or v_governor.marked_at < v_queue.updated_at + interval '60 seconds' then
			update psqlqueue.messages as message
			set slot_key = ''
			from (
				select unmarked.tid
				from unnest(psqlqueue.levels_of(v_queue.no)) as level (priority)
				cross join lateral (
					select message.ctid as tid
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.priority = level.priority and message.visible_at > now()
						and message.slot_key is null and message.lease_token is not null and message.lease_expires_at > now()
					order by message.visible_at
					for update skip locked
				) as unmarked
			) as unmarked
			where message.ctid = unmarked.tid;
			update psqlqueue.governors as governor set marked_at = now() where governor.queue_no = v_queue.no;
		end if;
		select
			v_queue.max_in_flight - count(*),
			ceil(extract(epoch from min(message.lease_expires_at) - clock_timestamp()) * 1000)::int
		into v_left, v_retry_ms
		from psqlqueue.messages as message
		where message.queue_no + 0 = v_queue.no and message.slot_key is not null and message.lease_token is not null
			and message.lease_expires_at > now();
		if v_left < p_limit then
			v_throttled := 'in_flight';
		end if;
		v_left := least(greatest(v_left, 0), p_limit);
	end if;
	if v_left > 0 and v_queue.rate_count is not null then
		v_counted_at := clock_timestamp();
		v_tokens := least(v_queue.rate_burst, v_governor.tokens
			+ greatest(0, extract(epoch from v_counted_at - v_governor.refilled_at))
			* v_queue.rate_count / v_queue.rate_per_seconds);
		if v_tokens < v_left then
			v_throttled := 'rate';
			v_left := floor(v_tokens);
			v_retry_ms := ceil((v_left + 1 - v_tokens) * v_queue.rate_per_seconds / v_queue.rate_count * 1000);
		end if;
	end if;

	if v_left > 0 then
		if v_queue.has_priorities then
			v_levels := psqlqueue.levels_of(v_queue.no);
		end if;
		-- Pulled level by level and row by row: only as many are locked as are taken. With ageing a message competes as if it
		-- had become visible earlier by its priority times the seconds.
		if p_label is null and v_queue.priority_aging_seconds is null then
			select array_agg(found.tid) into v_tids
			from (
				select message.tid
				from unnest(v_levels) as level (priority)
				cross join lateral (
					select message.ctid as tid
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.priority = level.priority and message.visible_at <= now()
					order by message.visible_at, message.id collate "POSIX"
					limit v_left
					for update skip locked
				) as message
				limit v_left
			) as found;
		elsif p_label is null then
			select array_agg(found.tid) into v_tids
			from (
				select message.tid
				from unnest(v_levels) as level (priority)
				cross join lateral (
					select message.ctid as tid, message.visible_at, message.id
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.priority = level.priority and message.visible_at <= now()
					order by message.visible_at, message.id collate "POSIX"
					limit v_left
					for update skip locked
				) as message
				order by message.visible_at - level.priority * v_queue.priority_aging_seconds * interval '1 second', message.id
				limit v_left
			) as found;
		elsif v_queue.priority_aging_seconds is null then
			select array_agg(found.tid) into v_tids
			from (
				select message.tid
				from unnest(v_levels) as level (priority)
				cross join lateral (
					select message.ctid as tid
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.label = p_label and message.priority = level.priority
						and message.visible_at <= now()
					order by message.visible_at, message.id collate "POSIX"
					limit v_left
					for update skip locked
				) as message
				limit v_left
			) as found;
		else
			select array_agg(found.tid) into v_tids
			from (
				select message.tid
				from unnest(v_levels) as level (priority)
				cross join lateral (
					select message.ctid as tid, message.visible_at, message.id
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.label = p_label and message.priority = level.priority
						and message.visible_at <= now()
					order by message.visible_at, message.id collate "POSIX"
					limit v_left
					for update skip locked
				) as message
				order by message.visible_at - level.priority * v_queue.priority_aging_seconds * interval '1 second', message.id
				limit v_left
			) as found;
		end if;
	end if;

	if v_tids is not null then
		-- What does not fit into the bytes stays where it is.
		select array_agg(sized.tid order by sized.n) filter (where sized.so_far <= p_bytes_max or sized.n = 1 and p_is_one_free),
			bool_or(sized.so_far > p_bytes_max and not (sized.n = 1 and p_is_one_free))
		into v_tids, v_is_cut
		from (
			select given.tid, given.n, sum(message.bytes) over (order by given.n rows unbounded preceding) as so_far
			from unnest(v_tids) with ordinality as given (tid, n)
			cross join lateral (
				select octet_length(message.body) + case
					when pg_column_size(message.attributes) > 500 then octet_length(message.attributes::text)
					else coalesce(pg_column_size(message.attributes), 0)
				end as bytes
				from psqlqueue.messages as message
				where message.ctid = given.tid
				limit 1
			) as message
		) as sized;
		v_count := coalesce(cardinality(v_tids), 0);
	end if;
	if v_left = 0 and v_throttled is null or v_left > 0 and v_count < v_left then
		v_throttled := null;
		v_retry_ms := null;
	end if;
	if v_tokens is not null then
		update psqlqueue.governors as governor
		set tokens = v_tokens - v_count, refilled_at = v_counted_at
		where governor.queue_no = v_queue.no;
	end if;

	return query
	select v_queue.is_governed, v_is_counted, v_throttled, v_retry_ms, v_queue.receive_wait_seconds, v_queue.max_lease_seconds,
		v_is_too_long, v_is_cut, null::text, false, 0, null::text, null::text, null::text, null::text, 0, now(), null::bigint,
		null::timestamptz, null::timestamptz, null::text, null::text, null::timestamptz, null::text, null::smallint;
	if v_count = 0 then
		return;
	end if;

	return query
	with pick as materialized (
		select
			given.tid, given.n, message.*,
			message.expires_at > now() and message.attempts_before < coalesce(v_queue.message_max_deliveries, 2147483647)
				as is_deliverable
		from unnest(v_tids) with ordinality as given (tid, n)
		cross join lateral (
			select message.visible_at as ready_at, message.delivery_attempts as attempts_before, message.expires_at,
				message.lease_token is not null as was_leased,
				octet_length(message.body) + case
					when pg_column_size(message.attributes) > 500 then octet_length(message.attributes::text)
					else coalesce(pg_column_size(message.attributes), 0)
				end as bytes
			from psqlqueue.messages as message
			where message.ctid = given.tid
			limit 1
		) as message
	), lease as materialized (
		select
			pick.*, p_lease_tokens[pick.n] as token,
			-- What must not be delivered is held until it has been put away.
			case when pick.is_deliverable then v_lease_seconds else greatest(v_lease_seconds, 5) end * interval '1 second' as length
		from pick
	), leased as (
		update psqlqueue.messages as message
		set lease_token = lease.token, leased_at = now(), lease_expires_at = now() + lease.length,
			visible_at = case
				when v_queue.retry_min_seconds = 0 then now() + lease.length
				else least(
					now() + lease.length + psqlqueue.backoff_seconds(message.delivery_attempts + 1, v_queue.retry_min_seconds,
						v_queue.retry_max_seconds, v_queue.retry_multiplier, v_queue.retry_jitter, lease.token) * interval '1 second',
					-- Expired, the head of a key blocks it no longer.
					case when message.ordering_seq is not null then greatest(message.expires_at, now() + lease.length) end
				)
			end,
			delivery_attempts = message.delivery_attempts + lease.is_deliverable::int,
			slot_key = case when v_queue.max_in_flight is not null then '' end
		from lease
		where message.ctid = lease.tid
		returning
			lease.n, lease.was_leased, lease.bytes, message.id, message.label, message.body,
			message.attributes::text as attributes, message.delivery_attempts, message.created_at, message.lease_token,
			message.lease_expires_at, lease.ready_at, message.last_error, message.dead::text as dead,
			case when message.has_ttl then message.expires_at end as ttl_ends_at, message.ordering_key, message.priority,
			case
				when lease.expires_at <= now() then
					case when v_queue.dead_letter_on_expiry and v_queue.dead_queue_no is not null then 'dead_expired' else 'expired' end
				when lease.is_deliverable then 'ready'
				else 'dead'
			end as verdict
	)
	select
		true, v_is_counted, null::text, null::int, v_queue.receive_wait_seconds, v_queue.max_lease_seconds, false, v_is_cut,
		leased.verdict, leased.was_leased, leased.bytes, leased.id, leased.label, leased.body, leased.attributes,
		leased.delivery_attempts, leased.created_at, leased.lease_token, leased.lease_expires_at, leased.ready_at,
		leased.last_error, leased.dead, leased.ttl_ends_at, leased.ordering_key, leased.priority
	from leased
	order by leased.n;
end $$;
--> statement-breakpoint
-- Moves the end of leases that hold places of a capped queue: only while they last, for the place of one that has run out may
-- be taken. Answers as extend_ordered.
CREATE FUNCTION "psqlqueue"."extend_slots" (
	p_places int[], p_queue_ids text[], p_ids text[], p_lease_tokens bigint[], p_seconds int[]
) RETURNS TABLE (n int, lease_expires_at timestamptz, seconds_left int, is_lost boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
begin
	perform governor.tokens
	from (
		select distinct queue.no
		from unnest(p_queue_ids) as given (queue_id)
		cross join lateral (select queue.no from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		order by queue.no
	) as own
	cross join lateral (
		select governor.tokens from psqlqueue.governors as governor where governor.queue_no = own.no limit 1 for update
	) as governor;

	return query
	with fenced as materialized (
		select
			found.*, given.n, given.seconds, queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier,
			queue.retry_jitter, found.ends_at <= clock_timestamp() as is_lost,
			case
				when queue.max_lease_seconds > 0 and found.leased_at + queue.max_lease_seconds * interval '1 second'
					< now() + given.seconds * interval '1 second'
				then greatest(0, floor(extract(epoch from
					found.leased_at + queue.max_lease_seconds * interval '1 second' - now()))::int)
			end as seconds_left
		from unnest(p_places, p_queue_ids, p_ids, p_lease_tokens, p_seconds) as given (n, queue_id, id, lease_token, seconds)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select
				message.ctid as tid, message.leased_at, message.lease_expires_at as ends_at, message.delivery_attempts,
				message.lease_token as token
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id and message.slot_key is not null
				and message.ordering_group is null and message.lease_token is not null
				and (message.lease_token = given.lease_token or given.lease_token is null and queue.allow_tokenless_extend)
			limit 1
			for update
		) as found
	), extended as (
		update psqlqueue.messages as message
		set lease_expires_at = now() + fenced.seconds * interval '1 second',
			visible_at = now() + fenced.seconds * interval '1 second' + case
				when fenced.retry_min_seconds = 0 then interval '0'
				else psqlqueue.backoff_seconds(fenced.delivery_attempts, fenced.retry_min_seconds, fenced.retry_max_seconds,
					fenced.retry_multiplier, fenced.retry_jitter, fenced.token) * interval '1 second'
			end
		from fenced
		where message.ctid = fenced.tid and fenced.seconds_left is null and not fenced.is_lost
		returning fenced.n
	)
	select fenced.n, now() + fenced.seconds * interval '1 second', fenced.seconds_left, fenced.is_lost
	from fenced
	left join extended on extended.n = fenced.n;
end $$;
--> statement-breakpoint
-- Moves the end of leases of ordered messages. Rows with n as the statement for the others answers; is_lost: the lease has run
-- out, and another message of the key has been delivered since.
CREATE OR REPLACE FUNCTION "psqlqueue"."extend_ordered" (
	p_places int[], p_queue_ids text[], p_ids text[], p_lease_tokens bigint[], p_seconds int[]
) RETURNS TABLE (
	n int, lease_expires_at timestamptz, seconds_left int, is_lost boolean, queue_id text, label text, ready_at timestamptz
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
	v_done record;
begin
	-- Of queues with a cap: their places are counted under this lock, which is taken before those of the keys.
	perform governor.tokens
	from (
		select distinct queue.no
		from unnest(p_queue_ids) as given (queue_id)
		cross join lateral (select queue.no from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		order by queue.no
	) as own
	cross join lateral (
		select governor.tokens from psqlqueue.governors as governor where governor.queue_no = own.no limit 1 for update
	) as governor;
	select keys.queue_nos, keys.groups into v_queue_nos, v_groups
	from psqlqueue.keys_of(p_queue_ids, p_ids, 'no', null) as keys;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);

	with fenced as materialized (
		select
			found.*, given.n, given.seconds, key.floor_seq,
			case
				when queue.max_lease_seconds > 0 and found.leased_at + queue.max_lease_seconds * interval '1 second'
					< now() + given.seconds * interval '1 second'
				then greatest(0, floor(extract(epoch from
					found.leased_at + queue.max_lease_seconds * interval '1 second' - now()))::int)
			end as seconds_left,
			-- Only what has run out can have been followed by another lease of the key, or its place be taken.
			found.slot_key is not null and found.lease_expires_at <= clock_timestamp()
			or found.lease_expires_at <= now() and coalesce((
				select true
				from psqlqueue.messages as other
				where other.queue_no + 0 = found.queue_no and other.ordering_group = found.ordering_group
					and other.ordering_seq >= key.floor_seq and other.ordering_seq <= greatest(key.held_to, key.head_seq)
					and other.lease_token is not null and other.lease_expires_at > now()
					and other.leased_at is distinct from found.leased_at
				limit 1
			), false) as is_lost
		from unnest(p_places, p_queue_ids, p_ids, p_lease_tokens, p_seconds) as given (n, queue_id, id, lease_token, seconds)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select
				message.ctid as tid, message.queue_no, message.ordering_group, message.ordering_seq, message.leased_at,
				message.lease_expires_at, message.slot_key
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id and message.ordering_group is not null
				and message.lease_token is not null
				and case
					when given.lease_token is not null then message.lease_token = given.lease_token
						and (not queue.strict_leases or message.lease_expires_at > now())
						and (message.expires_at > now() or message.lease_expires_at > now())
					else queue.allow_tokenless_extend and message.lease_expires_at > now()
				end
			limit 1
		) as found
		cross join lateral (
			select held.floor_seq, held.held_to, locked.head_seq
			from unnest(v_queue_nos, v_groups, v_heads) as locked (queue_no, ordering_group, head_seq)
			cross join lateral (
				select key.*
				from psqlqueue.ordering_keys as key
				where key.queue_no = locked.queue_no and key.ordering_group = locked.ordering_group
				limit 1
			) as held
			where locked.queue_no = found.queue_no and locked.ordering_group = found.ordering_group
			limit 1
		) as key
		order by found.tid
	), extended as (
		update psqlqueue.messages as message
		set lease_expires_at = now() + fenced.seconds * interval '1 second'
		from fenced
		where message.ctid = fenced.tid and fenced.seconds_left is null and not fenced.is_lost
		returning fenced.n
	)
	select
		array_agg(fenced.n) as ns, array_agg(fenced.seconds) as seconds, array_agg(fenced.seconds_left) as seconds_left,
		array_agg(fenced.is_lost) as are_lost, array_agg(fenced.queue_no) as queue_nos,
		array_agg(fenced.ordering_group) as groups, array_agg(fenced.ordering_seq) as seqs
	into v_done
	from fenced
	left join extended on extended.n = fenced.n;

	if v_done.ns is null then
		return;
	end if;
	-- Until it ends, nothing of its key is delivered.
	update psqlqueue.ordering_keys as held
	set held_from = least(held.held_from, live.seq_from), held_to = greatest(held.held_to, live.seq_to)
	from (
		select live.queue_no, live.ordering_group, min(live.ordering_seq) as seq_from, max(live.ordering_seq) as seq_to
		from unnest(v_done.queue_nos, v_done.groups, v_done.seqs) as live (queue_no, ordering_group, ordering_seq)
		group by live.queue_no, live.ordering_group
	) as live
	where held.queue_no = live.queue_no and held.ordering_group = live.ordering_group
		and (held.held_from > live.seq_from or held.held_to < live.seq_to
			or held.held_from is null and (live.seq_from, live.seq_to) is distinct from (held.floor_seq, held.floor_seq));

	return query
	select
		done.n, now() + done.seconds * interval '1 second', done.seconds_left, done.is_lost, null::text, null::text,
		null::timestamptz
	from unnest(v_done.ns, v_done.seconds, v_done.seconds_left, v_done.are_lost) as done (n, seconds, seconds_left, is_lost);
	return query
	select null::int, null::timestamptz, null::int, false, head.queue_id, head.label, head.ready_at
	from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
-- Refuses a priority other than 0 where the queue knows none.
CREATE FUNCTION "psqlqueue"."check_priority" (p_prefix text, p_is_enabled boolean, p_options jsonb) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $$
begin
	if not p_is_enabled and coalesce((p_options ->> 'priority')::numeric, 0) <> 0 then
		perform psqlqueue.refuse(3, 'request validation failed', p_prefix || 'priority: is not enabled for this queue.');
	end if;
end $$;
--> statement-breakpoint
-- The rules of a publish over HTTP, for one message; p_prefix names it in a list.
CREATE OR REPLACE FUNCTION "psqlqueue"."check_message" (
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
		select *
		from (values ('delay_seconds', 0, 31536000), ('ttl_seconds', 1, 2147483647), ('priority', -100, 100)) as rule (name, min, max)
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
	if jsonb_typeof(coalesce(p_options -> 'ordering_key', 'null')) not in ('string', 'null') then
		v_problems := v_problems || (p_prefix || 'ordering_key: must be in a valid format');
	elsif p_options ->> 'ordering_key' = '' then
		v_problems := v_problems || (p_prefix || 'ordering_key: cannot be blank');
	elsif octet_length(p_options ->> 'ordering_key') > 256 then
		v_problems := v_problems || (p_prefix || 'ordering_key: the length must be no more than 256');
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
CREATE OR REPLACE FUNCTION "psqlqueue"."put_outbox" (
	p_queue_no int, p_id text, p_body text, p_label text, p_attributes jsonb, p_options jsonb
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
begin
	if p_options ->> 'ordering_key' is not null
		and (p_options ->> 'delay_seconds' is not null or p_options ->> 'deliver_at' is not null)
		and not (select known.allow_delayed_ordering from psqlqueue.queues as known where known.no = p_queue_no)
	then
		perform psqlqueue.refuse(3, 'request validation failed', format('ordering_key: must not be given together with %s.',
			case when p_options ->> 'delay_seconds' is not null then 'delay_seconds' else 'deliver_at' end));
	end if;
	insert into psqlqueue.outbox (
		queue_no, id, body, label, attributes, delay_seconds, deliver_at, ttl_seconds, expires_at, dedup_key, body_hash,
		ordering_key, priority)
	values (
		p_queue_no, p_id, p_body, p_label, nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
		(p_options ->> 'deliver_at')::timestamptz, (p_options ->> 'ttl_seconds')::numeric::int,
		(p_options ->> 'expires_at')::timestamptz,
		translate(rtrim(encode(sha256(convert_to('id:' || (p_options ->> 'dedup_id'), 'UTF8')), 'base64'), '='), '+/', '-_'),
		translate(rtrim(encode(sha256(convert_to('body:' || p_body, 'UTF8')), 'base64'), '='), '+/', '-_'),
		p_options ->> 'ordering_key',
		-- Of a queue that knows no priorities: it comes from a topic, and is ignored.
		case
			when (select known.priority_enabled from psqlqueue.queues as known where known.no = p_queue_no)
				then coalesce((p_options ->> 'priority')::numeric::smallint, 0)
			else 0
		end);
end $$;
--> statement-breakpoint
-- Publishes when the caller's transaction commits, and not at all when it rolls back. Returns the id the message will have.
-- NOTIFY goes out once per transaction unless options say "notify": false; then a poll finds the message within a second.
CREATE OR REPLACE FUNCTION "psqlqueue"."publish" (
	queue text, body text, label text DEFAULT NULL, attributes jsonb DEFAULT NULL, options jsonb DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
SET standard_conforming_strings = on SET backslash_quote = safe_encoding SET transform_null_equals = off SET array_nulls = on
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1 AS $$
declare
	v_queue record;
	v_id text := psqlqueue.make_id();
begin
	perform psqlqueue.check_message('', body, label, attributes, options);
	select known.no, known.publish_paused, known.priority_enabled into v_queue from psqlqueue.queues as known where known.id = queue;
	if not found then
		perform psqlqueue.refuse(5, 'queue not found');
	elsif v_queue.publish_paused then
		perform psqlqueue.refuse(17, 'queue closed');
	end if;
	perform psqlqueue.check_priority('', v_queue.priority_enabled, options);
	perform psqlqueue.put_outbox(v_queue.no, v_id, body, label, attributes, options);
	if coalesce((options ->> 'notify')::boolean, true) then
		perform pg_notify('psqlqueue_outbox', '');
	end if;
	return v_id;
end $$;
--> statement-breakpoint
-- Publishes a list of objects, each with the members of a publish over HTTP, in order. Returns their ids.
CREATE OR REPLACE FUNCTION "psqlqueue"."publish_batch" (queue text, messages jsonb) RETURNS SETOF text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
SET standard_conforming_strings = on SET backslash_quote = safe_encoding SET transform_null_equals = off SET array_nulls = on
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1 AS $$
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
	select known.no, known.publish_paused, known.priority_enabled into v_queue from psqlqueue.queues as known where known.id = queue;
	if not found then
		perform psqlqueue.refuse(5, 'queue not found');
	elsif v_queue.publish_paused then
		perform psqlqueue.refuse(17, 'queue closed');
	end if;
	for v_message in select item.value from jsonb_array_elements(messages) as item loop
		perform psqlqueue.check_message(format('messages[%s].', v_n), v_message ->> 'body', v_message ->> 'label',
			v_message -> 'attributes', v_message);
		perform psqlqueue.check_priority(format('messages[%s].', v_n), v_queue.priority_enabled, v_message);
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
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
