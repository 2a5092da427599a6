import { EventEmitter } from "node:events";
import { Logger, makeWorkerUtils, run } from "graphile-worker";
import postgres from "postgres";
import { batch, type Client, type Publish, partsOf } from "../client.ts";

const task = "bench";
const insert_max = 1000;

type Payload = { body: string };

/** graphile-worker: `addJob`, and a runner whose task does nothing. */
export async function openGraphileWorker(place: Record<string, string>): Promise<Client> {
  const connectionString = place["url"] ?? "";
  // A line for each message would be most of the work.
  const logger = new Logger(() => (level, message) => {
    if (level === "error") console.error("graphile-worker:", message);
  });
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  const sql = postgres(connectionString, { max: 1, onnotice: () => {} });
  const publish: Publish = async (body) => void (await utils.addJob(task, { body }));
  return {
    publishers: async (count) => Array.from({ length: count }, () => publish),
    async fill(bodies) {
      for (const part of partsOf(bodies, insert_max)) {
        await utils.addJobs(part.map((body) => ({ identifier: task, payload: { body } })));
      }
    },
    async consume(count, onAcked) {
      const events = new EventEmitter();
      events.on("job:complete", ({ job, error }: { job: { payload: unknown }; error: unknown }) => {
        if (error) throw error;
        onAcked((job.payload as Payload).body, undefined);
      });
      const runner = await run({
        preset: {
          worker: {
            connectionString,
            concurrentJobs: count,
            // As many as its documentation asks for.
            maxPoolSize: count + 2,
            localQueue: { size: count * batch },
          },
        },
        logger,
        events,
        noHandleSignals: true,
        taskList: { [task]: async () => {} },
      });
      return async () => await runner.stop();
    },
    async left() {
      const [row] = await sql`select count(*)::int as count from graphile_worker._private_jobs`;
      return Number(row?.["count"]);
    },
    async close() {
      await sql.end();
      await utils.release();
    },
  };
}
