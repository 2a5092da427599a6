import { asc, eq, type SQL, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { deleted_queues, queues } from "../../db/schema.ts";
import { BrokerError, DatabaseError } from "../../errors.ts";
import {
  type BaseSettings,
  type LaterInput,
  type LaterSettings,
  later_defaults,
  type Queue,
  type RetryPolicy,
} from "../settings.ts";
import { column, rfc3339, value } from "../statement.ts";

// SQLSTATEs of the rules that the table itself holds for dead-letter queues.
const check_violation = "23514";
const chain_loops = "PQ003";

const fields = {
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
  message_max_deliveries: queues.message_max_deliveries,
  dead_letter_on_expiry: queues.dead_letter_on_expiry,
  receive_wait_seconds: queues.receive_wait_seconds,
  max_lease_seconds: queues.max_lease_seconds,
  strict_leases: queues.strict_leases,
  allow_tokenless_extend: queues.allow_tokenless_extend,
  dedup_window_seconds: queues.dedup_window_seconds,
  content_dedup: queues.content_dedup,
  dedup_strict: queues.dedup_strict,
  retry_min_seconds: queues.retry_min_seconds,
  retry_max_seconds: queues.retry_max_seconds,
  retry_multiplier: queues.retry_multiplier,
  retry_jitter: queues.retry_jitter,
  archive_retention_seconds: queues.archive_retention_seconds,
  publish_paused: queues.publish_paused,
  consume_paused: queues.consume_paused,
};

type Row = BaseSettings &
  Omit<LaterSettings, "retry_policy"> & {
    id: string;
    created_at: string;
    updated_at: string;
    retry_min_seconds: number;
    retry_max_seconds: number;
    retry_multiplier: number;
    retry_jitter: string;
    publish_paused: boolean;
    consume_paused: boolean;
  };

function present(row: Row): Queue {
  const {
    publish_paused,
    consume_paused,
    retry_min_seconds,
    retry_max_seconds,
    retry_multiplier,
    retry_jitter,
    ...rest
  } = row;
  const { archive_retention_seconds, created_at, updated_at, ...shown } = rest;
  const { id, ack_deadline_seconds, message_retention_seconds, delivery_delay_seconds, ...later } = shown;
  return {
    id,
    ack_deadline_seconds,
    message_retention_seconds,
    delivery_delay_seconds,
    created_at: rfc3339(created_at),
    updated_at: rfc3339(updated_at),
    ...later,
    retry_policy: {
      min_seconds: retry_min_seconds,
      max_seconds: retry_max_seconds,
      multiplier: retry_multiplier,
      jitter: retry_jitter as RetryPolicy["jitter"],
    },
    archive_retention_seconds,
    ...((publish_paused || consume_paused) && { paused: { publish: publish_paused, consume: consume_paused } }),
  };
}

const is_kept = (name: keyof LaterSettings) => sql`${value(`keeps_${name}`)}::text::boolean`;
const given = (name: string, type: SQL) => sql`${value(name)}::text::${type}`;

/** `keeps_x` true: the column as it is, else what was given. */
const later = (name: keyof LaterSettings, type: SQL, current: unknown, parameter: string = name) =>
  sql`case when ${is_kept(name)} then ${current} else ${given(parameter, type)} end`;

// A queue that does not exist has no number: told apart from "none" by the id given.
const dead_no = sql`(select dead.no from psqlqueue.queues as dead where dead.id = ${value("dead_queue_id")}::text)`;

/** Everything as text, null, or absent with `keeps_…`; one shape for create and update. */
function valuesOf(id: string, base: BaseSettings, input: LaterInput, is_new: boolean): Record<string, unknown> {
  const values: Record<string, unknown> = { id, ...base };
  for (const [name, fallback] of Object.entries(later_defaults)) {
    const own = input[name as keyof LaterInput];
    values[`keeps_${name}`] = String(own === undefined && !is_new);
    if (name !== "retry_policy") {
      const set = own ?? fallback;
      values[name] = set === null ? null : String(set);
    }
  }
  const policy = input.retry_policy ?? later_defaults.retry_policy;
  values["retry_min_seconds"] = String(policy.min_seconds);
  values["retry_max_seconds"] = String(policy.max_seconds);
  values["retry_multiplier"] = String(policy.multiplier);
  values["retry_jitter"] = policy.jitter;
  return values;
}

/** What can be done with queues. Every call may run concurrently with any other. */
export function createQueues(db: Db) {
  const { orm } = db;
  const base = {
    ack_deadline_seconds: sql`${value("ack_deadline_seconds")}::int`,
    message_retention_seconds: sql`${value("message_retention_seconds")}::int`,
    delivery_delay_seconds: sql`${value("delivery_delay_seconds")}::int`,
  };
  const create = orm
    .insert(queues)
    .values({
      id: value("id"),
      ...base,
      archive_retention_seconds: given("archive_retention_seconds", sql`int`),
      dead_queue_no: dead_no,
      message_max_deliveries: given("message_max_deliveries", sql`int`),
      dead_letter_on_expiry: given("dead_letter_on_expiry", sql`boolean`),
      receive_wait_seconds: given("receive_wait_seconds", sql`int`),
      max_lease_seconds: given("max_lease_seconds", sql`int`),
      strict_leases: given("strict_leases", sql`boolean`),
      allow_tokenless_extend: given("allow_tokenless_extend", sql`boolean`),
      dedup_window_seconds: given("dedup_window_seconds", sql`int`),
      content_dedup: given("content_dedup", sql`boolean`),
      dedup_strict: given("dedup_strict", sql`boolean`),
      retry_min_seconds: given("retry_min_seconds", sql`int`),
      retry_max_seconds: given("retry_max_seconds", sql`int`),
      retry_multiplier: given("retry_multiplier", sql`float8`),
      retry_jitter: given("retry_jitter", sql`text`),
    })
    .onConflictDoNothing()
    .returning(fields)
    .prepare("create_queue");
  const retry = (name: "min_seconds" | "max_seconds" | "multiplier" | "jitter", type: SQL) =>
    later("retry_policy", type, queues[`retry_${name}`], `retry_${name}`);
  const update = orm
    .update(queues)
    .set({
      ...base,
      archive_retention_seconds: later("archive_retention_seconds", sql`int`, queues.archive_retention_seconds),
      dead_queue_no: sql`case when ${is_kept("dead_queue_id")} then ${queues.dead_queue_no} else ${dead_no} end`,
      message_max_deliveries: later("message_max_deliveries", sql`int`, queues.message_max_deliveries),
      dead_letter_on_expiry: later("dead_letter_on_expiry", sql`boolean`, queues.dead_letter_on_expiry),
      receive_wait_seconds: later("receive_wait_seconds", sql`int`, queues.receive_wait_seconds),
      max_lease_seconds: later("max_lease_seconds", sql`int`, queues.max_lease_seconds),
      strict_leases: later("strict_leases", sql`boolean`, queues.strict_leases),
      allow_tokenless_extend: later("allow_tokenless_extend", sql`boolean`, queues.allow_tokenless_extend),
      dedup_window_seconds: later("dedup_window_seconds", sql`int`, queues.dedup_window_seconds),
      content_dedup: later("content_dedup", sql`boolean`, queues.content_dedup),
      dedup_strict: later("dedup_strict", sql`boolean`, queues.dedup_strict),
      retry_min_seconds: retry("min_seconds", sql`int`),
      retry_max_seconds: retry("max_seconds", sql`int`),
      retry_multiplier: retry("multiplier", sql`float8`),
      retry_jitter: retry("jitter", sql`text`),
      // Never backwards and never equal, whatever the resolution of the clock: clients see that something changed.
      updated_at: sql`greatest(now(), ${queues.updated_at} + interval '1 microsecond')`,
    })
    // A dead-letter queue that does not exist would read as none.
    .where(
      sql`${queues.id} = ${value("id")} and (
        ${is_kept("dead_queue_id")} or ${value("dead_queue_id")}::text is null or ${dead_no} is not null
      )`,
    )
    .returning(fields)
    .prepare("update_queue");
  const pause = orm
    .update(queues)
    .set({
      publish_paused: sql`${value("publish")}::text::boolean`,
      consume_paused: sql`${value("consume")}::text::boolean`,
      updated_at: sql`greatest(now(), ${queues.updated_at} + interval '1 microsecond')`,
    })
    .where(eq(queues.id, value("id")))
    .returning(fields)
    .prepare("pause_queue");
  const get = orm
    .select(fields)
    .from(queues)
    .where(eq(queues.id, value("id")))
    .prepare("get_queue");
  const list = orm
    .select(fields)
    .from(queues)
    .orderBy(asc(queues.id))
    .limit(value("limit"))
    .offset(value("offset"))
    .prepare("list_queues");
  // Subscriptions go with the row. Its messages are unreachable at once, since numbers are never used again.
  const released = orm.$with("released", {}).as(sql`
    update ${queues} as source
    set dead_queue_no = null, message_max_deliveries = null
    where ${value("is_forced")}::text::boolean
      and source.dead_queue_no = (select queue.no from ${queues} as queue where queue.id = ${value("id")})`);
  const gone = orm.$with("gone").as(
    orm
      .delete(queues)
      .where(eq(queues.id, value("id")))
      .returning({ no: queues.no }),
  );
  const remembered = orm
    .$with("remembered", { no: column<number>("no") })
    .as(sql`insert into ${deleted_queues} (no) select no from gone returning no`);
  const remove = orm.with(released, gone, remembered).select().from(remembered).prepare("delete_queue");

  const find = async (id: string): Promise<Queue | undefined> => {
    const [row] = await db.run("get_queue", () => get.execute({ id }), true);
    return row && present(row);
  };

  /** Why a change of the dead-letter settings was refused: see the constraint and the trigger of the table. */
  async function explainRefusal(id: string, input: LaterInput, error?: DatabaseError): Promise<BrokerError> {
    if (error?.code === chain_loops) {
      return new BrokerError("validation_failed", "dead_queue_id: must not lead back to the queue.");
    }
    if (error !== undefined && error.code !== check_violation) throw error;
    const queue = await find(id);
    if (queue === undefined) return new BrokerError("queue_not_found");
    const { dead_queue_id = queue.dead_queue_id, message_max_deliveries = queue.message_max_deliveries } = input;
    // Both are wanted, so it is the target that is missing.
    if (dead_queue_id !== null && message_max_deliveries !== null) return new BrokerError("queue_not_found");
    const names = ["dead_queue_id", "message_max_deliveries"];
    const [alone, other] = dead_queue_id !== null ? names : names.reverse();
    return new BrokerError("validation_failed", `${alone}: must be given together with ${other}.`);
  }

  function refuseItself(id: string, { dead_queue_id }: LaterInput): void {
    if (dead_queue_id !== id) return;
    throw new BrokerError("validation_failed", "dead_queue_id: must not be the queue itself.");
  }

  return {
    /** Throws `queue_exists`, `queue_not_found` for its dead-letter queue, `validation_failed`. */
    async createQueue(id: string, settings: BaseSettings, input: LaterInput): Promise<Queue> {
      refuseItself(id, input);
      const values = valuesOf(id, settings, input, true);
      try {
        const [row] = await db.run("create_queue", () => create.execute(values));
        if (row === undefined) throw new BrokerError("queue_exists");
        return present(row);
      } catch (error) {
        // The constraint is looked at before the id: the dead-letter queue is missing, the id may be taken besides.
        if (!(error instanceof DatabaseError && error.code === check_violation)) throw error;
        throw new BrokerError((await find(id)) === undefined ? "queue_not_found" : "queue_exists");
      }
    },

    /**
     * Replaces v1's settings and changes those others that are given. Repeatable. Throws `queue_not_found`, also for
     * its dead-letter queue, and `validation_failed`.
     */
    async updateQueue(id: string, settings: BaseSettings, input: LaterInput): Promise<Queue> {
      refuseItself(id, input);
      const values = valuesOf(id, settings, input, false);
      try {
        const [row] = await db.run("update_queue", () => update.execute(values), true);
        if (row !== undefined) return present(row);
      } catch (error) {
        throw await explainRefusal(id, input, error as DatabaseError);
      }
      throw await explainRefusal(id, input);
    },

    /**
     * Stops or allows publishing and consuming, on all servers at once. The answer always says which. Repeatable.
     * Throws `queue_not_found`.
     */
    async pauseQueue(id: string, paused: { publish: boolean; consume: boolean }): Promise<Queue> {
      const values = { id, publish: String(paused.publish), consume: String(paused.consume) };
      const [row] = await db.run("pause_queue", () => pause.execute(values), true);
      if (row === undefined) throw new BrokerError("queue_not_found");
      return { ...present(row), paused };
    },

    /** Throws `queue_not_found`. */
    async getQueue(id: string): Promise<Queue> {
      const queue = await find(id);
      if (queue === undefined) throw new BrokerError("queue_not_found");
      return queue;
    },

    /** Ascending by id. */
    async listQueues(limit: number, offset: number): Promise<Queue[]> {
      const rows = await db.run("list_queues", () => list.execute({ limit, offset }), true);
      return rows.map(present);
    },

    /**
     * Removes the queue at once; its number is what is left to purge. Throws `queue_not_found`, and `queue_in_use`
     * while it is somebody's dead-letter queue, unless forced.
     */
    async removeQueue(id: string, is_forced: boolean): Promise<number> {
      const values = { id, is_forced: String(is_forced) };
      const [row] = await db
        .run("delete_queue", () => remove.execute(values))
        .catch((error: DatabaseError) => {
          if (error.code !== "23503") throw error;
          throw new BrokerError(
            "queue_in_use",
            "it is the dead-letter queue of another queue; ?force=true lets that one go without",
          );
        });
      if (row === undefined) throw new BrokerError("queue_not_found");
      return row.no;
    },
  };
}
