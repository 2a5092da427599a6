import { existsSync, readFileSync } from "node:fs";

/**
 * The signals that stop us. SIGHUP comes when a terminal is closed, and stays ignored where it was at the start
 * (nohup): a handler would end that. Only Linux tells whether it was. Elsewhere it is left alone: nohup works, and a
 * closed terminal ends the process at once, which loses nothing that was answered.
 */
export function stopSignals(): NodeJS.Signals[] {
  const file = "/proc/self/status";
  const status = existsSync(file) ? readFileSync(file, "utf8") : "";
  const ignored = /^SigIgn:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  const hears_hangup = ignored !== undefined && (BigInt(`0x${ignored}`) & 1n) === 0n;
  return ["SIGINT", "SIGTERM", ...(hears_hangup ? (["SIGHUP"] as const) : [])];
}
