import { PgBoss } from "pg-boss";
import postgres from "postgres";
import { batch, type Client, type Publish, partsOf, pull } from "../client.ts";

const queue = "bench";
const insert_max = 1000;
/** A fetch does not wait for messages: after an empty one a consumer asks again. */
const pause_ms = 10;

/** pg-boss: `send`, and `fetch` and `complete` in a loop. */
export async function openPgBoss(place: Record<string, string>): Promise<Client> {
  const boss = new PgBoss({ connectionString: place["url"] ?? "" });
  boss.on("error", (error) => console.error("pg-boss:", error));
  await boss.start();
  await boss.createQueue(queue);
  const sql = postgres(place["url"] ?? "", { max: 1, onnotice: () => {} });
  const publish: Publish = async (body) => {
    if ((await boss.send(queue, { body })) === null) throw new Error("pg-boss did not store a message");
  };
  return {
    publishers: async (count) => Array.from({ length: count }, () => publish),
    async fill(bodies) {
      for (const part of partsOf(bodies, insert_max)) {
        await boss.insert(
          queue,
          part.map((body) => ({ data: { body } })),
        );
      }
    },
    consume: async (count, onAcked) =>
      pull(
        count,
        {
          async receive() {
            const jobs = await boss.fetch<{ body: string }>(queue, { batchSize: batch });
            if (jobs.length === 0) await Bun.sleep(pause_ms);
            return jobs;
          },
          bodyOf: ({ data }) => data.body,
          ack: async ({ id }) => void (await boss.complete(queue, id)),
        },
        onAcked,
      ),
    async left() {
      const [row] = await sql`
        select count(*)::int as count from pgboss.job where name = ${queue} and state <> 'completed'`;
      return Number(row?.["count"]);
    },
    async close() {
      await sql.end();
      await boss.stop({ graceful: false });
    },
  };
}
