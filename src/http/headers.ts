// The headers of the API, as the document describes them.

type Described = { description: string; schema: object };
const text = (description: string, schema: object = {}): Described => ({
  description,
  schema: { type: "string", ...schema },
});

/** Headers that a request may have. */
export const request_headers = {
  "Idempotency-Key": text("The message's dedup_id, when its body has none", { pattern: "^[!-~]{1,128}$" }),
  Prefer: text("`return=representation` answers 201 with what was stored, instead of 204", {
    example: "return=representation",
  }),
  "X-Lease-Token": text("The delivery's lease_token, when neither body nor query has one"),
  "X-Request-Id": text("For logs and the answer; without it one is made"),
};
/** Their names. */
export type RequestHeader = keyof typeof request_headers;

const flag = { enum: ["true"] };

/** Headers that a response may have. */
const response_headers = {
  "X-Request-Id": text("The request's, or one that was made for it"),
  "X-Message-Id": text("The message's id: of the first one, when it is a duplicate"),
  "X-Deduplicated": text("It is a duplicate, and nothing was stored", flag),
  "X-Delivered-Queues": text("How many queues got a copy", { pattern: "^\\d+$" }),
  "Preference-Applied": text("What was done of Prefer"),
  "Retry-After": text("Seconds to wait before the next try", { pattern: "^\\d+$" }),
  Allow: text("The methods of this path"),
};
/** Their names. */
export type ResponseHeader = keyof typeof response_headers;

/** The headers of a response, for the document. */
export const describeHeaders = (names: ResponseHeader[]): object =>
  Object.fromEntries([...names, "X-Request-Id" as const].map((name) => [name, response_headers[name]]));
