import { keepLatest } from "../keepLatest.ts";

// The scan floor. Dead index entries of consumed messages stand in front of the live ones until vacuum removes them,
// and while another transaction holds an old snapshot it cannot. So a receive does not scan from the beginning of time
// but from `hint`, the highest time of readiness that a committed receive returned. What may lie below it:
//
// (a) a row whose writer had not committed when the hint passed it. A writer sets `visible_at` at or after the start of
// its transaction, so it lags by the length of a statement at most. Writers of this process report what they stored,
// and the hint goes back to it at once (`lower`). Writers of other processes are found by a scan from where the hint
// was `look_back_ms` ago, every `look_back_every_ms`, and however slow they are by the rescan every R.
// (b) a row that was locked by a statement which then rolled back or lost its connection: found by the rescan.
//
// The rescan scans from `floor`. T is the longest life of a writing transaction (the statement timeout), R >= T. When a
// rescan committed, floor := min(hint as of 2R before its start, its own highest row if it was full). Proof that no row
// stays below the floor: a row missed by a scan at m has `visible_at` >= m - T (a) or >= the hint of then (b); the next
// rescan starts before m + R, and the floors it uses and sets are hints of at most m + R - 2R <= m - T. Whatever
// the proof does not cover is found every ten minutes, when a rescan starts at '-infinity'.
//
// Lowering a hint or a floor is always safe: it costs a scan over dead entries, nothing else.

/** Before every time: where a scan starts that knows nothing. PostgreSQL's own word. */
export const beginning = "-infinity";

const look_back_every_ms = 250;
const look_back_ms = 1000;
const full_scan_every_ms = 600_000;
const entries_max = 20_000;

type Entry = {
  hint: string;
  floor: string;
  /** (time, hint), oldest first, one per look_back_every_ms at most. */
  ring: { at_ms: number; hint: string }[];
  looked_back_ms: number;
  rescanned_ms: number;
  full_scanned_ms: number;
};

export type Scan = { from: string; is_rescan: boolean; is_look_back: boolean; started_ms: number };

/** What a committed scan returned: PostgreSQL's text of timestamps, which compares as text. */
export type Scanned = { now: string; highest: string | undefined; is_full: boolean };

export type ScanFloors = {
  /** Where the next receive of this queue and label filter starts. */
  next(queue_id: string, label: string | undefined): Scan;
  /** Reports a committed scan. A scan that failed is not reported and changes nothing. */
  done(queue_id: string, label: string | undefined, scan: Scan, scanned: Scanned): void;
  /** A writer of this process made rows ready at `at`. */
  lower(queue_id: string, label: string | null, at: string): void;
  /** Below this, nothing of the queue is ready. */
  floorOf(queue_id: string): string;
  /** Forgets everything: another server may have another clock, or lag behind. */
  reset(): void;
};

const min = (a: string, b: string) => (a === beginning || b === beginning ? beginning : a < b ? a : b);
const isBelow = (a: string, b: string) => a !== b && b !== beginning && (a === beginning || a < b);

/** ScanFloors of one process. `writer_ms_max` is T. Concurrent scans of one queue are fine. */
export function createScanFloors(writer_ms_max: number, now: () => number = () => performance.now()): ScanFloors {
  const rescan_every_ms = Math.max(5000, writer_ms_max);
  // In order of use: the first is dropped when there are too many, which costs its queue one long scan.
  const entries = new Map<string, Entry>();
  const keyOf = (queue_id: string, label: string | undefined) =>
    label === undefined ? queue_id : `${queue_id}\n${label}`;

  function touch(key: string, entry: Entry): Entry {
    keepLatest(entries, key, entry, entries_max);
    return entry;
  }

  function create(key: string): Entry {
    const at = now();
    const times = { looked_back_ms: at, rescanned_ms: at, full_scanned_ms: at };
    return touch(key, { hint: beginning, floor: beginning, ring: [], ...times });
  }

  /** The hint as it was `ago_ms` before `at`, or an older one; '-infinity' when the entry is younger than that. */
  function hintAsOf(entry: Entry, at: number, ago_ms: number): string {
    let found = beginning;
    for (const sample of entry.ring) {
      if (sample.at_ms > at - ago_ms) break;
      found = sample.hint;
    }
    return found;
  }

  function remember(entry: Entry, at: number): void {
    const last = entry.ring.at(-1);
    if (last !== undefined && at - last.at_ms < look_back_every_ms) return;
    entry.ring.push({ at_ms: at, hint: entry.hint });
    // One sample older than 2R must stay: it is what the next rescan asks for.
    while ((entry.ring[1]?.at_ms ?? at) < at - 2 * rescan_every_ms) entry.ring.shift();
  }

  function lowerEntry(key: string, at: string): void {
    const entry = entries.get(key);
    if (entry !== undefined && isBelow(at, entry.hint)) entry.hint = at;
  }

  return {
    next(queue_id, label) {
      const key = keyOf(queue_id, label);
      const entry = entries.get(key);
      const started_ms = now();
      // Nothing was ever received so. Labels are chosen by clients: what finds nothing leaves nothing behind.
      if (entry === undefined) return { from: beginning, is_rescan: false, is_look_back: false, started_ms };
      touch(key, entry);
      if (started_ms - entry.full_scanned_ms >= full_scan_every_ms) {
        entry.full_scanned_ms = entry.rescanned_ms = entry.looked_back_ms = started_ms;
        return { from: beginning, is_rescan: true, is_look_back: false, started_ms };
      }
      if (started_ms - entry.rescanned_ms >= rescan_every_ms) {
        entry.rescanned_ms = entry.looked_back_ms = started_ms;
        return { from: entry.floor, is_rescan: true, is_look_back: false, started_ms };
      }
      if (started_ms - entry.looked_back_ms >= look_back_every_ms) {
        entry.looked_back_ms = started_ms;
        const from = min(entry.hint, hintAsOf(entry, started_ms, look_back_ms));
        return {
          from: isBelow(from, entry.floor) ? entry.floor : from,
          is_rescan: false,
          is_look_back: true,
          started_ms,
        };
      }
      return { from: entry.hint, is_rescan: false, is_look_back: false, started_ms };
    },

    done(queue_id, label, scan, scanned) {
      const key = keyOf(queue_id, label);
      let entry = entries.get(key);
      if (entry === undefined) {
        if (scanned.highest === undefined || scan.from !== beginning) return;
        entry = create(key);
      }
      if (isBelow(scanned.now, entry.hint)) {
        // The clock went back: a failover, or another server.
        entries.delete(key);
        return;
      }
      if (scan.is_rescan) {
        const then = hintAsOf(entry, scan.started_ms, 2 * rescan_every_ms);
        entry.floor = scanned.is_full && scanned.highest !== undefined ? min(then, scanned.highest) : then;
      }
      if (scanned.highest !== undefined) {
        // A scan from further back that was full has left more behind it: go on from there, not from the old hint.
        const goes_back = (scan.is_rescan || scan.is_look_back) && scanned.is_full;
        if (goes_back || isBelow(entry.hint, scanned.highest)) entry.hint = scanned.highest;
      }
      remember(entry, now());
    },

    lower(queue_id, label, at) {
      lowerEntry(queue_id, at);
      if (label !== null) lowerEntry(keyOf(queue_id, label), at);
    },

    floorOf: (queue_id) => entries.get(queue_id)?.floor ?? beginning,

    reset() {
      entries.clear();
    },
  };
}
