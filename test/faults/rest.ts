// What must be so when all is at rest.

import postgres from "postgres";
import type { Client } from "./client.ts";
import type { Stage } from "./stage.ts";

type Depths = { ready: number; delayed: number; leased: number; backing_off: number; blocked_keys: number };

/** What a queue holds; undefined: it could not be asked. */
export async function depthsOf(client: Client, port: number, queue: string): Promise<Depths | undefined> {
  const { status, text } = await client.call(port, "GET", `/v1/queues/${queue}/stats`);
  return status === 200 ? (JSON.parse(text) as Depths) : undefined;
}

/** Messages that are still to be delivered, or acked. */
export const heldIn = ({ ready, delayed, leased, backing_off }: Depths): number =>
  ready + delayed + leased + backing_off;

/** At rest all places of a cap are free: what crashes had taken has been given back. */
export async function checkCap(
  stage: Pick<Stage, "client" | "history">,
  port: number,
  queue: string,
  in_flight_max: number,
) {
  const { client, history } = stage;
  const at = `/v1/queues/${queue}`;
  const messages = Array.from({ length: in_flight_max + 1 }, (_, n) => ({ body: `cap ${n}` }));
  await client.call(port, "POST", `${at}/messages/batch`, { messages });
  const received: { id: string; lease_token: string }[] = [];
  for (let count = -1; count !== received.length; ) {
    count = received.length;
    const { text } = await client.call(port, "GET", `${at}/messages?limit=100&ack_deadline_seconds=60`);
    received.push(...(JSON.parse(text) as { data: typeof received }).data);
  }
  if (received.length !== in_flight_max) {
    history.problems.push(`I16 ${received.length} messages can be leased at once where ${in_flight_max} may`);
  }
  await client.call(port, "POST", `${at}/ack`, { items: received.map(({ id, lease_token }) => ({ id, lease_token })) });
  await client.call(port, "PUT", `${at}/purge`);
}

/** What the load left behind in a queue, when all is at rest: it must be nothing. */
export async function checkRest(stage: Pick<Stage, "client" | "history">, port: number, queue: string) {
  const { client, history } = stage;
  const repair = await client.call(port, "POST", `/v1/queues/${queue}/repair`);
  if (repair.status !== 200 || JSON.parse(repair.text).repaired !== 0) {
    history.problems.push(`I15 ordering keys were stuck: ${repair.status} ${repair.text}`);
  }
  const keys = await client.call(port, "GET", `/v1/queues/${queue}/keys?limit=10`);
  if (keys.status !== 200 || JSON.parse(keys.text).data.length > 0) {
    history.problems.push(`I15 ordering keys are left: ${keys.status} ${keys.text.slice(0, 300)}`);
  }
}

/** No queue of the database has messages. */
export async function checkStored({ history }: Pick<Stage, "history">, url: string): Promise<void> {
  const sql = postgres(url, { max: 1, onnotice() {} });
  const [row] = await sql<{ n: number }[]>`select count(*)::int as n from psqlqueue.messages`;
  if (row?.n !== 0) history.problems.push(`I10 ${row?.n} messages are stored after all were acked`);
  await sql.end({ timeout: 1 });
}
