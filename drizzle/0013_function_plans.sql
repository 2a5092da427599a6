-- Look-ups whose plans do not depend on how large the planner believes a table to be: rows of keys by ctid, and messages of a
-- key in the order of its index. A repair leaves a key alone whose head has expired, and a rate counts what is delivered.
-- Whatever takes a lease from a failed holder, or ends a message that has failed, keeps the past of the message.

-- Leases up to p_limit messages of a queue with priorities, a cap or a rate. The first row says how it went and has no id.
-- Counted under the lock of the queue's governor, in statements after it: so there are at no moment more leases than allowed.
CREATE OR REPLACE FUNCTION "psqlqueue"."lease_governed" (
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
	v_delivered int := 0;
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
			ceil(extract(epoch from min(taken.lease_expires_at) - clock_timestamp()) * 1000)::int
		into v_left, v_retry_ms
		from (
			select message.lease_expires_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = v_queue.no and message.slot_key >= '' and message.lease_token is not null
				and message.lease_expires_at > now()
			order by message.slot_key, message.lease_expires_at   -- that of the index
			limit v_queue.max_in_flight
		) as taken;
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
			bool_or(sized.so_far > p_bytes_max and not (sized.n = 1 and p_is_one_free)),
			-- What must not be delivered uses up nothing of the rate.
			count(*) filter (where sized.is_deliverable and (sized.so_far <= p_bytes_max or sized.n = 1 and p_is_one_free))
		into v_tids, v_is_cut, v_delivered
		from (
			select given.tid, given.n, message.is_deliverable, sum(message.bytes) over (order by given.n rows unbounded preceding) as so_far
			from unnest(v_tids) with ordinality as given (tid, n)
			cross join lateral (
				select octet_length(message.body) + case
					when pg_column_size(message.attributes) > 500 then octet_length(message.attributes::text)
					else coalesce(pg_column_size(message.attributes), 0)
				end as bytes,
					message.expires_at > now()
						and message.delivery_attempts < coalesce(v_queue.message_max_deliveries, 2147483647) as is_deliverable
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
		set tokens = v_tokens - v_delivered, refilled_at = v_counted_at
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
			events = case
				when message.lease_token is null then message.events
				else psqlqueue.add_event(message.events, 'lease_expired', message.delivery_attempts, null)
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
-- The safety net: looks at up to p_limit keys of a queue after p_after ('' to start), and gives a head to those that have lost
-- it. On a healthy queue it changes nothing. The first row says how far it came (null at the end), the others are heads that
-- are to be seen. Also lifts the blocks of keys whose dead message is gone from this queue.
CREATE OR REPLACE FUNCTION "psqlqueue"."repair_keys" (p_queue_no int, p_after text, p_limit int)
RETURNS TABLE (last_group text, checked int, queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_page text[];
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
begin
	-- From key to key, in the index of the messages and in that of the keys: the first may have lost its row, the second its
	-- messages.
	with recursive step (ordering_group, n) as (
		select p_after collate "C", 0
		union all
		select
			least(
				(
					select message.ordering_group
					from psqlqueue.messages as message
					where message.queue_no + 0 = p_queue_no and message.ordering_group > step.ordering_group
						and message.ordering_seq is not null
					order by message.ordering_group
					limit 1
				),
				(
					select key.ordering_group
					from psqlqueue.ordering_keys as key
					where key.queue_no = p_queue_no and key.ordering_group > step.ordering_group
					order by key.ordering_group
					limit 1
				)
			),
			step.n + 1
		from step
		where step.n < p_limit and step.ordering_group is not null
	)
	select array_agg(step.ordering_group order by step.n) into v_page
	from step
	where step.n > 0 and step.ordering_group is not null;

	select array_agg(suspect.queue_no), array_agg(suspect.ordering_group) into v_queue_nos, v_groups
	from (
		select p_queue_no as queue_no, page.ordering_group
		from unnest(v_page) as page (ordering_group)
		left join lateral (
			select key.*
			from psqlqueue.ordering_keys as key
			where key.queue_no = p_queue_no and key.ordering_group = page.ordering_group
			limit 1
		) as held on true
		left join lateral (
			select message.ordering_seq, message.visible_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue_no and message.ordering_group = page.ordering_group
				and message.ordering_seq > 0 and (message.expires_at > now() or message.lease_expires_at > now())
			order by message.ordering_seq
			limit 1
		) as first on true
		-- One that has expired may be the head still: a receive meets it, and makes room for the next.
		left join lateral (
			select message.ordering_seq, message.visible_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue_no and message.ordering_group = page.ordering_group
				and message.ordering_seq >= held.floor_seq
			order by message.ordering_seq
			limit 1
		) as front on true
		where case
			when front.ordering_seq < first.ordering_seq and front.visible_at < 'infinity' then false
			when first.ordering_seq is null then held.blocked_seq is null
			when held.floor_seq is null or held.floor_seq > first.ordering_seq then true
			when held.blocked_seq < first.ordering_seq then first.visible_at < 'infinity'
			else first.visible_at = 'infinity'
		end
		union
		-- Blocked by a message that was in this queue, and is gone.
		select blocked.queue_no, blocked.ordering_group
		from (
			select key.*
			from psqlqueue.ordering_keys as key
			where p_after = '' and key.dead_queue_no = p_queue_no and key.blocked_seq is not null
				and (
					select message.id
					from psqlqueue.messages as message
					where message.queue_no = key.dead_queue_no and message.id = key.dead_id
				) is null
			limit p_limit
		) as blocked
		order by 1, 2
	) as suspect;

	return query
	select
		case when cardinality(v_page) = p_limit then v_page[p_limit] end, coalesce(cardinality(v_page), 0), null::text, null::text,
		null::timestamptz;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);
	update psqlqueue.ordering_keys as held
	set floor_seq = 0
	from unnest(v_queue_nos, v_groups) as given (queue_no, ordering_group)
	cross join lateral (
		select key.ctid as tid
		from psqlqueue.ordering_keys as key
		where key.queue_no = given.queue_no and key.ordering_group = given.ordering_group
		limit 1
	) as key
	where held.ctid = key.tid;
	return query
	select null::text, null::int, head.queue_id, head.label, head.ready_at
	from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
-- Makes the first message of each key its head, at the time at which it may be delivered, and answers those that are to be seen
-- now or later. p_heads: what was the head when lock_keys locked it; one that has a message before it now is parked again.
CREATE OR REPLACE FUNCTION "psqlqueue"."refresh_keys" (p_queue_nos int[], p_groups text[], p_heads bigint[])
RETURNS TABLE (queue_no int, queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
begin
	return query
	with key as materialized (
		select
			held.tid as key_tid, given.queue_no, queue.id as queue_id, held.floor_seq, held.held_from, held.held_to,
			held.blocked_seq, dead.ordering_seq as dead_seq, dead.id as dead_id, dead.dead_at, first.tid, first.ordering_seq,
			first.visible_at, first.label, others.seq_from, others.seq_to, displaced.tid as displaced_tid,
			case when first.ordering_seq > dead.ordering_seq then 'infinity' else greatest(first.natural_at, others.until) end
				as wanted_at
		from unnest(p_queue_nos, p_groups, p_heads) as given (queue_no, ordering_group, head_seq)
		cross join lateral (
			select key.ctid as tid, key.*
			from psqlqueue.ordering_keys as key
			where key.queue_no = given.queue_no and key.ordering_group = given.ordering_group
			limit 1
		) as held
		left join lateral (select * from psqlqueue.queues as queue where queue.no = given.queue_no limit 1) as queue on true
		-- The key is blocked while a message of it that died is where it was put.
		left join lateral (
			select message.id, message.ordering_seq, (message.dead ->> 'dead_at')::timestamptz as dead_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = held.dead_queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq > 0 and message.dead ->> 'source_queue_id' = queue.id and held.blocked_seq is not null
			order by message.ordering_seq
			limit 1
		) as dead on true
		-- What has expired and nobody holds is passed over: it never blocks.
		left join lateral (
			select
				message.ctid as tid, message.ordering_seq, message.visible_at, message.label,
				least(
					case
						when message.lease_token is null then coalesce(message.due_at, now())
						when queue.retry_min_seconds = 0 then message.lease_expires_at
						else message.lease_expires_at + psqlqueue.backoff_seconds(message.delivery_attempts, queue.retry_min_seconds,
							queue.retry_max_seconds, queue.retry_multiplier, queue.retry_jitter, message.lease_token) * interval '1 second'
					end,
					greatest(message.expires_at, message.lease_expires_at)
				) as natural_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq >= held.floor_seq
				and (message.expires_at > now() or message.lease_expires_at > now())
			order by message.ordering_seq
			limit 1
		) as first on true
		-- Other messages of the key under a live lease: nothing of it is delivered before that ends.
		left join lateral (
			select max(leased.lease_expires_at) as until, min(leased.ordering_seq) as seq_from, max(leased.ordering_seq) as seq_to
			from (
				select message.ordering_seq, message.lease_expires_at
				from psqlqueue.messages as message
				where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
					and message.ordering_seq >= least(held.held_from, given.head_seq)
					and message.ordering_seq <= greatest(held.held_to, given.head_seq)
					and message.ordering_seq <> first.ordering_seq
					and message.lease_token is not null and message.lease_expires_at > now()
					-- Here and not in the join, where it would be asked after the look.
					and (held.held_to is not null or given.head_seq > first.ordering_seq)
				-- Only this order makes the planner take the index of the keys, however small it believes the table to be.
				order by message.ordering_seq
				limit 2147483647
			) as leased
		) as others on true
		left join lateral (
			select message.ctid as tid
			from psqlqueue.messages as message
			where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq = given.head_seq and given.head_seq > first.ordering_seq
			order by message.ordering_group, message.ordering_seq
			limit 1
		) as displaced on true
	), parked as (
		update psqlqueue.messages as message
		set visible_at = 'infinity'
		from key
		where message.ctid = key.displaced_tid
	), shown as (
		update psqlqueue.messages as message
		set visible_at = greatest(now(), key.wanted_at)
		from key
		where message.ctid = key.tid and key.visible_at <> key.wanted_at
			and not (key.visible_at <= now() and key.wanted_at <= now())   -- it is ready already, and keeps its place
		returning key.queue_no, key.queue_id, key.label, message.visible_at as ready_at
	), emptied as (
		delete from psqlqueue.ordering_keys as held
		using key
		where held.ctid = key.key_tid and key.ordering_seq is null and key.dead_id is null
	), kept as (
		update psqlqueue.ordering_keys as held
		set floor_seq = coalesce(key.ordering_seq, key.floor_seq), held_from = key.seq_from, held_to = key.seq_to,
			blocked_seq = key.dead_seq, dead_id = key.dead_id, blocked_since = key.dead_at,
			dead_queue_no = case when key.dead_id is not null then held.dead_queue_no end
		from key
		where held.ctid = key.key_tid and (key.ordering_seq is not null or key.dead_id is not null)
			and (key.ordering_seq <> key.floor_seq or key.held_to is distinct from key.seq_to
				or key.held_from is distinct from key.seq_from or key.blocked_seq is not null)
	)
	select shown.queue_no, shown.queue_id, shown.label, shown.ready_at from shown where shown.ready_at < 'infinity';
end $$;
--> statement-breakpoint
-- Lets ordered messages go. p_mode 'nack': visible after a delay, or to the dead-letter queue when their deliveries are used up
-- or they are rejected. 'release': visible at once, the delivery stays counted. 'unlease': as if they had not been delivered.
-- 'bury': to the dead-letter queue, for p_reason. The later ones of the key in the same lease are let go with a message, so
-- that all come back in order. Rows with n: what it did (p_places, and where a dead one went); rows without: heads to be seen.
CREATE OR REPLACE FUNCTION "psqlqueue"."let_go_ordered" (
	p_mode text, p_reason text, p_batch_id text, p_places int[], p_queue_ids text[], p_ids text[], p_lease_tokens bigint[],
	p_seconds int[], p_errors text[], p_rejected boolean[]
) RETURNS TABLE (n int, queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
	v_done record;
begin
	select keys.queue_nos, keys.groups into v_queue_nos, v_groups
	from psqlqueue.keys_of(
		p_queue_ids, p_ids, case p_mode when 'bury' then 'all' when 'nack' then 'used_up' else 'no' end, p_rejected) as keys;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);

	with fenced as materialized (
		select
			found.*, given.n, given.queue_id, given.seconds, given.error, judged.is_dead, judged.reason, queue.dead_queue_no,
			queue.on_dead, queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier, queue.retry_jitter,
			dead_queue.id as dead_queue_id, dead_queue.message_retention_seconds as dead_retention_seconds
		from unnest(p_places, p_queue_ids, p_ids, p_lease_tokens, p_seconds, p_errors, p_rejected)
			as given (n, queue_id, id, lease_token, seconds, error, is_rejected)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select
				message.ctid as tid, message.queue_no, message.id, message.ordering_group, message.ordering_seq, message.leased_at,
				message.lease_token as token, message.delivery_attempts, message.last_error,
				-- A lease that a receive took over is noted by that receive; what nobody holds has not failed.
				case
					when message.lease_token is null or p_mode not in ('nack', 'bury') then message.events
					when p_mode = 'nack' then psqlqueue.add_event(message.events, 'nacked', message.delivery_attempts, given.error)
					when given.lease_token is null
						then psqlqueue.add_event(message.events, 'lease_expired', message.delivery_attempts, null)
					else message.events
				end as events
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id and message.ordering_group is not null
				and case p_mode
					when 'bury' then case
							when given.lease_token is not null then message.lease_token = given.lease_token
							when message.lease_token is not null and message.lease_expires_at > now() then false
							when p_reason = 'expired' then message.expires_at <= now()
							else message.delivery_attempts >= queue.message_max_deliveries and message.expires_at > now()
						end
					else (message.expires_at > now() or message.lease_token is not null and message.lease_expires_at > now())
						and case
							when given.lease_token is not null then message.lease_token = given.lease_token
								and (not queue.strict_leases or message.lease_expires_at > now())
							when p_mode = 'release' then queue.allow_tokenless_extend and message.lease_token is not null
								and message.lease_expires_at > now()
							else true
						end
				end
			limit 1
		) as found
		cross join lateral (
			select
				queue.dead_queue_no is not null and (p_mode = 'bury' or p_mode = 'nack'
					and (coalesce(given.is_rejected, false) or found.delivery_attempts >= queue.message_max_deliveries)) as is_dead,
				case when p_mode = 'bury' then p_reason when given.is_rejected then 'rejected' else 'max_deliveries' end as reason
		) as judged
		left join lateral (
			select * from psqlqueue.queues as other where judged.is_dead and other.no = queue.dead_queue_no limit 1
		) as dead_queue on true
		where case
			-- It has become so since the keys were looked up, and the other key is not locked: another try will do it.
			when judged.is_dead then exists (
				select
				from unnest(v_queue_nos, v_groups) as locked (queue_no, ordering_group)
				where locked.queue_no = queue.dead_queue_no and locked.ordering_group = found.ordering_group
			)
			else p_mode <> 'bury'
		end
		order by found.tid
	), changed as (
		update psqlqueue.messages as message
		set
			lease_token = null, leased_at = null, lease_expires_at = null,
			last_error = coalesce(fenced.error, message.last_error),
			due_at = case
				when fenced.is_dead or p_mode <> 'nack' then now()
				when fenced.seconds is not null then now() + fenced.seconds * interval '1 second'
				when fenced.retry_min_seconds = 0 then now()
				else now() + psqlqueue.backoff_seconds(fenced.delivery_attempts, fenced.retry_min_seconds,
					fenced.retry_max_seconds, fenced.retry_multiplier, fenced.retry_jitter,
					coalesce(fenced.token, hashtextextended(message.id, message.delivery_attempts))) * interval '1 second'
			end,
			visible_at = case when fenced.is_dead then 'infinity' else message.visible_at end,
			queue_no = case when fenced.is_dead then fenced.dead_queue_no else message.queue_no end,
			delivery_attempts = case
				when fenced.is_dead then 0
				when p_mode = 'unlease' then greatest(0, message.delivery_attempts - 1)
				else message.delivery_attempts
			end,
			has_ttl = message.has_ttl and not fenced.is_dead,
			expires_at = case
				when fenced.is_dead then now() + fenced.dead_retention_seconds * interval '1 second'
				else message.expires_at
			end,
			dead = case
				when fenced.is_dead then psqlqueue.dead_letter(fenced.queue_id, fenced.reason,
					case when p_mode = 'bury' then fenced.last_error else fenced.error end, fenced.delivery_attempts)
				else message.dead
			end,
			events = case
				when fenced.is_dead
					then psqlqueue.add_event(fenced.events, 'dead_lettered', fenced.delivery_attempts, fenced.reason)
				else fenced.events
			end
		from fenced
		where message.ctid = fenced.tid
		returning fenced.*
	)
	select
		array_agg(changed.n) as ns, array_agg(changed.queue_no) as queue_nos, array_agg(changed.ordering_group) as groups,
		array_agg(changed.ordering_seq) as seqs, array_agg(changed.leased_at) as leases, array_agg(changed.id) as ids,
		array_agg(changed.dead_queue_id) as dead_queue_ids,
		array_agg(case when changed.is_dead then changed.dead_queue_no end) as dead_queue_nos,
		array_agg(changed.on_dead = 'block' and (p_mode <> 'bury' or p_reason <> 'expired')) as are_blocking
	into v_done
	from changed;

	if v_done.ns is null then
		return;
	end if;

	-- Let go with it: they come back in order, and nobody has failed them.
	update psqlqueue.messages as follower
	set lease_token = null, leased_at = null, lease_expires_at = null, due_at = now(),
		delivery_attempts = greatest(0, follower.delivery_attempts - 1)
	from (
		select distinct row.tid
		from unnest(v_done.queue_nos, v_done.groups, v_done.seqs, v_done.leases)
			as gone (queue_no, ordering_group, ordering_seq, leased_at)
		cross join lateral (
			select key.held_to
			from psqlqueue.ordering_keys as key
			where key.queue_no = gone.queue_no and key.ordering_group = gone.ordering_group
			limit 1
		) as held
		cross join lateral (
			select message.ctid as tid
			from psqlqueue.messages as message
			where message.queue_no + 0 = gone.queue_no and message.ordering_group = gone.ordering_group
				and message.ordering_seq > gone.ordering_seq and message.ordering_seq <= held.held_to
				and message.leased_at = gone.leased_at and message.lease_token is not null
			order by message.ordering_seq
			limit 2147483647
		) as row
	) as found
	where follower.ctid = found.tid;

	if array_remove(v_done.dead_queue_nos, null) <> '{}' then
		update psqlqueue.ordering_keys as held
		set blocked_seq = dead.ordering_seq, dead_id = dead.id, dead_queue_no = dead.dead_queue_no, blocked_since = now()
		from unnest(v_done.queue_nos, v_done.groups, v_done.seqs, v_done.ids, v_done.dead_queue_nos, v_done.are_blocking)
			as dead (queue_no, ordering_group, ordering_seq, id, dead_queue_no, is_blocking)
		cross join lateral (
			select key.ctid as tid
			from psqlqueue.ordering_keys as key
			where key.queue_no = dead.queue_no and key.ordering_group = dead.ordering_group
			limit 1
		) as key
		where held.ctid = key.tid and dead.dead_queue_no is not null and dead.is_blocking;

		update psqlqueue.ordering_keys as held
		set floor_seq = dead.ordering_seq
		from (
			select dead.queue_no, dead.ordering_group, min(dead.ordering_seq) as ordering_seq
			from unnest(v_done.dead_queue_nos, v_done.groups, v_done.seqs) as dead (queue_no, ordering_group, ordering_seq)
			where dead.queue_no is not null
			group by dead.queue_no, dead.ordering_group
		) as dead
		cross join lateral (
			select key.ctid as tid
			from psqlqueue.ordering_keys as key
			where key.queue_no = dead.queue_no and key.ordering_group = dead.ordering_group
			limit 1
		) as key
		where held.ctid = key.tid and held.floor_seq > dead.ordering_seq;
	end if;

	if p_batch_id is not null then
		insert into psqlqueue.publish_batches as batch (id, done)
		values (p_batch_id, array_to_string(v_done.ns, ','))
		on conflict (id) do update set done = concat_ws(',', batch.done, excluded.done);
	end if;

	return query
	select done.n, done.dead_queue_id, null::text, now()
	from unnest(v_done.ns, v_done.dead_queue_ids) as done (n, dead_queue_id);
	return query
	select null::int, head.queue_id, head.label, head.ready_at
	from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
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
				order by other.ordering_seq
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
	cross join lateral (
		select key.ctid as tid
		from psqlqueue.ordering_keys as key
		where key.queue_no = live.queue_no and key.ordering_group = live.ordering_group
		limit 1
	) as key
	where held.ctid = key.tid
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
-- As refresh_keys, after messages were moved to keys (p_moved_…), before those that are there or not.
CREATE OR REPLACE FUNCTION "psqlqueue"."refresh_moved" (
	p_queue_nos int[], p_groups text[], p_heads bigint[], p_moved_nos int[], p_moved_groups text[], p_moved_seqs bigint[]
) RETURNS TABLE (queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
begin
	update psqlqueue.ordering_keys as held
	set floor_seq = moved.ordering_seq
	from (
		select given.queue_no, given.ordering_group, min(given.ordering_seq) as ordering_seq
		from unnest(p_moved_nos, p_moved_groups, p_moved_seqs) as given (queue_no, ordering_group, ordering_seq)
		group by given.queue_no, given.ordering_group
	) as moved
	cross join lateral (
		select key.ctid as tid
		from psqlqueue.ordering_keys as key
		where key.queue_no = moved.queue_no and key.ordering_group = moved.ordering_group
		limit 1
	) as key
	where held.ctid = key.tid and held.floor_seq > moved.ordering_seq;
	return query
	select head.queue_id, head.label, head.ready_at from psqlqueue.refresh_keys(p_queue_nos, p_groups, p_heads) as head;
end $$;
--> statement-breakpoint
-- Leases further messages of the keys whose heads have just been leased (p_ids with p_lease_tokens): those that follow the head
-- without a gap and could be delivered now, p_key_max of a key with its head (0: any number), p_limit in all. They stay parked:
-- the head holds their place. Answers them with where they stand (head_n, then nth).
CREATE OR REPLACE FUNCTION "psqlqueue"."lease_followers" (
	p_queue_id text, p_ids text[], p_lease_tokens bigint[], p_new_tokens bigint[], p_label text, p_key_max int, p_limit int,
	p_bytes_max bigint
) RETURNS TABLE (
	head_n bigint, nth bigint, id text, label text, body text, attributes text, delivery_attempts int, created_at timestamptz,
	lease_token bigint, lease_expires_at timestamptz, ready_at timestamptz, last_error text, dead text, expires_at timestamptz,
	ordering_key text, was_leased boolean, bytes int
) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
begin
	select keys.queue_nos, keys.groups into v_queue_nos, v_groups
	from psqlqueue.keys_of(array_fill(p_queue_id, array[cardinality(p_ids)]), p_ids, 'no', null) as keys;
	if v_queue_nos is null then
		return;
	end if;
	perform psqlqueue.lock_keys(v_queue_nos, v_groups);

	return query
	with head as materialized (
		select given.n, found.*, queue.message_max_deliveries, queue.retry_min_seconds, queue.retry_max_seconds,
			queue.retry_multiplier, queue.retry_jitter
		from unnest(p_ids, p_lease_tokens) with ordinality as given (id, lease_token, n)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = p_queue_id limit 1) as queue
		cross join lateral (
			select message.queue_no, message.ordering_group, message.ordering_seq, message.leased_at, message.lease_expires_at
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id and message.ordering_group is not null
				and message.lease_token = given.lease_token
			limit 1
		) as found
	), follower as materialized (
		select
			head.n as head_n, head.queue_no, head.ordering_group, head.ordering_seq as head_seq, head.leased_at,
			head.lease_expires_at, next.*,
			bool_and(next.is_deliverable) over own as is_next, row_number() over own as nth
		from head
		cross join lateral (
			select
				message.ctid as tid, message.ordering_seq, message.due_at, message.lease_token is not null as was_leased,
				octet_length(message.body) + coalesce(pg_column_size(message.attributes), 0) as bytes,
				(p_label is null or message.label = p_label)
					and message.delivery_attempts < coalesce(head.message_max_deliveries, 2147483647)
					and case
						when message.lease_token is null then message.due_at <= now()
						when head.retry_min_seconds = 0 then message.lease_expires_at <= now()
						else message.lease_expires_at + psqlqueue.backoff_seconds(message.delivery_attempts, head.retry_min_seconds,
							head.retry_max_seconds, head.retry_multiplier, head.retry_jitter, message.lease_token)
							* interval '1 second' <= now()
					end as is_deliverable
			from psqlqueue.messages as message
			where message.queue_no + 0 = head.queue_no and message.ordering_group = head.ordering_group
				and message.ordering_seq > head.ordering_seq and message.expires_at > now()
			order by message.ordering_seq
			limit case when p_key_max = 0 then p_limit else least(p_limit, p_key_max - 1) end
		) as next
		window own as (partition by head.n order by next.ordering_seq)
	), pick as materialized (
		select follower.*, row_number() over whole as place, sum(follower.bytes) over whole as bytes_so_far
		from follower
		where follower.is_next
		window whole as (order by follower.head_n, follower.nth rows unbounded preceding)
	), leased as (
		update psqlqueue.messages as message
		set lease_token = p_new_tokens[pick.place], leased_at = pick.leased_at, lease_expires_at = pick.lease_expires_at,
			events = case
				when message.lease_token is null then message.events
				else psqlqueue.add_event(message.events, 'lease_expired', message.delivery_attempts, null)
			end,
			delivery_attempts = message.delivery_attempts + 1
		from pick
		where message.ctid = pick.tid and pick.place <= p_limit and pick.bytes_so_far <= p_bytes_max
		returning pick.head_n, pick.nth, pick.queue_no, pick.ordering_group, pick.head_seq, pick.ordering_seq, message.id,
			message.label, message.body, message.attributes::text as attributes, message.delivery_attempts, message.created_at,
			message.lease_token, message.lease_expires_at, coalesce(pick.due_at, now()) as ready_at, message.last_error,
			message.dead::text as dead, case when message.has_ttl then message.expires_at end as expires_at, message.ordering_key,
			pick.was_leased, pick.bytes
	), held as (
		update psqlqueue.ordering_keys as held
		set held_from = own.head_seq, held_to = own.last_seq
		from (
			select leased.queue_no, leased.ordering_group, min(leased.head_seq) as head_seq, max(leased.ordering_seq) as last_seq
			from leased
			group by leased.queue_no, leased.ordering_group
		) as own
		cross join lateral (
			select key.ctid as tid
			from psqlqueue.ordering_keys as key
			where key.queue_no = own.queue_no and key.ordering_group = own.ordering_group
			limit 1
		) as key
		where held.ctid = key.tid
	)
	select
		leased.head_n, leased.nth, leased.id, leased.label, leased.body, leased.attributes, leased.delivery_attempts,
		leased.created_at, leased.lease_token, leased.lease_expires_at, leased.ready_at, leased.last_error, leased.dead,
		leased.expires_at, leased.ordering_key, leased.was_leased, leased.bytes
	from leased
	order by leased.head_n, leased.nth;
end $$;
--> statement-breakpoint
-- Ends ordered messages, and makes the next one of each key visible. p_outcome 'acked' and 'expired' as for the others;
-- 'deleted' leaves nothing in the archive, and spares what somebody else holds. Rows with n: what it ended (its place, from 1);
-- rows without: heads that are to be seen.
CREATE OR REPLACE FUNCTION "psqlqueue"."settle_ordered" (
	p_queue_ids text[], p_ids text[], p_lease_tokens bigint[], p_outcome text, p_archives boolean
) RETURNS TABLE (n bigint, queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
	v_ended bigint[];
begin
	select keys.queue_nos, keys.groups into v_queue_nos, v_groups
	from psqlqueue.keys_of(p_queue_ids, p_ids, 'no', null) as keys;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);

	with target as materialized (
		select
			found.tid, given.n, given.lease_token,
			coalesce(queue.archive_retention_seconds, queue.message_retention_seconds) as kept_seconds
		from unnest(p_queue_ids, p_ids, p_lease_tokens) with ordinality as given (queue_id, id, lease_token, n)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select message.ctid as tid
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id and message.ordering_group is not null
				and case p_outcome
					when 'acked' then given.lease_token is null
						or message.lease_token = given.lease_token
							and (not queue.strict_leases or message.lease_expires_at > now())
							and (message.expires_at > now() or message.lease_expires_at > now())
					when 'expired' then message.expires_at <= now() and case
							when given.lease_token is null then coalesce(message.lease_expires_at <= now(), true)
							else message.lease_token = given.lease_token
						end
					else message.lease_token is null or message.lease_expires_at <= now()
						or message.lease_token = given.lease_token
				end
			limit 1
		) as found
		order by found.tid
	), gone as (
		delete from psqlqueue.messages as message
		using target
		where message.ctid = target.tid
		returning message.*, target.n, target.kept_seconds, target.lease_token as used_token
	), archived as (
		insert into psqlqueue.archived_messages (
			queue_no, id, body, label, attributes, priority, delivery_attempts, lease_token, created_at, last_error, dead,
			ordering_key, events, outcome, expires_at)
		select
			gone.queue_no, gone.id, gone.body, gone.label, gone.attributes, gone.priority, gone.delivery_attempts, gone.used_token,
			gone.created_at, gone.last_error, gone.dead, gone.ordering_key, gone.events, p_outcome,
			now() + gone.kept_seconds * interval '1 second'
		from gone
		where gone.kept_seconds > 0 and p_archives and p_outcome <> 'deleted'
	)
	select array_agg(gone.n) into v_ended from gone;

	return query select ended.n, null::text, null::text, null::timestamptz from unnest(v_ended) as ended (n);
	return query
	select null::bigint, head.queue_id, head.label, head.ready_at
	from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
-- Acks in the caller's own transaction: processing exactly once where work and queue share the database. False when the token
-- is stale; then roll back.
CREATE OR REPLACE FUNCTION "psqlqueue"."ack" (queue text, id text, token text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
SET standard_conforming_strings = on SET backslash_quote = safe_encoding SET transform_null_equals = off SET array_nulls = on
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1 AS $$
#variable_conflict use_column
declare
	v_queue record;
	-- What is no token of ours holds nothing.
	v_token bigint := case
		-- Of an ordered message.
		when token ~ '^k[1-9][0-9]{0,18}$' and substr(token, 2)::numeric <= 9223372036854775807 then substr(token, 2)::bigint
		when token !~ '^[1-9][0-9]{0,18}$' then -1
		when token::numeric > 9223372036854775807 then -1
		else token::bigint
	end;
begin
	perform psqlqueue.check_right('ack', queue);
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
			ordering_key, events, outcome, expires_at)
		select
			gone.queue_no, gone.id, gone.body, gone.label, gone.attributes, gone.priority, gone.delivery_attempts, v_token,
			gone.created_at, gone.last_error, gone.dead, gone.ordering_key, gone.events, 'acked',
			now() + coalesce(v_queue.archive_retention_seconds, v_queue.message_retention_seconds) * interval '1 second'
		from gone
		where coalesce(v_queue.archive_retention_seconds, v_queue.message_retention_seconds) > 0
	), stale as (
		-- The next of its key is made visible by a server, after the commit: a transaction that stays open must not hold the key.
		insert into psqlqueue.stale_keys (queue_no, ordering_group)
		select gone.queue_no, gone.ordering_group from gone where gone.ordering_group is not null
		union all
		select source.no, gone.ordering_group
		from gone
		join psqlqueue.queues as source on source.id = gone.dead ->> 'source_queue_id'
		where gone.ordering_group is not null
		returning 1
	)
	select (select count(*) from stale) > 0 as is_ordered into v_queue from gone;
	if found then
		if v_queue.is_ordered then
			perform pg_notify('psqlqueue_outbox', '');
		end if;
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
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
