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
