import { expect, setDefaultTimeout, test } from "bun:test";
import path from "node:path";
import { listen, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();

test("requests recorded from psqlqueue 0.4.1 are answered as recorded, apart from the documented deviations", async () => {
  const listener = await listen(service.app);
  const url = `http://127.0.0.1:${listener.port}`;
  const folder = path.join(import.meta.dir, "golden");
  const replay = Bun.spawn(["bun", path.join(folder, "replay.mjs"), url, path.join(folder, "v1.json")], {
    stdout: "pipe",
    stderr: "inherit",
  });
  const output = await new Response(replay.stdout).text();
  await listener.stop(true);
  expect(output).toMatch(/^\d+ passed, 0 failed\n$/);
  expect(await replay.exited).toBe(0);
}, 120_000);
