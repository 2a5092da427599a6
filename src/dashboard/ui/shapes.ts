// What the API answers, as far as the page shows it.

/** What a message can be. */
export const states = ["ready", "leased", "delayed", "backing_off", "acked", "expired"] as const;
export type State = (typeof states)[number];

export type QueueSummary = {
  queue_id: string;
  ready: number;
  leased: number;
  delayed: number;
  backing_off: number;
  oldest_ready_age_seconds: number;
  publish_rate_1m: number;
  ack_rate_1m: number;
  dead_queue_id: string | null;
  paused?: { publish: boolean; consume: boolean };
};

export type RetryPolicy = { min_seconds: number; max_seconds: number; multiplier: number; jitter: string };

export type Queue = {
  id: string;
  created_at: string;
  updated_at: string;
  dead_queue_id: string | null;
  message_max_deliveries: number | null;
  paused?: { publish: boolean; consume: boolean };
  [setting: string]: unknown;
};

export type QueueStats = {
  ready: number;
  leased: number;
  delayed: number;
  backing_off: number;
  dead: number;
  oldest_ready_age_seconds: number;
  oldest_lease_age_seconds: number;
  publish_rate_1m: number;
  ack_rate_1m: number;
  approximate?: boolean;
};

export type Minute = {
  minute: string;
  published: number;
  delivered: number;
  acked: number;
  failed: number;
  ready: number | null;
  leased: number | null;
  hidden: number | null;
  oldest_ready_age_seconds: number | null;
};

export type Trend = { queue_id: string; published: number[]; acked: number[] };

export type Dead = {
  source_queue_id: string;
  reason: string;
  error: string | null;
  attempts: number;
  dead_at: string;
};

export type MessageEvent = { at: string; event: string; attempt: number; error?: string };

export type Message = {
  id: string;
  queue_id: string;
  label: string | null;
  body?: string;
  body_bytes?: number;
  unreadable?: "key_missing" | "changed";
  attributes: Record<string, string> | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at?: string;
  expires_at?: string;
  visible_at?: string;
  dead?: Dead;
  last_error?: string;
  state: State;
  ordering_key?: string;
  events?: MessageEvent[];
};

export type ErrorGroup = {
  error_group: string;
  error: string;
  count: number;
  first_seen: string;
  last_seen: string;
  reasons: string[];
  source_queue_ids: string[];
  sample: { id: string; error: string | null };
};

export type Task = {
  id: string;
  kind: string;
  queue_id: string;
  state: "running" | "completed" | "cancelled" | "failed";
  moved: number;
  failed: number;
  total_estimate: number;
  created_at: string;
  finished_at: string | null;
  error: string | null;
};

export type ApiKey = {
  id: string;
  name: string;
  scopes: { actions: string[]; queues?: string[]; topics?: string[] }[];
  namespace: string | null;
  expires_at: string | null;
  created_at: string;
  last_used_at: string | null;
};

export type Topic = { id: string; created_at: string };
export type Subscription = {
  id: string;
  topic_id: string;
  queue_id: string;
  message_filters: Record<string, string[]> | null;
  created_at: string;
};

export type Page<T> = { data: T[]; offset?: number; limit: number };
export type Peeked = { data: Message[]; next?: string; stopped_early?: boolean };

/** Which messages a list shows and an action is for. */
export type Filter = { state: string; label?: string; search?: string; error_group?: string };
