// F21: clients of Amazon SQS, while servers are killed and answers of the database are cut.

import { serversBehind } from "./connections.ts";
import type { Scenario } from "./scenario.ts";
import { sqsEdge } from "./sqsEdge.ts";
import { cutAndKill } from "./topics.ts";

/** What is sent once is received until it is deleted, in the order of its group. */
export const brokenSqs: Scenario = {
  id: "F21",
  title: "clients of Amazon SQS, on a standard and a FIFO queue",
  quick_dose: null,
  async perform(stage) {
    const behind = await serversBehind(stage);
    const { ports, url } = behind;
    const edge = (ack_deadline_ms: number) => sqsEdge("load", ack_deadline_ms);
    await stage.play({ ports, url, messages: 20_000, edge }, () => cutAndKill(stage, behind, stage.dose(20, 2)));
  },
};
