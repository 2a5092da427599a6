import { choice, json_option, quiet_option, text } from "./clientOptions.ts";
import type { CommandSpec, OptionSpec } from "./command.ts";

const not_through_a_server = `It works on the database of the settings (PSQLQUEUE_DATABASE_URL, else the embedded
one, which no server may be using), so that what is moved keeps its ids, attempts and times.`;

const file = (about: string): OptionSpec => ({ ...text("file", "FILE", about), short: "f" });

/** What carries a database away, and back. */
export const transfer_commands: CommandSpec[] = [
  {
    path: "export",
    about:
      "writes queues, topics, subscriptions, and messages if asked to, as lines of JSON; servers may go on meanwhile",
    effect: "reads",
    options: [
      file("where to; packed when the name ends in .gz; default standard output"),
      { name: "messages", about: "the unfinished messages too" },
      text("queue", "IDS", "only these queues, with commas, and what subscribes them"),
      ...quiet_option,
    ],
    examples: [
      "export --file settings.ndjson",
      "export --messages --file backup.ndjson.gz",
      "export --messages --queue orders,orders-dead > orders.ndjson",
    ],
    more: () =>
      [
        not_through_a_server,
        "",
        "All lines are of one moment. Not in it: what has ended, leases (they end when they would have), API keys,",
        "remembered dedup_ids, and that a dead message blocks its ordering key. Bodies that are encrypted stay so: only a",
        "server with the same PSQLQUEUE_MASTER_KEY can deliver them.",
      ].join("\n"),
  },
  {
    path: "import",
    about: "reads an export into the database; what is there already is never overwritten",
    effect: "changes",
    options: [
      file("what to read; unpacked when the name ends in .gz; default standard input"),
      choice("on-conflict", ["fail", "skip"], "what to do about an id that is there already; default fail"),
      ...quiet_option,
      ...json_option,
    ],
    examples: ["import --file backup.ndjson.gz", "import --file backup.ndjson.gz --on-conflict skip"],
    more: () =>
      [
        not_through_a_server,
        "",
        "Messages are committed some hundred at a time: one that was interrupted goes on with --on-conflict skip.",
      ].join("\n"),
  },
  {
    path: "backup",
    about: "writes the embedded database, as it is at one moment, into a file; its server goes on meanwhile",
    effect: "reads",
    arguments: [{ name: "FILE", about: "where to, packed: a name that ends in .tar.gz; - is standard output" }],
    options: quiet_option,
    examples: ["backup psqlqueue-backup.tar.gz", "backup - | ssh backup-host 'cat > psqlqueue.tar.gz'"],
    more: () =>
      [
        "The data directory is that of the settings (PSQLQUEUE_DATA_DIR). All of it is in the file: what was answered before",
        "the command was started, leases, keys and settings. Statements wait while the files are copied that changed during",
        "the copy, mostly some milliseconds. It needs room for a second copy of the database in the data directory.",
        "A PostgreSQL server has tools of its own: pg_dump, or the backups of who runs it.",
      ].join("\n"),
  },
  {
    path: "restore",
    about: "makes an embedded database of a backup; one that is there is never overwritten",
    effect: "changes",
    arguments: [{ name: "FILE", about: "what to read; - is standard input" }],
    options: quiet_option,
    examples: ["restore psqlqueue-backup.tar.gz"],
    more: () => "The data directory is that of the settings; PSQLQUEUE_DATA_DIR=./restored names another.",
  },
];
