import {
  choice,
  client_options,
  int32_max,
  json_option,
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
import { transfer_commands } from "./transferCommands.ts";

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
        reader: { kind: "pairs", example: "country=DE" },
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

const key = { name: "KEY", about: "the key's id" };

const key_commands: CommandSpec[] = [
  {
    path: "key create",
    about: "makes an API key and prints it, this once",
    effect: "changes",
    arguments: [{ name: "NAME", about: "for people; not unique" }],
    options: [
      text("allow", "RIGHTS", "some of publish, consume, peek, manage, *, with commas"),
      text("queues", "IDS", "only for these queues, with commas; * stands for any characters"),
      text("topics", "IDS", "only for these topics"),
      text("namespace", "ID", "it sees and makes only ids that begin with this and a dot"),
      text("expires-at", "TIME", "when it stops working, as 2026-01-31T12:00:00Z"),
      whole("rate", "requests a second at most", 1, 1_000_000),
      ...client_options,
    ],
    examples: [
      "key create 'orders service' --allow publish,consume --queues 'orders*'",
      "key create monitor --allow peek --rate 10",
    ],
  },
  {
    path: "key list",
    about: "lists API keys, without their secrets",
    effect: "reads",
    options: [...page_options, ...client_options],
    examples: ["key list"],
  },
  {
    path: "key delete",
    about: "revokes a key, on every server within a second",
    effect: "destroys",
    arguments: [key],
    options: [yes_option, ...client_options],
    examples: ["key delete 3mJr7AoUXx2W --yes"],
  },
];

const whole_commands: CommandSpec[] = [
  {
    path: "top",
    about: "shows queues as they are now: depth, age, rates; keys sort it, q ends it",
    effect: "reads",
    options: [
      choice("sort", ["depth", "age", "publish-rate", "ack-rate", "leased", "id"], "what comes first; default depth"),
      whole("every", "seconds between two looks; default 2", 1, 3600),
      { name: "once", about: "print one table, and end" },
      ...client_options,
    ],
    examples: ["top", "top --sort age --every 5", "top --once", "top --json"],
  },
  {
    path: "doctor",
    about: "looks at settings, ports, PostgreSQL and the server, and says of each what it is and what to do",
    effect: "reads",
    options: client_options,
    examples: ["doctor", "doctor --json", "doctor --url https://queue.example.com"],
    more: () =>
      [
        "Settings are those that a server would have, started here: the environment and `.env`. Exit 1 when there is a problem,",
        "0 when there are warnings only.",
      ].join("\n"),
  },
  {
    path: "apply",
    about: "makes queues, topics and subscriptions what a file declares; what is so already stays untouched",
    effect: "destroys",
    options: [
      { name: "file", short: "f", value: "FILE", reader: { kind: "text" }, about: "YAML or JSON; - is standard input" },
      { name: "dry-run", about: "show what would change, and change nothing" },
      { name: "prune", about: "delete what the file does not declare, after naming it" },
      yes_option,
      ...client_options,
    ],
    examples: [
      "apply --file queues.yaml --dry-run",
      "apply --file queues.yaml",
      "apply --file queues.yaml --prune --yes",
    ],
    more: () =>
      [
        "The file has the members of the API:",
        "",
        "  queues:",
        "    - { id: orders, ack_deadline_seconds: 60, dead_queue_id: orders-dead, message_max_deliveries: 5 }",
        "    - { id: orders-dead }",
        "  topics:",
        "    - { id: events }",
        "  subscriptions:",
        "    - { id: events-to-orders, topic_id: events, queue_id: orders, message_filters: { kind: [order] } }",
      ].join("\n"),
  },
];

const local_commands: CommandSpec[] = [
  {
    path: "completions",
    about: "prints what makes a shell complete the commands",
    effect: "reads",
    arguments: [{ name: "SHELL", about: "bash, zsh or fish" }],
    examples: ["completions bash > /etc/bash_completion.d/psqlqueue", "completions fish"],
  },
  {
    path: "schema",
    about: "lists every command, its options, and whether it reads, changes or destroys",
    effect: "reads",
    options: json_option,
    examples: ["schema --json"],
  },
];

/** Topics, subscriptions and tasks, and what needs no server. */
export const manage_commands: CommandSpec[] = [
  ...topic_commands,
  ...subscription_commands,
  ...task_commands,
  ...key_commands,
  ...whole_commands,
  ...transfer_commands,
  ...local_commands,
];
