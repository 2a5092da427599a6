// F19: the processes of one server, which share its port, and its parent.

import { childrenOf } from "../processes.ts";
import type { Scenario } from "./scenario.ts";
import type { ServerProcess } from "./servers.ts";
import { waitUntil } from "./stage.ts";

const workers = 2;
const workersOf = (server: ServerProcess): number[] => {
  const pid = server.pid();
  return pid === undefined ? [] : childrenOf(pid);
};

/** One worker at a time, also one that is not up again yet; every fifth time the parent of all. */
export const killedWorkers: Scenario = {
  id: "F19",
  title: "kill -9 of a server's workers",
  quick_dose: null,
  skipped: () => (process.platform === "linux" ? undefined : "a server has several processes on Linux only"),
  async perform(stage) {
    const { random } = stage;
    const { url } = await stage.database();
    const server = await stage.server({ PSQLQUEUE_DATABASE_URL: url, PSQLQUEUE_WORKERS: String(workers) });
    await stage.play({ ports: [server.port], url, messages: 40_000 }, async () => {
      for (let n = 0; n < stage.dose(25, 5); n++) {
        await Bun.sleep(random.exponential(1500));
        // Those that were started again get their part of the load.
        stage.client.renew();
        if (n % 5 === 4) {
          stage.fault("kill -9 of the parent");
          await server.kill();
          await server.start();
          continue;
        }
        await waitUntil("there is a worker", 10_000, () => workersOf(server).length > 0);
        stage.fault("kill -9 of one of two workers");
        process.kill(random.pick(workersOf(server)), "SIGKILL");
      }
    });
    await waitUntil("all workers are up again", 10_000, () => workersOf(server).length === workers).catch((error) =>
      stage.history.problems.push(String(error)),
    );
  },
};
