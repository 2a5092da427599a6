CREATE TABLE "psqlqueue"."fair_changes" (
	"seq" bigint GENERATED ALWAYS AS IDENTITY (sequence name "psqlqueue"."fair_changes_seq_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"xid" bigint NOT NULL,
	"due_at" timestamp with time zone NOT NULL,
	"queue_no" integer NOT NULL,
	"weight" smallint,
	"fair_key" text collate "C" NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."fair_keys" (
	"virtual_time" double precision NOT NULL,
	"due_at" timestamp with time zone,
	"queue_no" integer NOT NULL,
	"weight" smallint DEFAULT 1 NOT NULL,
	"is_ready" boolean NOT NULL,
	"is_held" boolean DEFAULT false NOT NULL,
	"is_capped" boolean DEFAULT false NOT NULL,
	"fair_key" text collate "C" NOT NULL,
	CONSTRAINT "fair_keys_queue_no_fair_key_pk" PRIMARY KEY("queue_no","fair_key")
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "fairness_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "weight" smallint;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "fair_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "fairness_key" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."outbox" ADD COLUMN "weight" smallint;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "max_in_flight_per_key" integer;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "fair_by" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" drop column "is_governed";--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "is_governed" boolean GENERATED ALWAYS AS (has_priorities or max_in_flight is not null or rate_count is not null or fair_by is not null) STORED NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "virtual_time" double precision DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "ready_from" double precision DEFAULT '-infinity' NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "due_from" timestamp with time zone DEFAULT '-infinity' NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "changes_from" bigint DEFAULT 0 NOT NULL;--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "keyed_to" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."governors" ADD COLUMN "keyed_since" timestamp with time zone;--> statement-breakpoint
CREATE INDEX "fair_changes_queue" ON "psqlqueue"."fair_changes" USING btree ("queue_no","xid","seq");--> statement-breakpoint
CREATE INDEX "fair_keys_ready" ON "psqlqueue"."fair_keys" USING btree ("queue_no","virtual_time","fair_key") WHERE "psqlqueue"."fair_keys"."is_ready";--> statement-breakpoint
CREATE INDEX "fair_keys_due" ON "psqlqueue"."fair_keys" USING btree ("queue_no","due_at") WHERE not "psqlqueue"."fair_keys"."is_ready" and "psqlqueue"."fair_keys"."due_at" is not null;--> statement-breakpoint
CREATE INDEX "fair_keys_capped" ON "psqlqueue"."fair_keys" USING btree ("queue_no","due_at") WHERE "psqlqueue"."fair_keys"."is_capped";--> statement-breakpoint
CREATE INDEX "fair_keys_empty" ON "psqlqueue"."fair_keys" USING btree ("queue_no","virtual_time") WHERE not "psqlqueue"."fair_keys"."is_ready" and "psqlqueue"."fair_keys"."due_at" is null;--> statement-breakpoint
CREATE INDEX "messages_fair" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"fair_key","priority","visible_at","id" collate "POSIX") WHERE "psqlqueue"."messages"."fair_key" is not null;--> statement-breakpoint
CREATE INDEX "messages_fair_label" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"label","fair_key","priority","visible_at","id" collate "POSIX") WHERE "psqlqueue"."messages"."fair_key" is not null and "psqlqueue"."messages"."label" is not null;