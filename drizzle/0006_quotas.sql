ALTER TABLE "psqlqueue"."queues" ADD COLUMN "max_message_bytes" bigint;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "max_depth" bigint;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "max_bytes" bigint;