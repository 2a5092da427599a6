import type { Broker } from "../broker/broker.ts";
import type { Attempts } from "./attempts.ts";
import type { FactsOfQueues } from "./facts.ts";
import type { InFlight } from "./inFlight.ts";
import type { Limits } from "./limits.ts";
import type { Place } from "./names.ts";
import type { Origin } from "./origin.ts";
import type { Recent } from "./recent.ts";
import type { Action, Input } from "./shapes.ts";

/** What is listed for people to see. */
export type Lists = Pick<Broker, "searchQueues" | "listDeadLetterSources">;

/** What all requests share, but for what each may see. */
export type Service = {
  broker: Broker;
  /** What the key of the request may see of it. */
  lists: Lists;
  place: Place;
  limits: Limits;
  facts: FactsOfQueues;
  attempts: Attempts;
  in_flight: InFlight;
  /** Seconds that a receive of any edge waits at most. */
  wait_seconds_max: number;
  /** A handle of an earlier delivery still deletes. */
  has_legacy_handles: boolean;
  /** Queues that were purged, and names that were given up, in the last minute; undefined: nobody minds. */
  purged: Recent | undefined;
  deleted: Recent | undefined;
};

/** What an action must know of its request. */
export type Call = {
  /** How the client calls this server. */
  origin: Origin;
  /** The access key that the request was signed with. */
  sender: string | undefined;
  /** Its X-Amzn-Trace-Id. */
  trace: string | undefined;
  signal: AbortSignal;
  /** Text as the answer will show it: not every protocol can carry all characters. */
  asShown(text: string): string;
  /** It asks to wait so long. */
  mayWait(ms: number): void;
  /** For what must be undone when the client is gone before it is answered. */
  whenUnsent(undo: () => void): void;
  /** For what ends when nothing of the answer is kept any more, or there is none. */
  whenSent(end: () => void): void;
};

/** One action: its input is of its shape, and its answer too. Throws SqsError and what the broker throws. */
export type Act<A extends Action> = (service: Service, input: Input<A>, call: Call) => Promise<object>;

/** An answer without members. */
export const nothing = {};
