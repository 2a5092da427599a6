// The process in which the client of a queue works, so that its CPU is its own. One command at a time comes over IPC.
// It ends when its parent is gone.

import { createTally, noteAnswer, type Result, resultOf } from "../tally.ts";
import { PUBLISH, SETTLE } from "../workload.ts";
import type { Client } from "./client.ts";
import { type ClientName, openClient } from "./clients.ts";

/** What is done at once, and for how long. */
export type Job = { publishers: number; consumers: number; warmup_ms: number; duration_ms: number };

/** What the worker is told. */
export type Command =
  | { name: "open"; client: ClientName; place: Record<string, string> }
  | { name: "fill"; count: number }
  /** With consumers, the queue is empty after it. */
  | { name: "run"; job: Job }
  | { name: "count" };

/** What was published and acked since the start, warm-ups and preparations included. */
export type Count = {
  published: number;
  acked: number;
  /** Acked more than once: delivered again. */
  again: number;
  /** In the queue, as the queue says. */
  left: number;
};

/** What the worker says. Every command ends with `idle` or `failed`. */
export type Report =
  | { event: "measuring" }
  | { event: "measured"; result: Result }
  | { event: "idle"; backlog: number; count?: Count }
  | { event: "failed"; error: string };

const body_bytes = 100;
/** Publishers wait while so many messages are not acked, where there are consumers too. */
const backlog_max = 2000;
/** Without publishers a measurement ends earlier when fewer are left: not all consumers would have something to do. */
const backlog_min = 1000;
const fill_part = 20_000;
const drain_ms_max = 60_000;

const bodyOf = (serial: number) => String(serial).padEnd(body_bytes, "x");

/** What was published, by serial numbers, and how often each was acked. */
function createLedger() {
  let seen = new Uint8Array(1 << 20);
  return {
    published: 0,
    acked: 0,
    again: 0,
    noteAcked(body: string): void {
      const serial = Number.parseInt(body, 10);
      if (!(serial >= 0 && serial < this.published)) throw new Error(`received what nobody published: ${body}`);
      if (serial >= seen.length) {
        const larger = new Uint8Array(seen.length * 2);
        larger.set(seen);
        seen = larger;
      }
      if (seen[serial] === 0) this.acked += 1;
      else this.again += 1;
      seen[serial] = 1;
    },
  };
}

/** What does not come is not waited for longer: the count at the end tells. */
const within = (ms: number, promise: Promise<void>) => Promise.race([promise, Bun.sleep(ms)]);

function createWorker(report: (message: Report) => void) {
  const ledger = createLedger();
  let client: Client | undefined;
  const opened = () => client as Client;

  async function run({ publishers, consumers, warmup_ms, duration_ms }: Job): Promise<void> {
    let tally = createTally();
    let is_measuring = false;
    let is_over = false;
    const finished = Promise.withResolvers<void>();
    const is_both = publishers > 0 && consumers > 0;
    const waiting: (() => void)[] = [];
    const isFull = () => is_both && ledger.published - ledger.acked >= backlog_max && !is_over;

    const isLow = () => publishers === 0 && ledger.published - ledger.acked < backlog_min;

    const emptied = Promise.withResolvers<void>();
    const onAcked = (body: string, ack_ms: number | undefined) => {
      ledger.noteAcked(body);
      if (ack_ms === undefined) tally.settled += 1;
      else noteAnswer(tally, SETTLE, 1, 200, ack_ms);
      if (is_measuring && isLow()) finished.resolve();
      if (is_over && ledger.published === ledger.acked) emptied.resolve();
      if (!isFull()) waiting.pop()?.();
    };
    const publishing = (await opened().publishers(publishers)).map(async (publish) => {
      while (!is_over) {
        if (isFull()) await new Promise<void>((resolve) => waiting.push(resolve));
        if (is_over) return;
        const asked_ms = performance.now();
        await publish(bodyOf(ledger.published++));
        noteAnswer(tally, PUBLISH, 1, 200, performance.now() - asked_ms);
      }
    });
    const failing = Promise.all(publishing);
    const stop = consumers > 0 ? await opened().consume(consumers, onAcked) : async () => {};
    const sleep = (ms: number) => Promise.race([Bun.sleep(ms), failing.then(() => finished.promise)]);
    await sleep(warmup_ms);
    tally = createTally();
    is_measuring = true;
    // The warm-up may have taken all.
    if (isLow()) finished.resolve();
    report({ event: "measuring" });
    await Promise.race([sleep(duration_ms), finished.promise]);
    report({ event: "measured", result: resultOf(tally, performance.now()) });
    is_over = true;
    for (const go of waiting) go();
    await failing;
    if (consumers > 0 && ledger.published > ledger.acked) await within(drain_ms_max, emptied.promise);
    await stop();
  }

  async function count(): Promise<Count> {
    const { published, acked, again } = ledger;
    return { published, acked, again, left: await opened().left() };
  }

  const obey = async (command: Command): Promise<Count | undefined> => {
    if (command.name === "open") client = await openClient(command.client, command.place);
    else if (command.name === "run") await run(command.job);
    else if (command.name === "count") return await count();
    else {
      for (let left = command.count; left > 0; left -= fill_part) {
        const bodies = Array.from({ length: Math.min(left, fill_part) }, () => bodyOf(ledger.published++));
        await opened().fill(bodies);
      }
    }
    return undefined;
  };
  return { obey, backlog: () => ledger.published - ledger.acked };
}

if (import.meta.main) {
  const report = (message: Report) => process.send?.(message);
  const { obey, backlog } = createWorker(report);
  process.on("disconnect", () => process.exit(0));
  // Ctrl-C reaches the whole group; the parent decides.
  process.on("SIGINT", () => {});
  process.on("message", (message) => {
    obey(message as Command).then(
      (count) => report({ event: "idle", backlog: backlog(), ...(count && { count }) }),
      (error) => report({ event: "failed", error: error instanceof Error ? (error.stack ?? "") : String(error) }),
    );
  });
}
