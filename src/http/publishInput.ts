import { type Static, Type } from "@sinclair/typebox";
import type { Clock } from "../broker/publish/clock.ts";
import { judgesItem, readsBody } from "./input.ts";
import { isMap, member, type Problems } from "./schema.ts";

const delay_seconds_max = 31_536_000;
const batch_items_max = 1000;

/** What a publish takes, to a queue and to a topic. */
const MessageInput = Type.Object(
  {
    body: member.body,
    label: Type.Optional(member.label),
    attributes: Type.Optional(member.attributes),
    delay_seconds: Type.Optional(
      member.seconds("Seconds until it is visible; instead of the queue's delay", 0, delay_seconds_max),
    ),
    deliver_at: Type.Optional(
      member.time("When it becomes visible, at most a year ahead; not together with delay_seconds"),
    ),
    ttl_seconds: Type.Optional(member.seconds("Seconds it lives, if the queue's retention is not shorter", 1)),
    expires_at: Type.Optional(member.time("When it expires; not together with ttl_seconds")),
    dedup_id: Type.Optional(member.dedupId),
    ordering_key: Type.Optional(member.ordering_key),
    priority: Type.Optional(member.priority),
    fairness_key: Type.Optional(member.fairness_key),
    weight: Type.Optional(member.weight),
    id: Type.Optional(member.readOnlyText),
    queue_id: Type.Optional(member.readOnlyText),
    delivery_attempts: Type.Optional(member.readOnlyCount),
    created_at: Type.Optional(member.readOnlyTime),
  },
  { title: "MessageInput", example: { body: '{"order":4711}', label: "created", attributes: { country: "DE" } } },
);

/** A message as a publish gives it. */
export type Message = Static<typeof MessageInput>;

type Judge = (message: Message, problems: Problems, prefix?: string) => void;

/** Rules between members, and against the database's clock. */
const judgesMessage =
  (clock: Clock): Judge =>
  (message, problems, prefix = "") => {
    const { delay_seconds, deliver_at, ttl_seconds, expires_at } = message;
    if (deliver_at !== undefined) {
      const latest_ms = clock.now_ms() + delay_seconds_max * 1000;
      if (delay_seconds !== undefined) {
        problems.set(`${prefix}delay_seconds`, "must not be given together with deliver_at");
      } else if (Date.parse(deliver_at) > latest_ms) {
        problems.set(`${prefix}deliver_at`, `must be no greater than ${new Date(latest_ms).toISOString()}`);
      }
    }
    if (expires_at !== undefined) {
      if (ttl_seconds !== undefined) problems.set(`${prefix}expires_at`, "must not be given together with ttl_seconds");
      else if (Date.parse(expires_at) <= clock.now_ms()) problems.set(`${prefix}expires_at`, "must be in the future");
    }
  };

const hasTime = (message: unknown) =>
  isMap(message) && (typeof message["deliver_at"] === "string" || typeof message["expires_at"] === "string");

/** Asks for the database's time where a message is judged by it; most have none. */
const readsClock = (clock: Clock) => (body: Record<string, unknown>) => {
  const { messages } = body;
  return hasTime(body) || (Array.isArray(messages) && messages.some(hasTime)) ? clock.refresh() : undefined;
};

const Batch = Type.Object(
  { messages: member.list(MessageInput, batch_items_max, "Published in this order") },
  { title: "BatchInput", example: { messages: [{ body: '{"order":4711}' }, { body: '{"order":4712}' }] } },
);
const AtomicQuery = Type.Object({
  atomic: Type.Optional(member.flag("false: store those that can be, and say which; default true")),
});

/** What is read of publishes, by the database's clock. */
export function readsPublishes(clock: Clock) {
  const judge = judgesMessage(clock);
  const before = readsClock(clock);
  const judgeBatch = (batch: { messages: unknown }, problems: Problems): void => {
    for (const [i, message] of (batch.messages as Message[]).entries()) judge(message, problems, `messages[${i}].`);
  };
  return {
    judgeItem: judgesItem(MessageInput, judge),
    readsMessage: () => readsBody(MessageInput, { rules: judge, before }),
    /** All or nothing, or each for itself. */
    readsBatch: () =>
      readsBody(Batch, {
        query: AtomicQuery,
        isLoose: ({ atomic }) => atomic === false,
        rules: judgeBatch,
        before,
      }),
  };
}
