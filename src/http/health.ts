import { Type } from "@sinclair/typebox";
import { Elysia } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { BrokerError } from "../errors.ts";
import { documents, json } from "./output.ts";

const Health = Type.Object({ success: Type.Boolean() }, { title: "Health", example: { success: true } });

/** `/v1/healthz`: 200 while the database answers and the server is not stopping. */
export const healthRoutes = (broker: Broker, isStopping: () => boolean) =>
  new Elysia({ prefix: "/v1/healthz", normalize: false }).get(
    "",
    async () => {
      if (isStopping()) throw new BrokerError("unavailable", "the server is stopping");
      await broker.ping();
      return json(200, { success: true });
    },
    {
      detail: documents(
        "getHealth",
        "health",
        "Can requests be served?",
        [{ status: 200, schema: Health, description: "They can" }],
        [],
      ),
    },
  );
