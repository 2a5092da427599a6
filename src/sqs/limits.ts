/** What a request may hold. `strict`: as Amazon; `relaxed`: what this server can do. */
export type Limits = {
  is_strict: boolean;
  message_bytes: number;
  attributes: number;
  entries: number;
  batch_bytes: number;
  receive_messages: number;
  receive_wait_seconds: number;
  /** Messages of a queue under a lease at once. */
  in_flight: number;
};

/** As much as Amazon takes in one message, or in one batch. */
export const message_bytes_max = 1_048_576;
/** 12 hours: the longest time that a message is hidden. */
export const visibility_seconds_max = 43_200;
/** The longest delay of a message. */
export const delay_seconds_max = 900;
/** Tags of a queue. */
export const tags_max = 50;

/** The limits of a server. */
export function limitsOf(is_strict: boolean, server: { body_bytes_max: number; wait_seconds_max: number }): Limits {
  if (!is_strict) {
    return {
      is_strict,
      message_bytes: server.body_bytes_max,
      attributes: 100,
      entries: 1000,
      batch_bytes: server.body_bytes_max,
      receive_messages: 1000,
      receive_wait_seconds: server.wait_seconds_max,
      in_flight: Number.POSITIVE_INFINITY,
    };
  }
  return {
    is_strict,
    message_bytes: message_bytes_max,
    attributes: 10,
    entries: 10,
    batch_bytes: message_bytes_max,
    receive_messages: 10,
    receive_wait_seconds: 20,
    in_flight: 120_000,
  };
}
