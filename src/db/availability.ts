/** Between two tries to write while the database is away. */
const probe_interval_ms = 250;

export type Availability = {
  isUp(): boolean;
  /** A statement failed because the database does not answer, or does not take writes. */
  noteFailure(reason: string): void;
  close(): void;
};

/**
 * - up: until a failure is noted. `onChange(false)` is called with its reason.
 * - down: `write` is tried again and again, one at a time, until it succeeds. `onChange(true)` is called.
 *
 * A successful read does not end it: a read-only server, or one that waits for its synchronous standby, answers reads
 * while every write fails, and the state would change with each statement.
 */
export function createAvailability(
  write: () => Promise<unknown>,
  onChange: (is_up: boolean, reason?: string) => void,
): Availability {
  let is_up = true;
  let is_closed = false;
  let timer: ReturnType<typeof setTimeout> | undefined;

  function schedule(): void {
    if (is_closed) return;
    timer = setTimeout(() => write().then(recover, schedule), probe_interval_ms);
  }

  function recover(): void {
    if (is_closed) return;
    is_up = true;
    onChange(true);
  }

  return {
    isUp: () => is_up,
    noteFailure(reason) {
      if (!is_up || is_closed) return;
      is_up = false;
      onChange(false, reason);
      schedule();
    },
    close() {
      is_closed = true;
      clearTimeout(timer);
    },
  };
}
