// Runs jobs on the load generator and adds what the server and PostgreSQL used meanwhile.

import path from "node:path";
import { endAtEnd } from "./children.ts";
import type { Job, Report } from "./generator.ts";
import { readCpu, type Subject } from "./subject.ts";
import type { Result } from "./tally.ts";

/** A result with the CPU seconds of all three; undefined where the processes are not known. */
export type Measured = Result & {
  server_seconds: number | undefined;
  postgres_seconds: number | undefined;
  /** Of everything else on the machine; undefined where the server is not known. */
  other_seconds: number | undefined;
};

/** The load generator's process. */
export type Load = {
  /** Runs one job. Rejects when the generator fails; errors of the server are counted in the result. */
  run(subject: Subject, job: Omit<Job, "url">): Promise<Measured>;
};

/** Something may hang: no job takes this much longer than it should. */
const slack_ms_max = 60_000;

const difference = (later: number | undefined, earlier: number | undefined) =>
  later === undefined || earlier === undefined ? undefined : later - earlier;

/** Starts the generator's process. Jobs run one after the other. */
export function startLoad(): Load {
  let onReport: (report: Report) => void = () => {};
  const child = Bun.spawn([process.execPath, path.join(import.meta.dir, "generator.ts")], {
    env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "production" },
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    ipc: (message) => onReport(message as Report),
  });
  endAtEnd(child);
  const died = child.exited.then((code) => {
    throw new Error(`the load generator ended with ${code}`);
  });
  died.catch(() => {});

  return {
    async run(subject, job) {
      const done = Promise.withResolvers<Measured>();
      let before = readCpu(subject);
      onReport = (report) => {
        if (report.event === "measuring") before = readCpu(subject);
        else if (report.event === "failed") done.reject(new Error(`load generator: ${report.error}`));
        else {
          const after = readCpu(subject);
          const server_seconds = difference(after.server, before.server);
          const postgres_seconds = difference(after.postgres, before.postgres);
          const known = (server_seconds ?? 0) + (postgres_seconds ?? 0) + report.result.cpu_seconds;
          const other = Math.max(0, after.machine - before.machine - known);
          const other_seconds = server_seconds === undefined ? undefined : other;
          done.resolve({ ...report.result, server_seconds, postgres_seconds, other_seconds });
        }
      };
      const limit_ms = job.warmup_ms + job.duration_ms + slack_ms_max;
      const timer = setTimeout(() => done.reject(new Error(`no result within ${limit_ms} ms`)), limit_ms);
      child.send({ ...job, url: subject.url } satisfies Job);
      try {
        return await Promise.race([done.promise, died]);
      } finally {
        clearTimeout(timer);
        onReport = () => {};
      }
    },
  };
}
