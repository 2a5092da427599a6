// Made of the OpenAPI document by test/clientTypes.test.ts: what a server answers.

export type ApiKey = {
  id: string;
  name: string;
  scopes: {
    actions: string[];
    queues?: string[];
    topics?: string[];
  }[];
  namespace: string | null;
  expires_at: string | null;
  rate_limit: {
    count: number;
    per_seconds: number;
    burst: number;
  } | null;
  sigv4: boolean;
  created_at: string;
  /** To the minute */
  last_used_at: string | null;
};

export type ApiKeyPage = {
  data: ApiKey[];
  offset?: number;
  limit: number;
};

export type DeadLetter = {
  source_queue_id: string;
  reason: "max_deliveries" | "rejected" | "expired";
  /** Of the last nack */
  error: string | null;
  /** Deliveries before the move */
  attempts: number;
  dead_at: string;
};

export type ErrorBody = {
  /** What clients compare */
  code: number;
  message: string;
  /** For people */
  details?: string;
};

export type ErrorGroup = {
  /** For the filter of the same name */
  error_group: string;
  /** With numbers and ids folded */
  error: string;
  count: number;
  first_seen: string;
  last_seen: string;
  reasons: string[];
  /** At most ten of them */
  source_queue_ids: string[];
  sample: {
    id: string;
    error: string | null;
  };
};

export type ErrorGroups = {
  data: ErrorGroup[];
  /** Where to go on; absent at the end */
  next?: string;
};

export type ExtendedLease = {
  lease_expires_at: string;
};

export type FanOutResult = {
  delivered_queues?: number;
  error?: {
    code: number;
    message: string;
    details?: string;
  };
};

export type FanOutResults = {
  data: FanOutResult[];
};

export type FannedOut = {
  delivered_queues: number;
  data: {
    queue_id: string;
    id: string;
    deduplicated: boolean;
  }[];
};

export type Health = {
  success: boolean;
};

export type Info = {
  name: string;
  version: string;
  features: string[];
  /** What the key of the request allows, on some queue or topic; where no key is asked for, everything */
  allowed: ("publish" | "consume" | "peek" | "manage")[];
};

export type Maintenance = {
  oldest_snapshot: {
    age_seconds: number;
    /** For pg_terminate_backend */
    pid: number | null;
    application_name: string;
    user: string;
    state: string;
  } | null;
  tables: TableHealth[];
};

export type Message = {
  /** A ULID */
  id: string;
  queue_id: string;
  label: string | null;
  body: string;
  attributes: Record<string, string> | null;
  /** Deliveries, this one included */
  delivery_attempts: number;
  created_at: string;
  /** For ack, nack and extend; new on every delivery */
  lease_token: string;
  lease_expires_at: string;
  ordering_key?: string;
  /** Other than 0 */
  priority?: number;
  expires_at?: string;
  dead?: DeadLetter;
  last_error?: string;
};

export type MessageCount = {
  count: number;
  /** Where to go on; absent at the end */
  next?: string;
};

export type Moved = {
  moved: number;
};

export type NewApiKey = {
  id: string;
  name: string;
  scopes: {
    actions: string[];
    queues?: string[];
    topics?: string[];
  }[];
  namespace: string | null;
  expires_at: string | null;
  rate_limit: {
    count: number;
    per_seconds: number;
    burst: number;
  } | null;
  sigv4: boolean;
  created_at: string;
  /** To the minute */
  last_used_at: string | null;
  /** The whole key, shown this once */
  key: string;
};

export type OrderingKey = {
  ordering_key: string;
  /** Of its first message */
  label?: string;
  /** blocked: by a dead message */
  state: "ready" | "leased" | "waiting" | "blocked";
  /** Unfinished messages, up to 100000 */
  pending: number;
  head_id: string | null;
  blocked_since: string | null;
  dead_message_id: string | null;
};

export type OrderingKeyPage = {
  data: OrderingKey[];
  offset?: number;
  limit: number;
};

export type PublishResult = {
  id?: string;
  deduplicated?: boolean;
  error?: {
    code: number;
    message: string;
    details?: string;
  };
};

export type PublishResults = {
  data: PublishResult[];
};

export type Published = {
  id: string;
  deduplicated: boolean;
};

export type Queue = {
  id: string;
  ack_deadline_seconds: number;
  message_retention_seconds: number;
  delivery_delay_seconds: number;
  created_at: string;
  updated_at: string;
  dead_queue_id: string | null;
  message_max_deliveries: number | null;
  dead_letter_on_expiry: boolean;
  receive_wait_seconds: number;
  max_lease_seconds: number;
  strict_leases: boolean;
  allow_tokenless_extend: boolean;
  ordering_scope: "key" | "key_label";
  on_dead: "move" | "block";
  allow_delayed_ordering: boolean;
  dedup_window_seconds: number;
  dedup_scope: "queue" | "ordering_key";
  content_dedup: boolean;
  dedup_strict: boolean;
  retry_policy: RetryPolicy;
  priority_enabled: boolean;
  priority_aging_seconds: number | null;
  archive_retention_seconds: number | null;
  max_message_bytes: number | null;
  max_depth: number | null;
  max_bytes: number | null;
  max_in_flight: number | null;
  max_in_flight_per_key: number | null;
  fair_by: "fairness_key" | "ordering_key" | "label" | null;
  rate_limit: {
    /** Deliveries */
    count: number;
    /** In so many seconds */
    per_seconds: number;
    /** Deliveries at once after a rest; default count */
    burst: number;
  } | null;
  encrypt: boolean;
  paused?: {
    publish: boolean;
    consume: boolean;
  };
};

export type QueueMinute = {
  minute: string;
  published: number;
  delivered: number;
  acked: number;
  /** Nacks, and leases that ran out */
  failed: number;
  ready: number | null;
  leased: number | null;
  /** Delayed and backing off */
  hidden: number | null;
  oldest_ready_age_seconds: number | null;
};

export type QueueMinutes = {
  data: QueueMinute[];
};

export type QueuePage = {
  data: Queue[];
  offset?: number;
  limit: number;
};

export type QueueStats = {
  /** Messages that a receive without label could return now */
  num_undelivered_messages: number;
  /** Age of the oldest of those; 0 when there are none */
  oldest_unacked_message_age_seconds: number;
  ready: number;
  delayed: number;
  leased: number;
  /** Delivered before, hidden until their retry */
  backing_off: number;
  /** Messages here that were dead-lettered */
  dead: number;
  oldest_ready_age_seconds: number;
  oldest_lease_age_seconds: number;
  /** Per second, over the last full minute */
  publish_rate_1m: number;
  ack_rate_1m: number;
  blocked_keys: number;
  blocked_by_label: number;
  /** Numbers above 100000 are estimates */
  approximate?: boolean;
};

export type QueueSummary = {
  queue_id: string;
  ready: number;
  leased: number;
  delayed: number;
  backing_off: number;
  oldest_ready_age_seconds: number;
  /** Per second, over the last full minute */
  publish_rate_1m: number;
  ack_rate_1m: number;
  dead_queue_id: string | null;
  paused?: {
    publish: boolean;
    consume: boolean;
  };
};

export type QueueSummaryPage = {
  data: QueueSummary[];
  offset?: number;
  limit: number;
};

export type QueueTrend = {
  queue_id: string;
  published: number[];
  acked: number[];
};

export type QueueTrends = {
  data: QueueTrend[];
};

export type ReceivedMessages = {
  data: Message[];
  limit: number;
};

export type RepairedQueue = {
  /** Keys that were looked at: those that messages are ordered by, and those that share the queue */
  checked: number;
  /** Those that had lost their first message, or their turns; 0 on a healthy queue */
  repaired: number;
};

export type RetryPolicy = {
  /** Default 0: at once */
  min_seconds: number;
  /** Default 600; not below min_seconds */
  max_seconds: number;
  /** Default 2 */
  multiplier: number;
  /** Default none; equal when min_seconds is greater than 0 */
  jitter: "none" | "full" | "equal";
};

export type SeenMessage = {
  id: string;
  queue_id: string;
  label: string | null;
  body?: string;
  /** Of the whole body, when it is cut */
  body_bytes?: number;
  /** Instead of a body that cannot be decrypted: its master key is missing, or it was changed */
  unreadable?: "key_missing" | "changed";
  attributes: Record<string, string> | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at?: string;
  ordering_key?: string;
  priority?: number;
  fairness_key?: string;
  weight?: number;
  expires_at?: string;
  dead?: DeadLetter;
  last_error?: string;
  state: "ready" | "delayed" | "leased" | "backing_off" | "acked" | "expired";
  visible_at?: string;
};

export type SeenMessagePage = {
  data: SeenMessage[];
  next?: string;
  /** The page ended because enough messages were looked at: go on at next */
  stopped_early?: boolean;
};

export type SeenMessageWithEvents = {
  id: string;
  queue_id: string;
  label: string | null;
  body?: string;
  /** Of the whole body, when it is cut */
  body_bytes?: number;
  /** Instead of a body that cannot be decrypted: its master key is missing, or it was changed */
  unreadable?: "key_missing" | "changed";
  attributes: Record<string, string> | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at?: string;
  ordering_key?: string;
  priority?: number;
  fairness_key?: string;
  weight?: number;
  expires_at?: string;
  dead?: DeadLetter;
  last_error?: string;
  state: "ready" | "delayed" | "leased" | "backing_off" | "acked" | "expired";
  visible_at?: string;
  /** Failures: the first and the latest 19; absent while nothing has failed */
  events?: {
    at: string;
    /** nacked, lease_expired, dead_lettered, redriven or renamed */
    event: string;
    /** Deliveries so far */
    attempt: number;
    /** What the consumer said, why the message died, or its id in the queue that it left */
    error?: string;
  }[];
};

export type SettleResults = {
  results: {
    id: string;
    /** failed: `error` says why; the item may be sent again where its code is 19 */
    status: "ok" | "lease_lost" | "not_found" | "failed";
    error?: {
      code: number;
      message: string;
      details?: string;
    };
  }[];
};

export type StartedTask = {
  task_id: string;
};

export type Subscription = {
  id: string;
  topic_id: string;
  queue_id: string;
  message_filters: Record<string, string[] | null> | null;
  created_at: string;
};

export type SubscriptionPage = {
  data: Subscription[];
  offset?: number;
  limit: number;
};

export type TableHealth = {
  name: string;
  /** Estimated */
  live_rows: number;
  /** Estimated; vacuum removes them */
  dead_rows: number;
  table_bytes: number;
  index_bytes: number;
  last_vacuum: string | null;
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

export type TaskPage = {
  data: Task[];
  offset?: number;
  limit: number;
};

export type Topic = {
  id: string;
  created_at: string;
};

export type TopicPage = {
  data: Topic[];
  offset?: number;
  limit: number;
};
