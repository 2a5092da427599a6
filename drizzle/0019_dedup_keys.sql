ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "content_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "topic_id" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "publication_id" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "topic_queues" integer;--> statement-breakpoint
DROP FUNCTION "psqlqueue"."put_outbox" (int, text, text, text, jsonb, jsonb);
--> statement-breakpoint
-- Puts one message for one queue into the outbox. Touches nothing that others wait for: the caller's transaction may stay
-- open for minutes. A server moves it to the queue after the commit. All copies of a message to a topic have one publication.
CREATE FUNCTION "psqlqueue"."put_outbox" (
	p_queue_no int, p_id text, p_body text, p_label text, p_attributes jsonb, p_options jsonb,
	p_topic_id text DEFAULT NULL, p_publication_id text DEFAULT NULL, p_topic_queues int DEFAULT NULL
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
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
		content_key, topic_id, publication_id, topic_queues, ordering_key, fairness_key, weight, priority)
	values (
		p_queue_no, p_id, case when starts_with(p_body, c_magic) then c_magic || '0:' || p_body else p_body end, p_label,
		nullif(p_attributes, 'null'), (p_options ->> 'delay_seconds')::numeric::int,
		(p_options ->> 'deliver_at')::timestamptz, (p_options ->> 'ttl_seconds')::numeric::int,
		(p_options ->> 'expires_at')::timestamptz,
		translate(rtrim(encode(sha256(convert_to('id:' || (p_options ->> 'dedup_id'), 'UTF8')), 'base64'), '='), '+/', '-_'),
		translate(rtrim(encode(sha256(convert_to('body:' || p_body, 'UTF8')), 'base64'), '='), '+/', '-_'),
		-- Where the content is the id: as if the client had sent the SHA-256 of the body, in hex.
		translate(rtrim(encode(sha256(convert_to('id:' || encode(sha256(convert_to(p_body, 'UTF8')), 'hex'), 'UTF8')), 'base64'),
			'='), '+/', '-_'),
		p_topic_id, p_publication_id, p_topic_queues, p_options ->> 'ordering_key', p_options ->> 'fairness_key', (p_options ->> 'weight')::numeric::smallint,
		-- Of a queue that knows no priorities: it comes from a topic, and is ignored.
		case
			when (select known.priority_enabled from psqlqueue.queues as known where known.no = p_queue_no)
				then coalesce((p_options ->> 'priority')::numeric::smallint, 0)
			else 0
		end);
end $$;
--> statement-breakpoint
-- The rules of a publish over HTTP, for one message; p_prefix names it in a list.
CREATE OR REPLACE FUNCTION "psqlqueue"."check_message" (
	p_prefix text, p_body text, p_label text, p_attributes jsonb, p_options jsonb
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
declare
	v_problems text[] := '{}';
	v_number jsonb;
	v_name text;
	v_type text;
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
	-- In a list they are members of JSON like all others, which would otherwise be stored as text whatever they are.
	for v_name, v_type in
		select rule.name, rule.type
		from (values ('body', 'string'), ('label', 'string'), ('dedup_id', 'string'), ('notify', 'boolean')) as rule (name, type)
		where p_prefix <> '' or rule.name not in ('body', 'label')
	loop
		if jsonb_typeof(coalesce(p_options -> v_name, 'null')) not in (v_type, 'null') then
			v_problems := v_problems || (p_prefix || v_name || ': must be in a valid format');
			p_options := p_options - v_name;
		end if;
	end loop;
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
	for v_name in select * from (values ('deliver_at'), ('expires_at')) as rule (name) loop
		begin
			if v_name = 'deliver_at' and (p_options ->> v_name)::timestamptz > now() + interval '31536000 seconds' then
				v_problems := v_problems || (p_prefix || v_name || ': must be no greater than a year from now');
			elsif v_name = 'expires_at' and (p_options ->> v_name)::timestamptz <= now() then
				v_problems := v_problems || (p_prefix || v_name || ': must be in the future');
			end if;
		exception when data_exception then
			v_problems := v_problems || (p_prefix || v_name || ': must be in a valid format');
		end;
	end loop;
	if cardinality(v_problems) > 0 then
		perform psqlqueue.refuse(3, 'request validation failed', array_to_string(v_problems, '; ') || '.');
	end if;
end $$;
--> statement-breakpoint
-- Publishes to the subscriptions that the caller's transaction sees. Returns the number of queues.
CREATE OR REPLACE FUNCTION "psqlqueue"."publish_topic" (
	topic text, body text, label text DEFAULT NULL, attributes jsonb DEFAULT NULL, options jsonb DEFAULT NULL
) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET standard_conforming_strings = on SET backslash_quote = safe_encoding SET transform_null_equals = off SET array_nulls = on
SET datestyle = 'ISO, MDY' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1 AS $$
declare
	v_queue record;
	v_count int := 0;
	v_publication_id text := psqlqueue.make_id();
begin
	perform psqlqueue.check_right('publish', topic);
	perform psqlqueue.check_message('', body, label, attributes, options);
	if not exists (select from psqlqueue.topics as known where known.id = topic) then
		perform psqlqueue.refuse(8, 'topic not found');
	end if;
	for v_queue in
		select known.no, known.publish_paused, count(*) over () as count
		from psqlqueue.subscriptions as subscription
		join psqlqueue.queues as known on known.no = subscription.queue_no
		where subscription.topic_id = topic
			and psqlqueue.filter_matches(subscription.message_filters, coalesce(attributes, '{}'))
		order by known.no
	loop
		if v_queue.publish_paused then
			perform psqlqueue.refuse(17, 'queue closed');
		end if;
		perform psqlqueue.put_outbox(v_queue.no, psqlqueue.make_id(), body, label, attributes, options,
			topic, v_publication_id, v_queue.count::int);
		v_count := v_count + 1;
	end loop;
	if v_count > 0 and coalesce((options ->> 'notify')::boolean, true) then
		perform pg_notify('psqlqueue_outbox', '');
	end if;
	return v_count;
end $$;
--> statement-breakpoint
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA "psqlqueue" FROM PUBLIC;
