// F20: what is published to a topic, while servers are killed and answers of the database are cut.

import { type Behind, cutAll, serversBehind, statements } from "./connections.ts";
import { topicEdge } from "./edges.ts";
import type { Scenario } from "./scenario.ts";
import type { Stage } from "./stage.ts";

const filters = {
  all: {},
  some: { tier: ["gold", "silver"] },
  few: { tier: ["gold"], region: ["north", "east"] },
};

/** Ten cuts to each kill: a server that is cut off while it starts ends, and says why. */
export async function cutAndKill(stage: Stage, { proxies, servers }: Behind, kills: number): Promise<void> {
  for (let left = kills; left > 0; left--) {
    await cutAll(stage, proxies, 10, 40, statements);
    stage.fault("kill -9 of one of two servers");
    const server = stage.random.pick(servers);
    await server.kill();
    await server.start();
    await Bun.sleep(stage.random.exponential(500));
  }
}

/** Every queue gets what its filter lets through, once. */
export const brokenTopics: Scenario = {
  id: "F20",
  title: "a topic and three queues with filters",
  quick_dose: null,
  async perform(stage) {
    const behind = await serversBehind(stage);
    const { ports, url } = behind;
    const edge = (ack_deadline_ms: number) => topicEdge("orders", filters, ack_deadline_ms);
    await stage.play({ ports, url, messages: 20_000, edge, rate_max: 700 }, () =>
      cutAndKill(stage, behind, stage.dose(20, 2)),
    );
  },
};
