import type { Client, QueueSummary } from "../../client/src/client.ts";
import { createScreen } from "../terminal/screen.ts";
import { cut, table } from "../terminal/table.ts";
import { CommandError, type Context, type Runner } from "./context.ts";

type Line = Omit<QueueSummary, "dead_queue_id">;

/** Keys, and what they sort by: the largest first, but names. */
const orders = new Map<string, { by: keyof Line; about: string }>([
  ["d", { by: "ready", about: "depth" }],
  ["a", { by: "oldest_ready_age_seconds", about: "age" }],
  ["p", { by: "publish_rate_1m", about: "publish rate" }],
  ["k", { by: "ack_rate_1m", about: "ack rate" }],
  ["l", { by: "leased", about: "leased" }],
  ["i", { by: "queue_id", about: "id" }],
]);

const headings = ["queue", "ready", "age", "leased", "delayed", "backing off", "publish/s", "ack/s"];
const every_seconds = 2;
/** Of one request. */
const page_rows = 1000;

/** One request for a thousand queues: their numbers are those of the server's own counters. */
async function readLines(client: Client): Promise<Line[]> {
  const lines: Line[] = [];
  for (let offset = 0; ; offset += page_rows) {
    const { data, limit } = await client.stats({ limit: page_rows, offset });
    lines.push(...data);
    if (data.length < limit) return lines;
  }
}

function sorted(lines: readonly Line[], by: keyof Line): Line[] {
  return lines.toSorted((a, b) => {
    const difference = by === "queue_id" ? 0 : (b[by] as number) - (a[by] as number);
    return difference || (a.queue_id < b.queue_id ? -1 : 1);
  });
}

/** Seconds for people. */
function age(seconds: number): string {
  if (seconds < 100) return `${seconds}s`;
  if (seconds < 6000) return `${Math.floor(seconds / 60)}m`;
  return seconds < 360_000 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}

const rowOf = (line: Line) => [
  line.queue_id,
  line.ready,
  age(line.oldest_ready_age_seconds),
  line.leased,
  line.delayed,
  line.backing_off,
  line.publish_rate_1m,
  line.ack_rate_1m,
];

type View = { url: string; lines: readonly Line[]; by: keyof Line; failure: string | undefined };

/** The whole picture, as wide and high as the terminal. */
function draw({ url, lines, by, failure }: View, columns: number, rows: number): string[] {
  const keys = [...orders].map(([key, { about }]) => `${key} ${about}`).join("  ");
  const state = failure === undefined ? `${lines.length} queues by ${by}` : `not up to date: ${failure}`;
  const head = [`psqlqueue ${url}  ${state}`, `${keys}  q quit`, ""].map((line) => cut(line, columns));
  const body = table(headings, sorted(lines, by).map(rowOf), columns);
  return [...head, ...body].slice(0, rows);
}

async function show(context: Context, seconds: number, first: keyof Line): Promise<number> {
  const { stopping } = context.signals();
  const screen = createScreen(process.stdin, process.stdout);
  const view: View = { url: context.url, lines: [], by: first, failure: undefined };
  const redraw = () => screen.show(draw(view, screen.columns(), screen.rows()));
  const { promise: ended, resolve: end } = Promise.withResolvers<void>();
  screen.onResize(redraw);
  screen.onKey((key) => {
    // In raw mode Ctrl-C is a key like others.
    if (key === "q" || key === "\u0003") return end();
    view.by = orders.get(key)?.by ?? view.by;
    redraw();
  });
  stopping.addEventListener("abort", () => end(), { once: true });
  let is_over = false;
  void ended.then(() => {
    is_over = true;
  });
  try {
    // The first answer decides whether there is anything to show.
    view.lines = await readLines(context.client);
    screen.open();
    while (!is_over) {
      redraw();
      await Promise.race([ended, Bun.sleep(seconds * 1000)]);
      if (is_over) break;
      try {
        view.lines = await readLines(context.client);
        view.failure = undefined;
      } catch (error) {
        view.failure = (error as Error).message;
      }
    }
  } finally {
    screen.close();
  }
  return 0;
}

type TopOptions = { every?: number; sort?: string; once?: boolean };

/** `top` */
export const top: Runner = {
  async run(context: Context, _: string[], options: TopOptions) {
    const { client, out } = context;
    const { every = every_seconds, sort = "depth", once } = options;
    const by = [...orders.values()].find(({ about }) => about.replace(" ", "-") === sort)?.by ?? "ready";
    if (!once && !out.is_json && !(process.stdout.isTTY && process.stdin.isTTY)) {
      throw new CommandError("top draws on a terminal: add --once for one table, or --json for one object a line", 2);
    }
    if (!once && !out.is_json) return await show(context, every, by);
    const { stopping } = once ? { stopping: undefined } : context.signals();
    for (;;) {
      const lines = sorted(await readLines(client), by);
      if (!out.is_json) {
        const rows = lines.map((line) => Object.fromEntries(rowOf(line).map((own, i) => [headings[i] ?? "", own])));
        await out.rows(rows, headings);
      } else for (const line of lines) await out.item("", { time: new Date().toISOString(), ...line });
      if (stopping === undefined || stopping.aborted) return 0;
      const { promise, resolve } = Promise.withResolvers<void>();
      stopping.addEventListener("abort", () => resolve(), { once: true });
      await Promise.race([promise, Bun.sleep(every * 1000)]);
      if (stopping.aborted) return 0;
    }
  },
};
