import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { documents, json } from "./output.ts";

const Snapshot = Type.Object({
  age_seconds: Type.Number(),
  pid: Type.Union([Type.Integer({ description: "For pg_terminate_backend" }), Type.Null()]),
  application_name: Type.String(),
  user: Type.String(),
  state: Type.String(),
});

const TableState = Type.Object(
  {
    name: Type.String(),
    live_rows: Type.Integer({ description: "Estimated" }),
    dead_rows: Type.Integer({ description: "Estimated; vacuum removes them" }),
    table_bytes: Type.Integer(),
    index_bytes: Type.Integer(),
    last_vacuum: Type.Union([Type.String({ format: "date-time" }), Type.Null()]),
  },
  { title: "TableHealth" },
);

const MaintenanceSchema = Type.Object(
  {
    oldest_snapshot: Type.Union([Snapshot, Type.Null()]),
    tables: Type.Array(TableState),
  },
  {
    title: "Maintenance",
    example: {
      oldest_snapshot: null,
      tables: [
        {
          name: "messages",
          live_rows: 1000,
          dead_rows: 10,
          table_bytes: 1_048_576,
          index_bytes: 524_288,
          last_vacuum: "2026-01-31T12:00:00.000000Z",
        },
      ],
    },
  },
);

/** `/v1/maintenance`: what vacuum has to do in the database, and what holds it up. */
export const maintenanceRoutes = (broker: Broker) =>
  new Elysia({ prefix: "/v1/maintenance", normalize: false }).get(
    "",
    async () => json(200, await broker.getTableHealth()),
    {
      detail: documents(
        "getMaintenance",
        "health",
        "Dead rows and sizes per table, and the oldest snapshot that keeps vacuum from removing them",
        [{ status: 200, schema: MaintenanceSchema, description: "The state of the database" }],
        [],
      ),
    },
  );
