// The benchmark: see README.md in this folder.

import { measureTable } from "./cells.ts";
import { runToEnd } from "./children.ts";
import { measureFlat } from "./flat/flat.ts";
import { runGate } from "./gate.ts";
import { startLoad } from "./load.ts";
import { type Options, OptionsError, readOptions, usage } from "./options.ts";
import { measureSides, sidesOf } from "./sides.ts";
import { openSubject } from "./subject.ts";
import { printFlat, printTable } from "./table.ts";

const onStep = (step: string) => process.stderr.write(`· ${step}\n`);

async function measure(options: Options): Promise<number> {
  const load = startLoad();
  const sides = sidesOf(options);
  if (sides !== undefined) {
    console.log(await measureSides(load, options, sides, onStep));
    return 0;
  }
  const subject = await openSubject(options);
  console.log(
    `${subject.description}; bodies of ${options.body_bytes} bytes; ${navigator.hardwareConcurrency} cores\n`,
  );
  if (options.has_table) {
    const { rows, null_rates } = await measureTable(subject, load, options, onStep);
    console.log(printTable(rows, null_rates));
  }
  if (options.flat.length > 0) {
    const { rows, skipped } = await measureFlat({ subject, load, options, onStep });
    console.log(`${options.has_table ? "\n" : ""}${printFlat(rows, skipped)}`);
  }
  return options.gate === "no" ? 0 : await runGate(subject, load, options);
}

async function main(argv: string[]): Promise<number> {
  let options: Options | undefined;
  try {
    options = readOptions(argv);
  } catch (error) {
    if (!(error instanceof OptionsError)) throw error;
    process.stderr.write(`${error.message}\n\n${usage}`);
    return 2;
  }
  if (options === undefined) {
    process.stdout.write(usage);
    return 0;
  }
  const asked = options;
  return await runToEnd(
    () => measure(asked),
    (error) => (error instanceof OptionsError ? error.message : error),
  );
}

process.exit(await main(Bun.argv.slice(2)));
