/** Everything worth noticing, as data. Logs and metrics are observers of it; nothing else writes either. */
export type Observation =
  | ({ kind: "request" } & RequestObservation)
  | { kind: "request_started"; route: string }
  | { kind: "malformed_request"; reason: string; request_id: string }
  | ({ kind: "audit" } & AuditObservation)
  | { kind: "internal_error"; where: string; error: unknown; request_id?: string }
  | { kind: "messages"; event: MessageEvent; queue_id: string; count: number }
  | { kind: "delivered"; queue_id: string; messages: { ready_at: string; now: string }[] }
  | { kind: "batch"; verb: string; items: number; duration_ms: number }
  | { kind: "database_up"; is_up: boolean; reason?: string }
  | { kind: "job"; job: string; error?: unknown; details?: Record<string, unknown> }
  | { kind: "notice"; level: "DEBUG" | "INFO" | "WARN" | "ERROR"; message: string; details?: Record<string, unknown> };

export type MessageEvent =
  | "published"
  | "deduplicated"
  | "acked"
  | "nacked"
  | "lease_expired"
  | "expired"
  | "dead_lettered";

/** Counts what happened to messages of a queue. Never throws. */
export type NoteMessages = (event: MessageEvent, queue_id: string, count: number) => void;

/** Somebody changed something, or was refused. Never a secret or a body. */
export type AuditObservation = {
  /** null: nobody whose key was known. */
  key_id: string | null;
  action: string;
  target: string;
  status: number;
  request_id: string;
};

export type RequestObservation = {
  /** The client's X-Request-Id, or one of ours. */
  id: string;
  /** As it arrived; an observer reads from it what it needs. */
  request: Request;
  /** The client's address. */
  ip: () => string;
  /** The route's pattern with the contract's parameter names; empty for an unknown path. */
  route: string;
  latency_ms: number;
  status: number;
  response_bytes: number;
};

export type Observer = (observation: Observation) => void;

const observers = new Set<Observer>();

/** Hands an observation to every observer. Never throws: an observer that fails must not fail the work it watches. */
export function observe(observation: Observation): void {
  for (const observer of observers) {
    try {
      observer(observation);
    } catch {
      // Nowhere to report to: the log is itself an observer.
    }
  }
}

/** Adds an observer; call the answer to remove it. */
export function addObserver(observer: Observer): () => void {
  observers.add(observer);
  return () => observers.delete(observer);
}
