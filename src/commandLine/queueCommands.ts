import {
  client_options,
  int32_max,
  page_options,
  queue_argument,
  seconds,
  text,
  whole,
  yes_option,
} from "./clientOptions.ts";
import type { CommandSpec, OptionSpec } from "./command.ts";

const settings: OptionSpec[] = [
  seconds("ack-deadline", "how long a receive hides a message; new queues: 30s", 1, int32_max),
  seconds("retention", "how long an unacked message is kept; new queues: 14d", 1, int32_max),
  seconds("delay", "how long a published message stays hidden; new queues: 0", 0, int32_max),
  text("dead-queue", "ID", "where messages go that used up --max-deliveries; none: nowhere"),
  whole("max-deliveries", "deliveries after which a message is dead", 1, 1000),
  {
    name: "set",
    value: "NAME=VALUE",
    reader: { kind: "pairs" },
    about: "any other setting of the API, its value as JSON; may be given several times",
  },
];

/** `psqlqueue queue …` */
export const queue_commands: CommandSpec[] = [
  {
    path: "queue create",
    about: "makes a queue",
    effect: "changes",
    arguments: [{ name: "ID", about: "its name" }],
    options: [...settings, ...client_options],
    examples: [
      "queue create orders",
      "queue create orders --ack-deadline 2m --retention 7d",
      "queue create orders --dead-queue orders-dead --max-deliveries 5",
      `queue create orders --set max_depth=100000 --set 'retry_policy={"min_seconds":1}'`,
    ],
  },
  {
    path: "queue get",
    about: "shows a queue's settings",
    effect: "reads",
    arguments: [queue_argument],
    options: client_options,
    examples: ["queue get orders", "queue get orders --json"],
  },
  {
    path: "queue list",
    about: "lists queues by id",
    effect: "reads",
    options: [...page_options, ...client_options],
    examples: ["queue list", "queue list --json"],
  },
  {
    path: "queue update",
    about: "changes settings of a queue; the others stay",
    effect: "changes",
    arguments: [queue_argument],
    options: [...settings, ...client_options],
    examples: [
      "queue update orders --ack-deadline 2m",
      "queue update orders --dead-queue none",
      "queue update orders --set max_depth=null",
    ],
  },
  {
    path: "queue delete",
    about: "deletes a queue, its messages and its subscriptions",
    effect: "destroys",
    arguments: [queue_argument],
    options: [
      { name: "force", about: "also when it is the dead-letter queue of others" },
      { name: "async", about: "do not wait: print the task that does it" },
      yes_option,
      ...client_options,
    ],
    examples: ["queue delete orders", "queue delete orders --yes", "queue delete orders --yes --async"],
  },
  {
    path: "queue purge",
    about: "removes every message of a queue",
    effect: "destroys",
    arguments: [queue_argument],
    options: [{ name: "async", about: "do not wait: print the task that does it" }, yes_option, ...client_options],
    examples: ["queue purge orders", "queue purge orders --yes"],
  },
  {
    path: "queue cleanup",
    about: "removes acked and expired messages of a queue",
    effect: "changes",
    arguments: [queue_argument],
    options: [{ name: "async", about: "do not wait: print the task that does it" }, ...client_options],
    examples: ["queue cleanup orders"],
  },
  {
    path: "queue stats",
    about: "shows the numbers of a queue, or of all",
    effect: "reads",
    arguments: [{ ...queue_argument, is_optional: true }],
    options: client_options,
    examples: ["queue stats orders", "queue stats", "queue stats orders --json"],
  },
  {
    path: "queue pause",
    about: "pauses consuming, or publishing; leases that are out stay",
    effect: "changes",
    arguments: [queue_argument],
    options: [
      { name: "publish", about: "pause publishing, too" },
      { name: "publish-only", about: "pause publishing and go on consuming" },
      ...client_options,
    ],
    examples: ["queue pause orders", "queue pause orders --publish-only"],
  },
  {
    path: "queue resume",
    about: "ends a pause",
    effect: "changes",
    arguments: [queue_argument],
    options: client_options,
    examples: ["queue resume orders"],
  },
];
