import { Type } from "@sinclair/typebox";

/** The numbers of a queue, as an answer shows them. */
export const QueueStats = Type.Object(
  {
    num_undelivered_messages: Type.Integer({ description: "Messages that a receive without label could return now" }),
    oldest_unacked_message_age_seconds: Type.Integer({
      description: "Age of the oldest of those; 0 when there are none",
    }),
    ready: Type.Integer(),
    delayed: Type.Integer(),
    leased: Type.Integer(),
    backing_off: Type.Integer({ description: "Delivered before, hidden until their retry" }),
    dead: Type.Integer({ description: "Messages here that were dead-lettered" }),
    oldest_ready_age_seconds: Type.Integer(),
    oldest_lease_age_seconds: Type.Integer(),
    publish_rate_1m: Type.Number({ description: "Per second, over the last full minute" }),
    ack_rate_1m: Type.Number(),
    blocked_keys: Type.Integer(),
    blocked_by_label: Type.Integer(),
    approximate: Type.Optional(Type.Boolean({ description: "Numbers above 100000 are estimates" })),
  },
  {
    title: "QueueStats",
    example: {
      num_undelivered_messages: 1,
      oldest_unacked_message_age_seconds: 12,
      ready: 1,
      delayed: 0,
      leased: 0,
      backing_off: 0,
      dead: 0,
      oldest_ready_age_seconds: 12,
      oldest_lease_age_seconds: 0,
      publish_rate_1m: 0.5,
      ack_rate_1m: 0.5,
      blocked_keys: 0,
      blocked_by_label: 0,
    },
  },
);
