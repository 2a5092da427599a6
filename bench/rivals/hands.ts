// The other end of `worker.ts`: gives a client its work, and adds what servers and machine used meanwhile.

import path from "node:path";
import { endAtEnd, endProcess } from "../children.ts";
import { familyCpu, machineCpu } from "../cpu.ts";
import type { Result } from "../tally.ts";
import type { Rival } from "./rivals.ts";
import type { Command, Count, Job, Report } from "./worker.ts";

/** A result with the CPU seconds of the servers and of everything else on the machine. */
export type Measured = Result & { servers_seconds: number; other_seconds: number };

/** A rival's client in its process. One call at a time. */
export type Hands = {
  /** Makes the queue hold so many messages at least. */
  fillTo(count: number): Promise<void>;
  run(job: Job): Promise<Measured>;
  count(): Promise<Count>;
  end(): Promise<void>;
};

/** Something may hang: no command takes longer. */
const command_ms_max = 120_000;

/** Starts the process and connects the client. */
export async function openHands({ name, client, server }: Rival): Promise<Hands> {
  let backlog = 0;
  let onReport: (report: Report) => void = () => {};
  const child = Bun.spawn([process.execPath, path.join(import.meta.dir, "worker.ts")], {
    env: { PATH: process.env["PATH"] ?? "", NODE_ENV: "production" },
    stdin: "ignore",
    // What a library says there is no part of the table.
    stdout: Bun.file("/dev/stderr"),
    stderr: "inherit",
    ipc: (message) => onReport(message as Report),
  });
  endAtEnd(child);
  const died = child.exited.then((code) => {
    throw new Error(`${name}: the process of its client ended with ${code}`);
  });
  died.catch(() => {});

  const readCpu = () => ({
    servers: server.pids.reduce((sum, pid) => sum + (familyCpu(pid) ?? 0), 0),
    machine: machineCpu(),
  });

  async function command(own: Command): Promise<{ measured: Measured | undefined; count: Count | undefined }> {
    const done = Promise.withResolvers<Count | undefined>();
    let before = readCpu();
    let measured: Measured | undefined;
    onReport = (report) => {
      if (report.event === "measuring") before = readCpu();
      else if (report.event === "failed") done.reject(new Error(`${name}: ${report.error}`));
      else if (report.event === "idle") {
        backlog = report.backlog;
        done.resolve(report.count);
      } else {
        const after = readCpu();
        const servers_seconds = after.servers - before.servers;
        const known = servers_seconds + report.result.cpu_seconds;
        const other_seconds = Math.max(0, after.machine - before.machine - known);
        measured = { ...report.result, servers_seconds, other_seconds };
      }
    };
    const limit = () => done.reject(new Error(`${name}: ${own.name} took more than ${command_ms_max} ms`));
    const timer = setTimeout(limit, command_ms_max);
    child.send(own);
    try {
      return { count: await Promise.race([done.promise, died]), measured };
    } finally {
      clearTimeout(timer);
    }
  }

  await command({ name: "open", client, place: server.place });
  return {
    async fillTo(count) {
      if (count > backlog) await command({ name: "fill", count: count - backlog });
    },
    run: async (job) => (await command({ name: "run", job })).measured as Measured,
    count: async () => (await command({ name: "count" })).count as Count,
    end: () => endProcess(child),
  };
}
