import { hearListening, type Relay } from "../background/peers.ts";
import type { Broker } from "../broker/broker.ts";
import type { Edges } from "./edges.ts";
import type { Link } from "./link.ts";
import type { Told } from "./workerMessages.ts";

/** What the worker that listens to other servers passes on to the others. */
export const relayTo = ({ siblings, tell }: Link): Relay => ({
  woken: (queue_id) => siblings.tellReady({ queue_id, label: null, at: null }),
  listening: (is_listening) => tell({ about: "listening", is_listening }),
});

/** What a worker does with what another one tells. `forgetKey`: without an id, all keys. */
export function createHearing(
  broker: Broker,
  edges: Edges,
  forgetKey: (id: string | undefined) => void,
): (told: Told) => void {
  return (told) => {
    switch (told.about) {
      case "ready":
        broker.hear(told.ready);
        break;
      case "others":
        broker.notifier.setOthers(told.count);
        break;
      case "listening":
        hearListening(broker, told.is_listening);
        break;
      case "governed":
        broker.hearGoverned(told.queue_id, told.is_governed);
        break;
      case "key":
        forgetKey(told.id);
        break;
      case "purged":
      case "deleted":
        edges.hear(told.about, told.queue_id);
        break;
    }
  };
}
