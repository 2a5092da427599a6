/** Bytes that many requests share: what they hold together is bounded, and not only what each may have. */
export type Budget = {
  bytes_max: number;
  /** Takes bytes; never fails. Give them back with `release`, once. */
  hold(bytes: number): void;
  release(bytes: number): void;
  /** Bytes that are left; 0 when more is held than there is. */
  room(): number;
  held(): number;
  /** Waits until something is left, at most `ms`, in order of arrival; false when nothing was given back in time. */
  whenRoom(ms: number): Promise<boolean>;
};

/** A budget of `bytes_max`. What is larger than all of it can still be held when nothing else is. */
export function createBudget(bytes_max: number): Budget {
  let held = 0;
  const waiting = new Set<() => void>();
  const room = () => Math.max(0, bytes_max - held);
  return {
    bytes_max,
    hold(bytes) {
      held += bytes;
    },
    release(bytes) {
      held -= bytes;
      for (const wake of waiting) {
        if (room() === 0) break;
        wake();
      }
    },
    room,
    held: () => held,
    whenRoom(ms) {
      if (room() > 0) return Promise.resolve(true);
      return new Promise((resolve) => {
        const end = (has_room: boolean) => {
          clearTimeout(timer);
          waiting.delete(wake);
          resolve(has_room);
        };
        const wake = () => end(true);
        const timer = setTimeout(end, ms, false);
        waiting.add(wake);
      });
    },
  };
}
