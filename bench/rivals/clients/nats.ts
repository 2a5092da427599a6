import { AckPolicy, jetstream, jetstreamManager, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import { batch, type Client, type Publish, partsOf } from "../client.ts";

const stream = "bench";
const consumer_name = "bench";
const unconfirmed_max = 1000;

/** NATS JetStream: a stream that is a work queue, in a file; acks that the server confirms. */
export async function openNats(place: Record<string, string>): Promise<Client> {
  const servers = place["url"] ?? "";
  const [publishing, consuming] = [await connect({ servers }), await connect({ servers })];
  const manager = await jetstreamManager(publishing);
  await manager.streams.add({
    name: stream,
    subjects: [stream],
    storage: StorageType.File,
    retention: RetentionPolicy.Workqueue,
  });
  await manager.consumers.add(stream, {
    durable_name: consumer_name,
    ack_policy: AckPolicy.Explicit,
  });
  const publisher = jetstream(publishing);
  const publish: Publish = async (body) => void (await publisher.publish(stream, body));
  return {
    publishers: async (count) => Array.from({ length: count }, () => publish),
    async fill(bodies) {
      for (const part of partsOf(bodies, unconfirmed_max)) await Promise.all(part.map(publish));
    },
    async consume(count, onAcked) {
      const work = async () => {
        const consumer = await jetstream(consuming).consumers.get(stream, consumer_name);
        const messages = await consumer.consume({ max_messages: batch });
        const working = (async () => {
          for await (const message of messages) {
            const asked_ms = performance.now();
            if (!(await message.ackAck())) throw new Error("an ack was not confirmed");
            onAcked(message.string(), performance.now() - asked_ms);
          }
        })();
        return { messages, working };
      };
      const consumers = await Promise.all(Array.from({ length: count }, work));
      return async () => {
        for (const { messages } of consumers) void messages.close();
        await Promise.all(consumers.map(({ working }) => working));
      };
    },
    left: async () => (await manager.streams.info(stream)).state.messages,
    async close() {
      await publishing.close();
      await consuming.close();
    },
  };
}
