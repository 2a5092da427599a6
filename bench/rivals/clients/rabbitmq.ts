import { type ChannelModel, type ConfirmChannel, connect } from "amqplib";
import { batch, type Client, type Publish, partsOf } from "../client.ts";

const unconfirmed_max = 10_000;

const open = async (place: Record<string, string>): Promise<ChannelModel> => {
  const connection = await connect(place["url"] ?? "");
  connection.on("error", (error) => console.error("rabbitmq:", error));
  return connection;
};

const publishOn = (channel: ConfirmChannel, queue: string, body: string) =>
  new Promise<void>((resolve, reject) => {
    channel.sendToQueue(queue, Buffer.from(body, "latin1"), { persistent: true }, (error) =>
      error ? reject(error) : resolve(),
    );
  });

/** RabbitMQ: a connection for the publishers and one for the consumers, a channel for each of them. */
export async function openRabbitmq(place: Record<string, string>): Promise<Client> {
  const { queue = "", queue_type } = place;
  const [publishing, consuming] = [await open(place), await open(place)];
  const filling = await publishing.createConfirmChannel();
  await filling.assertQueue(queue, { durable: true, arguments: { "x-queue-type": queue_type } });
  const channels: ConfirmChannel[] = [];
  return {
    async publishers(count) {
      while (channels.length < count) channels.push(await publishing.createConfirmChannel());
      return channels.slice(0, count).map(
        (channel): Publish =>
          (body) =>
            publishOn(channel, queue, body),
      );
    },
    async fill(bodies) {
      for (const part of partsOf(bodies, unconfirmed_max)) {
        await Promise.all(part.map((body) => publishOn(filling, queue, body)));
      }
    },
    async consume(count, onAcked) {
      const consume = async () => {
        const channel = await consuming.createChannel();
        await channel.prefetch(batch);
        const { consumerTag } = await channel.consume(queue, (message) => {
          if (message === null) throw new Error("the queue is gone");
          channel.ack(message);
          onAcked(message.content.toString("latin1"), undefined);
        });
        return { channel, consumerTag };
      };
      const consumers = await Promise.all(Array.from({ length: count }, consume));
      return async () => {
        // What was delivered until the cancellation is confirmed is acked before it.
        await Promise.all(consumers.map(({ channel, consumerTag }) => channel.cancel(consumerTag)));
        await Promise.all(consumers.map(({ channel }) => channel.close()));
      };
    },
    left: async () => (await filling.checkQueue(queue)).messageCount,
    async close() {
      await publishing.close();
      await consuming.close();
    },
  };
}
