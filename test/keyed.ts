import { expect } from "bun:test";
import type { Service } from "./harness.ts";
import { type Delivered, verbsOf } from "./verbs.ts";

/** Receives everything that can be delivered; `whole`: also several of a key. */
export const all = "?limit=100";
export const whole = "?limit=100&max_per_key=0";
export const textOf = (messages: Delivered[]): string[] => messages.map(({ body }) => body);

/** What tests of messages with ordering keys do all the time, on one service that lets them receive 100. */
export function keyedVerbsOf(service: Service) {
  const { call } = service;
  const { ack, put, receive } = verbsOf(service);
  const ackOf = ({ queue_id, id, lease_token }: Delivered) => ack(queue_id, id, lease_token);
  const end = async (message: Delivered) => expect((await ackOf(message)).status).toBe(204);

  return {
    ackOf,
    end,
    /** Publishes bodies with a key, in order. */
    async putAll(queue: string, ordering_key: string, ...texts: string[]): Promise<string[]> {
      const ids: string[] = [];
      for (const body of texts) ids.push(await put(queue, { body, ordering_key }));
      return ids;
    },
    keysOf: async (queue: string, query = "") => (await call("GET", `/v1/queues/${queue}/keys${query}`)).body.data,
    repair: async (queue: string) => (await call("POST", `/v1/queues/${queue}/repair`)).body,
    /** Receives and acks until nothing is left; answers the bodies. */
    async drain(queue: string): Promise<string[]> {
      const texts: string[] = [];
      for (let got = await receive(queue, all); got.length > 0; got = await receive(queue, all)) {
        for (const message of got) {
          texts.push(message.body);
          await end(message);
        }
      }
      return texts;
    },
  };
}
