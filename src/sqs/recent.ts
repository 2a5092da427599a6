/** How long Amazon minds. */
const minded_ms = 60_000;
const names_max = 10_000;

export type Recent = {
  note(name: string): void;
  /** It happened at a sibling of this process. */
  hear(name: string): void;
  has(name: string): boolean;
};

/** Names that something happened to in the last minute, as far as this server knows. `tell`: it has happened here. */
export function createRecent(tell: (name: string) => void = () => {}): Recent {
  const noted = new Map<string, number>();
  function hear(name: string): void {
    const now_ms = performance.now();
    noted.delete(name);
    for (const [oldest, at_ms] of noted) {
      if (now_ms - at_ms < minded_ms && noted.size < names_max) break;
      noted.delete(oldest);
    }
    noted.set(name, now_ms);
  }
  return {
    note(name) {
      hear(name);
      tell(name);
    },
    hear,
    has: (name) => performance.now() - (noted.get(name) ?? Number.NEGATIVE_INFINITY) < minded_ms,
  };
}
