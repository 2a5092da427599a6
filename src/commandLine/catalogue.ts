import { describeSettings } from "../config.ts";
import type { CommandSpec } from "./command.ts";
import { manage_commands } from "./manageCommands.ts";
import { message_commands } from "./messageCommands.ts";
import { queue_commands } from "./queueCommands.ts";

const settings_come_from = `Settings come from the environment, or from a file .env found from the working directory
upwards; the environment wins.`;

const serve_commands: CommandSpec[] = [
  {
    path: "server",
    alias: "s",
    about: "serves the API and the metrics until SIGINT, SIGTERM or SIGHUP",
    effect: "serves",
    examples: ["server", "server > psqlqueue.log"],
    more: () => `${settings_come_from}\n\n${describeSettings()}`,
  },
  {
    path: "migrate",
    alias: "m",
    about: "brings the database to this version; safe to run any number of times",
    effect: "serves",
    options: [
      {
        name: "from",
        value: "DIR",
        reader: { kind: "directory", needs: "the directory of an embedded database: migrate --from ./psqlqueue-data" },
        about:
          "then carries the embedded database of that directory over to PSQLQUEUE_DATABASE_URL, which must be empty",
      },
    ],
    examples: ["migrate", "migrate --from ./psqlqueue-data"],
  },
  {
    path: "healthcheck",
    about: "asks the local server whether it is well: exit 0, or 1",
    effect: "serves",
    examples: ["healthcheck"],
  },
];

/** Words that commands stand behind. */
export const groups = [
  { name: "queue", about: "make, look at, change, empty and delete queues" },
  { name: "topic", about: "make, look at and delete topics, publish to them" },
  { name: "subscription", about: "make, look at and delete subscriptions" },
  { name: "task", about: "list, watch and cancel long work" },
  { name: "key", about: "make, list and revoke API keys" },
];

/** Every command, in the order of the help. */
export const catalogue: CommandSpec[] = [...serve_commands, ...queue_commands, ...message_commands, ...manage_commands];
