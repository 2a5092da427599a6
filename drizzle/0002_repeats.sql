ALTER TABLE "psqlqueue"."publish_batches" ADD COLUMN "done" text collate "C";--> statement-breakpoint
ALTER TABLE "psqlqueue"."topic_deduplications" ADD COLUMN "id" text collate "C";