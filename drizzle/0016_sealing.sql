ALTER TABLE "psqlqueue"."queues" ADD COLUMN "encrypt" boolean DEFAULT false NOT NULL;--> statement-breakpoint
-- Puts one message for one queue into the outbox. Touches nothing that others wait for: the caller's transaction may stay
-- open for minutes. A server moves it to the queue after the commit.
CREATE OR REPLACE FUNCTION "psqlqueue"."put_outbox" (
	p_queue_no int, p_id text, p_body text, p_label text, p_attributes jsonb, p_options jsonb
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
declare
	-- How every body begins that is not stored as it was sent.
	c_magic constant text := chr(1) || 'psqlqueue' || chr(1);
	v_encrypting_id text := (select known.id from psqlqueue.queues as known where known.no = p_queue_no and known.encrypt);
begin
	-- The database must not see these bodies. It cannot take this one back; what it can is not to store it.
	if v_encrypting_id is not null then
		perform psqlqueue.refuse(3, 'request validation failed',
			format('queue: %s encrypts its messages; publish to it over HTTP, for SQL would show their bodies to the database.',
			v_encrypting_id));
	end if;
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
		p_queue_no, p_id, case when starts_with(p_body, c_magic) then c_magic || '0:' || p_body else p_body end, p_label,
		nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
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
-- Returns when every statement that stores messages and may not have seen yet what is committed is over: each of them takes
-- a lock on this table before its snapshot. Those that begin meanwhile wait. Fails rather than stop publishing for long.
CREATE FUNCTION "psqlqueue"."await_publishes" () RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog SET lock_timeout = '2s' AS $$
begin
	lock table psqlqueue.publish_batches in share mode;
end $$;
--> statement-breakpoint
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
