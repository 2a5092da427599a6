CREATE TABLE "psqlqueue"."governors" (
	"tokens" double precision NOT NULL,
	"refilled_at" timestamp with time zone NOT NULL,
	"marked_at" timestamp with time zone,
	"queue_no" integer PRIMARY KEY NOT NULL
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "slot_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "priority" smallint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "priority_enabled" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "priority_aging_seconds" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "has_priorities" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "max_in_flight" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "rate_count" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "rate_per_seconds" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "rate_burst" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "is_governed" boolean GENERATED ALWAYS AS (has_priorities or max_in_flight is not null or rate_count is not null) STORED NOT NULL;--> statement-breakpoint
CREATE INDEX "messages_slots" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"slot_key","lease_expires_at") WHERE "psqlqueue"."messages"."slot_key" is not null and "psqlqueue"."messages"."lease_token" is not null;