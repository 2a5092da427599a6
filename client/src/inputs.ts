// Made of the OpenAPI document by test/clientTypes.test.ts: what a server takes.

export type AckBatchInput = {
  /** Messages to ack */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | null | undefined;
  }[];
};

export type AckInput = {
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | null | undefined;
};

export type ApiKeyInput = {
  /** For people; not unique */
  name: string;
  /** Rights; they add up. Without queues and topics they are for all of them */
  scopes: {
    actions: ("publish" | "consume" | "peek" | "manage" | "*")[];
    queues?: string[] | undefined;
    topics?: string[] | undefined;
  }[];
  /** It sees and creates only ids that begin with this and a dot */
  namespace?: string | null | undefined;
  /** When it stops working */
  expires_at?: string | null | undefined;
  rate_limit?:
    | {
        /** Requests */
        count: number;
        /** In so many seconds */
        per_seconds: number;
        /** Of them at once */
        burst: number;
      }
    | null
    | undefined;
  /** Its id and secret sign requests of SQS clients; needs PSQLQUEUE_MASTER_KEY */
  sigv4?: boolean | null | undefined;
};

export type BatchInput = {
  /** Published in this order */
  messages: MessageInput[];
};

export type ChangeInput = {
  /** When it becomes visible, at most a year ahead */
  deliver_at?: string | null | undefined;
  /** At most 255 bytes of UTF-8 */
  label?: string | null | undefined;
  /** A flat map of strings; a null value reads as the empty string */
  attributes?: Record<string, string | null> | null | undefined;
  /** Higher ones are delivered first; default 0. Other than 0 only where the queue has priority_enabled */
  priority?: number | null | undefined;
};

export type ExtendBatchInput = {
  /** Leases to extend */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | null | undefined;
    /** Instead of the one beside items */
    ack_deadline_seconds?: number | null | undefined;
  }[];
  /** For items without their own */
  ack_deadline_seconds?: number | null | undefined;
};

export type ExtendInput = {
  /** The lease ends so many seconds from now; 0 gives it back */
  ack_deadline_seconds: number;
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | null | undefined;
};

export type MatchingInput = {
  /** nack makes messages visible at once, also those that somebody holds; those with an ordering key it leaves alone */
  action: "delete" | "nack";
  /** Default all */
  state?: "ready" | "delayed" | "leased" | "backing_off" | "acked" | "expired" | "dead" | "all" | null | undefined;
  /** At most 255 bytes of UTF-8 */
  label?: string | null | undefined;
  /** Part of the id, the body's first 16,384 characters, an attribute or the last error, in any case */
  search?: string | null | undefined;
  /** Only with this error, numbers and ids folded */
  error_group?: string | null | undefined;
  /** Only messages that died of this */
  reason?: "max_deliveries" | "rejected" | "expired" | null | undefined;
  /** Only messages that came from this queue */
  source_queue_id?: string | null | undefined;
  /** Only this message */
  message_id?: string | null | undefined;
  /** Only this ordering key */
  ordering_key?: string | null | undefined;
  /** What the caller has counted; shown by the task */
  total_estimate?: number | null | undefined;
};

export type MessageInput = {
  /** Anything but empty; white space alone is fine */
  body: string;
  /** At most 255 bytes of UTF-8 */
  label?: string | null | undefined;
  /** A flat map of strings; a null value reads as the empty string */
  attributes?: Record<string, string | null> | null | undefined;
  /** Seconds until it is visible; instead of the queue's delay */
  delay_seconds?: number | null | undefined;
  /** When it becomes visible, at most a year ahead; not together with delay_seconds */
  deliver_at?: string | null | undefined;
  /** Seconds it lives, if the queue's retention is not shorter */
  ttl_seconds?: number | null | undefined;
  /** When it expires; not together with ttl_seconds */
  expires_at?: string | null | undefined;
  /** A publish with the same id within the queue's window is a duplicate of the first */
  dedup_id?: string | null | undefined;
  /** Messages of a queue with the same key are delivered in order, one at a time; at most 256 bytes */
  ordering_key?: string | null | undefined;
  /** Higher ones are delivered first; default 0. Other than 0 only where the queue has priority_enabled */
  priority?: number | null | undefined;
  /** Whose message it is, in a queue that is shared by it: see fair_by; at most 256 bytes */
  fairness_key?: string | null | undefined;
  /** Turns that its key gets in a shared queue for one of another; that of its latest message counts; default 1 */
  weight?: number | null | undefined;
};

export type NackBatchInput = {
  /** Messages to nack */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | null | undefined;
    /** Seconds until the message is visible again; default the queue's retry policy */
    visibility_timeout_seconds?: number | null | undefined;
    /** What went wrong; kept as last_error, cut at 2048 bytes */
    error?: string | null | undefined;
    /** To the dead-letter queue at once, if there is one */
    dead_letter?: boolean | null | undefined;
  }[];
  /** Seconds until the message is visible again; default the queue's retry policy */
  visibility_timeout_seconds?: number | null | undefined;
  /** What went wrong; kept as last_error, cut at 2048 bytes */
  error?: string | null | undefined;
  /** To the dead-letter queue at once, if there is one */
  dead_letter?: boolean | null | undefined;
};

export type NackInput = {
  /** Seconds until the message is visible again; default the queue's retry policy */
  visibility_timeout_seconds?: number | null | undefined;
  /** What went wrong; kept as last_error, cut at 2048 bytes */
  error?: string | null | undefined;
  /** To the dead-letter queue at once, if there is one */
  dead_letter?: boolean | null | undefined;
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | null | undefined;
};

export type PauseInput = {
  publish?: boolean | null | undefined;
  consume?: boolean | null | undefined;
};

export type QueueInput = {
  /** The queue's name */
  id: string;
  /** How long a receive hides a message */
  ack_deadline_seconds: number;
  /** How long an unacked message is kept, counted from publish */
  message_retention_seconds: number;
  /** How long a published message stays hidden; default 0 */
  delivery_delay_seconds?: number | null | undefined;
  /** Where exhausted and rejected messages go; together with message_max_deliveries */
  dead_queue_id?: string | null | undefined;
  /** Deliveries after which a message is dead */
  message_max_deliveries?: number | null | undefined;
  /** Expired messages go to the dead-letter queue too */
  dead_letter_on_expiry?: boolean | null | undefined;
  /** How long a receive waits that does not say; default 0 */
  receive_wait_seconds?: number | null | undefined;
  /** Longest lease by extension; 0: unlimited; default 43200 */
  max_lease_seconds?: number | null | undefined;
  /** A lease token counts until its deadline only */
  strict_leases?: boolean | null | undefined;
  /** Extend without a lease token */
  allow_tokenless_extend?: boolean | null | undefined;
  /** What the order of messages with an ordering key is kept in: the key, or the key and the label together */
  ordering_scope?: "key" | "key_label" | null | undefined;
  /** block: a dead message keeps its ordering key closed until it is redriven or gone */
  on_dead?: "move" | "block" | null | undefined;
  /** Messages with an ordering key may have a delay of their own, which their key waits for */
  allow_delayed_ordering?: boolean | null | undefined;
  /** How long a dedup_id is remembered; 0: off; default 300 */
  dedup_window_seconds?: number | null | undefined;
  /** Where a dedup_id counts: in the queue, or in each ordering key */
  dedup_scope?: "queue" | "ordering_key" | null | undefined;
  /** Without a dedup_id the body's hash is one */
  content_dedup?: boolean | null | undefined;
  /** The same dedup_id with another body is refused */
  dedup_strict?: boolean | null | undefined;
  retry_policy?:
    | {
        /** Default 0: at once */
        min_seconds?: number | null | undefined;
        /** Default 600; not below min_seconds */
        max_seconds?: number | null | undefined;
        /** Default 2 */
        multiplier?: number | null | undefined;
        /** Default none; equal when min_seconds is greater than 0 */
        jitter?: "none" | "full" | "equal" | null | undefined;
      }
    | null
    | undefined;
  /** Messages may have a priority, -100 to 100: higher ones are delivered first */
  priority_enabled?: boolean | null | undefined;
  /** So many seconds of waiting count as one step of priority; null: priorities are strict */
  priority_aging_seconds?: number | null | undefined;
  /** How long acked and expired messages are kept; null: as message_retention_seconds; 0: not at all */
  archive_retention_seconds?: number | null | undefined;
  /** Bytes of body, label and attributes of one message; null: only the request's limit */
  max_message_bytes?: number | null | undefined;
  /** Unfinished messages that the queue holds; null: no limit */
  max_depth?: number | null | undefined;
  /** Bytes of its unfinished messages; null: no limit */
  max_bytes?: number | null | undefined;
  /** Messages under a lease at once; null: no limit */
  max_in_flight?: number | null | undefined;
  /** Messages of one key of fair_by under a lease at once; null: no limit */
  max_in_flight_per_key?: number | null | undefined;
  /** What shares the queue: its keys take turns, however many messages each has; null: first come, first served */
  fair_by?: "fairness_key" | "ordering_key" | "label" | null | undefined;
  rate_limit?:
    | {
        /** Deliveries */
        count: number;
        /** In so many seconds */
        per_seconds: number;
        /** Deliveries at once after a rest; default count */
        burst?: number | null | undefined;
      }
    | null
    | undefined;
  /** Bodies are encrypted before they are stored; needs PSQLQUEUE_MASTER_KEY */
  encrypt?: boolean | null | undefined;
};

export type QueueUpdate = {
  /** How long a receive hides a message */
  ack_deadline_seconds: number;
  /** How long an unacked message is kept, counted from publish */
  message_retention_seconds: number;
  /** How long a published message stays hidden; default 0 */
  delivery_delay_seconds?: number | null | undefined;
  /** Where exhausted and rejected messages go; together with message_max_deliveries */
  dead_queue_id?: string | null | undefined;
  /** Deliveries after which a message is dead */
  message_max_deliveries?: number | null | undefined;
  /** Expired messages go to the dead-letter queue too */
  dead_letter_on_expiry?: boolean | null | undefined;
  /** How long a receive waits that does not say; default 0 */
  receive_wait_seconds?: number | null | undefined;
  /** Longest lease by extension; 0: unlimited; default 43200 */
  max_lease_seconds?: number | null | undefined;
  /** A lease token counts until its deadline only */
  strict_leases?: boolean | null | undefined;
  /** Extend without a lease token */
  allow_tokenless_extend?: boolean | null | undefined;
  /** What the order of messages with an ordering key is kept in: the key, or the key and the label together */
  ordering_scope?: "key" | "key_label" | null | undefined;
  /** block: a dead message keeps its ordering key closed until it is redriven or gone */
  on_dead?: "move" | "block" | null | undefined;
  /** Messages with an ordering key may have a delay of their own, which their key waits for */
  allow_delayed_ordering?: boolean | null | undefined;
  /** How long a dedup_id is remembered; 0: off; default 300 */
  dedup_window_seconds?: number | null | undefined;
  /** Where a dedup_id counts: in the queue, or in each ordering key */
  dedup_scope?: "queue" | "ordering_key" | null | undefined;
  /** Without a dedup_id the body's hash is one */
  content_dedup?: boolean | null | undefined;
  /** The same dedup_id with another body is refused */
  dedup_strict?: boolean | null | undefined;
  retry_policy?:
    | {
        /** Default 0: at once */
        min_seconds?: number | null | undefined;
        /** Default 600; not below min_seconds */
        max_seconds?: number | null | undefined;
        /** Default 2 */
        multiplier?: number | null | undefined;
        /** Default none; equal when min_seconds is greater than 0 */
        jitter?: "none" | "full" | "equal" | null | undefined;
      }
    | null
    | undefined;
  /** Messages may have a priority, -100 to 100: higher ones are delivered first */
  priority_enabled?: boolean | null | undefined;
  /** So many seconds of waiting count as one step of priority; null: priorities are strict */
  priority_aging_seconds?: number | null | undefined;
  /** How long acked and expired messages are kept; null: as message_retention_seconds; 0: not at all */
  archive_retention_seconds?: number | null | undefined;
  /** Bytes of body, label and attributes of one message; null: only the request's limit */
  max_message_bytes?: number | null | undefined;
  /** Unfinished messages that the queue holds; null: no limit */
  max_depth?: number | null | undefined;
  /** Bytes of its unfinished messages; null: no limit */
  max_bytes?: number | null | undefined;
  /** Messages under a lease at once; null: no limit */
  max_in_flight?: number | null | undefined;
  /** Messages of one key of fair_by under a lease at once; null: no limit */
  max_in_flight_per_key?: number | null | undefined;
  /** What shares the queue: its keys take turns, however many messages each has; null: first come, first served */
  fair_by?: "fairness_key" | "ordering_key" | "label" | null | undefined;
  rate_limit?:
    | {
        /** Deliveries */
        count: number;
        /** In so many seconds */
        per_seconds: number;
        /** Deliveries at once after a rest; default count */
        burst?: number | null | undefined;
      }
    | null
    | undefined;
  /** Bodies are encrypted before they are stored; needs PSQLQUEUE_MASTER_KEY */
  encrypt?: boolean | null | undefined;
};

export type RedriveInput = {
  /** Default: the queue that each message came from */
  destination_queue_id?: string | null | undefined;
  /** At most 255 bytes of UTF-8 */
  label?: string | null | undefined;
  /** Part of the id, the body's first 16,384 characters, an attribute or the last error, in any case */
  search?: string | null | undefined;
  /** Only with this error, numbers and ids folded */
  error_group?: string | null | undefined;
  /** Only messages that died of this */
  reason?: "max_deliveries" | "rejected" | "expired" | null | undefined;
  /** Only messages that came from this queue */
  source_queue_id?: string | null | undefined;
  /** Only this message */
  message_id?: string | null | undefined;
  /** Only this ordering key */
  ordering_key?: string | null | undefined;
  /** Messages to move at most */
  limit?: number | null | undefined;
  /** Messages per second */
  rate_per_second?: number | null | undefined;
  /** Seconds until they are visible */
  delay_seconds?: number | null | undefined;
  /** false: delivery_attempts as before the move; default true */
  reset_attempts?: boolean | null | undefined;
};

export type SubscriptionInput = {
  /** The subscription's name */
  id: string;
  /** The topic to copy from */
  topic_id: string;
  /** The queue to copy to */
  queue_id: string;
  /** Attribute name to the values that pass: AND over names, OR within a list; {} passes everything */
  message_filters?: Record<string, (string | null)[] | null> | null | undefined;
};

export type TopicInput = {
  /** The topic's name */
  id: string;
};
