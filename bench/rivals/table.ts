import { median } from "../rounds.ts";
import { grouped, markdown, short } from "../table.ts";
import type { Latency } from "../tally.ts";
import { type Row, type Work, works } from "./measure.ts";
import type { Rival } from "./rivals.ts";
import type { Count } from "./worker.ts";

/** Of each queue, for each work, a row for each round. */
export type Rows = Map<Rival, Row[][]>;

/** Of one work, over the rounds. */
function cellsOf(rounds: Row[]): string[] {
  const middle = (value: (row: Row) => number) => median(rounds.map(value));
  const latency = (own: (row: Row) => Latency) =>
    rounds.every((row) => own(row).count === 0)
      ? "–"
      : `${short(middle((row) => own(row).p50))} / ${short(middle((row) => own(row).p99))}`;
  return [
    grouped(middle((row) => row.messages_per_second)),
    latency((row) => row.publish),
    latency((row) => row.ack),
    short(middle((row) => row.cpu_us)),
    short(middle((row) => row.client_us)),
    middle((row) => row.other_cores).toFixed(1),
  ];
}

/** What a row is called. */
export const workText = ({ name, publishers, consumers }: Work) =>
  `${name}, ${[publishers, consumers].filter((count) => count > 0).join(" + ")}`;

/** The table: a row for each work and queue, those of one work together. */
export function printRows(rows: Rows): string {
  const heads = [
    "work",
    "queue",
    "messages/s",
    "publish ms: p50 / p99",
    "ack ms: p50 / p99",
    "CPU µs, all",
    "CPU µs, client",
    "other cores",
    "durable? a power cut loses",
    "version",
  ];
  const body = works.flatMap((work, i) =>
    [...rows].map(([{ name, loses, server }, found]) => [
      workText(work),
      name,
      ...cellsOf(found[i] ?? []),
      loses,
      server.version,
    ]),
  );
  return markdown(heads, body, 2);
}

type Conditions = { seconds: number; rounds: number; missing: string[]; flush_ms: number };

/** What the numbers were measured under, what is not the same, and what became of the messages. */
export function printConditions(
  rows: Rows,
  counts: Map<Rival, Count>,
  { seconds, rounds, missing, flush_ms }: Conditions,
): string {
  const general = [
    `${navigator.hardwareConcurrency} cores for clients, servers and databases together; mean of ${rounds} rounds of ${seconds} s`,
    `a flush of 100 bytes to the disk takes ${flush_ms.toFixed(2)} ms (fdatasync, median)`,
    `one process for each client, Bun ${Bun.version}; CPU is that of client, server and database, per message`,
    "closed loop: a publisher has one message of 100 bytes under way, and the next follows its confirm",
    "a consumer takes 10 messages, and acks one after the other, each confirmed before the next where acks are confirmed",
    "both: counted are acks; publishers wait while 2000 messages are not acked",
    "publishing and acking many at once, which most of them know, is not used",
  ];
  const own = [...rows.keys()].map(({ name, server, notes }) => `${name}: ${[server.setting, ...notes].join("; ")}`);
  const verified = [...counts].map(
    ([{ name }, { published, acked, again, left }]) =>
      `${name}: ${grouped(published)} published, ${grouped(acked)} acked, ${left} left, ${again} delivered again`,
  );
  const list = (items: string[]) => items.map((item) => `- ${item}`).join("\n");
  return [list(general), list([...own, ...missing]), list(verified)].join("\n\n");
}
