import { readdirSync, readFileSync } from "node:fs";

/** What one process has used, and who its parent is; undefined when it is gone, or not of this machine. */
function readProcess(pid: number | string): { name: string; parent: number; own: number; reaped: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    // The name may hold spaces and parentheses.
    const name_end = text.lastIndexOf(")");
    const fields = text
      .slice(name_end + 2)
      .split(" ")
      .map(Number);
    const [parent = 0] = [fields[1]];
    const [utime = 0, stime = 0, cutime = 0, cstime = 0] = fields.slice(11, 15);
    const name = text.slice(text.indexOf("(") + 1, name_end);
    return { name, parent, own: utime + stime, reaped: cutime + cstime };
  } catch {
    return undefined;
  }
}

// USER_HZ: 100 on every Linux that Bun runs on.
const ticks_per_second = 100;

/**
 * CPU seconds of a process, its children and those that have ended, all their threads: a PostgreSQL by its postmaster, a
 * server with its workers. undefined when it cannot be read.
 */
export function familyCpu(pid: number): number | undefined {
  const parent = readProcess(pid);
  if (parent === undefined) return undefined;
  let ticks = parent.own + parent.reaped;
  for (const entry of readdirSync("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    const child = readProcess(entry);
    if (child?.parent === pid) ticks += child.own;
  }
  return ticks / ticks_per_second;
}

/** The postmaster of a backend that runs on this machine; undefined when the pid is somebody else's. */
export function postmasterOf(backend_pid: number): number | undefined {
  const backend = readProcess(backend_pid);
  if (backend === undefined || !/^postgres/.test(backend.name)) return undefined;
  const postmaster = readProcess(backend.parent);
  return postmaster !== undefined && /^postgres/.test(postmaster.name) ? backend.parent : undefined;
}

/** CPU seconds that all cores together have not been idle, what the hypervisor took included. */
export function machineCpu(): number {
  const [line = ""] = readFileSync("/proc/stat", "latin1").split("\n", 1);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line.split(/\s+/).slice(1).map(Number);
  return (user + nice + system + irq + softirq + steal) / ticks_per_second;
}
