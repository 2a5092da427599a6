ALTER TABLE "psqlqueue"."messages" ADD COLUMN "first_leased_at" timestamp with time zone;--> statement-breakpoint
ALTER TABLE "psqlqueue"."messages" ADD COLUMN "extras" jsonb;--> statement-breakpoint
ALTER TABLE "psqlqueue"."queues" ADD COLUMN "extras" jsonb;