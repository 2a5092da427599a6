CREATE SCHEMA IF NOT EXISTS "psqlqueue";
--> statement-breakpoint
CREATE TABLE "psqlqueue"."archived_messages" (
	"archived_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"lease_token" bigint,
	"queue_no" integer NOT NULL,
	"delivery_attempts" integer NOT NULL,
	"priority" smallint NOT NULL,
	"id" text collate "C" NOT NULL,
	"outcome" text collate "C" NOT NULL,
	"label" text collate "C",
	"attributes" jsonb,
	"body" text NOT NULL,
	"last_error" text,
	"dead" jsonb
) PARTITION BY RANGE ("archived_at");
--> statement-breakpoint
CREATE TABLE "psqlqueue"."deduplications" (
	"created_at" timestamp with time zone NOT NULL,
	"queue_no" integer NOT NULL,
	"key" text collate "C" NOT NULL,
	"message_id" text collate "C" NOT NULL,
	"body_hash" text collate "C" NOT NULL,
	CONSTRAINT "deduplications_queue_no_key_pk" PRIMARY KEY("queue_no","key")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."deleted_queues" (
	"no" integer PRIMARY KEY NOT NULL,
	"deleted_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."leaders" (
	"job" text collate "C" PRIMARY KEY NOT NULL,
	"holder" text collate "C" NOT NULL,
	"until" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."messages" (
	"visible_at" timestamp with time zone NOT NULL,
	"expires_at" timestamp with time zone NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"lease_token" bigint,
	"queue_no" integer NOT NULL,
	"delivery_attempts" integer DEFAULT 0 NOT NULL,
	"priority" smallint DEFAULT 0 NOT NULL,
	"id" text collate "C" NOT NULL,
	"label" text collate "C",
	"attributes" jsonb,
	"body" text NOT NULL,
	"leased_at" timestamp with time zone,
	"lease_expires_at" timestamp with time zone,
	"has_ttl" boolean DEFAULT false NOT NULL,
	"last_error" text,
	"dead" jsonb,
	CONSTRAINT "messages_queue_no_id_pk" PRIMARY KEY("queue_no","id")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."outbox" (
	"seq" bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "psqlqueue"."outbox_seq_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 9223372036854775807 START WITH 1 CACHE 1),
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"queue_no" integer NOT NULL,
	"delay_seconds" integer,
	"ttl_seconds" integer,
	"id" text collate "C" NOT NULL,
	"deliver_at" timestamp with time zone,
	"expires_at" timestamp with time zone,
	"dedup_key" text collate "C",
	"body_hash" text collate "C",
	"label" text collate "C",
	"attributes" jsonb,
	"body" text NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."publish_batches" (
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"id" text collate "C" PRIMARY KEY NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."queues" (
	"no" integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY (sequence name "psqlqueue"."queues_no_seq" INCREMENT BY 1 MINVALUE 1 MAXVALUE 2147483647 START WITH 1 CACHE 1),
	"id" text collate "C" NOT NULL,
	"ack_deadline_seconds" integer NOT NULL,
	"message_retention_seconds" integer NOT NULL,
	"delivery_delay_seconds" integer DEFAULT 0 NOT NULL,
	"archive_retention_seconds" integer,
	"dead_queue_no" integer,
	"message_max_deliveries" integer,
	"dead_letter_on_expiry" boolean DEFAULT false NOT NULL,
	"receive_wait_seconds" integer DEFAULT 0 NOT NULL,
	"max_lease_seconds" integer DEFAULT 43200 NOT NULL,
	"strict_leases" boolean DEFAULT false NOT NULL,
	"allow_tokenless_extend" boolean DEFAULT false NOT NULL,
	"dedup_window_seconds" integer DEFAULT 300 NOT NULL,
	"content_dedup" boolean DEFAULT false NOT NULL,
	"dedup_strict" boolean DEFAULT false NOT NULL,
	"retry_min_seconds" integer DEFAULT 0 NOT NULL,
	"retry_max_seconds" integer DEFAULT 600 NOT NULL,
	"retry_multiplier" double precision DEFAULT 2 NOT NULL,
	"retry_jitter" text collate "C" DEFAULT 'none' NOT NULL,
	"publish_paused" boolean DEFAULT false NOT NULL,
	"consume_paused" boolean DEFAULT false NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"updated_at" timestamp with time zone DEFAULT now() NOT NULL,
	CONSTRAINT "queues_id_unique" UNIQUE("id")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."rates" (
	"minute" timestamp with time zone NOT NULL,
	"published" bigint NOT NULL,
	"acked" bigint NOT NULL,
	"queue_id" text collate "C" NOT NULL,
	CONSTRAINT "rates_queue_id_minute_pk" PRIMARY KEY("queue_id","minute")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."subscriptions" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"topic_id" text collate "C" NOT NULL,
	"queue_no" integer NOT NULL,
	"message_filters" jsonb,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."tasks" (
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"finished_at" timestamp with time zone,
	"moved" bigint DEFAULT 0 NOT NULL,
	"failed" bigint DEFAULT 0 NOT NULL,
	"total_estimate" bigint DEFAULT 0 NOT NULL,
	"queue_no" integer NOT NULL,
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"kind" text collate "C" NOT NULL,
	"queue_id" text collate "C" NOT NULL,
	"state" text collate "C" DEFAULT 'running' NOT NULL,
	"options" jsonb NOT NULL,
	"position" text collate "C" DEFAULT '' NOT NULL,
	"error" text
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."topic_deduplications" (
	"created_at" timestamp with time zone NOT NULL,
	"topic_id" text collate "C" NOT NULL,
	"key" text collate "C" NOT NULL,
	"delivered_queues" integer NOT NULL,
	CONSTRAINT "topic_deduplications_topic_id_key_pk" PRIMARY KEY("topic_id","key")
);
--> statement-breakpoint
CREATE TABLE "psqlqueue"."topics" (
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"created_at" timestamp with time zone DEFAULT now() NOT NULL
);
--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD CONSTRAINT "queues_dead_queue_no_queues_no_fk" FOREIGN KEY ("dead_queue_no") REFERENCES "psqlqueue"."queues"("no") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "psqlqueue"."subscriptions" ADD CONSTRAINT "subscriptions_topic_id_topics_id_fk" FOREIGN KEY ("topic_id") REFERENCES "psqlqueue"."topics"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "psqlqueue"."subscriptions" ADD CONSTRAINT "subscriptions_queue_no_queues_no_fk" FOREIGN KEY ("queue_no") REFERENCES "psqlqueue"."queues"("no") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "psqlqueue"."topic_deduplications" ADD CONSTRAINT "topic_deduplications_topic_id_topics_id_fk" FOREIGN KEY ("topic_id") REFERENCES "psqlqueue"."topics"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "archived_messages_id" ON "psqlqueue"."archived_messages" USING btree ("queue_no","id");--> statement-breakpoint
CREATE INDEX "archived_messages_expiry" ON "psqlqueue"."archived_messages" USING btree ("expires_at");--> statement-breakpoint
CREATE INDEX "deduplications_created" ON "psqlqueue"."deduplications" USING btree ("created_at");--> statement-breakpoint
CREATE INDEX "messages_ready" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"priority","visible_at","id" collate "POSIX");--> statement-breakpoint
CREATE INDEX "messages_label" ON "psqlqueue"."messages" USING btree (("queue_no" + 0),"label","priority","visible_at","id" collate "POSIX") WHERE "psqlqueue"."messages"."label" is not null;--> statement-breakpoint
CREATE UNIQUE INDEX "subscriptions_topic_queue" ON "psqlqueue"."subscriptions" USING btree ("topic_id","queue_no");--> statement-breakpoint
CREATE INDEX "subscriptions_queue" ON "psqlqueue"."subscriptions" USING btree ("queue_no");--> statement-breakpoint
CREATE UNIQUE INDEX "tasks_running" ON "psqlqueue"."tasks" USING btree ("queue_no","kind") WHERE "psqlqueue"."tasks"."state" = 'running';--> statement-breakpoint
CREATE INDEX "topic_deduplications_created" ON "psqlqueue"."topic_deduplications" USING btree ("created_at");