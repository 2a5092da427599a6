export type Outgoing = {
  body: string;
  label: string | null;
  /** JSON text of a flat object of strings, or null. */
  attributes: string | null;
  /** JSON text that is kept with it and handed back, or null. */
  extras?: string | null;
  /** Bytes that count against the queue's `max_message_bytes`; absent: body, label and attributes as stored. */
  bytes?: number;
};

/** What the row costs beside the text, roughly. */
const row_bytes = 200;

/** What a message that waits to be stored takes of the memory, roughly. */
export const weightOf = (message: Outgoing): number =>
  message.body.length +
  (message.attributes?.length ?? 0) +
  (message.label?.length ?? 0) +
  (message.extras?.length ?? 0) +
  row_bytes;

/** As it is stored, when the body is. */
export const bytesOf = ({ body, label, attributes }: Outgoing): number =>
  Buffer.byteLength(body) + Buffer.byteLength(label ?? "") + Buffer.byteLength(attributes ?? "");

/** Says why a publish is 413. */
export const too_large = "the message is larger than the queue's max_message_bytes";
