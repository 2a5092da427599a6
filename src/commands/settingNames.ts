import type { Queue } from "../../client/src/client.ts";
import { CommandError } from "./context.ts";

/** Members of a queue that nobody sets. */
const no_settings = ["id", "created_at", "updated_at", "paused"];

/**
 * Throws unless every name is a setting of queues. A server ignores members that it does not know: a slip would go
 * unnoticed. Without a queue that it has shown only those are refused which are settings nowhere. `where` begins the
 * sentence.
 */
export function checkSettingNames(given: readonly string[], shown: Queue | undefined, where: string): void {
  const fixed = given.find((name) => no_settings.includes(name));
  if (fixed !== undefined) {
    const remedy =
      fixed === "paused"
        ? "psqlqueue queue pause and resume do that"
        : "it is the queue's own from its creation; leave it out";
    throw new CommandError(`${where}${fixed} is no setting of queues: ${remedy}`, 2);
  }
  if (shown === undefined) return;
  const unknown = given.find((name) => !Object.hasOwn(shown, name));
  if (unknown === undefined) return;
  const names = Object.keys(shown).filter((name) => !no_settings.includes(name));
  throw new CommandError(`${where}${unknown}: this server has no such setting; it has ${names.join(", ")}`, 2);
}
