// F7, F8: consumers that race for leases, and servers whose clocks are wrong.

import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { Scenario } from "./scenario.ts";

/** Work takes about as long as a lease, so tokens are superseded all the time. */
export const leaseRaces: Scenario = {
  id: "F7",
  title: "lease races",
  quick_dose: 0.015,
  async perform(stage) {
    const { url } = await stage.database();
    const env = { PSQLQUEUE_DATABASE_URL: url };
    const servers = [await stage.server(env), await stage.server(env)];
    const work = { low_ms: 500, high_ms: 1600, abandoned: 0, nacked: 0.1, extended: 0.3, stale: 1, at_once: 40 };
    await stage.play(
      {
        ports: servers.map(({ port }) => port),
        url,
        messages: 20_000,
        work,
        ack_deadline_seconds: 1,
        deliveries_max: 5,
        rate_max: 400,
        backlog_max: 600,
        drain_ms_max: 90_000,
      },
      async () => {},
    );
    stage.note(`${stage.history.burials.length} messages in the dead-letter queue`);
  },
};

/** One server is an hour ahead, one an hour behind, and both step. */
export const steppedClocks: Scenario = {
  id: "F8",
  title: "clock steps of servers",
  quick_dose: null,
  skipped: ({ binary }) => (binary === null ? undefined : "a binary loads no module that sets its clock"),
  async perform(stage) {
    const { random } = stage;
    const { url } = await stage.database();
    const hour_ms = 3_600_000;
    const directory = mkdtempSync(path.join(tmpdir(), "psqlqueue-faults-clock-"));
    const files = ["a", "b"].map((name) => path.join(directory, name));
    const step = (file: string, ms: number) => writeFileSync(file, String(Math.round(ms)));
    const ports: number[] = [];
    for (const [i, file] of files.entries()) {
      step(file, i === 0 ? hour_ms : -hour_ms);
      const env = { PSQLQUEUE_DATABASE_URL: url, PSQLQUEUE_TEST_CLOCK_FILE: file };
      ports.push((await stage.server(env, path.join(import.meta.dir, "steppedClock.ts"))).port);
    }
    await stage.play({ ports, url, messages: 30_000 }, async () => {
      for (let left = stage.dose(30, 3); left > 0; left--) {
        await Bun.sleep(2000);
        stage.fault("step of a server's clock by up to an hour");
        step(random.pick(files), random.between(-hour_ms, hour_ms));
      }
    });
  },
};
