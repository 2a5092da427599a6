import { DecryptionError } from "../masterKeys.ts";
import type { Settle } from "../settle/settle.ts";
import type { LeasedMessage } from "./lease.ts";

// Messages whose bodies cannot be opened: their master key is missing, or somebody changed them. A receive passes over
// them and delivers what comes after; only when it finds nothing else it fails. At its end it gives them back as they
// were, the delivery uncounted, so that they are there when the key is.
//
// Given back, a message is ready since now, and so behind all that is ready: receives of one message each come past any
// number of them. That does not hold where the order is another, by priority, or where their leases take the places of
// a cap. There they stay hidden for a while instead. The head of an ordering key keeps its key waiting, which is what
// the order asks for.

/** How long an unreadable message of a queue with priorities, a cap or a rate stays hidden. */
const hidden_seconds = 30;

/** The bodies of one receive. Not to be shared. */
export type Opening = {
  /** Puts the body that was sent in the place of the stored one. False: the message must not be delivered. */
  open(message: LeasedMessage): boolean;
  /** Has it met messages that are unreadable? */
  hasFailed(): boolean;
  /**
   * Gives back what must not be delivered; answers why, undefined: everything was. Never throws: without a database the
   * leases run out.
   */
  giveBack(is_governed: boolean): Promise<DecryptionError | undefined>;
};

/** Opens what one receive leases of a queue. `openBody` throws DecryptionError. */
export function createOpening(queue_id: string, openBody: (stored: string) => string, settle: Settle): Opening {
  const kept: LeasedMessage[] = [];
  /** Keys with an unreadable message: what follows it must not be delivered before it. */
  const closed_keys = new Set<string | null>();
  let reason: DecryptionError | undefined;
  return {
    open(message) {
      try {
        if (!closed_keys.has(message.ordering_key)) {
          message.body = openBody(message.body);
          return true;
        }
      } catch (error) {
        if (!(error instanceof DecryptionError)) throw error;
        reason ??= new DecryptionError(error.reason, `message ${message.id} of queue ${queue_id}: ${error.message}`);
        if (message.ordering_key !== null) closed_keys.add(message.ordering_key);
      }
      kept.push(message);
      return false;
    },
    hasFailed: () => reason !== undefined,
    async giveBack(is_governed) {
      if (kept.length > 0) await settle.unlease(queue_id, kept, is_governed ? hidden_seconds : 0).catch(() => {});
      return reason;
    },
  };
}
