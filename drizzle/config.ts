import { defineConfig } from "drizzle-kit";

export default defineConfig({
  dialect: "postgresql",
  schema: [
    "./src/db/schema.ts",
    "./src/db/dedupSchema.ts",
    "./src/db/outboxSchema.ts",
    "./src/db/orderingSchema.ts",
    "./src/db/rightsSchema.ts",
    "./src/db/historySchema.ts",
  ],
  out: "./drizzle",
});
