// The settings of a queue, as data. What came after v1 is ONE entry here and a column in a migration: the statements
// that create, change and show a queue, the edge's checks of a request, its answers and the document are made of it.

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

/** Deliveries that a queue allows: `count` in `per_seconds`, and `burst` at once. */
export type RateLimit = { count: number; per_seconds: number; burst: number };

/** A whole number within its bounds; bytes and the like pass 32 bits. */
type Whole<Default> = { kind: "whole"; min: number; max: number; default: Default; doc: string };
type Truth = { kind: "truth"; default: boolean; doc: string };
/** One of some words. */
type Choice<Value extends string | null> = {
  kind: "choice";
  choices: Exclude<Value, null>[];
  default: Value;
  doc: string;
};
/** The id of a queue, kept as its number in another column. */
type Reference = { kind: "queue"; default: null; doc: string };
/** Three columns, `rate_…`. */
type Rate = { kind: "rate"; default: null; doc: string };
/** Four columns, `retry_…`. */
type Policy = { kind: "policy"; default: RetryPolicy; doc: string };

const int32_max = 2_147_483_647;
const bytes_max = Number.MAX_SAFE_INTEGER;

const whole = <Default extends number | null>(
  fallback: Default,
  min: number,
  max: number,
  doc: string,
): Whole<Default> => ({ kind: "whole", min, max, default: fallback, doc });
const choice = <Value extends string>(choices: Value[], doc: string): Choice<Value> => ({
  kind: "choice",
  choices: choices as Exclude<Value, null>[],
  default: choices[0] as Value,
  doc,
});
/** One of some words, or none of them. */
const maybe = <Value extends string>(choices: Value[], doc: string): Choice<Value | null> => ({
  kind: "choice",
  choices: choices as Exclude<Value, null>[],
  default: null,
  doc,
});
const truth = (doc: string): Truth => ({ kind: "truth", default: false, doc });

/**
 * Every setting that came after v1, in the order of the answers. In a `PUT` an absent one stays as it is, and null
 * resets it to its default. The name is the column's too.
 */
export const later_settings = {
  dead_queue_id: {
    kind: "queue",
    default: null,
    doc: "Where exhausted and rejected messages go; together with message_max_deliveries",
  } as Reference,
  message_max_deliveries: whole(null as number | null, 1, 1000, "Deliveries after which a message is dead"),
  dead_letter_on_expiry: truth("Expired messages go to the dead-letter queue too"),
  receive_wait_seconds: whole(0, 0, 240, "How long a receive waits that does not say; default 0"),
  max_lease_seconds: whole(43_200, 0, int32_max, "Longest lease by extension; 0: unlimited; default 43200"),
  strict_leases: truth("A lease token counts until its deadline only"),
  allow_tokenless_extend: truth("Extend without a lease token"),
  ordering_scope: choice(
    ["key", "key_label"],
    "What the order of messages with an ordering key is kept in: the key, or the key and the label together",
  ),
  on_dead: choice(
    ["move", "block"],
    "block: a dead message keeps its ordering key closed until it is redriven or gone",
  ),
  allow_delayed_ordering: truth(
    "Messages with an ordering key may have a delay of their own, which their key waits for",
  ),
  dedup_window_seconds: whole(300, 0, 604_800, "How long a dedup_id is remembered; 0: off; default 300"),
  dedup_scope: choice(["queue", "ordering_key"], "Where a dedup_id counts: in the queue, or in each ordering key"),
  content_dedup: truth("Without a dedup_id the body's hash is one"),
  dedup_strict: truth("The same dedup_id with another body is refused"),
  retry_policy: {
    kind: "policy",
    default: { min_seconds: 0, max_seconds: 600, multiplier: 2, jitter: "none" },
    doc: "When a nacked message, or one whose lease ran out, comes back",
  } as Policy,
  priority_enabled: truth("Messages may have a priority, -100 to 100: higher ones are delivered first"),
  priority_aging_seconds: whole(
    null as number | null,
    1,
    31_536_000,
    "So many seconds of waiting count as one step of priority; null: priorities are strict",
  ),
  archive_retention_seconds: whole(
    null as number | null,
    0,
    int32_max,
    "How long acked and expired messages are kept; null: as message_retention_seconds; 0: not at all",
  ),
  max_message_bytes: whole(
    null as number | null,
    1,
    bytes_max,
    "Bytes of body, label and attributes of one message; null: only the request's limit",
  ),
  max_depth: whole(null as number | null, 1, bytes_max, "Unfinished messages that the queue holds; null: no limit"),
  max_bytes: whole(null as number | null, 1, bytes_max, "Bytes of its unfinished messages; null: no limit"),
  max_in_flight: whole(null as number | null, 1, 1_000_000, "Messages under a lease at once; null: no limit"),
  max_in_flight_per_key: whole(
    null as number | null,
    1,
    1000,
    "Messages of one key of fair_by under a lease at once; null: no limit",
  ),
  fair_by: maybe(
    ["fairness_key", "ordering_key", "label"],
    "What shares the queue: its keys take turns, however many messages each has; null: first come, first served",
  ),
  rate_limit: { kind: "rate", default: null, doc: "Deliveries that the queue allows; null: no limit" } as Rate,
  encrypt: truth("Bodies are encrypted before they are stored; needs PSQLQUEUE_MASTER_KEY"),
};

type Later = typeof later_settings;
type ValueOf<Entry> =
  Entry extends Whole<infer Default>
    ? null extends Default
      ? number | null
      : number
    : Entry extends Truth
      ? boolean
      : Entry extends Choice<infer Value>
        ? Value
        : Entry extends Reference
          ? string | null
          : Entry extends Rate
            ? RateLimit | null
            : RetryPolicy;

export type LaterName = keyof Later;
export type LaterSettings = { [Name in LaterName]: ValueOf<Later[Name]> };
export type LaterInput = { [Name in LaterName]?: LaterSettings[Name] | null | undefined };

/** Names of the settings, in the order of the answers. */
export const later_names = Object.keys(later_settings) as LaterName[];

export type Queue = { id: string } & BaseSettings & { created_at: string; updated_at: string } & LaterSettings & {
    paused?: { publish: boolean; consume: boolean };
  };
