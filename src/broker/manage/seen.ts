/** What a message can be, as a peek names it. */
export const states = ["ready", "delayed", "leased", "backing_off", "acked", "expired"] as const;
export type State = (typeof states)[number];

/** A message as one sees it without leasing. Members without a value are left out. */
export type SeenMessage = {
  id: string;
  queue_id: string;
  label: string | null;
  body?: string;
  /** Of the whole body, when only its beginning is shown. */
  body_bytes?: number;
  attributes: Record<string, string> | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at?: string;
  ordering_key?: string;
  priority?: number;
  fairness_key?: string;
  weight?: number;
  expires_at?: string;
  dead?: unknown;
  last_error?: string;
  state: State;
  visible_at?: string;
  /** Of a single message, when something failed: the first and the latest failures. */
  events?: unknown;
};
