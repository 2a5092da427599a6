CREATE TABLE "psqlqueue"."ordering_keys" (
	"floor_seq" bigint NOT NULL,
	"held_from" bigint,
	"held_to" bigint,
	"blocked_seq" bigint,
	"blocked_since" timestamp with time zone,
	"queue_no" integer NOT NULL,
	"dead_queue_no" integer,
	"ordering_group" text collate "C" NOT NULL,
	"dead_id" text collate "C",
	CONSTRAINT "ordering_keys_queue_no_ordering_group_pk" PRIMARY KEY("queue_no","ordering_group")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."stale_keys" (
	"seq" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "psqlqueue"."stale_keys_seq_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"queue_no" integer NOT NULL,
	"ordering_group" text collate "C" NOT NULL
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."archived_messages" ADD COLUMN "ordering_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "ordering_seq" bigint;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "due_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "ordering_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "ordering_group" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "ordering_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "ordering_scope" text collate "C" DEFAULT 'key' NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "on_dead" text collate "C" DEFAULT 'move' NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "allow_delayed_ordering" boolean DEFAULT false NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "dedup_scope" text collate "C" DEFAULT 'queue' NOT NULL;--> statement-breakpoint
CREATE INDEX "ordering_keys_blocked" ON "psqlqueue"."ordering_keys" USING btree ("queue_no","ordering_group") WHERE "psqlqueue"."ordering_keys"."blocked_seq" is not null;--> statement-breakpoint
CREATE INDEX "ordering_keys_dead" ON "psqlqueue"."ordering_keys" USING btree ("dead_queue_no") WHERE "psqlqueue"."ordering_keys"."blocked_seq" is not null;--> statement-breakpoint
CREATE INDEX "messages_ordered" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"ordering_group","ordering_seq") WHERE "psqlqueue"."messages"."ordering_seq" is not null;