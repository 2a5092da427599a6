import type { Broker } from "../broker/broker.ts";
import type { Db } from "../db/db.ts";
import { findKnownBug, findUnsafe } from "../db/versions.ts";
import { observe } from "../observe.ts";

/** Says, at the start of a server, what is odd about its database. Rejects with what its queries reject with. */
export async function noteOddities(db: Db, broker: Broker, is_embedded: boolean): Promise<void> {
  const bug = is_embedded ? undefined : await findKnownBug(db.client);
  if (bug !== undefined) {
    observe({ kind: "notice", level: "WARN", message: "this PostgreSQL has a known bug", details: bug });
  }
  for (const setting of is_embedded ? [] : await findUnsafe(db.client)) {
    observe({
      kind: "notice",
      level: "WARN",
      message: "this PostgreSQL does not keep what it has committed when the power fails",
      details: { setting, remedy: `alter system set ${setting} = 'on'; select pg_reload_conf()` },
    });
  }
  const closed_ids = await broker.findClosedQueues();
  if (closed_ids.length > 0) {
    observe({
      kind: "notice",
      level: "WARN",
      message: "queues encrypt their messages, and this server has no master key",
      details: {
        queues: closed_ids.join(", "),
        effect: "it can neither publish to them nor deliver what they hold",
        remedy: "set PSQLQUEUE_MASTER_KEY as it is on the other servers",
      },
    });
  }
  for (const { kind, id } of await broker.findUnreachable()) {
    const remedy = `rename it in the database: no path can name it, so it cannot be asked for or deleted`;
    observe({
      kind: "notice",
      level: "WARN",
      message: `a ${kind} has an id that clients take for a step in a path`,
      details: { id, remedy },
    });
  }
}

/** Says at the start that there is no key with which anybody could ask. Rejects with what its query rejects with. */
export async function noteNoKeys(broker: Broker): Promise<void> {
  if ((await broker.listKeys(1, 0)).length > 0) return;
  observe({
    kind: "notice",
    level: "WARN",
    message: "keys are asked for, and there are none: nobody can get in",
    details: {
      effect: "every request is answered 401",
      remedy:
        "set PSQLQUEUE_ROOT_KEY to a secret of your own, start again, and make keys with it: psqlqueue key create",
    },
  });
}

/** Says at the start which keys cannot sign requests any more. Rejects with what its query rejects with. */
export async function noteClosedKeys(broker: Broker): Promise<void> {
  const ids = await broker.findClosedKeys();
  if (ids.length === 0) return;
  observe({
    kind: "notice",
    level: "WARN",
    message: "keys sign requests, and their secrets cannot be decrypted",
    details: {
      keys: ids.join(", "),
      effect: "what they sign is refused as if there were no such keys; as Bearer keys they work",
      remedy: "give PSQLQUEUE_MASTER_KEY its old keys back, behind the first, or make these API keys anew",
    },
  });
}
