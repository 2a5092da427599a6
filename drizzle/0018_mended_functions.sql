-- Milliseconds until then, at most 24 days, which is what a timer can wait; null without a time.
CREATE FUNCTION "psqlqueue"."ms_until" (p_at timestamptz) RETURNS int
LANGUAGE sql VOLATILE AS $$
	select case
		when p_at < clock_timestamp() + interval '24 days' then ceil(extract(epoch from p_at - clock_timestamp()) * 1000)::int
		when p_at is not null then 2073600000
	end
$$;
--> statement-breakpoint
REVOKE EXECUTE ON FUNCTION "psqlqueue"."ms_until" (timestamptz) FROM PUBLIC;
--> statement-breakpoint
-- Of each function the part that was wrong. What else they do is left as it is, whichever migration it is of.
DO $$
declare
	v_mend record;
	v_before text;
	v_after text;
begin
	for v_mend in
		select * from (values
			-- A key that was locked may have been made for it. Where nothing is done it holds nothing, and must not stay:
			-- the next message of the key would wait for one before it.
			('psqlqueue.let_go_ordered(text,text,text,int[],text[],text[],bigint[],int[],text[],boolean[])',
			E'if v_done.ns is null then\n\t\treturn;',
			E'if v_done.ns is null then\n\t\treturn query\n\t\tselect null::int, head.queue_id, head.label, head.ready_at\n'
			|| E'\t\tfrom psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;\n\t\treturn;'),
			('psqlqueue.extend_ordered(int[],text[],text[],bigint[],int[])',
			E'if v_done.ns is null then\n\t\treturn;',
			E'if v_done.ns is null then\n\t\treturn query\n'
			|| E'\t\tselect null::int, null::timestamptz, null::int, false, head.queue_id, head.label, head.ready_at\n'
			|| E'\t\tfrom psqlqueue.refresh_keys(v_queue_nos, v_groups, v_heads) as head;\n\t\treturn;'),
			-- After its last lease a message waits for no other delivery, and so not for the time before one.
			('psqlqueue.refresh_keys(int[],text[],bigint[])',
			'when queue.retry_min_seconds = 0 then message.lease_expires_at',
			'when queue.retry_min_seconds = 0 or message.delivery_attempts >= queue.message_max_deliveries'
			|| E'\n\t\t\t\t\t\t\tthen message.lease_expires_at'),
			-- A time that was set after the end of the lease counts, and not the end of the lease.
			('psqlqueue.refresh_keys(int[],text[],bigint[])',
			'when message.lease_token is null then coalesce(message.due_at, now())',
			'when message.lease_token is null or message.lease_expires_at <= now() and message.due_at > message.lease_expires_at'
			|| E'\n\t\t\t\t\t\t\tthen coalesce(message.due_at, now())'),
			('psqlqueue.lease_governed(text,text,int,int,bigint[],bigint,boolean)',
			'when v_queue.retry_min_seconds = 0 then v_leased_at + lease.length',
			'when v_queue.retry_min_seconds = 0 or message.delivery_attempts + 1 >= v_queue.message_max_deliveries'
			|| E'\n\t\t\t\t\tthen v_leased_at + lease.length'),
			('psqlqueue.extend_slots(int[],text[],text[],bigint[],int[])',
			'queue.retry_jitter, found.ends_at <=',
			'queue.retry_jitter, queue.message_max_deliveries, found.ends_at <='),
			('psqlqueue.extend_slots(int[],text[],text[],bigint[],int[])',
			E'when fenced.retry_min_seconds = 0 then interval ''0''',
			'when fenced.retry_min_seconds = 0 or fenced.delivery_attempts >= fenced.message_max_deliveries'
			|| ' then interval ''0'''),
			-- Leases of more than 24 days, and priorities that age by years, were too large for an int.
			('psqlqueue.lease_governed(text,text,int,int,bigint[],bigint,boolean)',
			'ceil(extract(epoch from min(taken.lease_expires_at) - clock_timestamp()) * 1000)::int',
			'psqlqueue.ms_until(min(taken.lease_expires_at))'),
			('psqlqueue.lease_governed(text,text,int,int,bigint[],bigint,boolean)',
			'ceil(extract(epoch from v_picked.capped_at - clock_timestamp()) * 1000)::int',
			'psqlqueue.ms_until(v_picked.capped_at)'),
			('psqlqueue.next_of_key(int,text,text,smallint[],int,int,int)',
			'level.priority * p_aging_seconds * interval ''1 second''',
			'level.priority * (p_aging_seconds * interval ''1 second'')'),
			('psqlqueue.lease_governed(text,text,int,int,bigint[],bigint,boolean)',
			E'level.priority * v_queue.priority_aging_seconds * interval ''1 second''',
			E'level.priority * (v_queue.priority_aging_seconds * interval ''1 second'')')
		) as own (signature, wrong, right_)
	loop
		v_before := pg_get_functiondef(v_mend.signature::regprocedure);
		v_after := replace(v_before, v_mend.wrong, v_mend.right_);
		if v_after = v_before then
			raise exception 'the function % has nothing to mend: %', v_mend.signature, v_mend.wrong;
		end if;
		execute v_after;
	end loop;
end $$;
