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
	where held.queue_no = given.queue_no and held.ordering_group = given.ordering_group;
	return query
	select null::text, null::int, head.queue_id, head.label, head.ready_at
	from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
