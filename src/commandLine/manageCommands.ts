import {
  choice,
  client_options,
  int32_max,
  page_options,
  queue_argument,
  seconds,
  text,
  whole,
  year_seconds,
  yes_option,
} from "./clientOptions.ts";
import type { CommandSpec } from "./command.ts";
import { publish_options } from "./messageCommands.ts";

const topic = { name: "TOPIC", about: "the topic's id" };
const subscription = { name: "SUBSCRIPTION", about: "the subscription's id" };
const task = { name: "TASK", about: "the task's id" };

const topic_commands: CommandSpec[] = [
  {
    path: "topic create",
    about: "makes a topic",
    effect: "changes",
    arguments: [{ name: "ID", about: "its name" }],
    options: client_options,
    examples: ["topic create orders"],
  },
  {
    path: "topic get",
    about: "shows a topic",
    effect: "reads",
    arguments: [topic],
    options: client_options,
    examples: ["topic get orders"],
  },
  {
    path: "topic list",
    about: "lists topics by id",
    effect: "reads",
    options: [...page_options, ...client_options],
    examples: ["topic list"],
  },
  {
    path: "topic delete",
    about: "deletes a topic and its subscriptions; queues and messages stay",
    effect: "destroys",
    arguments: [topic],
    options: [yes_option, ...client_options],
    examples: ["topic delete orders", "topic delete orders --yes"],
  },
  {
    path: "topic publish",
    about: "publishes a message to every queue whose subscription lets it pass",
    effect: "changes",
    arguments: [topic, { name: "BODY", about: "the body; else standard input", is_optional: true }],
    options: [...publish_options, ...client_options],
    examples: ["topic publish orders 'a body' --attribute status=created"],
  },
];

const subscription_commands: CommandSpec[] = [
  {
    path: "subscription create",
    about: "subscribes a queue to a topic",
    effect: "changes",
    arguments: [{ name: "ID", about: "its name" }, topic, queue_argument],
    options: [
      {
        name: "filter",
        value: "NAME=VALUE",
        reader: { kind: "pairs" },
        about:
          "only messages whose attribute NAME is VALUE, or one of several with commas; given several times all must hold",
      },
      ...client_options,
    ],
    examples: [
      "subscription create all orders all-orders",
      "subscription create german orders german-orders --filter country=DE,AT --filter status=paid",
    ],
  },
  {
    path: "subscription get",
    about: "shows a subscription",
    effect: "reads",
    arguments: [subscription],
    options: client_options,
    examples: ["subscription get german"],
  },
  {
    path: "subscription list",
    about: "lists subscriptions by id",
    effect: "reads",
    options: [...page_options, ...client_options],
    examples: ["subscription list"],
  },
  {
    path: "subscription delete",
    about: "deletes a subscription",
    effect: "destroys",
    arguments: [subscription],
    options: [yes_option, ...client_options],
    examples: ["subscription delete german --yes"],
  },
];

const task_commands: CommandSpec[] = [
  {
    path: "redrive",
    about: "moves messages of a dead-letter queue back to where they came from",
    effect: "changes",
    arguments: [queue_argument],
    options: [
      text("to", "QUEUE", "move them there instead"),
      text("label", "TEXT", "only messages with this label"),
      choice("reason", ["max_deliveries", "rejected", "expired"], "only messages that died of this"),
      text("source", "QUEUE", "only messages that came from this queue"),
      whole("limit", "messages at most", 1, int32_max),
      whole("rate", "messages a second at most", 1, 1000),
      seconds("delay", "how long until they are visible", 0, year_seconds),
      { name: "keep-attempts", about: "keep the count of deliveries" },
      { name: "watch", short: "w", about: "wait until it is done, and show how far it is" },
      ...client_options,
    ],
    examples: ["redrive orders-dead", "redrive orders-dead --reason rejected --rate 100 --watch"],
  },
  {
    path: "task list",
    about: "lists tasks, newest first; those that ended a week ago are forgotten",
    effect: "reads",
    options: [...page_options, ...client_options],
    examples: ["task list", "task list --limit 5 --json"],
  },
  {
    path: "task watch",
    about: "shows how far a task is until it has ended; exit 1 when it failed",
    effect: "reads",
    arguments: [task],
    options: client_options,
    examples: ["task watch 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A"],
  },
  {
    path: "task cancel",
    about: "cancels a task; what it did stays done",
    effect: "changes",
    arguments: [task],
    options: client_options,
    examples: ["task cancel 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A"],
  },
];

/** Topics, subscriptions and tasks. */
export const manage_commands: CommandSpec[] = [...topic_commands, ...subscription_commands, ...task_commands];
