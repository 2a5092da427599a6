import { type SQL, sql } from "drizzle-orm";
import { queues } from "../../db/schema.ts";
import {
  type BaseSettings,
  type LaterInput,
  type LaterName,
  type LaterSettings,
  later_names,
  later_settings,
  type Queue,
} from "../settings.ts";
import { rfc3339, value } from "../statement.ts";
import type { Extras } from "./extras.ts";

/** Settings of several columns. */
const compounds = {
  policy: {
    prefix: "retry",
    types: { min_seconds: sql`int`, max_seconds: sql`int`, multiplier: sql`float8`, jitter: sql`text` },
  },
  rate: { prefix: "rate", types: { count: sql`int`, per_seconds: sql`int`, burst: sql`int` } },
};

/** `x` of a setting → its columns: their names, SQL types, and where a `PUT` finds them as they are. */
const columnsOf = (name: LaterName): { column: string; type: SQL; current: SQL }[] => {
  const { kind } = later_settings[name];
  const members = compounds[kind as keyof typeof compounds];
  if (members !== undefined) {
    return Object.entries(members.types).map(([member, type]) => {
      const column = `${members.prefix}_${member}`;
      return { column, type, current: sql`${queues}.${sql.identifier(column)}` };
    });
  }
  const column = kind === "queue" ? dead_queue_no : name;
  const type = kind === "truth" ? sql`boolean` : kind === "choice" ? sql`text` : sql`bigint`;
  return [{ column, type, current: sql`${queues}.${sql.identifier(column)}` }];
};

/** The column of the dead-letter queue. */
const dead_queue_no = "dead_queue_no";

/** What is selected of a queue; of a setting, its columns. */
export const fields = {
  id: queues.id,
  ack_deadline_seconds: queues.ack_deadline_seconds,
  message_retention_seconds: queues.message_retention_seconds,
  delivery_delay_seconds: queues.delivery_delay_seconds,
  created_at: queues.created_at,
  updated_at: queues.updated_at,
  // Named by its table: a column alone would be that of the inner one.
  dead_queue_id: sql<string | null>`(
    select dead.id from psqlqueue.queues as dead where dead.no = ${queues}.dead_queue_no
  )`.as("dead_queue_id"),
  ...Object.fromEntries(
    later_names
      .filter((name) => later_settings[name].kind !== "queue")
      .flatMap(columnsOf)
      .map(({ column }) => [column, queues[column as keyof typeof queues] as typeof queues.publish_paused]),
  ),
  publish_paused: queues.publish_paused,
  consume_paused: queues.consume_paused,
  extras: queues.extras,
};

/** A queue as a statement answers it. */
export type Row = BaseSettings & {
  id: string;
  created_at: string;
  updated_at: string;
  publish_paused: boolean;
  consume_paused: boolean;
} & Record<string, unknown>;

function laterOf(row: Row): LaterSettings {
  const of = (name: LaterName) => {
    const compound = compounds[later_settings[name].kind as keyof typeof compounds];
    if (compound === undefined) return row[name];
    const members = Object.keys(compound.types).map((member) => [member, row[`${compound.prefix}_${member}`]]);
    return members.every(([, value]) => value === null) ? null : Object.fromEntries(members);
  };
  return Object.fromEntries(later_names.map((name) => [name, of(name)])) as LaterSettings;
}

/** A row as the API shows it. */
export function present(row: Row): Queue {
  const { publish_paused, consume_paused } = row;
  return {
    id: row.id,
    ack_deadline_seconds: row.ack_deadline_seconds,
    message_retention_seconds: row.message_retention_seconds,
    delivery_delay_seconds: row.delivery_delay_seconds,
    created_at: rfc3339(row.created_at),
    updated_at: rfc3339(row.updated_at),
    ...laterOf(row),
    ...((publish_paused || consume_paused) && { paused: { publish: publish_paused, consume: consume_paused } }),
  };
}

/** Does a change leave this setting as it is? */
export const is_kept = (name: LaterName) => sql`${value(`keeps_${name}`)}::text::boolean`;

// A queue that does not exist has no number: told apart from "none" by the id given.
/** The number of the dead-letter queue that is given by its id. */
export const dead_no = sql`(select dead.no from psqlqueue.queues as dead where dead.id = ${value("dead_queue_id")}::text)`;

/** The columns of the settings as they are given: everything as text, or null. */
export const givenColumns = () =>
  later_names.flatMap((name) =>
    columnsOf(name).map(({ column, type, current }) => {
      const given = column === dead_queue_no ? dead_no : sql`${value(column)}::text::${type}`;
      return { name, column, given, current };
    }),
  );

/** The parameters of create and update. `keeps_x`: the setting stays as it is. */
export function valuesOf(
  id: string,
  base: Partial<BaseSettings>,
  input: LaterInput,
  extras: Extras | undefined,
  is_new: boolean,
): Record<string, unknown> {
  const kept = { ack_deadline_seconds: null, message_retention_seconds: null, delivery_delay_seconds: null };
  const values: Record<string, unknown> = { id, ...kept, ...base };
  values["extras"] = extras === undefined ? null : JSON.stringify(extras);
  for (const name of later_names) {
    const own = input[name];
    values[`keeps_${name}`] = String(own === undefined && !is_new);
    const set = own ?? later_settings[name].default;
    const compound = compounds[later_settings[name].kind as keyof typeof compounds];
    if (compound !== undefined) {
      const parts = (set ?? {}) as Record<string, unknown>;
      for (const member of Object.keys(compound.types)) {
        values[`${compound.prefix}_${member}`] = parts[member] === undefined ? null : String(parts[member]);
      }
    } else values[name] = set === null ? null : String(set);
  }
  return values;
}
