// F15, F16: the embedded database, killed with its process, and asked for by two.

import { writeFileSync } from "node:fs";
import path from "node:path";
import type { Scenario } from "./scenario.ts";
import { createServer, type ServerOptions, scratchDirectory } from "./servers.ts";
import type { Stage } from "./stage.ts";

/** Statements wait for each other there. */
const rate_max = 1000;

async function serverOn(stage: Stage, data_dir: string) {
  return await stage.server({ PSQLQUEUE_DATA_DIR: data_dir });
}

/** The process is killed, and the database with it, in the middle of whatever it writes. */
export const killedEmbedded: Scenario = {
  id: "F15",
  title: "kill -9 with the embedded database",
  quick_dose: 0.02,
  async perform(stage) {
    const { random } = stage;
    const server = await serverOn(stage, scratchDirectory("data"));
    await stage.play({ ports: [server.port], url: null, messages: 60_000, rate_max }, async () => {
      const kills = stage.dose(60, 3);
      for (let n = 0; n < kills; n++) {
        await Bun.sleep(random.exponential(1500));
        stage.fault("kill -9 of the process");
        await server.kill();
        await server.start();
      }
    });
  },
};

/** A second process is refused while the first goes on; what a killed one leaves behind keeps nobody out. */
export const secondProcesses: Scenario = {
  id: "F16",
  title: "second processes on an embedded database",
  quick_dose: null,
  async perform(stage) {
    const { history } = stage;
    const data_dir = scratchDirectory("data");
    const server = await serverOn(stage, data_dir);
    const refusals: string[] = [];
    const options: ServerOptions = {
      program: stage.program(),
      env: { PSQLQUEUE_DATA_DIR: data_dir },
      onProblem: (problem) => void refusals.push(problem),
    };
    await stage.play({ ports: [server.port], url: null, messages: 4000, rate_max: 300 }, async (load) => {
      for (let left = stage.dose(20, 2); left > 0; left--) {
        stage.fault("second process on the directory");
        const second = await createServer(options);
        const has_started = await second.start().then(
          () => true,
          () => false,
        );
        await second.kill();
        if (has_started) history.problems.push("a second process opened the directory");
        if (!refusals.some((text) => text.includes("is in use by"))) {
          history.problems.push(`a second process was refused without a reason: ${refusals.join(" ")}`);
        }
        refusals.length = 0;
        const before = load.acknowledged();
        while (load.acknowledged() === before) await Bun.sleep(10);
        stage.fault("start after kill -9, with its stale socket and the name of another owner");
        await server.kill();
        writeFileSync(path.join(data_dir, "owner"), JSON.stringify({ pid: process.pid, host: "elsewhere" }));
        await server.start();
      }
    });
  },
};
