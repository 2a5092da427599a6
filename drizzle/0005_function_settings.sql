-- These run in sessions of others, whose settings are not ours: what the functions depend on, they bring.
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET standard_conforming_strings = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET backslash_quote = safe_encoding;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET transform_null_equals = off;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET array_nulls = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET datestyle = 'ISO, MDY';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET timezone = 'UTC';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET intervalstyle = 'postgres';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish" (text, text, text, jsonb, jsonb) SET extra_float_digits = 1;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET standard_conforming_strings = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET backslash_quote = safe_encoding;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET transform_null_equals = off;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET array_nulls = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET datestyle = 'ISO, MDY';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET timezone = 'UTC';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET intervalstyle = 'postgres';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_batch" (text, jsonb) SET extra_float_digits = 1;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET standard_conforming_strings = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET backslash_quote = safe_encoding;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET transform_null_equals = off;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET array_nulls = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET datestyle = 'ISO, MDY';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET timezone = 'UTC';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET intervalstyle = 'postgres';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."publish_topic" (text, text, text, jsonb, jsonb) SET extra_float_digits = 1;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET standard_conforming_strings = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET backslash_quote = safe_encoding;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET transform_null_equals = off;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET array_nulls = on;
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET datestyle = 'ISO, MDY';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET timezone = 'UTC';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET intervalstyle = 'postgres';
--> statement-breakpoint
ALTER FUNCTION "psqlqueue"."ack" (text, text, text) SET extra_float_digits = 1;
