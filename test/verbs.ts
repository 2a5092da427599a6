import type postgres from "postgres";
import type { Answer, Service } from "./harness.ts";

/** A received message, as the API shows it. */
export type Delivered = {
  id: string;
  queue_id: string;
  label: string | null;
  body: string;
  delivery_attempts: number;
  lease_token: string;
  lease_expires_at: string;
  ordering_key?: string;
  last_error?: string;
  dead?: Record<string, unknown>;
};

type Json = Record<string, unknown>;
type Headers = Record<string, string>;

/** The requests that tests of delivery make all the time, on one service. */
export function verbsOf(service: Service) {
  const { call } = service;
  const at = (queue: string, id: string, verb = "") => `/v1/queues/${queue}/messages/${id}${verb && `/${verb}`}`;

  const receive = async (queue: string, query = ""): Promise<Delivered[]> => {
    const answer = await call("GET", `/v1/queues/${queue}/messages${query}`);
    if (answer.status !== 200) throw new Error(`not received: ${answer.text}`);
    return answer.body.data;
  };
  const publish = (queue: string, body: Json, headers?: Headers): Promise<Answer> =>
    call("POST", `/v1/queues/${queue}/messages`, body, headers);

  return {
    publish,
    receive,
    /** Publishes one message and answers its id. */
    async put(queue: string, body: Json = { body: "x" }): Promise<string> {
      const answer = await publish(queue, body);
      if (answer.status !== 204) throw new Error(`not published: ${answer.text}`);
      return answer.headers.get("x-message-id") ?? "";
    },
    /** Receives exactly one message. */
    async take(queue: string, query = ""): Promise<Delivered> {
      const [first, ...others] = await receive(queue, query || "?limit=1");
      if (first === undefined || others.length > 0) throw new Error(`${others.length + (first ? 1 : 0)} received`);
      return first;
    },
    bodies: async (queue: string, query = "") => (await receive(queue, query)).map((message) => message.body),
    ack: (queue: string, id: string, lease_token?: string) => call("PUT", at(queue, id, "ack"), { lease_token }),
    nack: (queue: string, id: string, body: Json = {}) => call("PUT", at(queue, id, "nack"), body),
    extend: (queue: string, id: string, ack_deadline_seconds: number, lease_token?: string, headers?: Headers) =>
      call("PUT", at(queue, id, "extend"), { ack_deadline_seconds, lease_token }, headers),
    look: (queue: string, id: string) => call("GET", at(queue, id)),
    change: (queue: string, id: string, body: Json) => call("PUT", at(queue, id), body),
    /** `where` is the rest of the path: `?lease_token=…`. */
    remove: (queue: string, id: string, where = "") => call("DELETE", at(queue, id) + where),
    stats: async (queue: string) => (await call("GET", `/v1/queues/${queue}/stats`)).body,
    update: (queue: string, body: Json) =>
      call("PUT", `/v1/queues/${queue}`, { ack_deadline_seconds: 30, message_retention_seconds: 3600, ...body }),
    /** Seconds from the database's now to a time that it told. */
    async secondsUntil(time: string): Promise<number> {
      const [row] = await service.sql`select extract(epoch from ${time}::timestamptz - clock_timestamp())::float8 as s`;
      return row?.["s"];
    },
  };
}

/** A refusal as the API answers it. */
export const refused = (code: number, message: string, details?: string) => ({
  code,
  message,
  ...(details !== undefined && { details }),
});

class RolledBack extends Error {}

/** Runs statements in a transaction that is rolled back at the end. */
export async function rollBack(
  sql: postgres.Sql,
  work: (session: postgres.TransactionSql) => Promise<unknown>,
): Promise<void> {
  try {
    await sql.begin(async (session) => {
      await work(session);
      throw new RolledBack();
    });
  } catch (error) {
    if (!(error instanceof RolledBack)) throw error;
  }
}
