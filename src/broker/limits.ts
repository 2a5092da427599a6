/** What bounds a broker, in count, in bytes and in time. */
export type Limits = {
  /** Statements in flight per verb (for receive: per queue and label filter). */
  lanes: number;
  /** Requests that one statement carries. */
  items_max: number;
  /** Bytes of bodies and attributes that one publish statement carries. */
  bytes_max: number;
  /** Requests that wait per verb. */
  waiting_max: number;
  /** Bytes of all bodies together that wait to be stored. */
  waiting_bytes_max: number;
  /** Bytes of the messages of one receive; one message at least. */
  answer_bytes_max: number;
  /** Bytes of the messages of all receives together that are not written yet. */
  answers_bytes_max: number;
  /** The longest life of a statement. */
  statement_ms_max: number;
  /** Consumers that wait for messages. */
  waiters_max: number;
  /** Milliseconds in which callers that were answered are waited for; see BatcherOptions. */
  regather_ms?: number;
  /** Milliseconds after which a purge, cleanup or delete goes on as a task instead of keeping its caller. */
  removal_ms_max: number;
};
