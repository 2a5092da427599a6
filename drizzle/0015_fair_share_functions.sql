-- Keys that share a queue. Who publishes, lets go or settles leaves a line in fair_changes and locks nothing of others; a
-- receive, which holds the queue's governor, takes these lines, and alone writes fair_keys. Turns are given by start-time fair
-- queuing (Goyal, Vin, Cheng 1996): the key whose next turn starts earliest is next, a turn takes one through the weight of
-- virtual time, and a key that was idle starts where the queue is.

ALTER TABLE "psqlqueue"."queues" ADD CONSTRAINT "queues_per_key" CHECK (max_in_flight_per_key is null or fair_by is not null);
--> statement-breakpoint
-- The key by which a message shares its queue; null where the queue is not shared.
CREATE FUNCTION "psqlqueue"."fair_key" (p_fair_by text, p_label text, p_ordering_key text, p_fairness_key text) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
	select case p_fair_by
		when 'fairness_key' then coalesce(p_fairness_key, '')
		when 'ordering_key' then coalesce(p_ordering_key, '')
		when 'label' then coalesce(p_label, '')
	end
$$;
--> statement-breakpoint
-- A message that comes to another queue, or gets another label, has the key that counts there.
CREATE FUNCTION "psqlqueue"."give_fair_key" () RETURNS trigger LANGUAGE plpgsql AS $$
begin
	new.fair_key := (
		select psqlqueue.fair_key(queue.fair_by, new.label, new.ordering_key, new.fairness_key)
		from psqlqueue.queues as queue
		where queue.no = new.queue_no
	);
	if new.queue_no <> old.queue_no then
		new.slot_key := null;
	end if;
	return new;
end $$;
--> statement-breakpoint
CREATE TRIGGER "messages_fair_key" BEFORE UPDATE OF "queue_no", "label" ON "psqlqueue"."messages" FOR EACH ROW
	WHEN (new.queue_no <> old.queue_no or old.fair_key is not null and new.label is distinct from old.label)
	EXECUTE FUNCTION "psqlqueue"."give_fair_key" ();
--> statement-breakpoint
-- One line for messages of a key that come one after the other in a transaction: the last line is known to it.
CREATE FUNCTION "psqlqueue"."leave_fair_change" () RETURNS trigger LANGUAGE plpgsql AS $$
declare
	v_xid bigint := pg_current_xact_id()::text::bigint;
	v_due timestamptz := now();
	v_weight smallint;
	v_line text;
begin
	-- Its place is free for another of the key.
	if tg_op = 'DELETE' or tg_op = 'UPDATE' and old.slot_key > '' and new.queue_no <> old.queue_no then
		insert into psqlqueue.fair_changes (xid, queue_no, fair_key, due_at)
		values (v_xid, old.queue_no, coalesce(old.fair_key, ''), v_due);
	end if;
	if tg_op = 'DELETE' or new.fair_key is null then
		return null;
	end if;
	if tg_op = 'INSERT' or new.queue_no <> old.queue_no or old.fair_key is null then
		v_weight := coalesce(new.weight, 1);
	end if;
	if tg_op = 'INSERT' or not (old.slot_key > '' and new.lease_token is null) then
		v_due := new.visible_at;
	end if;
	v_line := concat_ws(' ', new.queue_no, v_due, coalesce(v_weight, 0), new.fair_key);
	if v_line is distinct from current_setting('psqlqueue.fair_change', true) then
		insert into psqlqueue.fair_changes (xid, queue_no, fair_key, weight, due_at)
		values (v_xid, new.queue_no, new.fair_key, v_weight, v_due);
		perform set_config('psqlqueue.fair_change', v_line, true);
	end if;
	return null;
end $$;
--> statement-breakpoint
CREATE TRIGGER "messages_fair_come" AFTER INSERT ON "psqlqueue"."messages" FOR EACH ROW
	WHEN (new.fair_key is not null) EXECUTE FUNCTION "psqlqueue"."leave_fair_change" ();
--> statement-breakpoint
CREATE TRIGGER "messages_fair_move" AFTER UPDATE ON "psqlqueue"."messages" FOR EACH ROW
	WHEN (
		new.fair_key is not null and (
			new.visible_at < old.visible_at or new.queue_no <> old.queue_no or new.fair_key is distinct from old.fair_key
			or old.slot_key > '' and old.lease_token is not null and new.lease_token is null
		)
		or old.slot_key > '' and new.queue_no <> old.queue_no
	)
	EXECUTE FUNCTION "psqlqueue"."leave_fair_change" ();
--> statement-breakpoint
CREATE TRIGGER "messages_fair_go" AFTER DELETE ON "psqlqueue"."messages" FOR EACH ROW
	WHEN (old.slot_key > '') EXECUTE FUNCTION "psqlqueue"."leave_fair_change" ();
--> statement-breakpoint
-- What a change of the settings means to what is noted already. Messages that are there when a queue begins to be shared, or is
-- shared by something else, get their key by its receives.
CREATE FUNCTION "psqlqueue"."govern_queue" () RETURNS trigger LANGUAGE plpgsql AS $$
declare
	v_is_shared_anew boolean := new.fair_by is distinct from old.fair_by and new.fair_by is not null;
begin
	if v_is_shared_anew then
		insert into psqlqueue.governors as governor (queue_no, tokens, refilled_at)
		values (new.no, coalesce(new.rate_burst, 0), clock_timestamp())
		on conflict do nothing;
	end if;
	-- First: it is the lock under which keys are written.
	update psqlqueue.governors as governor
	set keyed_to = case when v_is_shared_anew then '' when new.fair_by is not null then governor.keyed_to end,
		keyed_since = case
			when v_is_shared_anew then clock_timestamp() when new.fair_by is not null then governor.keyed_since
		end,
		ready_from = '-infinity',
		-- A rate begins with its burst.
		tokens = case when old.rate_count is null then coalesce(new.rate_burst, 0) else governor.tokens end,
		refilled_at = case when old.rate_count is null then clock_timestamp() else governor.refilled_at end
	where governor.queue_no = new.no;
	if new.max_in_flight_per_key is distinct from old.max_in_flight_per_key then
		update psqlqueue.fair_keys as key
		set is_ready = true, is_capped = false, due_at = null
		where key.queue_no = new.no and key.is_capped;
	end if;
	return null;
end $$;
--> statement-breakpoint
CREATE TRIGGER "queues_governed" AFTER UPDATE OF "fair_by", "max_in_flight_per_key", "rate_count" ON "psqlqueue"."queues"
	FOR EACH ROW
	WHEN (
		new.fair_by is distinct from old.fair_by or new.max_in_flight_per_key is distinct from old.max_in_flight_per_key
		or new.rate_count is distinct from old.rate_count
	)
	EXECUTE FUNCTION "psqlqueue"."govern_queue" ();
--> statement-breakpoint
-- Gives the next messages that were there before their key, at most so many at once. They are found in the order of their ids.
CREATE FUNCTION "psqlqueue"."give_fair_keys" (p_queue psqlqueue.queues, p_keyed_to text) RETURNS text LANGUAGE plpgsql AS $$
declare
	v_limit constant int := 5000;
	v_count int;
	v_last_id text;
begin
	with page as materialized (
		select message.ctid as tid, message.id,
			psqlqueue.fair_key(p_queue.fair_by, message.label, message.ordering_key, message.fairness_key) as own_key
		from psqlqueue.messages as message
		where message.queue_no = p_queue.no and message.id > p_keyed_to
		order by message.id
		limit v_limit
		for update skip locked   -- the second time, a minute later, meets them
	), given as (
		update psqlqueue.messages as message
		set fair_key = page.own_key, slot_key = case when message.slot_key > '' then '=' || page.own_key else message.slot_key end
		from page
		where message.ctid = page.tid and message.id = page.id and message.fair_key is distinct from page.own_key
	)
	select count(*), max(page.id) into v_count, v_last_id from page;
	return case when v_count = v_limit then v_last_id end;
end $$;
--> statement-breakpoint
-- Brings fair_keys up to date, under the lock of the governor: what has come, what is due, what is empty and need not be
-- remembered. Bounded; what is left over is for the next receive.
CREATE FUNCTION "psqlqueue"."note_fair_changes" (p_queue psqlqueue.queues, p_governor psqlqueue.governors)
RETURNS psqlqueue.governors LANGUAGE plpgsql AS $$
declare
	-- Two microseconds for each. Who comes last is to be known before those who came first have all been served.
	v_limit constant int := 100000;
	v_governor psqlqueue.governors := p_governor;
	v_xmin bigint := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
	v_now timestamptz := clock_timestamp();
	v_count int;
	v_from double precision;
	v_due timestamptz;
begin
	-- Once more when no statement can run any more that did not see that the queue is shared.
	if v_governor.keyed_to is null and v_governor.keyed_since < now() - interval '60 seconds' then
		v_governor.keyed_to := '';
		v_governor.keyed_since := null;
	end if;
	if v_governor.keyed_to is not null then
		v_governor.keyed_to := psqlqueue.give_fair_keys(p_queue, v_governor.keyed_to);
	end if;

	-- Transaction numbers begin anew in a restored database.
	if v_governor.changes_from > v_xmin then
		v_governor.changes_from := 0;
	end if;
	with page as materialized (
		select change.ctid as tid
		from psqlqueue.fair_changes as change
		where change.queue_no = p_queue.no and change.xid >= v_governor.changes_from
		order by change.xid, change.seq
		limit v_limit
	), taken as (
		delete from psqlqueue.fair_changes as change
		using page
		where change.ctid = page.tid
		returning change.xid, change.seq, change.fair_key, change.weight, change.due_at
	), came as (
		select taken.fair_key, min(taken.due_at) as due_at,
			(array_agg(taken.weight order by taken.xid desc, taken.seq desc) filter (where taken.weight is not null))[1] as weight
		from taken
		group by taken.fair_key
	), noted as (
		insert into psqlqueue.fair_keys as key (queue_no, fair_key, virtual_time, weight, is_ready, due_at)
		select p_queue.no, came.fair_key, v_governor.virtual_time, coalesce(came.weight, 1), came.due_at <= v_now,
			case when came.due_at > v_now then came.due_at end
		from came
		order by came.fair_key
		on conflict (queue_no, fair_key) do update
		set weight = coalesce((select came.weight from came where came.fair_key = excluded.fair_key), key.weight),
			virtual_time = case
				when excluded.is_ready and not key.is_ready and not key.is_held then greatest(key.virtual_time, excluded.virtual_time)
				else key.virtual_time
			end,
			is_ready = key.is_ready or excluded.is_ready,
			is_held = key.is_held and not excluded.is_ready,
			is_capped = key.is_capped and not excluded.is_ready,
			due_at = case when not key.is_ready and not excluded.is_ready then least(key.due_at, excluded.due_at) end
		returning key.virtual_time, key.is_ready, key.due_at
	)
	select (select count(*) from page), min(noted.virtual_time) filter (where noted.is_ready), min(noted.due_at)
	into v_count, v_from, v_due
	from noted;
	if v_count < v_limit then
		v_governor.changes_from := v_xmin;
	end if;
	v_governor.ready_from := least(v_governor.ready_from, v_from);
	v_governor.due_from := least(v_governor.due_from, v_due);

	with page as materialized (
		select key.ctid as tid
		from psqlqueue.fair_keys as key
		where key.queue_no = p_queue.no and not key.is_ready and key.due_at >= v_governor.due_from and key.due_at <= v_now
		order by key.due_at
		limit v_limit
	), ready as (
		update psqlqueue.fair_keys as key
		set is_ready = true, is_held = false, is_capped = false, due_at = null,
			virtual_time = case
				when key.is_held then key.virtual_time else greatest(key.virtual_time, v_governor.virtual_time)
			end
		from page
		where key.ctid = page.tid
		returning key.virtual_time
	)
	select (select count(*) from page), min(ready.virtual_time) into v_count, v_from from ready;
	if v_count < v_limit then
		v_governor.due_from := v_now;
	end if;
	v_governor.ready_from := least(v_governor.ready_from, v_from);

	-- Of a key that is empty only the time matters that it is ahead.
	delete from psqlqueue.fair_keys as key
	using (
		select key.ctid as tid
		from psqlqueue.fair_keys as key
		where key.queue_no = p_queue.no and not key.is_ready and key.due_at is null
			and key.virtual_time <= v_governor.virtual_time
		order by key.virtual_time
		limit 1000
	) as page
	where key.ctid = page.tid;
	return v_governor;
end $$;
--> statement-breakpoint
-- Locks the messages of a key that are next, after p_offset that are locked already, as lease_governed does for a queue.
CREATE FUNCTION "psqlqueue"."next_of_key" (
	p_queue_no int, p_key text, p_label text, p_levels smallint[], p_aging_seconds int, p_offset int, p_limit int
) RETURNS tid[] LANGUAGE plpgsql AS $$
declare
	v_tids tid[];
begin
	if p_label is null then
		select array_agg(found.tid) into v_tids
		from (
			select message.tid
			from unnest(p_levels) as level (priority)
			cross join lateral (
				select message.ctid as tid, message.visible_at, message.id
				from psqlqueue.messages as message
				where message.queue_no + 0 = p_queue_no and message.fair_key = p_key and message.priority = level.priority
					and message.visible_at <= now()
				order by message.visible_at, message.id collate "POSIX"
				limit p_offset + p_limit
				for update skip locked
			) as message
			order by message.visible_at - level.priority * p_aging_seconds * interval '1 second',
				level.priority desc, message.visible_at, message.id
			limit p_limit
			offset p_offset
		) as found;
	else
		select array_agg(found.tid) into v_tids
		from (
			select message.tid
			from unnest(p_levels) as level (priority)
			cross join lateral (
				select message.ctid as tid, message.visible_at, message.id
				from psqlqueue.messages as message
				where message.queue_no + 0 = p_queue_no and message.label = p_label and message.fair_key = p_key
					and message.priority = level.priority and message.visible_at <= now()
				order by message.visible_at, message.id collate "POSIX"
				limit p_offset + p_limit
				for update skip locked
			) as message
			order by message.visible_at - level.priority * p_aging_seconds * interval '1 second',
				level.priority desc, message.visible_at, message.id
			limit p_limit
			offset p_offset
		) as found;
	end if;
	return coalesce(v_tids, '{}');
end $$;
--> statement-breakpoint
-- The keys that may have the next turns, after one of them. Under a label: those that have it, of the next thousand that are
-- ready, and after these the keys of what is first under the label, wherever they stand.
CREATE FUNCTION "psqlqueue"."next_fair_keys" (
	p_queue psqlqueue.queues, p_label text, p_levels smallint[], p_after double precision, p_after_key text, p_known text[],
	p_limit int
) RETURNS TABLE (fair_key text, virtual_time double precision, weight smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
begin
	if p_label is null then
		return query
		select key.fair_key, key.virtual_time, key.weight
		from psqlqueue.fair_keys as key
		where key.queue_no = p_queue.no and key.is_ready and (key.virtual_time, key.fair_key) > (p_after, p_after_key)
		order by key.virtual_time, key.fair_key
		limit p_limit;
		return;
	end if;
	return query
	select key.fair_key, key.virtual_time, key.weight
	from (
		select *
		from psqlqueue.fair_keys as key
		where key.queue_no = p_queue.no and key.is_ready and (key.virtual_time, key.fair_key) > (p_after, p_after_key)
		order by key.virtual_time, key.fair_key
		limit 1000
	) as key
	where (
		select true
		from unnest(p_levels) as level (priority)
		cross join lateral (
			select
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue.no and message.label = p_label and message.fair_key = key.fair_key
				and message.priority = level.priority and message.visible_at <= now()
			limit 1
		) as message
		limit 1
	)
	order by key.virtual_time, key.fair_key
	limit p_limit;
	if found then
		return;
	end if;
	return query
	select key.fair_key, key.virtual_time, key.weight
	from (
		select distinct first.fair_key
		from (
			select message.fair_key
			from unnest(p_levels) as level (priority)
			cross join lateral (
				select message.fair_key
				from psqlqueue.messages as message
				where message.queue_no + 0 = p_queue.no and message.label = p_label and message.priority = level.priority
					and message.visible_at <= now()
				order by message.visible_at, message.id collate "POSIX"
				limit 1000
			) as message
			limit 1000
		) as first
		where first.fair_key is not null and first.fair_key <> all (p_known)
	) as first
	cross join lateral (
		select * from psqlqueue.fair_keys as key where key.queue_no = p_queue.no and key.fair_key = first.fair_key limit 1
	) as key
	order by key.virtual_time, key.fair_key
	limit p_limit;
end $$;
--> statement-breakpoint
-- How many turns each of some keys gets of the next p_count: by the level to which they all rise, then turn by turn. Fewer in
-- all where keys have no room: a turn above the level may be another's.
CREATE FUNCTION "psqlqueue"."share_turns" (
	p_starts double precision[], p_weights double precision[], p_rooms int[], p_count int
) RETURNS TABLE (place int, count int) LANGUAGE sql STABLE AS $$
	with open as materialized (
		select given.place::int as place, given.start - (select min(own) from unnest(p_starts) as own) as start,
			given.weight, given.room
		from unnest(p_starts, p_weights, p_rooms) with ordinality as given (start, weight, room, place)
	), level as materialized (
		select min((p_count + summed.filled) / summed.weight) as height
		from (
			select sum(open.weight) over rising as weight, sum(open.weight * open.start) over rising as filled
			from open
			window rising as (order by open.start, open.place rows unbounded preceding)
		) as summed
	), turns as (
		select open.place, open.start + (turn.n - 1) / open.weight as start
		from open
		cross join level
		cross join lateral generate_series(1,
			least(open.room, ceil((level.height - open.start) * open.weight)::int)) as turn (n)
		where open.start < level.height
		order by 2, 1
		limit p_count
	)
	select turns.place, count(*)::int from turns group by turns.place order by min(turns.start), turns.place
$$;
--> statement-breakpoint
-- Locks the next messages of a shared queue, at most p_limit, in the order of their turns, with the keys and the starts of these.
-- closed: keys that gave less than their turns, or have no place left. capped_at: when one of those may have a place again.
CREATE FUNCTION "psqlqueue"."pick_fair" (
	p_queue psqlqueue.queues, p_from double precision, p_label text, p_levels smallint[], p_limit int, p_lease_seconds int,
	OUT tids tid[], OUT keys text[], OUT starts double precision[], OUT closed text[], OUT capped_at timestamptz
) LANGUAGE plpgsql AS $$
declare
	v_keys text[] := '{}';
	v_starts double precision[] := '{}';
	v_weights double precision[] := '{}';
	v_rooms int[] := '{}';
	v_open int[] := '{}';
	v_counts int[] := '{}';
	v_need int := p_limit;
	-- Just before the first.
	v_after double precision := p_from - greatest(abs(p_from), 1) * 1e-12;
	v_after_key text := '';
	v_has_more boolean := true;
	v_key record;
	v_share record;
	v_found int;
	v_tids tid[];
	v_place int;
begin
	tids := '{}';
	keys := '{}';
	starts := '{}';
	closed := '{}';
	-- A round is needed again only when keys had less than their share, or no place.
	for round in 1 .. 50 loop
		if v_has_more then
			v_found := 0;
			for v_key in
				select next.*, taken.count, taken.ends_at
				from psqlqueue.next_fair_keys(p_queue, p_label, p_levels, v_after, v_after_key, v_keys, v_need) as next
				left join lateral (
					select count(*)::int as count, min(own.lease_expires_at) as ends_at
					from (
						select message.lease_expires_at
						from psqlqueue.messages as message
						where message.queue_no + 0 = p_queue.no and message.slot_key = '=' || next.fair_key
							and message.lease_token is not null and message.lease_expires_at > now()
						order by message.lease_expires_at
						limit p_queue.max_in_flight_per_key
					) as own
				) as taken on p_queue.max_in_flight_per_key is not null
			loop
				v_found := v_found + 1;
				v_after := v_key.virtual_time;
				v_after_key := v_key.fair_key;
				v_keys := v_keys || v_key.fair_key;
				v_starts := v_starts || v_key.virtual_time;
				v_weights := v_weights || v_key.weight::double precision;
				v_rooms := v_rooms || coalesce(p_queue.max_in_flight_per_key - v_key.count, p_limit);
				v_counts := v_counts || 0;
				if coalesce(v_key.count, 0) >= p_queue.max_in_flight_per_key then
					closed := closed || v_key.fair_key;
					capped_at := least(capped_at, v_key.ends_at);
				else
					v_open := v_open || cardinality(v_keys);
				end if;
			end loop;
			v_has_more := v_found > 0 and (v_found = v_need or p_label is not null);
		end if;
		exit when v_need = 0 or cardinality(v_open) = 0 and not v_has_more;
		-- Keys without a place were among them: those that come after may be before the second turns of the others.
		continue when cardinality(v_open) < case when v_has_more and round < 40 then v_need else 1 end;

		for v_share in
			select open.place, share.count
			from psqlqueue.share_turns(
				(select array_agg(v_starts[own.place] + v_counts[own.place] / v_weights[own.place] order by own.n)
					from unnest(v_open) with ordinality as own (place, n)),
				(select array_agg(v_weights[own.place] order by own.n) from unnest(v_open) with ordinality as own (place, n)),
				(select array_agg(v_rooms[own.place] - v_counts[own.place] order by own.n)
					from unnest(v_open) with ordinality as own (place, n)),
				v_need) as share
			cross join lateral (select v_open[share.place] as place) as open
		loop
			v_place := v_share.place;
			v_tids := psqlqueue.next_of_key(
				p_queue.no, v_keys[v_place], p_label, p_levels, p_queue.priority_aging_seconds, v_counts[v_place], v_share.count);
			v_found := cardinality(v_tids);
			tids := tids || v_tids;
			keys := keys || array_fill(v_keys[v_place], array[v_found]);
			starts := starts || array(
				select v_starts[v_place] + (v_counts[v_place] + n) / v_weights[v_place] from generate_series(0, v_found - 1) as n
			);
			v_counts[v_place] := v_counts[v_place] + v_found;
			v_need := v_need - v_found;
			if v_found < v_share.count then
				closed := closed || v_keys[v_place];
				v_open := array_remove(v_open, v_place);
			elsif v_counts[v_place] >= v_rooms[v_place] and p_queue.max_in_flight_per_key is not null then
				closed := closed || v_keys[v_place];
				v_open := array_remove(v_open, v_place);
				if cardinality(psqlqueue.next_of_key(p_queue.no, v_keys[v_place], p_label, p_levels,
					p_queue.priority_aging_seconds, v_counts[v_place], 1)) > 0
				then
					capped_at := least(capped_at, now() + p_lease_seconds * interval '1 second');
				end if;
			end if;
		end loop;
	end loop;

	select array_agg(picked.tid order by picked.start, picked.n), array_agg(picked.key order by picked.start, picked.n),
		array_agg(picked.start order by picked.start, picked.n)
	into tids, keys, starts
	from (
		select distinct on (own.tid) own.tid, own.key, own.start, own.n
		from unnest(tids, keys, starts) with ordinality as own (tid, key, start, n)
		order by own.tid, own.n
	) as picked;
	if p_queue.max_in_flight_per_key is not null then
		capped_at := least(capped_at, (
			select min(key.due_at) from psqlqueue.fair_keys as key where key.queue_no = p_queue.no and key.is_capped
		));
	end if;
end $$;
--> statement-breakpoint
-- Notes the turns that were taken, and what is to be expected of keys that had less than their share. After the leases.
CREATE FUNCTION "psqlqueue"."charge_fair_keys" (
	p_queue psqlqueue.queues, p_governor psqlqueue.governors, p_levels smallint[], p_keys text[], p_starts double precision[],
	p_are_delivered boolean[], p_closed text[]
) RETURNS void LANGUAGE plpgsql AS $$
declare
	v_due_from timestamptz := p_governor.due_from;
	v_virtual_time double precision;
	v_closed text[];
begin
	v_virtual_time := greatest(p_governor.virtual_time, (
		select max(own.start) from unnest(p_starts, p_are_delivered) as own (start, is_delivered) where own.is_delivered
	));
	with turns as materialized (
		select own.fair_key, count(*) as count
		from unnest(p_keys, p_are_delivered) as own (fair_key, is_delivered)
		where own.is_delivered
		group by own.fair_key
	), found as materialized (
		select key.tid, turns.count
		from turns
		cross join lateral (
			select key.ctid as tid
			from psqlqueue.fair_keys as key
			where key.queue_no = p_queue.no and key.fair_key = turns.fair_key
			limit 1
		) as key
	), charged as (
		update psqlqueue.fair_keys as key
		set virtual_time = key.virtual_time + found.count::double precision / key.weight
		from found
		where key.ctid = found.tid
		returning key.fair_key, key.virtual_time
	)
	-- One that stopped before the others did has no more.
	select p_closed || coalesce(array_agg(charged.fair_key) filter (where charged.virtual_time < v_virtual_time), '{}')
	into v_closed
	from charged;

	if cardinality(v_closed) > 0 then
		with closed as materialized (
			select distinct own.fair_key from unnest(v_closed) as own (fair_key)
		), looked as materialized (
			select key.tid, next.visible_at, coalesce(next.is_parked, false) as is_parked,
				case when next.visible_at <= now() and taken.count >= p_queue.max_in_flight_per_key then taken.ends_at end as free_at
			from closed
			cross join lateral (
				select key.ctid as tid
				from psqlqueue.fair_keys as key
				where key.queue_no = p_queue.no and key.fair_key = closed.fair_key
				limit 1
			) as key
			left join lateral (
				select count(*) as count, min(own.lease_expires_at) as ends_at
				from (
					select message.lease_expires_at
					from psqlqueue.messages as message
					where message.queue_no + 0 = p_queue.no and message.slot_key = '=' || closed.fair_key
						and message.lease_token is not null and message.lease_expires_at > now()
					order by message.lease_expires_at
					limit p_queue.max_in_flight_per_key
				) as own
			) as taken on p_queue.max_in_flight_per_key is not null
			cross join lateral (
				select min(first.visible_at) as visible_at, bool_or(first.is_parked) as is_parked
				from unnest(p_levels) as level (priority)
				cross join lateral (
					select message.visible_at, (
						select true
						from psqlqueue.messages as parked
						where parked.queue_no + 0 = p_queue.no and parked.fair_key = closed.fair_key
							and parked.priority = level.priority and parked.visible_at = 'infinity'
						limit 1
					) as is_parked
					from psqlqueue.messages as message
					where message.queue_no + 0 = p_queue.no and message.fair_key = closed.fair_key
						and message.priority = level.priority
					order by message.visible_at
					limit 1
				) as first
			) as next
		), changed as (
			update psqlqueue.fair_keys as key
			set is_ready = false, is_capped = looked.free_at is not null, is_held = looked.is_parked or looked.free_at is not null,
				due_at = coalesce(looked.free_at, looked.visible_at)
			from looked
			-- Else it is still ready: what it has is locked by somebody, or has another label.
			where key.ctid = looked.tid and (looked.free_at is not null or looked.visible_at > now() or looked.visible_at is null)
			returning key.due_at
		)
		select least(v_due_from, min(changed.due_at)) into v_due_from from changed;
	end if;

	update psqlqueue.governors as governor
	set virtual_time = v_virtual_time, due_from = v_due_from, changes_from = p_governor.changes_from,
		keyed_to = p_governor.keyed_to, keyed_since = p_governor.keyed_since,
		ready_from = coalesce((
			select key.virtual_time
			from psqlqueue.fair_keys as key
			where key.queue_no = p_queue.no and key.is_ready and key.virtual_time >= p_governor.ready_from
			order by key.virtual_time, key.fair_key
			limit 1
		), v_virtual_time)
	where governor.queue_no = p_queue.no;
end $$;
--> statement-breakpoint
-- The safety net of a shared queue: looks at up to p_limit keys with messages after p_after (null to start), and lets those take
-- part that can be delivered and are not known to. Under the lock of the governor, and after what has been left for it.
CREATE FUNCTION "psqlqueue"."repair_fair_keys" (p_queue_no int, p_after text, p_limit int)
RETURNS TABLE (last_key text, checked int, repaired int) LANGUAGE plpgsql AS $$
declare
	v_queue psqlqueue.queues;
	v_governor psqlqueue.governors;
	v_levels smallint[] := '{0}';
	v_key text := p_after;
	v_visible_at timestamptz;
begin
	last_key := null;
	checked := 0;
	repaired := 0;
	select queue.* into v_queue from psqlqueue.queues as queue where queue.no = p_queue_no;
	select governor.* into v_governor from psqlqueue.governors as governor where governor.queue_no = p_queue_no for update;
	if v_queue.fair_by is null or v_governor.queue_no is null then
		return next;
		return;
	end if;
	if v_queue.has_priorities then
		v_levels := psqlqueue.levels_of(p_queue_no);
	end if;
	v_governor := psqlqueue.note_fair_changes(v_queue, v_governor);
	perform psqlqueue.charge_fair_keys(v_queue, v_governor, v_levels, '{}', '{}', '{}', '{}');
	while checked < p_limit loop
		if v_key is null then
			select message.fair_key into v_key
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue_no and message.fair_key >= ''
			order by message.fair_key
			limit 1;
		else
			select message.fair_key into v_key
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue_no and message.fair_key > v_key
			order by message.fair_key
			limit 1;
		end if;
		exit when not found;
		checked := checked + 1;
		last_key := v_key;
		select min(first.visible_at) into v_visible_at
		from unnest(v_levels) as level (priority)
		cross join lateral (
			select message.visible_at
			from psqlqueue.messages as message
			where message.queue_no + 0 = p_queue_no and message.fair_key = v_key and message.priority = level.priority
			order by message.visible_at
			limit 1
		) as first;
		if v_visible_at <= now() and not exists (
			select from psqlqueue.fair_keys as key
			where key.queue_no = p_queue_no and key.fair_key = v_key and (key.is_ready or key.due_at <= now() or key.is_capped)
		) then
			repaired := repaired + 1;
			insert into psqlqueue.fair_changes (xid, queue_no, fair_key, due_at)
			values (pg_current_xact_id()::text::bigint, p_queue_no, v_key, v_visible_at);
		end if;
	end loop;
	if checked < p_limit then
		last_key := null;
	end if;
	return next;
end $$;
--> statement-breakpoint
-- Leases up to p_limit messages of a queue with priorities, a cap, a rate or keys that share it. The first row says how it went and has no id.
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
	-- A lease lasts from when the queue's turn came: receives of it may have been waited for.
	v_leased_at timestamptz := now();
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
	v_picked record;
	v_are_delivered boolean[];
begin
	select queue.* into v_queue from psqlqueue.queues as queue where queue.id = p_queue_id;
	if not found then
		return;
	end if;
	v_lease_seconds := coalesce(p_lease_seconds, v_queue.ack_deadline_seconds);
	v_is_too_long := coalesce(p_lease_seconds > v_queue.max_lease_seconds and v_queue.max_lease_seconds > 0, false);
	v_is_counted := v_queue.max_in_flight is not null or v_queue.rate_count is not null or v_queue.fair_by is not null;
	if not v_queue.is_governed or v_queue.consume_paused or v_is_too_long or p_limit = 0 then
		v_left := 0;
	elsif v_is_counted or v_queue.priority_aging_seconds is not null then
		insert into psqlqueue.governors as governor (queue_no, tokens, refilled_at)
		values (v_queue.no, coalesce(v_queue.rate_burst, 0), clock_timestamp())
		on conflict do nothing;
		select governor.* into v_governor from psqlqueue.governors as governor where governor.queue_no = v_queue.no for update;
		v_leased_at := clock_timestamp();
	end if;

	if v_left > 0 and (v_queue.max_in_flight is not null or v_queue.max_in_flight_per_key is not null) then
		-- Leases made before the queue had a cap, also by statements that had begun before.
		if v_governor.marked_at is null or v_governor.marked_at < v_queue.updated_at + interval '60 seconds' then
			update psqlqueue.messages as message
			set slot_key = case when v_queue.max_in_flight_per_key is not null then '=' || coalesce(message.fair_key, '') else '' end
			from (
				select unmarked.tid
				from unnest(psqlqueue.levels_of(v_queue.no)) as level (priority)
				cross join lateral (
					select message.ctid as tid
					from psqlqueue.messages as message
					where message.queue_no + 0 = v_queue.no and message.priority = level.priority and message.visible_at > now()
						and (message.slot_key is null or message.slot_key = '' and v_queue.max_in_flight_per_key is not null)
						and message.lease_token is not null and message.lease_expires_at > now()
					order by message.visible_at
					for update skip locked
				) as unmarked
			) as unmarked
			where message.ctid = unmarked.tid;
			update psqlqueue.governors as governor set marked_at = now() where governor.queue_no = v_queue.no;
		end if;
	end if;
	if v_left > 0 and v_queue.max_in_flight is not null then
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
		if v_queue.fair_by is not null then
			v_governor := psqlqueue.note_fair_changes(v_queue, v_governor);
			v_picked := psqlqueue.pick_fair(v_queue, v_governor.ready_from, p_label, v_levels, v_left, v_lease_seconds);
			v_tids := v_picked.tids;
		elsif p_label is null and v_queue.priority_aging_seconds is null then
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
			array_agg(sized.is_deliverable order by sized.n),
			-- What must not be delivered uses up nothing of the rate.
			count(*) filter (where sized.is_deliverable and (sized.so_far <= p_bytes_max or sized.n = 1 and p_is_one_free))
		into v_tids, v_is_cut, v_are_delivered, v_delivered
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
		-- Some keys have more than they may give.
		if v_queue.max_in_flight_per_key is not null and v_left > 0 and not v_is_cut then
			v_retry_ms := ceil(extract(epoch from v_picked.capped_at - clock_timestamp()) * 1000)::int;
			v_throttled := case when v_retry_ms is not null then 'in_flight' end;
		end if;
		-- What was there before the queue was shared: on with it.
		if v_governor.keyed_to is not null and v_throttled is null then
			v_retry_ms := 1;
		end if;
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
		if v_queue.fair_by is not null and v_left > 0 then
			perform psqlqueue.charge_fair_keys(v_queue, v_governor, v_levels, '{}', '{}', '{}', v_picked.closed);
		end if;
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
		set lease_token = lease.token, leased_at = v_leased_at, lease_expires_at = v_leased_at + lease.length,
			visible_at = case
				when v_queue.retry_min_seconds = 0 then v_leased_at + lease.length
				else least(
					v_leased_at + lease.length + psqlqueue.backoff_seconds(message.delivery_attempts + 1, v_queue.retry_min_seconds,
						v_queue.retry_max_seconds, v_queue.retry_multiplier, v_queue.retry_jitter, lease.token) * interval '1 second',
					-- Expired, the head of a key blocks it no longer.
					case when message.ordering_seq is not null then greatest(message.expires_at, v_leased_at + lease.length) end
				)
			end,
			events = case
				when message.lease_token is null then message.events
				else psqlqueue.add_event(message.events, 'lease_expired', message.delivery_attempts, null)
			end,
			delivery_attempts = message.delivery_attempts + lease.is_deliverable::int,
			slot_key = case
				when v_queue.max_in_flight_per_key is not null then '=' || message.fair_key
				when v_queue.max_in_flight is not null then ''
			end
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

	if v_queue.fair_by is not null then
		perform psqlqueue.charge_fair_keys(v_queue, v_governor, v_levels, v_picked.keys[1:v_count], v_picked.starts[1:v_count],
			v_are_delivered[1:v_count], v_picked.closed);
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
		from (values ('delay_seconds', 0, 31536000), ('ttl_seconds', 1, 2147483647), ('priority', -100, 100),
			('weight', 1, 100)) as rule (name, min, max)
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
	for v_name in select * from (values ('ordering_key'), ('fairness_key')) as rule (name) loop
		if jsonb_typeof(coalesce(p_options -> v_name, 'null')) not in ('string', 'null') then
			v_problems := v_problems || (p_prefix || v_name || ': must be in a valid format');
		elsif p_options ->> v_name = '' then
			v_problems := v_problems || (p_prefix || v_name || ': cannot be blank');
		elsif octet_length(p_options ->> v_name) > 256 then
			v_problems := v_problems || (p_prefix || v_name || ': the length must be no more than 256');
		end if;
	end loop;
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
		ordering_key, fairness_key, weight, priority)
	values (
		p_queue_no, p_id, p_body, p_label, nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
		(p_options ->> 'deliver_at')::timestamptz, (p_options ->> 'ttl_seconds')::numeric::int,
		(p_options ->> 'expires_at')::timestamptz,
		translate(rtrim(encode(sha256(convert_to('id:' || (p_options ->> 'dedup_id'), 'UTF8')), 'base64'), '='), '+/', '-_'),
		translate(rtrim(encode(sha256(convert_to('body:' || p_body, 'UTF8')), 'base64'), '='), '+/', '-_'),
		p_options ->> 'ordering_key', p_options ->> 'fairness_key', (p_options ->> 'weight')::numeric::smallint,
		-- Of a queue that knows no priorities: it comes from a topic, and is ignored.
		case
			when (select known.priority_enabled from psqlqueue.queues as known where known.no = p_queue_no)
				then coalesce((p_options ->> 'priority')::numeric::smallint, 0)
			else 0
		end);
end $$;
--> statement-breakpoint
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
