import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, chownSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import path from "node:path";
import { buildBinary } from "./binary.ts";
import { freePort } from "./postgres.ts";

setDefaultTimeout(90_000);

// Docker does not run everywhere, so the image's root file system is assembled here from the Dockerfile's own COPY
// lines.
const dockerfile = readFileSync(path.resolve(import.meta.dir, "../Dockerfile"), "utf8");
const arch = process.arch === "arm64" ? "arm64" : "amd64";
const can_chroot =
  process.platform === "linux" &&
  process.getuid?.() === 0 &&
  Bun.spawnSync(["unshare", "--mount", "true"]).exitCode === 0;

const root = can_chroot ? mkdtempSync("/tmp/psqlqueue-image-") : "";
const running = new Set<ReturnType<typeof Bun.spawn>>();
afterAll(async () => {
  for (const child of running) child.kill("SIGKILL");
  await Promise.all([...running].map((child) => child.exited));
  if (root !== "") rmSync(root, { recursive: true, force: true });
});

const stages = dockerfile.split(/^(?=FROM )/m);
const stageOf = (name: string) => stages.find((stage) => stage.includes(name)) ?? "";
const copies = (stage: string) =>
  [...stage.matchAll(/^COPY --from=build (?:--chown=(\d+):(\d+) )?(\S+) (\S+)$/gm)].map(
    ([, uid, gid, from = "", to = ""]) => ({ from, to, uid: Number(uid ?? 0), gid: Number(gid ?? 0) }),
  );

async function assemble(): Promise<void> {
  const binary = await buildBinary();
  for (const { from, to, uid, gid } of [...copies(stageOf(`AS libraries-${arch}`)), ...copies(stages.at(-1) ?? "")]) {
    const target = path.join(root, to);
    if (from === "/empty") mkdirSync(target);
    else {
      mkdirSync(path.dirname(target), { recursive: true });
      copyFileSync(from === "/build/dist/psqlqueue" ? binary : from, target);
      chmodSync(target, 0o755);
    }
    chownSync(target, uid, gid);
  }
  // What a container runtime mounts.
  mkdirSync(path.join(root, "proc"));
  mkdirSync(path.join(root, "dev"));
  chmodSync(root, 0o755);
}

async function start(port: number) {
  const user = /^USER (\d+:\d+)$/m.exec(dockerfile)?.[1] ?? "";
  const settings = [...dockerfile.matchAll(/^ENV (PSQLQUEUE_DATA_DIR)=(\S+)$/gm)].map(
    ([, name, value]) => `${name}=${value}`,
  );
  const script = `mount -t proc proc ${root}/proc && mount --rbind /dev ${root}/dev &&
    exec chroot --userspec=${user} ${root} /psqlqueue server`;
  const child = Bun.spawn(["unshare", "--mount", "--propagation", "private", "sh", "-c", script], {
    env: {
      PATH: process.env["PATH"] ?? "",
      PSQLQUEUE_SERVER_PORT: String(port),
      PSQLQUEUE_METRICS_PORT: "0",
      PSQLQUEUE_SERVER_HOST: "127.0.0.1",
      PSQLQUEUE_METRICS_HOST: "127.0.0.1",
      ...Object.fromEntries(settings.map((setting) => setting.split("=", 2) as [string, string])),
    },
    stdout: "pipe",
    stderr: "inherit",
  });
  running.add(child);
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    if (child.exitCode !== null) throw new Error(`the server ended: ${await new Response(child.stdout).text()}`);
    if (
      await fetch(`${url}/v1/healthz`).then(
        (response) => response.ok,
        () => false,
      )
    )
      return { child, url };
    await Bun.sleep(20);
  }
}

test("the Dockerfile is as an image for production should be", () => {
  expect(stages.at(-1)).toMatch(/^USER 65532:65532$/m);
  expect(stages.at(-1)).toMatch(/^ENTRYPOINT \["\/psqlqueue"\]$/m);
  expect(stages.at(-1)).toMatch(/^HEALTHCHECK .*CMD \["\/psqlqueue", "healthcheck"\]$/m);
  expect(stages.at(-1)).toMatch(/^VOLUME \/data$/m);
  expect(copies(stageOf(`AS libraries-${arch}`))).toHaveLength(5);
});

test.if(can_chroot)(
  "the image's files alone run the queue, and a killed one loses nothing",
  async () => {
    await assemble();
    const bytes = copies(stageOf(`AS libraries-${arch}`))
      .concat(copies(stages.at(-1) ?? ""))
      .reduce((sum, { to }) => sum + statSync(path.join(root, to)).size, 0);
    expect(bytes).toBeLessThan(145_000_000);

    const port = await freePort();
    const first = await start(port);
    const send = (url: string, method: string, target: string, body?: unknown) =>
      fetch(`${url}/v1/queues${target}`, { method, ...(body !== undefined && { body: JSON.stringify(body) }) });
    const settings = { id: "q", ack_deadline_seconds: 60, message_retention_seconds: 3600 };
    expect((await send(first.url, "POST", "", settings)).status).toBe(201);
    const statuses = await Promise.all(
      Array.from({ length: 1000 }, (_, i) => send(first.url, "POST", "/q/messages", { body: String(i) })),
    );
    expect(statuses.every((response) => response.status === 204)).toBe(true);
    first.child.kill("SIGKILL");
    await first.child.exited;

    const second = await start(port);
    const bodies = new Set<string>();
    for (;;) {
      const { data } = (await (await send(second.url, "GET", "/q/messages")).json()) as { data: { body: string }[] };
      if (data.length === 0) break;
      for (const message of data) bodies.add(message.body);
    }
    expect(bodies.size).toBe(1000);
    second.child.kill("SIGTERM");
    expect(await second.child.exited).toBe(0);
  },
  60_000,
);
