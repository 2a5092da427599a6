CREATE TABLE "psqlqueue"."api_keys" (
	"created_at" timestamp with time zone DEFAULT now() NOT NULL,
	"expires_at" timestamp with time zone,
	"last_used_at" timestamp with time zone,
	"rate_tokens" double precision,
	"rate_at" timestamp with time zone,
	"id" text collate "C" PRIMARY KEY NOT NULL,
	"name" text NOT NULL,
	"secret_hash" text collate "C" NOT NULL,
	"scopes" jsonb NOT NULL,
	"namespace" text collate "C",
	"rate_limit" jsonb,
	"encrypted_secret" text collate "C",
	"encryption_key_id" text collate "C"
);
