import type { Claim, Originals } from "./originals.ts";
import type { Asked, Quotas } from "./quotas.ts";

/** Places of a list of messages, in order. */
export type LetIn = {
  /** To be stored. */
  open: number[];
  /** Of those, which have taken room of a quota; each is to be settled. */
  counted: Set<number>;
  /** Of those, which need no room: duplicates. */
  free: Set<number>;
  /** Those that did not fit. */
  left: number[];
};

/**
 * Decides which messages the quotas of their queues let in. `is_atomic`: all, or none. Only for those that do not fit
 * something is asked of the database.
 */
export function createAdmission(quotas: Quotas, originals: Originals) {
  /** Those of `places` that are no duplicates, of what is stored or of one another. */
  async function findFresh(claims: Claim[], places: number[]): Promise<number[]> {
    const known = await originals.findKnown(places.map((i) => claims[i] as Claim));
    const met = new Set<string>();
    return places.filter((_, k) => {
      const own = known[k];
      if (own === undefined) return true;
      const is_fresh = own.original === undefined && !met.has(own.key);
      met.add(own.key);
      return is_fresh;
    });
  }

  return async (claims: Claim[], asked: Asked[], is_atomic: boolean): Promise<LetIn> => {
    const places = [...claims.keys()];
    const limited = places.filter((i) => quotas.isLimited((claims[i] as Claim).queue_id));
    if (limited.length === 0) return { open: places, counted: new Set(), free: new Set(), left: [] };
    const admit = async (own: number[]) => {
      const let_in = await quotas.admit(
        own.map((i) => asked[i] as Asked),
        is_atomic,
      );
      return new Set(own.filter((_, k) => let_in[k]));
    };
    const counted = await admit(limited);
    const left = new Set(limited.filter((i) => !counted.has(i)));
    if (!is_atomic || left.size === 0) {
      return { open: places.filter((i) => !left.has(i)), counted, free: new Set(), left: [...left] };
    }
    const fresh = await findFresh(claims, limited);
    const fitting = fresh.length < limited.length ? await admit(fresh) : new Set<number>();
    if (fresh.length === limited.length || fitting.size < fresh.length) {
      return { open: [], counted: new Set(), free: new Set(), left: places };
    }
    return { open: places, counted: fitting, free: new Set(limited), left: [] };
  };
}
