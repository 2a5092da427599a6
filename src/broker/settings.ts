/** v1's settings: a `PUT` replaces them all. */
export type BaseSettings = {
  ack_deadline_seconds: number;
  message_retention_seconds: number;
  delivery_delay_seconds: number;
};

export type RetryPolicy = {
  min_seconds: number;
  max_seconds: number;
  multiplier: number;
  jitter: "none" | "full" | "equal";
};

/** What came later: in a `PUT` an absent one stays as it is, and null resets it to its default. */
export type LaterSettings = {
  archive_retention_seconds: number | null;
  dead_queue_id: string | null;
  message_max_deliveries: number | null;
  dead_letter_on_expiry: boolean;
  receive_wait_seconds: number;
  max_lease_seconds: number;
  strict_leases: boolean;
  allow_tokenless_extend: boolean;
  dedup_window_seconds: number;
  content_dedup: boolean;
  dedup_strict: boolean;
  retry_policy: RetryPolicy;
};

export type LaterInput = { [K in keyof LaterSettings]?: LaterSettings[K] | null | undefined };

export type Queue = { id: string } & BaseSettings & { created_at: string; updated_at: string } & LaterSettings & {
    paused?: { publish: boolean; consume: boolean };
  };

/** The settings that came after v1, as a queue has them that was made without. */
export const later_defaults: LaterSettings = {
  dead_queue_id: null,
  message_max_deliveries: null,
  dead_letter_on_expiry: false,
  receive_wait_seconds: 0,
  max_lease_seconds: 43_200,
  strict_leases: false,
  allow_tokenless_extend: false,
  dedup_window_seconds: 300,
  content_dedup: false,
  dedup_strict: false,
  retry_policy: { min_seconds: 0, max_seconds: 600, multiplier: 2, jitter: "none" },
  archive_retention_seconds: null,
};
