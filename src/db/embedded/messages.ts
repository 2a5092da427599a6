// What the main thread and the Worker tell each other. Holds no code, so that neither pulls the other in.
import type { Copied } from "./backup.ts";
import type { Refusal } from "./server.ts";

/** Slots of the shared counters (64-bit). Shared memory, because a Worker inside a statement answers no messages. */
export const counter_fsyncs = 0;
/** Turns of the Worker's clock and its file reads and writes: it stands still only when nothing happens at all. */
export const counter_life = 1;
export const counters_count = 2;

/** To the Worker. A Worker gets one `create`, or one `open`, then any number of `copy`, and later one `close`. */
export type WorkerRequest =
  | { kind: "create"; data_dir: string; fsync: boolean }
  | {
      kind: "open";
      cluster: string;
      fsync: boolean;
      /** Where to listen; null when the data directory has no path short enough. */
      socket_path: string | null;
      secret: string;
      counters: SharedArrayBuffer;
    }
  /** To make a rough copy of the cluster the same as the cluster; see backup.ts. */
  | { kind: "copy"; cluster: string; to: string; copied: Copied }
  | { kind: "close" };

/** From the Worker. */
export type WorkerReply =
  | { kind: "created" }
  | { kind: "up"; socket_path: string; is_recovered: boolean }
  | { kind: "refused"; refusal: Refusal }
  /** `problem`: why it could not be copied; the database goes on. */
  | { kind: "copied"; bytes: number; ms: number; problem: string | undefined }
  | { kind: "closed"; is_clean: boolean }
  | { kind: "failed"; message: string };
