import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { existsSync, readFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import path from "node:path";
import { checkListeners, healthUrl, urlOf } from "../src/commands/listeners.ts";
import { readConfig } from "../src/config.ts";
import { emptyDirectory, killChildren, runChild, sourceProgram, startServerChild } from "./child.ts";
import { createMigratedDatabase } from "./harness.ts";
import { freePort } from "./postgres.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const time: string = expect.any(String);
const loopback = {
  PSQLQUEUE_SERVER_HOST: "127.0.0.1",
  PSQLQUEUE_SERVER_PORT: "0",
  PSQLQUEUE_METRICS_HOST: "127.0.0.1",
  PSQLQUEUE_METRICS_PORT: "0",
};

/** Starts a server with these settings that cannot serve; answers its log, and that it made nothing. */
async function refused(env: Record<string, string>, program = sourceProgram) {
  const cwd = emptyDirectory();
  const { code, lines } = await runChild(["server"], { cwd, env: { ...loopback, ...env }, program });
  expect({ code, has_made: existsSync(path.join(cwd, "psqlqueue-data")) }).toEqual({ code: 1, has_made: false });
  return lines;
}

const listenError = (listener: string, error: string) => [
  { time, level: "ERROR", msg: `${listener} server listen error`, error },
];

describe("a server that cannot listen ends before it makes a data directory, and names the setting:", () => {
  test.each(["SERVER", "METRICS"])("the port of %s is in use", async (which) => {
    const taken = Bun.serve({ hostname: "127.0.0.1", port: 0, reusePort: false, fetch: () => new Response() });
    const name = `PSQLQUEUE_${which}_PORT`;
    expect(await refused({ [name]: String(taken.port) })).toEqual(
      listenError(
        which === "SERVER" ? "http" : "metrics",
        `${name}=${taken.port} is in use on PSQLQUEUE_${which}_HOST=127.0.0.1 already; ` +
          `set ${name} to another port, or stop what listens there`,
      ),
    );
    await taken.stop(true);
  });

  test("one port for both", async () => {
    const port = String(await freePort());
    const ports = { PSQLQUEUE_SERVER_PORT: port, PSQLQUEUE_METRICS_PORT: port };
    const error =
      `PSQLQUEUE_METRICS_PORT="${port}" cannot be used; ` +
      `allowed: another port than PSQLQUEUE_SERVER_PORT (${port})`;
    for (const host of ["127.0.0.1", "0.0.0.0"]) {
      expect(await refused({ ...ports, PSQLQUEUE_METRICS_HOST: host })).toEqual([
        { time, level: "ERROR", msg: "cli app failed", error },
      ]);
    }
    const apart = { ...loopback, ...ports, PSQLQUEUE_METRICS_HOST: "127.0.0.2" };
    expect(await checkListeners(readConfig(apart))).toEqual({
      http: "127.0.0.1",
      metrics: "127.0.0.2",
      sqs: "127.0.0.1",
    });
  });

  test("an address of another machine, a name that nobody knows, one of a link", async () => {
    const cases = [
      ["192.0.2.99", "is not an address of this machine"],
      ["no-such-host.invalid", "is no address, and no name that can be resolved here"],
      ["fe80::1", "and PSQLQUEUE_SERVER_PORT=0 cannot be listened on"],
    ];
    for (const [host = "", sentence = ""] of cases) {
      const [line, ...more] = await refused({ PSQLQUEUE_SERVER_HOST: host });
      expect(more).toEqual([]);
      expect(line).toMatchObject({ level: "ERROR", msg: "http server listen error" });
      expect(line?.["error"]).toStartWith(`PSQLQUEUE_SERVER_HOST=${host} ${sentence}`);
      expect(line?.["error"]).toContain("; set PSQLQUEUE_SERVER_HOST to 0.0.0.0 for all addresses of this machine, or");
    }
  });

  const can_be_nobody =
    process.platform === "linux" &&
    process.getuid?.() === 0 &&
    Bun.spawnSync(["setpriv", "--reuid=65534", "--clear-groups", ...sourceProgram, "--version"]).exitCode === 0 &&
    Number(readFileSync("/proc/sys/net/ipv4/ip_unprivileged_port_start", "utf8")) > 81;
  test.if(can_be_nobody)("a port that only root may use", async () => {
    const program = ["setpriv", "--reuid=65534", "--clear-groups", ...sourceProgram];
    const sentence =
      "PSQLQUEUE_METRICS_PORT=81 is not allowed to this user; set PSQLQUEUE_METRICS_PORT to a port from 1024";
    expect(await refused({ PSQLQUEUE_METRICS_PORT: "81" }, program)).toEqual(
      listenError("metrics", `${sentence} upwards`),
    );
  });
});

const has_ipv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === "::1"));
const hosts = ["localhost", "0.0.0.0", ...(has_ipv6 ? ["[::1]", "::1", "[::]"] : [])];

test.each(hosts)("a server on %s is found by its healthcheck", async (host) => {
  const url = await createMigratedDatabase();
  const server = await startServerChild(url, { PSQLQUEUE_SERVER_HOST: host, PSQLQUEUE_METRICS_HOST: host });
  const { port, url: shown } = await server.waitFor("http server starting");
  const env = { PSQLQUEUE_SERVER_HOST: host, PSQLQUEUE_SERVER_PORT: String(port) };
  expect(await runChild(["healthcheck"], { env })).toMatchObject({ code: 0, stderr: "" });
  expect((await fetch(`${shown}/v1/healthz`)).status).toBe(200);
  server.signal("SIGTERM");
  expect(await server.exited).toBe(0);
});

test("every way to write an address leads to it", () => {
  const urls = ["0.0.0.0", "0", "[::]", "::0", "[::1]", "0:0:0:0:0:0:0:1", "127.1", "name.example"].map((host) =>
    healthUrl(readConfig({ PSQLQUEUE_SERVER_HOST: host })).replace(":8000/v1/healthz", ""),
  );
  expect(urls).toEqual([
    "http://127.0.0.1",
    "http://127.0.0.1",
    "http://[::1]",
    "http://[::1]",
    "http://[::1]",
    "http://[::1]",
    "http://127.0.0.1",
    "http://name.example",
  ]);
  expect(urlOf("::", 1)).toBe("http://localhost:1");
});

test("clients of SQS have a port of their own beside that of the API, and may have none at all", async () => {
  const list = async (url: string) => {
    const response = await fetch(`${url}/?Action=ListQueues`);
    return [response.status, response.headers.get("content-type")];
  };
  const own = await startServerChild(await createMigratedDatabase(), { PSQLQUEUE_SQS_PORT: "0" });
  const { port } = await own.waitFor("sqs server starting");
  expect(await list(`http://127.0.0.1:${port}`)).toEqual([200, "text/xml"]);
  expect(await list(own.url)).toEqual([200, "text/xml"]);
  expect((await fetch(`http://127.0.0.1:${port}/v1/queues`)).status).toBe(404);
  const off = await startServerChild(await createMigratedDatabase(), { PSQLQUEUE_SQS: "off" });
  expect(await list(off.url)).toEqual([404, "application/json; charset=utf-8"]);
  const taken = await freePort();
  expect(await refused({ PSQLQUEUE_METRICS_PORT: String(taken), PSQLQUEUE_SQS_PORT: String(taken) })).toEqual([
    {
      time,
      level: "ERROR",
      msg: "cli app failed",
      error: `PSQLQUEUE_SQS_PORT="${taken}" cannot be used; allowed: another port than PSQLQUEUE_METRICS_PORT (${taken})`,
    },
  ]);
  const [line] = await refused({ PSQLQUEUE_SQS_ACCESS_KEYS: "id:short" });
  expect(JSON.stringify(line)).not.toContain("id:short");
});
