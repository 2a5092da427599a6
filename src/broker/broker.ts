import { type BatcherOptions, createBatcher } from "../batcher.ts";
import { createBudget } from "../budget.ts";
import type { Db } from "../db/db.ts";
import type { Failure } from "../errors.ts";
import { type NoteMessages, observe } from "../observe.ts";
import { gatherCalls } from "./calls.ts";
import { createCounted } from "./counted.ts";
import { type Consumers, createConsumers } from "./deliver/consumers.ts";
import { createKnownGoverned } from "./deliver/governed.ts";
import type { LeasedMessage } from "./deliver/lease.ts";
import { createNotifier } from "./deliver/notifier.ts";
import { bytesOf as answerBytes, createReceive, type ReceiveFrom } from "./deliver/receive.ts";
import { createScanFloors } from "./deliver/scanFloors.ts";
import type { Ready, Siblings } from "./deliver/siblings.ts";
import { createWakeups } from "./deliver/wakeups.ts";
import type { Limits } from "./limits.ts";
import { createExtras } from "./manage/extras.ts";
import { createFairRepair } from "./manage/fairKeys.ts";
import { createKeys } from "./manage/keys.ts";
import { createMessages } from "./manage/messages.ts";
import { createOrderingKeys, createRepair } from "./manage/orderingKeys.ts";
import { createPeek } from "./manage/peek.ts";
import { createQueues } from "./manage/queues.ts";
import { createRedrives } from "./manage/redrives.ts";
import { createRemovals } from "./manage/removal.ts";
import { createSubscriptions } from "./manage/subscriptions.ts";
import { createTasks } from "./manage/tasks.ts";
import { createTopics } from "./manage/topics.ts";
import { createFindUnreachable } from "./manage/unreachable.ts";
import type { Secrets } from "./masterKeys.ts";
import { createObserving } from "./observe/observing.ts";
import { createRates } from "./observe/rates.ts";
import type { OnReady } from "./onReady.ts";
import { createClock } from "./publish/clock.ts";
import { createFanOut, type FannedOut, type FanOutItem } from "./publish/fanOut.ts";
import { createIds } from "./publish/ids.ts";
import { createOutbox } from "./publish/outbox.ts";
import { type Outgoing, weightOf } from "./publish/outgoing.ts";
import {
  createPublish,
  isKeyed,
  isPlain,
  no_options,
  type OptionedItem,
  type Published,
  type PublishItem,
  type PublishOptions,
} from "./publish/publish.ts";
import { createQuotas } from "./publish/quotas.ts";
import { createSealing } from "./publish/sealing.ts";
import type { SettleItem } from "./settle/rounds.ts";
import { createSettle, type Extended, type ExtendItem, type NackItem } from "./settle/settle.ts";
import { createLeadership } from "./sweep/leadership.ts";
import { createSweeps } from "./sweep/sweeps.ts";
import { createWork } from "./sweep/work.ts";

export type ReceiveRequest = ReceiveFrom & {
  limit: number;
  /** Milliseconds; undefined: the queue's `receive_wait_seconds`, at most `wait_ms_max`. */
  wait_ms: number | undefined;
  wait_ms_max: number;
  /** The consumer went away. */
  signal?: AbortSignal;
};

type Flush<Item, Result> = BatcherOptions<Item, Result>["flush"];

/** Consumers ack one message after the other: each is there again at once, and its next ack leaves with the others'. */
const ack_regather_ms = 1;

/**
 * Everything the service can do. Hot verbs gather concurrent calls into one statement; each call settles after commit.
 * Rejects with BrokerError (the caller's fault) or DatabaseError. Every call may run concurrently with any other.
 */
export function createBroker(
  db: Db,
  limits: Limits,
  holder: string = crypto.randomUUID(),
  given: Secrets & { siblings?: Siblings | undefined } = {},
) {
  const answers = createBudget(limits.answers_bytes_max);
  const bodies = createBudget(limits.waiting_bytes_max);
  const floors = createScanFloors(limits.statement_ms_max);
  const notifier = createNotifier(db, holder, given.siblings);
  const onReady: OnReady = (queue_id, label, at) => {
    floors.lower(queue_id, label, at);
    consumers.wake(queue_id);
    notifier.note(queue_id, label, at);
  };
  const clock = createClock(db);
  const { nextId, nextFanOutId } = createIds(clock.now_ms);
  const repair = createRepair(db, onReady);
  const repairFair = createFairRepair(db, onReady);
  const removals = createRemovals(db, repair);
  const rates = createRates(db);
  const note: NoteMessages = (event, queue_id, count) => {
    if (event === "published" || event === "acked") rates.count(queue_id, event, count);
    else if (event === "nacked" || event === "lease_expired") rates.count(queue_id, "failed", count);
    observe({ kind: "messages", event, queue_id, count });
  };
  const settle = createSettle(db, onReady, note);
  const quotas = createQuotas(db, notifier.others);
  const master_keys = given.master_keys ?? new Map();
  const sealing = createSealing(db, master_keys);
  const publish = createPublish(db, onReady, quotas, sealing);
  const fanOut = createFanOut(db, onReady, quotas, sealing);
  const known_governed = createKnownGoverned(given.siblings?.tellGoverned);
  const receive = createReceive(db, floors, settle, note, {
    answer_bytes_max: limits.answer_bytes_max,
    answers,
    known_governed,
    open: sealing.open,
  });

  /** Gives messages back that nobody will see, as if they had not been delivered. */
  async function giveBack(queue_id: string, leased: LeasedMessage[]): Promise<void> {
    answers.release(answerBytes(leased));
    await settle.unlease(queue_id, leased);
  }
  const consumers: Consumers = createConsumers({
    receive,
    giveBack,
    answers,
    waiting_max: limits.waiters_max,
    unasked_max: limits.waiting_max,
    room_ms_max: limits.statement_ms_max,
    onFirstWaiting: () => given.siblings?.want(),
    onWaiting: (queue_id) => wakeups.onWaiting(queue_id),
    onThrottled: (queue_id, in_ms) => wakeups.wakeIn(queue_id, in_ms),
    onForgotten: (queue_id) => wakeups.onForgotten(queue_id),
  });
  const wakeups = createWakeups(db, consumers, floors.floorOf);
  /** What may be delivered now was there already. */
  const wakeWaiting = (queue_id: string) => {
    consumers.wake(queue_id);
    notifier.note(queue_id);
  };
  const counted = createCounted(note, (queue_id) => {
    // The place of a lease that has ended may be what somebody waits for.
    if (known_governed.has(queue_id)) wakeWaiting(queue_id);
  });
  const storePlain = counted("published", publish.plain);
  const storeOptioned = counted("published", publish.optioned);
  const ackAll = counted("acked", settle.ack);
  const nackAll = counted("nacked", settle.nack);

  const shared = (name: string, regather_ms_min = 0) => ({
    name,
    lanes: limits.lanes,
    items_max: limits.items_max,
    waiting_max: limits.waiting_max,
    waiting_ms_max: limits.statement_ms_max,
    regather_ms: Math.max(regather_ms_min, limits.regather_ms ?? 0),
    onFlush: (items: number, duration_ms: number) => observe({ kind: "batch", verb: name, items, duration_ms }),
  });
  const byBytes = <Item extends Outgoing, Result>(name: string, flush: Flush<Item, Result>) =>
    createBatcher<Item, Result>({
      ...shared(name),
      weight: weightOf,
      weight_max: limits.bytes_max,
      budget: bodies,
      flush,
    });
  const byCount = <Item, Result>(name: string, flush: Flush<Item, Result>, regather_ms_min = 0) =>
    createBatcher<Item, Result>({
      ...shared(name, regather_ms_min),
      weight: () => 1,
      weight_max: limits.items_max,
      flush,
    });

  const publishes = byBytes<PublishItem, Published>("publish", storePlain);
  const optioned = byBytes<OptionedItem, Published>("publish_with_options", storeOptioned);
  const keyed = byBytes<OptionedItem, Published>("publish_keyed", storeOptioned);
  const fanOuts = byBytes<FanOutItem, FannedOut>("fanout", fanOut);
  const acks = byCount<SettleItem, undefined>("ack", ackAll, ack_regather_ms);
  const nacks = byCount<NackItem, undefined>("nack", nackAll);
  const extensions = byCount<ExtendItem, Extended>("extend", settle.extend);
  const publishTogether = gatherCalls(
    { ...shared("publish_batch"), weight: weightOf, weight_max: limits.bytes_max, budget: bodies },
    publish.unlooked,
  );
  const together = <Item, Result>(name: string, flush: Flush<Item, Result>) =>
    gatherCalls({ ...shared(name), weight: () => 1, weight_max: limits.items_max }, flush);

  const goesPlain = (queue_id: string) => !sealing.encrypts(queue_id) && !publish.isSelective(queue_id);

  function publishOne(message: Outgoing & { queue_id: string }, options?: PublishOptions): Promise<Published> {
    const item = { ...message, id: nextId() };
    if (options === undefined && goesPlain(item.queue_id)) return publishes.call(item);
    const own = options ?? no_options;
    return (isKeyed(own) ? keyed : optioned).call({ ...item, ...own });
  }

  return {
    ...createQueues(db, sealing, wakeWaiting),
    ...createExtras(db),
    ...createTopics(db),
    ...createSubscriptions(db),
    ...createKeys(db, master_keys),
    ...createMessages(db, onReady, settle, sealing.open),
    ...createPeek(db, sealing.open),
    ...createOrderingKeys(db, repair, repairFair),
    ...createObserving(db, floors.floorOf),
    clock,
    /** What has an id that no path can name. */
    findUnreachable: createFindUnreachable(db),
    findClosedQueues: sealing.findClosed,
    ...createOutbox(db, onReady, sealing),
    ...createWork(db),
    ...createRedrives(db),
    ...createTasks(db, removals, onReady, limits.removal_ms_max),
    ...createLeadership(db),
    ...createSweeps(db, { settle, note, removals, repairFair }),

    /** Stores one message; committed and flushed when it resolves. Throws `queue_not_found`, `queue_closed`. */
    publish: (message: Outgoing & { queue_id: string }, options?: PublishOptions): Promise<Published> =>
      sealing.isLoaded() ? publishOne(message, options) : sealing.load().then(() => publishOne(message, options)),

    /**
     * Stores messages of one queue in one transaction, in order: all, or with `is_atomic` false those that can be. Item
     * i of the answer is what was published, or why not. Those of other callers may leave with them.
     */
    async publishBatch(
      queue_id: string,
      given: (Outgoing & PublishOptions)[],
      is_atomic: boolean,
    ): Promise<(Published | Failure)[]> {
      await sealing.load();
      const items = given.map((message) => ({ ...message, queue_id, id: nextId() }));
      const store = async (all: OptionedItem[]) => {
        if (!goesPlain(queue_id) || !all.every(isPlain)) return await publish.optioned(all, is_atomic);
        const results = await publishTogether(all);
        // What must go alone keeps nobody else waiting.
        return results.includes(undefined)
          ? await publish.apart(queue_id, all, is_atomic)
          : (results as (Published | Failure)[]);
      };
      return await counted("published", store)(items);
    },

    /** Stores a copy for each subscription whose filter matches. Throws `topic_not_found`, `queue_closed`. */
    async publishToTopic(message: Outgoing & PublishOptions & { topic_id: string }): Promise<FannedOut> {
      await sealing.load();
      const fanned = await fanOuts.call({ ...message, id: nextFanOutId() });
      for (const { queue_id } of fanned.copies) note("published", queue_id, 1);
      return fanned;
    },

    /**
     * The same for many messages of one topic, in one transaction. `is_atomic`: a closed queue of one keeps all back.
     */
    async publishBatchToTopic(
      topic_id: string,
      given: (Outgoing & PublishOptions)[],
      is_atomic: boolean,
    ): Promise<(FannedOut | Failure)[]> {
      await sealing.load();
      const items = given.map((message) => ({ ...message, topic_id, id: nextFanOutId() }));
      const results = await fanOut(items, is_atomic);
      const copies = results.flatMap((result) => (result instanceof Error ? [] : result.copies));
      for (const [queue_id, own] of Map.groupBy(copies, (copy) => copy.queue_id))
        note("published", queue_id, own.length);
      return results;
    },

    /**
     * Leases up to `limit` ready messages, in the order in which they became visible; waits for the first of them if
     * asked to. Throws `queue_not_found`. Not repeatable: what a lost call leased returns when its lease ends. Their
     * bytes (bytesOf) are held until `answered` gives them back.
     */
    async receive(request: ReceiveRequest): Promise<LeasedMessage[]> {
      const { queue_id, label, lease_seconds, max_per_key, limit, wait_ms_max, signal } = request;
      const from = { queue_id, label, lease_seconds, max_per_key };
      // A receive of nothing has nothing to wait for.
      const wait_ms = limit === 0 ? 0 : request.wait_ms;
      const leased = await consumers.receive({ from, limit, wait_ms, wait_ms_max, signal });
      if (signal?.aborted && leased.length > 0) {
        await giveBack(queue_id, leased);
        return [];
      }
      if (leased.length > 0) rates.count(queue_id, "delivered", leased.length);
      observe({ kind: "delivered", queue_id: request.queue_id, messages: leased });
      return leased;
    },

    /** An answer with so many bytes of messages is written, or nobody reads it any more. Once for each receive. */
    answered: answers.release,

    /**
     * Gives back what was received and could not be handed over, as if it had not been delivered. Never throws: without
     * a database the leases run out.
     */
    takeBack(queue_id: string, leased: LeasedMessage[]): void {
      settle.unlease(queue_id, leased).catch(() => {});
    },

    /** Ends a message for good. Repeatable. Throws `queue_not_found`, `message_not_found`, `lease_lost`. */
    ack: (item: SettleItem): Promise<undefined> => acks.call(item),

    /** Makes a message visible after a delay. Throws `queue_not_found`, `message_not_found`, `lease_lost`. */
    nack: (item: NackItem): Promise<undefined> => nacks.call(item),

    /** Moves the end of a lease. Throws as nack, and `validation_failed` beyond the queue's longest lease. */
    extend: (item: ExtendItem): Promise<Extended> => extensions.call(item),

    /** Many at once, in one statement; result i belongs to item i. */
    ackBatch: together("ack_batch", ackAll),
    nackBatch: together("nack_batch", nackAll),
    extendBatch: together("extend_batch", settle.extend),

    /** Rejects with DatabaseError while the database does not answer or does not take writes. */
    ping: db.ping,

    /** The database was away: its clock may differ, and what was seen before may be undone by a failover. */
    forgetFloors: floors.reset,

    flushRates: rates.flushRates,
    notifier,
    /** A sibling has seen whether a queue is governed. */
    hearGoverned: known_governed.set,
    /** Siblings tell what became ready there: as if it had been here. */
    hear(all: Ready[]): void {
      for (const { queue_id, label, at } of all) {
        if (at !== null) floors.lower(queue_id, label, at);
        consumers.wake(queue_id);
        notifier.pass(queue_id);
      }
    },
    wakeups: {
      wake: consumers.wake,
      wakeAll: wakeups.wakeAll,
      setListening: wakeups.setListening,
      /** Consumers that wait. */
      size: consumers.waiting,
      /** Answers everyone who waits with nothing, now and from now on. */
      stop() {
        wakeups.stop();
        consumers.stop();
      },
    },
  };
}

export type Broker = ReturnType<typeof createBroker>;
