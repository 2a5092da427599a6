CREATE TABLE "psqlqueue"."breaking_migrations" (
	"created_at" bigint PRIMARY KEY NOT NULL
);
