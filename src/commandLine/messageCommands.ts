import {
  choice,
  client_options,
  int32_max,
  lease_seconds_max,
  queue_argument,
  seconds,
  text,
  whole,
  year_seconds,
} from "./clientOptions.ts";
import type { ArgumentSpec, CommandSpec, OptionSpec } from "./command.ts";

/** What a publish takes, to a queue and to a topic. */
export const publish_options: OptionSpec[] = [
  text("label", "TEXT", "the message's label"),
  {
    name: "attribute",
    value: "NAME=VALUE",
    reader: { kind: "pairs", example: "country=DE" },
    about: "an attribute; may be given several times",
  },
  text("ordering-key", "KEY", "messages with the same key are delivered in order, one at a time"),
  text("fairness-key", "KEY", "whose message it is: keys share a queue that has fair_by"),
  whole("weight", "turns of its key for one of another", 1, 100),
  whole("priority", "higher ones are delivered first, where the queue has priority_enabled", -100, 100),
  text("dedup-id", "ID", "a publish with the same id within the queue's window is a duplicate"),
  seconds("delay", "how long it stays hidden, instead of the queue's delay", 0, year_seconds),
  text("deliver-at", "TIME", "when it becomes visible, as 2026-01-31T12:00:00Z"),
  seconds("ttl", "how long it lives, if the queue's retention is not shorter", 1, int32_max),
  text("expires-at", "TIME", "when it expires, as 2026-01-31T12:00:00Z"),
];

/** Many messages from standard input. */
const stream_options: OptionSpec[] = [
  { name: "ndjson", about: "standard input is one JSON object a line: body, label, attributes and so on" },
  { name: "lines", about: "every line of standard input is a body" },
  whole("rate", "messages a second at most, of --ndjson and --lines", 1, 1_000_000),
];

const ids: ArgumentSpec = { name: "ID", about: "the message's id", is_many: true };
const token = text("token", "TOKEN", "the delivery's lease_token: refused once somebody else has the message");

/** Publish, receive, settle and look. */
export const message_commands: CommandSpec[] = [
  {
    path: "publish",
    about: "publishes a message, or a stream of them, and prints its id",
    effect: "changes",
    arguments: [queue_argument, { name: "BODY", about: "the body; else standard input", is_optional: true }],
    options: [...publish_options, ...stream_options, ...client_options],
    examples: [
      "publish orders 'a body'",
      "publish orders --label created --attribute country=DE --delay 5m < order.json",
      "publish orders --ndjson --rate 500 < orders.ndjson",
    ],
  },
  {
    path: "receive",
    about: "receives messages; behind -- a command that is run for each, with the body as its standard input",
    effect: "changes",
    arguments: [
      queue_argument,
      {
        name: "COMMAND",
        about: "behind --: exit 0 acks, else nacks with its standard error",
        is_optional: true,
        is_many: true,
      },
    ],
    options: [
      whole("limit", "messages at most; default 10", 1, 1000),
      seconds("wait", "how long to wait for the first message", 0, 240),
      text("label", "TEXT", "only messages with this label"),
      seconds("ack-deadline", "the lease, instead of the queue's", 0, lease_seconds_max),
      { name: "ack", about: "ack what was printed" },
      { name: "follow", short: "f", about: "go on until interrupted; needs --ack or a command" },
      whole("concurrency", "commands, or messages with --follow, at once; default 1", 1, 1000),
      ...client_options,
    ],
    examples: [
      "receive orders",
      "receive orders --wait 20s --ack",
      "receive orders --follow --ack --json",
      "receive orders --follow --concurrency 4 -- ./handle-order --verbose",
    ],
    more: () =>
      [
        "A command finds in its environment PSQLQUEUE_MESSAGE_ID, PSQLQUEUE_MESSAGE_LABEL, PSQLQUEUE_MESSAGE_ATTRIBUTES (JSON)",
        "and PSQLQUEUE_MESSAGE_DELIVERY_ATTEMPTS. Its lease is extended while it runs. SIGINT and SIGTERM let running commands",
        "end and take no more messages; a second one stops them and gives their messages back.",
      ].join("\n"),
  },
  {
    path: "ack",
    about: "acks messages: they never come back",
    effect: "changes",
    arguments: [queue_argument, ids],
    options: [token, ...client_options],
    examples: [
      "ack orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A",
      "ack orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A --token 3141592653589793238",
    ],
  },
  {
    path: "nack",
    about: "nacks messages: they come back, as the queue's retry policy says",
    effect: "changes",
    arguments: [queue_argument, ids],
    options: [
      seconds("delay", "how long until they are visible, instead of the retry policy", 0, lease_seconds_max),
      text("error", "TEXT", "what went wrong; kept as last_error"),
      { name: "dead-letter", about: "to the dead-letter queue at once, if there is one" },
      token,
      ...client_options,
    ],
    examples: [
      "nack orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A",
      "nack orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A --delay 30s --error 'no stock'",
    ],
  },
  {
    path: "extend",
    about: "extends leases, or gives them back",
    effect: "changes",
    arguments: [queue_argument, ids],
    options: [
      seconds("by", "the lease ends so long from now; 0 gives the message back; default 30s", 0, lease_seconds_max),
      token,
      ...client_options,
    ],
    examples: ["extend orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A --by 5m --token 3141592653589793238"],
  },
  {
    path: "peek",
    about: "looks at messages without leasing them; with an id at one",
    effect: "reads",
    arguments: [queue_argument, { name: "ID", about: "the message's id", is_optional: true }],
    options: [
      choice(
        "state",
        ["ready", "delayed", "leased", "backing_off", "acked", "expired", "dead", "all"],
        "default ready",
      ),
      text("label", "TEXT", "only messages with this label"),
      whole("limit", "messages at most; default 10", 1, int32_max),
      { name: "without-body", about: "leave bodies out" },
      ...client_options,
    ],
    examples: ["peek orders", "peek orders --state leased --without-body", "peek orders 01KG9Z5Q8V3M4R7T2W6X9Y1Z0A"],
  },
];
