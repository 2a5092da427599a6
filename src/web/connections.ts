import { Connection, type ConnectionOptions } from "./connection.ts";
import type { Wire } from "./port.ts";

/** The connections of a server. */
export function createConnections(options: ConnectionOptions) {
  const connections = new Set<Connection>();
  const onEmpty: (() => void)[] = [];

  return {
    add(wire: Wire): Connection {
      const connection = new Connection(wire, options, () => {
        connections.delete(connection);
        if (connections.size === 0) for (const tell of onEmpty.splice(0)) tell();
      });
      connections.add(connection);
      return connection;
    },
    /** Ends what takes too long; to be called about every second. */
    check(): void {
      const now_ms = performance.now();
      for (const connection of [...connections]) connection.check(now_ms);
    },
    /** Resolves when the last one is closed: the idle ones now, the others when they are answered, or all at once. */
    async close(is_forced: boolean): Promise<void> {
      for (const connection of [...connections]) {
        if (is_forced) connection.wire.destroy();
        else connection.closeWhenIdle();
      }
      if (connections.size > 0) await new Promise<void>((resolve) => onEmpty.push(resolve));
    },
  };
}
