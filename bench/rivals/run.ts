// Other queues put through the shape of work that ours is put through: see "Rivals" in ../README.md.

import { parseArgs } from "node:util";
import { runToEnd } from "../children.ts";
import { type Hands, openHands } from "./hands.ts";
import { createBench, measureFlush, works } from "./measure.ts";
import { type Rival, type RivalName, rival_names, startRival } from "./rivals.ts";
import { MissingError } from "./servers.ts";
import { printConditions, printRows, type Rows, workText } from "./table.ts";

const usage = `usage: bun bench/rivals/run.ts [options]

Puts other queues through the same work as psqlqueue, one after the other, and prints a table.

  --only LIST   of ${rival_names.join(",")}
  --seconds N   of a measurement, default 1; each is taken twice

RabbitMQ and NATS are measured where Debian's packages rabbitmq-server and nats-server are installed.
`;

const seconds_max = 60;
const rounds = 2;

const onStep = (step: string) => process.stderr.write(`· ${step}\n`);

function readOptions(args: string[]) {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    args,
    options: { help: { type: "boolean", short: "h" }, only: text, seconds: text },
  });
  const only = (values.only?.split(",") ?? rival_names) as RivalName[];
  const unknown = only.find((name) => !rival_names.includes(name));
  if (unknown !== undefined) throw new TypeError(`--only ${unknown}: one of ${rival_names.join(", ")}`);
  const seconds = Number(values.seconds ?? 1);
  if (!(seconds > 0 && seconds <= seconds_max)) {
    throw new TypeError(`--seconds ${values.seconds}: above 0, at most ${seconds_max}`);
  }
  return { only, seconds, is_help: values.help ?? false };
}

/** Opened, or what is missing for it. */
async function openRivals({ only, seconds }: { only: RivalName[]; seconds: number }) {
  const opened: { rival: Rival; hands: Hands; bench: ReturnType<typeof createBench> }[] = [];
  const missing: string[] = [];
  for (const name of only) {
    onStep(`${name} starts`);
    try {
      const rival = await startRival(name);
      const hands = await openHands(rival);
      opened.push({ rival, hands, bench: createBench(hands, seconds) });
    } catch (error) {
      if (!(error instanceof MissingError)) throw error;
      missing.push(`${name}: not measured, for want of ${error.message}`);
      onStep(missing.at(-1) ?? "");
    }
  }
  return { opened, missing };
}

async function measure({ only, seconds }: { only: RivalName[]; seconds: number }): Promise<number> {
  const flush_ms = measureFlush();
  const { opened, missing } = await openRivals({ only, seconds });
  const rows: Rows = new Map(opened.map(({ rival }) => [rival, works.map(() => [])]));
  for (let round = 0; round < rounds; round++) {
    for (const [i, work] of works.entries()) {
      onStep(`${workText(work)}: round ${round + 1} of ${rounds}`);
      // One after the other, so that what the machine does meanwhile hits all, and who comes first changes.
      for (const { rival, bench } of round % 2 === 0 ? opened : opened.toReversed()) {
        rows.get(rival)?.[i]?.push(await bench(work));
      }
    }
  }
  const counts = new Map<Rival, Awaited<ReturnType<Hands["count"]>>>();
  for (const { rival, hands } of opened) {
    counts.set(rival, await hands.count());
    await hands.end();
  }
  console.log(`${printRows(rows)}\n\n${printConditions(rows, counts, { seconds, rounds, missing, flush_ms })}`);
  return 0;
}

async function main(argv: string[]): Promise<number> {
  let options: ReturnType<typeof readOptions>;
  try {
    options = readOptions(argv);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    return 2;
  }
  if (options.is_help) {
    process.stdout.write(usage);
    return 0;
  }
  return await runToEnd(() => measure(options));
}

process.exit(await main(Bun.argv.slice(2)));
