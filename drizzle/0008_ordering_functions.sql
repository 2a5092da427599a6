-- Ordering keys. Only the head of a key is visible; the others are parked at visible_at = 'infinity', so a receive needs no
-- rule for order, and a key that waits costs nothing.
--
-- Every function takes the locks of the key rows in a statement of its own and looks at messages in the next. In one statement
-- the look would use the snapshot from before the wait, miss what the other transaction has just committed, and leave a key
-- with messages but no head: stuck. Locks are taken in the order (queue_no, ordering_group), by the bytes. A receive leases a
-- head without the key's lock, so lock_keys locks the heads too.
--
-- The sequence is read under a key's lock, so the numbers of a key rise with commits; it never restarts, so a message that is
-- moved keeps its place.
CREATE SEQUENCE "psqlqueue"."ordering_seq";
--> statement-breakpoint
ALTER TABLE "psqlqueue"."ordering_keys" SET (
	fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
	vacuum_truncate = off
);
--> statement-breakpoint
-- What the order is kept in. The length keeps a key with a label apart from a longer key.
CREATE FUNCTION "psqlqueue"."ordering_group" (p_scope text, p_key text, p_label text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	select case
		when p_scope = 'key_label' then octet_length(p_key) || ':' || p_key || coalesce(':' || p_label, '')
		else p_key
	end
$$;
--> statement-breakpoint
-- A client's key that counts within an ordering key only. Like the keys themselves a sha256 as base64url.
CREATE FUNCTION "psqlqueue"."scoped_key" (p_key text, p_ordering_key text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
	select translate(rtrim(encode(sha256(convert_to(p_key || p_ordering_key, 'UTF8')), 'base64'), '='), '+/', '-_')
$$;
--> statement-breakpoint
-- Locks the keys, sorted and each once, for messages to be put at their end. Answers which of them held nothing: the first
-- message of those is the head.
CREATE FUNCTION "psqlqueue"."enter_keys" (p_queue_nos int[], p_groups text[]) RETURNS boolean[] LANGUAGE plpgsql AS $$
declare
	v_are_new boolean[];
begin
	with entered as (
		insert into psqlqueue.ordering_keys as held (queue_no, ordering_group, floor_seq)
		-- Numbers are taken under the lock, so what comes has a higher one.
		select given.queue_no, given.ordering_group, (select last_value from psqlqueue.ordering_seq)
		from unnest(p_queue_nos, p_groups) as given (queue_no, ordering_group)
		order by given.queue_no, given.ordering_group collate "C"
		-- Locks the row and leaves it as it is.
		on conflict (queue_no, ordering_group) do update set floor_seq = held.floor_seq where false
		returning held.queue_no, held.ordering_group
	)
	select array_agg(entered.queue_no is not null order by given.n) into v_are_new
	from unnest(p_queue_nos, p_groups) with ordinality as given (queue_no, ordering_group, n)
	left join entered on entered.queue_no = given.queue_no and entered.ordering_group = given.ordering_group;
	return v_are_new;
end $$;
--> statement-breakpoint
-- Locks the keys, sorted and each once, and their heads. Answers the numbers of the heads, for refresh_keys.
CREATE FUNCTION "psqlqueue"."lock_keys" (p_queue_nos int[], p_groups text[]) RETURNS bigint[] LANGUAGE plpgsql AS $$
begin
	-- Of a key without a row (nothing, or what another program left) one is made; refresh_keys removes it when it is empty.
	insert into psqlqueue.ordering_keys as held (queue_no, ordering_group, floor_seq)
	select given.queue_no, given.ordering_group, 0
	from unnest(p_queue_nos, p_groups) as given (queue_no, ordering_group)
	order by given.queue_no, given.ordering_group collate "C"
	on conflict (queue_no, ordering_group) do update set floor_seq = held.floor_seq where false;

	return array(
		select head.ordering_seq
		from unnest(p_queue_nos, p_groups) with ordinality as given (queue_no, ordering_group, n)
		cross join lateral (
			select key.floor_seq
			from psqlqueue.ordering_keys as key
			where key.queue_no = given.queue_no and key.ordering_group = given.ordering_group
			limit 1
		) as held
		left join lateral (
			select message.ordering_seq
			from psqlqueue.messages as message
			where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq >= held.floor_seq
			order by message.ordering_seq
			limit 1
			for update
		) as head on true
		order by given.n
	);
end $$;
--> statement-breakpoint
-- Makes the first message of each key its head, at the time at which it may be delivered, and answers those that are to be seen
-- now or later. p_heads: what was the head when lock_keys locked it; one that has a message before it now is parked again.
CREATE FUNCTION "psqlqueue"."refresh_keys" (p_queue_nos int[], p_groups text[], p_heads bigint[])
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
				and message.ordering_seq > 0 and message.dead ->> 'source_queue_id' = queue.id
			order by message.ordering_seq
			limit 1
		) as dead on held.blocked_seq is not null
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
			select
				max(message.lease_expires_at) as until, min(message.ordering_seq) as seq_from, max(message.ordering_seq) as seq_to
			from psqlqueue.messages as message
			where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq >= least(held.held_from, given.head_seq)
				and message.ordering_seq <= greatest(held.held_to, given.head_seq)
				and message.ordering_seq <> first.ordering_seq
				and message.lease_token is not null and message.lease_expires_at > now()
		) as others on held.held_to is not null or given.head_seq > first.ordering_seq
		left join lateral (
			select message.ctid as tid
			from psqlqueue.messages as message
			where message.queue_no + 0 = given.queue_no and message.ordering_group = given.ordering_group
				and message.ordering_seq = given.head_seq
			limit 1
		) as displaced on given.head_seq > first.ordering_seq
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
-- The keys that a change of these messages touches, sorted and each once: their own, those that they keep blocked, and those of
-- the dead-letter queue for messages that are to go there. p_dies: 'no', 'all', or 'used_up' (by their deliveries, or rejected).
CREATE FUNCTION "psqlqueue"."keys_of" (p_queue_ids text[], p_ids text[], p_dies text, p_rejected boolean[])
RETURNS TABLE (queue_nos int[], groups text[]) LANGUAGE plpgsql AS $$
begin
	return query
	with found as materialized (
		select
			message.queue_no, message.ordering_group, message.dead,
			case
				when p_dies = 'all' or p_dies = 'used_up'
					and (given.is_rejected or message.delivery_attempts >= queue.message_max_deliveries)
				then queue.dead_queue_no
			end as dead_queue_no
		from unnest(p_queue_ids, p_ids, p_rejected) as given (queue_id, id, is_rejected)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select message.queue_no, message.ordering_group, message.dead, message.delivery_attempts
			from psqlqueue.messages as message
			where message.queue_no = queue.no and message.id = given.id
			limit 1
		) as message
		where message.ordering_group is not null
	)
	select array_agg(touched.queue_no), array_agg(touched.ordering_group)
	from (
		select every.queue_no, every.ordering_group
		from (
			select found.queue_no, found.ordering_group from found
			union
			select found.dead_queue_no, found.ordering_group from found where found.dead_queue_no is not null
			union
			select source.no, found.ordering_group
			from found
			cross join lateral (
				select queue.no from psqlqueue.queues as queue where queue.id = found.dead ->> 'source_queue_id' limit 1
			) as source
			cross join lateral (
				select key.blocked_seq
				from psqlqueue.ordering_keys as key
				where key.queue_no = source.no and key.ordering_group = found.ordering_group
				limit 1
			) as key
			where key.blocked_seq is not null
		) as every
		order by every.queue_no, every.ordering_group collate "C"
	) as touched;
end $$;
--> statement-breakpoint
-- Ends ordered messages, and makes the next one of each key visible. p_outcome 'acked' and 'expired' as for the others;
-- 'deleted' leaves nothing in the archive, and spares what somebody else holds. Rows with n: what it ended (its place, from 1);
-- rows without: heads that are to be seen.
CREATE FUNCTION "psqlqueue"."settle_ordered" (
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
			ordering_key, outcome, expires_at)
		select
			gone.queue_no, gone.id, gone.body, gone.label, gone.attributes, gone.priority, gone.delivery_attempts, gone.used_token,
			gone.created_at, gone.last_error, gone.dead, gone.ordering_key, p_outcome,
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
-- Lets ordered messages go. p_mode 'nack': visible after a delay, or to the dead-letter queue when their deliveries are used up
-- or they are rejected. 'release': visible at once, the delivery stays counted. 'unlease': as if they had not been delivered.
-- 'bury': to the dead-letter queue, for p_reason. The later ones of the key in the same lease are let go with a message, so
-- that all come back in order. Rows with n: what it did (p_places, and where a dead one went); rows without: heads to be seen.
CREATE FUNCTION "psqlqueue"."let_go_ordered" (
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
			found.*, given.n, given.queue_id, given.seconds, given.error, given.is_rejected, judged.is_dead, queue.dead_queue_no,
			queue.on_dead, queue.retry_min_seconds, queue.retry_max_seconds, queue.retry_multiplier, queue.retry_jitter,
			dead_queue.id as dead_queue_id, dead_queue.message_retention_seconds as dead_retention_seconds
		from unnest(p_places, p_queue_ids, p_ids, p_lease_tokens, p_seconds, p_errors, p_rejected)
			as given (n, queue_id, id, lease_token, seconds, error, is_rejected)
		cross join lateral (select * from psqlqueue.queues as queue where queue.id = given.queue_id limit 1) as queue
		cross join lateral (
			select
				message.ctid as tid, message.queue_no, message.id, message.ordering_group, message.ordering_seq, message.leased_at,
				message.lease_token as token, message.delivery_attempts, message.last_error
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
			select queue.dead_queue_no is not null and (p_mode = 'bury' or p_mode = 'nack'
				and (coalesce(given.is_rejected, false) or found.delivery_attempts >= queue.message_max_deliveries)) as is_dead
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
				when fenced.is_dead then psqlqueue.dead_letter(fenced.queue_id,
					case when p_mode = 'bury' then p_reason when fenced.is_rejected then 'rejected' else 'max_deliveries' end,
					case when p_mode = 'bury' then fenced.last_error else fenced.error end, fenced.delivery_attempts)
				else message.dead
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
		) as row
	) as found
	where follower.ctid = found.tid;

	if array_remove(v_done.dead_queue_nos, null) <> '{}' then
		update psqlqueue.ordering_keys as held
		set blocked_seq = dead.ordering_seq, dead_id = dead.id, dead_queue_no = dead.dead_queue_no, blocked_since = now()
		from unnest(v_done.queue_nos, v_done.groups, v_done.seqs, v_done.ids, v_done.dead_queue_nos, v_done.are_blocking)
			as dead (queue_no, ordering_group, ordering_seq, id, dead_queue_no, is_blocking)
		where held.queue_no = dead.queue_no and held.ordering_group = dead.ordering_group
			and dead.dead_queue_no is not null and dead.is_blocking;

		update psqlqueue.ordering_keys as held
		set floor_seq = dead.ordering_seq
		from (
			select dead.queue_no, dead.ordering_group, min(dead.ordering_seq) as ordering_seq
			from unnest(v_done.dead_queue_nos, v_done.groups, v_done.seqs) as dead (queue_no, ordering_group, ordering_seq)
			where dead.queue_no is not null
			group by dead.queue_no, dead.ordering_group
		) as dead
		where held.queue_no = dead.queue_no and held.ordering_group = dead.ordering_group
			and held.floor_seq > dead.ordering_seq;
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
CREATE FUNCTION "psqlqueue"."extend_ordered" (
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
			-- Only what has run out can have been followed by another lease of the key.
			found.lease_expires_at <= now() and coalesce((
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
				message.lease_expires_at
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
-- Leases further messages of the keys whose heads have just been leased (p_ids with p_lease_tokens): those that follow the head
-- without a gap and could be delivered now, p_key_max of a key with its head (0: any number), p_limit in all. They stay parked:
-- the head holds their place. Answers them with where they stand (head_n, then nth).
CREATE FUNCTION "psqlqueue"."lease_followers" (
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
		where held.queue_no = own.queue_no and held.ordering_group = own.ordering_group
	)
	select
		leased.head_n, leased.nth, leased.id, leased.label, leased.body, leased.attributes, leased.delivery_attempts,
		leased.created_at, leased.lease_token, leased.lease_expires_at, leased.ready_at, leased.last_error, leased.dead,
		leased.expires_at, leased.ordering_key, leased.was_leased, leased.bytes
	from leased
	order by leased.head_n, leased.nth;
end $$;
--> statement-breakpoint
-- Gives the keys their heads whose messages users acked in transactions of their own (psqlqueue.ack). Rows without a queue_id:
-- keys that were looked at.
CREATE FUNCTION "psqlqueue"."refresh_stale_keys" (p_limit int)
RETURNS TABLE (queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
begin
	with taken as (
		delete from psqlqueue.stale_keys as stale
		where stale.seq = any (array(
			select old.seq from psqlqueue.stale_keys as old order by old.seq limit p_limit for update skip locked
		))
		returning stale.queue_no, stale.ordering_group
	)
	select array_agg(key.queue_no), array_agg(key.ordering_group) into v_queue_nos, v_groups
	from (
		select distinct taken.queue_no, taken.ordering_group from taken order by taken.queue_no, taken.ordering_group
	) as key;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);
	return query select null::text, null::text, null::timestamptz from unnest(v_groups);
	return query
	select head.queue_id, head.label, head.ready_at from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
-- As refresh_keys, after messages were moved to keys (p_moved_…), before those that are there or not.
CREATE FUNCTION "psqlqueue"."refresh_moved" (
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
	where held.queue_no = moved.queue_no and held.ordering_group = moved.ordering_group
		and held.floor_seq > moved.ordering_seq;
	return query
	select head.queue_id, head.label, head.ready_at from psqlqueue.refresh_keys(p_queue_nos, p_groups, p_heads) as head;
end $$;
--> statement-breakpoint
-- Puts the keys of these messages in order again, after something that has changed when one may be delivered.
CREATE FUNCTION "psqlqueue"."refresh_keys_of" (p_queue_ids text[], p_ids text[])
RETURNS TABLE (queue_id text, label text, ready_at timestamptz) LANGUAGE plpgsql AS $$
#variable_conflict use_column
declare
	v_queue_nos int[];
	v_groups text[];
	v_heads bigint[];
begin
	select keys.queue_nos, keys.groups into v_queue_nos, v_groups
	from psqlqueue.keys_of(p_queue_ids, p_ids, 'no', null) as keys;
	if v_queue_nos is null then
		return;
	end if;
	v_heads := psqlqueue.lock_keys(v_queue_nos, v_groups);
	return query
	select head.queue_id, head.label, head.ready_at from psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;
end $$;
--> statement-breakpoint
-- The safety net: looks at up to p_limit keys of a queue after p_after ('' to start), and gives a head to those that have lost
-- it. On a healthy queue it changes nothing. The first row says how far it came (null at the end), the others are heads that
-- are to be seen. Also lifts the blocks of keys whose dead message is gone from this queue.
CREATE FUNCTION "psqlqueue"."repair_keys" (p_queue_no int, p_after text, p_limit int)
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
		where case
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
	if jsonb_typeof(coalesce(p_options -> 'ordering_key', 'null')) not in ('string', 'null') then
		v_problems := v_problems || (p_prefix || 'ordering_key: must be in a valid format');
	elsif p_options ->> 'ordering_key' = '' then
		v_problems := v_problems || (p_prefix || 'ordering_key: cannot be blank');
	elsif octet_length(p_options ->> 'ordering_key') > 256 then
		v_problems := v_problems || (p_prefix || 'ordering_key: the length must be no more than 256');
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
		ordering_key)
	values (
		p_queue_no, p_id, p_body, p_label, nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
		(p_options ->> 'deliver_at')::timestamptz, (p_options ->> 'ttl_seconds')::numeric::int,
		(p_options ->> 'expires_at')::timestamptz,
		translate(rtrim(encode(sha256(convert_to('id:' || (p_options ->> 'dedup_id'), 'UTF8')), 'base64'), '='), '+/', '-_'),
		translate(rtrim(encode(sha256(convert_to('body:' || p_body, 'UTF8')), 'base64'), '='), '+/', '-_'),
		p_options ->> 'ordering_key');
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
			ordering_key, outcome, expires_at)
		select
			gone.queue_no, gone.id, gone.body, gone.label, gone.attributes, gone.priority, gone.delivery_attempts, v_token,
			gone.created_at, gone.last_error, gone.dead, gone.ordering_key, 'acked',
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
