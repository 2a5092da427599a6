import { closeSync, existsSync, fsyncSync, openSync, rmSync, statfsSync, writeSync } from "node:fs";
import path from "node:path";
import { holdsDatabase } from "./layout.ts";

/** What is kept free for acks, purges and the log on a disk that is full. */
const reserve_bytes = 33_554_432;
/** The disk must have so much more room for the reserve to be made. */
const room_factor = 4;
const file_name = "reserve";

export type Reserve = {
  /** Makes the reserve when it is not there and the disk has plenty of room. Repeatable. */
  keep(): void;
  /** Gives the reserve to the database; false when it is given already. */
  give(): boolean;
};

/**
 * A file beside the database that takes room on its disk, so that some can be given back when the disk is full: an ack
 * or a purge needs a little before it frees a lot. Without it the database could not even write that down.
 */
export function createReserve(data_dir: string): Reserve {
  const file = path.join(data_dir, file_name);
  const freeBytes = () => {
    const { bavail, bsize } = statfsSync(data_dir);
    return bavail * bsize;
  };
  return {
    keep() {
      if (!existsSync(data_dir) || existsSync(file) || freeBytes() < room_factor * reserve_bytes) return;
      const made = openSync(file, "w", 0o600);
      try {
        const chunk = Buffer.alloc(1_048_576, 1);
        for (let written = 0; written < reserve_bytes; written += chunk.length) writeSync(made, chunk);
        fsyncSync(made);
      } finally {
        closeSync(made);
      }
    },
    give() {
      if (!existsSync(file)) return false;
      rmSync(file);
      return true;
    },
  };
}

/** Gives the reserve before the database is opened, when its disk has no room for the log to be replayed. */
export function giveReserveWhereFull(data_dir: string): void {
  // In a directory that is not ours, a file of that name is somebody's.
  if (!existsSync(path.join(data_dir, file_name)) || !holdsDatabase(data_dir)) return;
  const { bavail, bsize } = statfsSync(data_dir);
  if (bavail * bsize < reserve_bytes) createReserve(data_dir).give();
}
