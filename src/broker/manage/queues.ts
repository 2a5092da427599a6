import { asc, eq, sql } from "drizzle-orm";
import type { Db } from "../../db/db.ts";
import { fair_keys, governors } from "../../db/orderingSchema.ts";
import { deleted_queues, queues } from "../../db/schema.ts";
import { BrokerError, DatabaseError, invalid } from "../../errors.ts";
import type { Sealing } from "../publish/sealing.ts";
import type { BaseSettings, LaterInput, Queue } from "../settings.ts";
import { column, value } from "../statement.ts";
import { changedExtras, type Extras } from "./extras.ts";
import { dead_no, fields, givenColumns, is_kept, present, type Row, valuesOf } from "./queueColumns.ts";
import { everything, isVisible, type Visible, visibleValues } from "./visible.ts";

// SQLSTATEs of the rules that the table itself holds for dead-letter queues.
const check_violation = "23514";
/** Settings that need another one, by the rule that says so: their name, and the other's. */
const lone_settings: Record<string, [string, string]> = {
  queues_aging: ["priority_aging_seconds", "priority_enabled"],
  queues_per_key: ["max_in_flight_per_key", "fair_by"],
};
/** The rules of the trigger that keeps the order of what is stored. */
const scopes_differ = "queues_ordering_scope";
const scope_in_use = "queues_ordering_scope_in_use";
const in_order =
  "its messages with an ordering key are in the order of its ordering_scope; change that when they are acked or purged, " +
  "and no key is blocked";
const foreign_key_violation = "23503";
const chain_loops = "PQ003";
/** The sequence has given its last number. */
const numbers_used_up = "2200H";
const no_number =
  "no queue can be made any more: each that ever was has a number of its own, and all 2147483647 are given away; " +
  "make new queues in a new database";

/** What can be done with queues. Every call may run concurrently with any other. */
export function createQueues(db: Db, sealing: Sealing, onOpened: (queue_id: string) => void) {
  const { orm } = db;
  const base = {
    ack_deadline_seconds: sql`${value("ack_deadline_seconds")}::int`,
    message_retention_seconds: sql`${value("message_retention_seconds")}::int`,
    delivery_delay_seconds: sql`${value("delivery_delay_seconds")}::int`,
  };
  const later = givenColumns();
  type Columns = typeof queues.$inferInsert;
  const create = orm
    .insert(queues)
    .values({
      id: value("id"),
      ...base,
      extras: sql`${value("extras")}::text::jsonb`,
      ...Object.fromEntries(later.map(({ column, given }) => [column, given])),
    } as unknown as Columns)
    .onConflictDoNothing()
    .returning(fields)
    .prepare("create_queue");
  const update = orm
    .update(queues)
    .set({
      ...Object.fromEntries(
        Object.entries(base).map(([column, given]) => [
          column,
          sql`coalesce(${given}, ${queues}.${sql.identifier(column)})`,
        ]),
      ),
      extras: changedExtras,
      ...Object.fromEntries(
        later.map(({ name, column, given, current }) => [
          column,
          sql`case when ${is_kept(name)} then ${current} else ${given} end`,
        ]),
      ),
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
    .where(sql`${isVisible(queues.id, "queue")}`)
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
  const unshared = orm
    .$with("unshared", {})
    .as(sql`delete from ${fair_keys} as key where key.queue_no in (select no from gone)`);
  const ungoverned = orm
    .$with("ungoverned", {})
    .as(sql`delete from ${governors} as governor where governor.queue_no in (select no from gone)`);
  const remembered = orm
    .$with("remembered", { no: column<number>("no") })
    .as(sql`insert into ${deleted_queues} (no) select no from gone returning no`);
  const remove = orm
    .with(released, gone, ungoverned, unshared, remembered)
    .select()
    .from(remembered)
    .prepare("delete_queue");

  const awaited = orm
    .$with("awaited", { at: column<string>("at") })
    .as(sql`select psqlqueue.await_publishes()::text as at`);
  const awaitPublishes = orm.with(awaited).select().from(awaited).prepare("await_publishes");

  const find = async (id: string): Promise<Queue | undefined> => {
    const [row] = await db.run("get_queue", () => get.execute({ id }), true);
    return row && present(row as Row);
  };

  /** Why a change of the dead-letter settings was refused: see the constraint and the trigger of the table. */
  async function explainRefusal(id: string, input: LaterInput, error?: DatabaseError): Promise<BrokerError> {
    if (error?.code === chain_loops) {
      return invalid("dead_queue_id", "leads_back");
    }
    if (error !== undefined && error.code !== check_violation) throw error;
    const refusal = refuseAlone(error);
    if (refusal !== undefined) return refusal;
    const queue = await find(id);
    if (queue === undefined) return new BrokerError("queue_not_found");
    const { dead_queue_id = queue.dead_queue_id, message_max_deliveries = queue.message_max_deliveries } = input;
    // Both are wanted, so it is the target that is missing.
    if (dead_queue_id !== null && message_max_deliveries !== null) return new BrokerError("queue_not_found");
    const names = ["dead_queue_id", "message_max_deliveries"];
    const [alone, other] = dead_queue_id !== null ? names : names.reverse();
    return invalid(alone as string, "together", other as string);
  }

  /** A setting that was given without the one that it needs, or an order that cannot be another one. */
  function refuseAlone(error: DatabaseError | undefined): BrokerError | undefined {
    if (error?.constraint === scopes_differ) return invalid("ordering_scope", "alike");
    if (error?.constraint === scope_in_use) return new BrokerError("queue_in_use", in_order);
    const names = lone_settings[error?.constraint ?? ""];
    return names && invalid(names[0], "together", names[1]);
  }

  function refuseItself(id: string, { dead_queue_id }: LaterInput): void {
    if (dead_queue_id !== id) return;
    throw invalid("dead_queue_id", "itself");
  }

  function refuseEncryption({ encrypt }: LaterInput): void {
    if (encrypt === true && !sealing.has_keys) throw invalid("encrypt", "not_offered");
  }

  /** A change that has been made: from its answer on no server stores a body of this queue in another form. */
  async function noteEncryption(id: string, { encrypt }: LaterInput): Promise<void> {
    if (encrypt === undefined) return;
    sealing.note(id, encrypt === true);
    // Statements in flight may have read the queue before. A repeated change waits too: the first may have failed here.
    if (encrypt === true) await db.run("await_publishes", () => awaitPublishes.execute(), true);
  }

  return {
    /** Throws `queue_exists`, `queue_not_found` for its dead-letter queue, `validation_failed`. */
    async createQueue(id: string, settings: BaseSettings, input: LaterInput, extras?: Extras): Promise<Queue> {
      refuseItself(id, input);
      refuseEncryption(input);
      // The insert decides; but each that meets a taken id uses up a number, of which there are 2^31.
      if ((await find(id)) !== undefined) throw new BrokerError("queue_exists");
      if (input.dead_queue_id != null && (await find(input.dead_queue_id)) === undefined) {
        throw new BrokerError("queue_not_found");
      }
      const values = valuesOf(id, settings, input, extras, true);
      try {
        const [row] = await db.run("create_queue", () => create.execute(values));
        if (row === undefined) throw new BrokerError("queue_exists");
        if (input.encrypt != null) sealing.note(id, input.encrypt);
        return present(row as Row);
      } catch (error) {
        if (error instanceof DatabaseError && error.code === numbers_used_up)
          throw new BrokerError("unavailable", no_number);
        if (error instanceof DatabaseError && error.code === foreign_key_violation)
          throw new BrokerError("queue_not_found");
        // The constraint is looked at before the id: the dead-letter queue is missing, the id may be taken besides.
        if (!(error instanceof DatabaseError && error.code === check_violation)) throw error;
        const refusal = refuseAlone(error);
        if (refusal !== undefined) throw refusal;
        throw new BrokerError((await find(id)) === undefined ? "queue_not_found" : "queue_exists");
      }
    },

    /**
     * Changes those settings and extras that are given; an extra that is null goes. Repeatable. Throws
     * `queue_not_found`, also for its dead-letter queue, `validation_failed`, and `queue_in_use` for another order of
     * what it holds. One that switches encryption on answers when no server stores plain bodies any more.
     */
    async updateQueue(id: string, settings: Partial<BaseSettings>, input: LaterInput, extras?: Extras): Promise<Queue> {
      refuseItself(id, input);
      refuseEncryption(input);
      const values = valuesOf(id, settings, input, extras, false);
      let row: unknown;
      try {
        [row] = await db.run("update_queue", () => update.execute(values), true);
      } catch (error) {
        throw await explainRefusal(id, input, error as DatabaseError);
      }
      if (row === undefined) throw await explainRefusal(id, input);
      await noteEncryption(id, input);
      onOpened(id);
      return present(row as Row);
    },

    /**
     * Stops or allows publishing and consuming, on all servers at once. The answer always says which. Repeatable.
     * Throws `queue_not_found`.
     */
    async pauseQueue(id: string, paused: { publish: boolean; consume: boolean }): Promise<Queue> {
      const values = { id, publish: String(paused.publish), consume: String(paused.consume) };
      const [row] = await db.run("pause_queue", () => pause.execute(values), true);
      if (row === undefined) throw new BrokerError("queue_not_found");
      if (!paused.consume) onOpened(id);
      return { ...present(row as Row), paused };
    },

    /** Throws `queue_not_found`. */
    async getQueue(id: string): Promise<Queue> {
      const queue = await find(id);
      if (queue === undefined) throw new BrokerError("queue_not_found");
      return queue;
    },

    /** The same with what an edge keeps of it. Throws `queue_not_found`. */
    async getQueueAndExtras(id: string): Promise<{ queue: Queue; extras: Record<string, string> }> {
      const [row] = await db.run("get_queue", () => get.execute({ id }), true);
      if (row === undefined) throw new BrokerError("queue_not_found");
      return { queue: present(row as Row), extras: row.extras ?? {} };
    },

    /** Ascending by id. */
    async listQueues(limit: number, offset: number, visible: Visible = everything): Promise<Queue[]> {
      const rows = await db.run(
        "list_queues",
        () => list.execute({ limit, offset, ...visibleValues(visible, "queue") }),
        true,
      );
      return rows.map((row) => present(row as Row));
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
          if (error.code !== foreign_key_violation) throw error;
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
