CREATE TABLE "psqlqueue"."queue_minutes" (
	"minute" timestamp with time zone NOT NULL,
	"queue_no" integer NOT NULL,
	"published" integer NOT NULL,
	"delivered" integer NOT NULL,
	"acked" integer NOT NULL,
	"failed" integer NOT NULL,
	"ready" integer,
	"leased" integer,
	"hidden" integer,
	"oldest_ready_age_seconds" integer,
	CONSTRAINT "queue_minutes_queue_no_minute_pk" PRIMARY KEY("queue_no","minute")
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."archived_messages" ADD COLUMN "events" jsonb;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "events" jsonb;--> statement-breakpoint
ALTER TABLE "psqlqueue"."rates" ADD COLUMN "delivered" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."rates" ADD COLUMN "failed" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queue_minutes" ADD CONSTRAINT "queue_minutes_queue_no_queues_no_fk" FOREIGN KEY ("queue_no") REFERENCES "psqlqueue"."queues"("no") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
-- A failure added to a message's past: the first one and the latest 19 are kept.
CREATE FUNCTION "psqlqueue"."add_event" (p_events jsonb, p_event text, p_attempt int, p_error text) RETURNS jsonb
LANGUAGE sql STABLE AS $$
	select case
			when p_events is null then '[]'::jsonb
			when jsonb_array_length(p_events) >= 20 then p_events - 1
			else p_events
		end
		|| jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
			'at', to_char(now() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
			'event', p_event, 'attempt', p_attempt, 'error', left(p_error, 500))))
$$;
