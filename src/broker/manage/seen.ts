import { sql } from "drizzle-orm";
import { archived_messages, messages } from "../../db/schema.ts";
import { due_at, is_held } from "../heldRows.ts";
import { DecryptionError } from "../masterKeys.ts";
import { magic } from "../publish/sealing.ts";
import { column, rfc3339 } from "../statement.ts";

// Messages as one sees them without leasing: their states, and the rows that statements read.

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
  /** Why there is no body: it was encrypted with a master key that this server has not, or was changed since. */
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
  dead?: unknown;
  last_error?: string;
  state: State;
  visible_at?: string;
  /** Of a single message, when something failed: the first and the latest failures. */
  events?: unknown;
};

/** A row of the statements here. */
export type SeenRow = {
  id: string | null;
  label: string | null;
  body: string;
  attributes: string | null;
  delivery_attempts: number;
  created_at: string;
  lease_expires_at: string | null;
  expires_at: string | null;
  dead: string | null;
  last_error: string | null;
  state: State;
  visible_at: string | null;
  events?: string | null;
  body_bytes?: number;
  is_cut?: boolean;
  ordering_key: string | null;
  priority: number;
  fairness_key: string | null;
  weight: number | null;
};

/** The state of a row of the table of messages. */
export const live_state = sql`case
  when message.expires_at <= now() and coalesce(message.lease_expires_at <= now(), true) then 'expired'
  when ${is_held} then 'leased'
  when ${due_at} <= now() then 'ready'
  when message.delivery_attempts = 0 then 'delayed'
  else 'backing_off'
end`;

/** Live messages as one sees them. */
export const live_rows = sql`
  select message.id, message.label, message.body, message.attributes::text as attributes, message.delivery_attempts,
    message.created_at, case when message.visible_at > now() then message.lease_expires_at end as lease_expires_at,
    case when message.has_ttl then message.expires_at end as expires_at, message.dead::text as dead, message.last_error,
    ${live_state} as state, ${due_at} as visible_at, message.ordering_key, message.priority, message.fairness_key, message.weight,
    message.events::text as events
  from ${messages} as message`;

/** Archived ones, for as long as they are kept: how long they are there besides is another matter. */
export const past_rows = sql`
  select past.id, past.label, past.body, past.attributes::text as attributes, past.delivery_attempts, past.created_at,
    null::timestamptz as lease_expires_at, null::timestamptz as expires_at, past.dead::text as dead, past.last_error,
    past.outcome as state, null::timestamptz as visible_at, past.ordering_key, past.priority,
    null::text as fairness_key, null::int as weight, past.events::text as events
  from (select * from ${archived_messages} as kept where kept.expires_at > now()) as past`;

/** The columns of those rows. */
export const shape = {
  id: column<string | null>("id"),
  label: column<string | null>("label"),
  body: column<string>("body"),
  attributes: column<string | null>("attributes"),
  delivery_attempts: column<number>("delivery_attempts"),
  created_at: column<string>("created_at"),
  lease_expires_at: column<string | null>("lease_expires_at"),
  expires_at: column<string | null>("expires_at"),
  dead: column<string | null>("dead"),
  last_error: column<string | null>("last_error"),
  state: column<State>("state"),
  visible_at: column<string | null>("visible_at"),
  ordering_key: column<string | null>("ordering_key"),
  priority: column<number>("priority"),
  fairness_key: column<string | null>("fairness_key"),
  weight: column<number | null>("weight"),
};

/** The body that was sent, of the stored one. Throws DecryptionError. */
export type Open = (stored: string) => string;

/** Is a message in this state unfinished? */
export const isLive = (state: State) => state !== "acked" && state !== "expired";

/** The first characters of a text, as PostgreSQL counts them. */
function firstOf(text: string, characters_max: number): string {
  if (text.length <= characters_max) return text;
  return Array.from(text.slice(0, 2 * characters_max))
    .slice(0, characters_max)
    .join("");
}

/** The members that tell of the body. What is not stored as it was sent has been read whole, and is cut only here. */
function bodyOf(row: SeenRow, open: Open, characters_max: number): Partial<SeenMessage> {
  const { body: stored, body_bytes = 0 } = row;
  if (!stored.startsWith(magic)) return { body: stored, ...(row.is_cut && { body_bytes }) };
  try {
    const body = open(stored);
    const first = firstOf(body, characters_max);
    return { body: first, ...(first.length < body.length && { body_bytes: Buffer.byteLength(body) }) };
  } catch (error) {
    if (error instanceof DecryptionError) return { unreadable: error.reason };
    throw error;
  }
}

/** A row as the API shows it. `characters_max` of its body; undefined: without one. */
export function present(
  row: SeenRow & { id: string },
  queue_id: string,
  open: Open,
  characters_max: number | undefined,
): SeenMessage {
  return {
    id: row.id,
    queue_id,
    label: row.label,
    ...(characters_max !== undefined && bodyOf(row, open, characters_max)),
    attributes: row.attributes === null ? null : JSON.parse(row.attributes),
    delivery_attempts: row.delivery_attempts,
    created_at: rfc3339(row.created_at),
    ...(row.lease_expires_at !== null && row.state === "leased" && { lease_expires_at: rfc3339(row.lease_expires_at) }),
    ...(row.ordering_key !== null && { ordering_key: row.ordering_key }),
    ...(row.priority !== 0 && { priority: row.priority }),
    ...(row.fairness_key !== null && { fairness_key: row.fairness_key }),
    ...(row.weight !== null && { weight: row.weight }),
    ...(row.expires_at !== null && { expires_at: rfc3339(row.expires_at) }),
    ...(row.dead !== null && { dead: JSON.parse(row.dead) }),
    ...(row.last_error !== null && { last_error: row.last_error }),
    state: row.state,
    ...(row.visible_at !== null && isLive(row.state) && { visible_at: rfc3339(row.visible_at) }),
    ...(row.events != null && { events: JSON.parse(row.events) }),
  };
}
