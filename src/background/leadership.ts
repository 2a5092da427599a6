import type { Broker } from "../broker/broker.ts";
import { observe } from "../observe.ts";

/** One leadership for all shared jobs. */
const name = "jobs";
const beat_ms = 5000;
/** Below the time after which another server may take over: on a clock of its own a server must not lead for longer. */
const lead_ms_max = 15_000;

export type Leadership = {
  /** Whether this server does the shared jobs now. Costs nothing. */
  isLeader(): boolean;
  /** Lets another server lead at once. */
  stop(): Promise<void>;
};

/**
 * Keeps or seeks the leadership, on a heartbeat of its own: a job that takes long does not lose it. Another server
 * takes over at the latest 25 s after the leader fell silent.
 */
export function startLeadership(broker: Pick<Broker, "lead" | "resign">, holder: string): Leadership {
  let led_until_ms = Number.NEGATIVE_INFINITY;
  let is_stopped = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let beating: Promise<void>;

  async function beat(): Promise<void> {
    const asked_ms = performance.now();
    try {
      const leads = await broker.lead(name, holder);
      led_until_ms = leads ? asked_ms + lead_ms_max : Number.NEGATIVE_INFINITY;
    } catch (error) {
      observe({ kind: "job", job: "leadership", error });
    }
    if (is_stopped) return;
    timer = setTimeout(() => {
      beating = beat();
    }, beat_ms);
  }

  beating = beat();
  return {
    isLeader: () => !is_stopped && performance.now() < led_until_ms,
    async stop() {
      is_stopped = true;
      clearTimeout(timer);
      // One that is under way would take the leadership again after it was given up.
      await beating;
      await broker.resign(name, holder);
    },
  };
}
