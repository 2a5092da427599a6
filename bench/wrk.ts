// A second opinion on the load generator: wrk, publishing in a closed loop.

import path from "node:path";
import { guardProcess, temporaryDirectory } from "./children.ts";
import { readCpu, type Subject } from "./subject.ts";
import { publishBody } from "./workload.ts";

/** What wrk says, and what it cost. */
export type WrkResult = {
  requests_per_second: number;
  /** Answers that were not 2xx, and errors of sockets. */
  errors: number;
  generator_us: number;
  server_us: number | undefined;
};

/** Publishes to one queue for so many seconds. Throws when wrk fails. */
export async function runWrk(
  subject: Subject,
  queue_id: string,
  connections: number,
  seconds: number,
  body_bytes: number,
): Promise<WrkResult> {
  const script = path.join(temporaryDirectory(), "publish.lua");
  const body = publishBody({ body_bytes, label: "my-label" });
  await Bun.write(
    script,
    `wrk.method = "POST"\nwrk.body = [==[${body}]==]\nwrk.headers["Content-Type"] = "application/json"\n`,
  );
  const url = `${subject.url}/v1/queues/${queue_id}/messages`;
  const before = readCpu(subject);
  const whole_seconds = Math.max(1, Math.round(seconds));
  const wrk = Bun.spawn(["wrk", "-t1", `-c${connections}`, `-d${whole_seconds}s`, "-s", script, url], {
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
  });
  guardProcess(wrk.pid);
  const [output, code] = await Promise.all([new Response(wrk.stdout).text(), wrk.exited]);
  const after = readCpu(subject);
  if (code !== 0) throw new Error(`wrk ended with ${code}:\n${output}`);
  const numbers = (pattern: RegExp) => (pattern.exec(output)?.slice(1) ?? []).map(Number);
  const [requests = 0, took_seconds = whole_seconds] = numbers(/(\d+) requests in ([\d.]+)s/);
  const refused = numbers(/Non-2xx or 3xx responses: (\d+)/);
  const failed = numbers(/Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)/);
  const generator_seconds = Number(wrk.resourceUsage()?.cpuTime.total ?? 0) / 1e6;
  const server_seconds =
    after.server === undefined || before.server === undefined ? undefined : after.server - before.server;
  return {
    requests_per_second: requests / took_seconds,
    errors: [...refused, ...failed].reduce((sum, count) => sum + count, 0),
    generator_us: (generator_seconds / requests) * 1e6,
    server_us: server_seconds === undefined ? undefined : (server_seconds / requests) * 1e6,
  };
}
