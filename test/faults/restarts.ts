// F13: servers that are stopped as they should be.

import { refused } from "./history.ts";
import type { Scenario } from "./scenario.ts";

/** SIGTERM under load, of one server after the other: what was sent on a connection in use is answered. */
export const gracefulStops: Scenario = {
  id: "F13",
  title: "graceful stops and rolling restarts",
  quick_dose: 0.02,
  async perform(stage) {
    const { history, random } = stage;
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const ports = servers.map(({ port }) => port);
    const codes = new Set<number>();
    await stage.play({ ports, url, messages: 40_000 }, async () => {
      const restarts = stage.dose(20, 2);
      for (let n = 0; n < restarts; n++) {
        await Bun.sleep(random.exponential(500));
        const server = servers[n % 2];
        stage.fault("SIGTERM and restart of one of two servers");
        codes.add((await server?.stop()) ?? -1);
        await server?.start();
      }
    });
    if ([...codes].some((code) => code !== 0)) history.problems.push(`I14 exit codes ${[...codes]}`);
    const cut = [...history.tries, ...history.settles].filter(({ status }) => status <= 0 && status !== refused);
    // Of a connection that was made just then the server knows nothing before its first request has arrived.
    const [fresh, kept] = [cut.filter((one) => one.is_first), cut.filter((one) => !one.is_first)];
    for (const { kind, sent_ms } of kept) {
      history.problems.push(`I14 a ${kind} at ${sent_ms} was left without an answer`);
    }
    stage.note(`${fresh.length} connections were made as a server closed, and reset`);
  },
};
