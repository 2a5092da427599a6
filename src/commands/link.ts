import type { Ready, Siblings } from "../broker/deliver/siblings.ts";
import type { Numbers } from "../metrics.ts";
import type { Report, Told } from "./workerMessages.ts";

// How a worker reaches the others: through the server, which passes on what it is told.

/** Between two messages about what became ready: the first goes at once, and each carries what came meanwhile. */
const gather_ms = 2;
/** As many places at most in one message. */
const ready_max = 1000;
/** Between two checks whether a worker still wants to hear what becomes ready. */
const want_ms = 1000;
/** How long a scrape waits for the numbers of the others. */
const count_ms_max = 5000;

/** What a worker does with what it is told. */
export type Hearer = {
  told(told: Told): void;
  /** From now on this worker does what one does for all. Called once at most. */
  lead(): void;
  /** Somebody waits here, or other servers are to be told. */
  wants(): boolean;
  count(): Promise<Numbers>;
};

export type Link = {
  /** How many workers there are, this one included. */
  workers: number;
  siblings: Siblings;
  tell(told: Told): void;
  /** Before the worker is up, nothing is told to it. */
  attach(hearer: Hearer): void;
  /** The numbers of the other workers, and of those that are gone; those of one that does not answer are missing. */
  collect(own: Numbers): Promise<Numbers[]>;
  told(told: Told): void;
  setWanted(is_wanted: boolean): void;
  lead(): void;
  count(id: number): void;
  counted(id: number, numbers: Numbers[]): void;
};

/** Gathers what became ready; of one queue and label the earliest is enough. */
function createReadyTeller(send: (ready: Ready[]) => void): (ready: Ready) => void {
  const gathered = new Map<string, Ready>();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const flush = () => {
    timer = undefined;
    if (gathered.size === 0) return;
    send([...gathered.values()]);
    gathered.clear();
    timer = setTimeout(flush, gather_ms);
  };
  return (ready) => {
    const key = `${ready.queue_id}\n${ready.label ?? "\0"}`;
    const known = gathered.get(key);
    const is_earlier = known?.at == null || (ready.at !== null && ready.at < known.at);
    if (is_earlier) gathered.set(key, ready);
    if (timer === undefined || gathered.size >= ready_max) {
      clearTimeout(timer);
      flush();
    }
  };
}

/** The link of one worker. `send` reaches the server. */
export function createLink(workers: number, send: (report: Report) => void): Link {
  let hearer: Hearer | undefined;
  let is_wanted = false;
  let want_timer: ReturnType<typeof setInterval> | undefined;
  const collecting = new Map<number, (numbers: Numbers[]) => void>();
  let collected = 0;

  const tell = (told: Told) => send({ kind: "tell", told });
  const tellReady = createReadyTeller((ready) => tell({ about: "ready", ready }));

  function want(): void {
    if (want_timer !== undefined) return;
    send({ kind: "want", is_wanting: true });
    want_timer = setInterval(() => {
      if (hearer?.wants()) return;
      clearInterval(want_timer);
      want_timer = undefined;
      send({ kind: "want", is_wanting: false });
    }, want_ms);
  }

  return {
    workers,
    siblings: {
      count: workers - 1,
      want,
      tellReady(ready) {
        if (is_wanted) tellReady(ready);
      },
      tellOthers(count) {
        tell({ about: "others", count });
        if (count > 0) want();
      },
      tellGoverned: (queue_id, is_governed) => tell({ about: "governed", queue_id, is_governed }),
    },
    tell,
    attach(given) {
      hearer = given;
    },
    collect(own) {
      const id = ++collected;
      return new Promise((resolve) => {
        const end = (numbers: Numbers[]) => {
          clearTimeout(timer);
          collecting.delete(id);
          resolve(numbers);
        };
        const timer = setTimeout(end, count_ms_max, []);
        collecting.set(id, end);
        send({ kind: "count", id, own });
      });
    },
    told: (told) => hearer?.told(told),
    setWanted(is_now_wanted) {
      is_wanted = is_now_wanted;
    },
    lead: () => hearer?.lead(),
    count(id) {
      // One that cannot be counted is missing in the sum, as one that has just ended.
      hearer?.count().then(
        (own) => send({ kind: "counted", id, own }),
        () => {},
      );
    },
    counted: (id, numbers) => collecting.get(id)?.(numbers),
  };
}
