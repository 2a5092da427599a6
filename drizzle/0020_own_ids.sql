-- An id is one message's in its queue. A copy that was imported may stand in the queue that the message is moved to: the one
-- that comes then gets an id of its own, and tells its former one. Every way from one queue to another is an update.
CREATE FUNCTION "psqlqueue"."give_own_id" () RETURNS trigger LANGUAGE plpgsql AS $$
begin
	if exists (
		select from psqlqueue.messages as message where message.queue_no = new.queue_no and message.id = new.id
	) then
		new.id := psqlqueue.make_id();
		new.events := psqlqueue.add_event(new.events, 'renamed', old.delivery_attempts, old.id);
	end if;
	return new;
end $$;
--> statement-breakpoint
CREATE TRIGGER "messages_own_id" BEFORE UPDATE OF "queue_no" ON "psqlqueue"."messages" FOR EACH ROW
	WHEN (new.queue_no <> old.queue_no) EXECUTE FUNCTION "psqlqueue"."give_own_id" ();
--> statement-breakpoint
-- Messages keep the order that they came in, and a dead one that of its queue: with another scope beside them, two of a key would
-- be delivered at once. One change at a time, also of the dead-letter queue at the other end.
CREATE FUNCTION "psqlqueue"."keep_ordering_scope" () RETURNS trigger LANGUAGE plpgsql AS $$
begin
	perform pg_advisory_xact_lock(hashtextextended('psqlqueue:dead_letter_chain', 0));
	if exists (
		select from psqlqueue.queues as other
		where (other.no = new.dead_queue_no or other.dead_queue_no = new.no) and other.ordering_scope <> new.ordering_scope
	) then
		raise exception using errcode = 'check_violation', constraint = 'queues_ordering_scope',
			message = 'ordering_scope must be the same for a queue and its dead-letter queue';
	end if;
	if tg_op = 'UPDATE' then
		if new.ordering_scope <> old.ordering_scope and (
			exists (
				select from psqlqueue.messages as message
				where message.queue_no + 0 = new.no and message.ordering_seq is not null
			) or exists (
				select from psqlqueue.ordering_keys as key where key.queue_no = new.no and key.blocked_seq is not null
			)
		) then
			raise exception using errcode = 'check_violation', constraint = 'queues_ordering_scope_in_use',
				message = 'ordering_scope cannot change while the queue holds messages with an ordering key';
		end if;
	end if;
	return new;
end $$;
--> statement-breakpoint
CREATE TRIGGER "queues_ordering_scope" BEFORE UPDATE OF "ordering_scope", "dead_queue_no" ON "psqlqueue"."queues" FOR EACH ROW
	WHEN (
		new.ordering_scope <> old.ordering_scope
		or new.dead_queue_no is not null and new.dead_queue_no is distinct from old.dead_queue_no
	)
	EXECUTE FUNCTION "psqlqueue"."keep_ordering_scope" ();
--> statement-breakpoint
CREATE TRIGGER "queues_ordering_scope_of_dead" BEFORE INSERT ON "psqlqueue"."queues" FOR EACH ROW
	WHEN (new.dead_queue_no is not null) EXECUTE FUNCTION "psqlqueue"."keep_ordering_scope" ();
