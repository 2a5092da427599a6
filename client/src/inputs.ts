// Made of the OpenAPI document by test/clientTypes.test.ts: what a server takes.

export type AckBatchInput = {
  /** Messages to ack */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | undefined;
  }[];
};

export type AckInput = {
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | undefined;
};

export type BatchInput = {
  /** Published in this order */
  messages: MessageInput[];
};

export type ChangeInput = {
  /** When it becomes visible, at most a year ahead */
  deliver_at?: string | undefined;
  /** At most 255 bytes of UTF-8 */
  label?: string | undefined;
  /** A flat map of strings; a null value reads as the empty string */
  attributes?: Record<string, string | null> | undefined;
};

export type ExtendBatchInput = {
  /** Leases to extend */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | undefined;
    /** Instead of the one beside items */
    ack_deadline_seconds?: number | undefined;
  }[];
  /** For items without their own */
  ack_deadline_seconds?: number | undefined;
};

export type ExtendInput = {
  /** The lease ends so many seconds from now; 0 gives it back */
  ack_deadline_seconds: number;
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | undefined;
};

export type MessageInput = {
  /** Anything but empty; white space alone is fine */
  body: string;
  /** At most 255 bytes of UTF-8 */
  label?: string | undefined;
  /** A flat map of strings; a null value reads as the empty string */
  attributes?: Record<string, string | null> | undefined;
  /** Seconds until it is visible; instead of the queue's delay */
  delay_seconds?: number | undefined;
  /** When it becomes visible, at most a year ahead; not together with delay_seconds */
  deliver_at?: string | undefined;
  /** Seconds it lives, if the queue's retention is not shorter */
  ttl_seconds?: number | undefined;
  /** When it expires; not together with ttl_seconds */
  expires_at?: string | undefined;
  /** A publish with the same id within the queue's window is a duplicate of the first */
  dedup_id?: string | undefined;
};

export type NackBatchInput = {
  /** Messages to nack */
  items: {
    /** The message's id */
    id: string;
    /** The delivery's lease_token; without it the call is unconditional */
    lease_token?: string | undefined;
    /** Seconds until the message is visible again; default the queue's retry policy */
    visibility_timeout_seconds?: number | undefined;
    /** What went wrong; kept as last_error, cut at 2048 bytes */
    error?: string | undefined;
    /** To the dead-letter queue at once, if there is one */
    dead_letter?: boolean | undefined;
  }[];
  /** Seconds until the message is visible again; default the queue's retry policy */
  visibility_timeout_seconds?: number | undefined;
  /** What went wrong; kept as last_error, cut at 2048 bytes */
  error?: string | undefined;
  /** To the dead-letter queue at once, if there is one */
  dead_letter?: boolean | undefined;
};

export type NackInput = {
  /** Seconds until the message is visible again; default the queue's retry policy */
  visibility_timeout_seconds?: number | undefined;
  /** What went wrong; kept as last_error, cut at 2048 bytes */
  error?: string | undefined;
  /** To the dead-letter queue at once, if there is one */
  dead_letter?: boolean | undefined;
  /** The delivery's lease_token; without it the call is unconditional */
  lease_token?: string | undefined;
};

export type PauseInput = {
  publish?: boolean | undefined;
  consume?: boolean | undefined;
};

export type QueueInput = {
  /** The queue's name */
  id: string;
  /** How long a receive hides a message */
  ack_deadline_seconds: number;
  /** How long an unacked message is kept, counted from publish */
  message_retention_seconds: number;
  /** How long a published message stays hidden; default 0 */
  delivery_delay_seconds?: number | undefined;
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
  /** How long a dedup_id is remembered; 0: off; default 300 */
  dedup_window_seconds?: number | null | undefined;
  /** Without a dedup_id the body's hash is one */
  content_dedup?: boolean | null | undefined;
  /** The same dedup_id with another body is refused */
  dedup_strict?: boolean | null | undefined;
  retry_policy?:
    | {
        /** Default 0: at once */
        min_seconds?: number | undefined;
        /** Default 600; not below min_seconds */
        max_seconds?: number | undefined;
        /** Default 2 */
        multiplier?: number | undefined;
        /** Default none; equal when min_seconds is greater than 0 */
        jitter?: "none" | "full" | "equal" | undefined;
      }
    | null
    | undefined;
  /** How long acked and expired messages are kept; null: as message_retention_seconds; 0: not at all */
  archive_retention_seconds?: number | null | undefined;
  /** Bytes of body, label and attributes of one message; null: only the request's limit */
  max_message_bytes?: number | null | undefined;
  /** Unfinished messages that the queue holds; null: no limit */
  max_depth?: number | null | undefined;
  /** Bytes of its unfinished messages; null: no limit */
  max_bytes?: number | null | undefined;
};

export type QueueUpdate = {
  /** How long a receive hides a message */
  ack_deadline_seconds: number;
  /** How long an unacked message is kept, counted from publish */
  message_retention_seconds: number;
  /** How long a published message stays hidden; default 0 */
  delivery_delay_seconds?: number | undefined;
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
  /** How long a dedup_id is remembered; 0: off; default 300 */
  dedup_window_seconds?: number | null | undefined;
  /** Without a dedup_id the body's hash is one */
  content_dedup?: boolean | null | undefined;
  /** The same dedup_id with another body is refused */
  dedup_strict?: boolean | null | undefined;
  retry_policy?:
    | {
        /** Default 0: at once */
        min_seconds?: number | undefined;
        /** Default 600; not below min_seconds */
        max_seconds?: number | undefined;
        /** Default 2 */
        multiplier?: number | undefined;
        /** Default none; equal when min_seconds is greater than 0 */
        jitter?: "none" | "full" | "equal" | undefined;
      }
    | null
    | undefined;
  /** How long acked and expired messages are kept; null: as message_retention_seconds; 0: not at all */
  archive_retention_seconds?: number | null | undefined;
  /** Bytes of body, label and attributes of one message; null: only the request's limit */
  max_message_bytes?: number | null | undefined;
  /** Unfinished messages that the queue holds; null: no limit */
  max_depth?: number | null | undefined;
  /** Bytes of its unfinished messages; null: no limit */
  max_bytes?: number | null | undefined;
};

export type RedriveInput = {
  /** Default: the queue that each message came from */
  destination_queue_id?: string | undefined;
  /** At most 255 bytes of UTF-8 */
  label?: string | undefined;
  /** Only messages that died of this */
  reason?: "max_deliveries" | "rejected" | "expired" | undefined;
  /** Only messages that came from this queue */
  source_queue_id?: string | undefined;
  /** Messages to move at most */
  limit?: number | undefined;
  /** Messages per second */
  rate_per_second?: number | undefined;
  /** Seconds until they are visible */
  delay_seconds?: number | undefined;
  /** false: delivery_attempts as before the move; default true */
  reset_attempts?: boolean | undefined;
};

export type SubscriptionInput = {
  /** The subscription's name */
  id: string;
  /** The topic to copy from */
  topic_id: string;
  /** The queue to copy to */
  queue_id: string;
  /** Attribute name to the values that pass: AND over names, OR within a list; {} passes everything */
  message_filters?: Record<string, (string | null)[] | null> | undefined;
};

export type TopicInput = {
  /** The topic's name */
  id: string;
};
