// Requests made of the service's own document, most of them spoilt in one place. Whatever comes, the answer is one that
// the document promises, is never our fault, and a refusal has changed nothing.

import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { type Document, inlined, misfits, type Operation, type Schema } from "./document.ts";
import { type Answer, is_embedded, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const requests = Number(process.env["PSQLQUEUE_TEST_FUZZ_REQUESTS"] ?? (is_embedded ? 500 : 5000));
/** One refusal in this many is checked against the tables' contents. */
const compared_every = 10;

// A queue that makes its receives wait would only make the run long.
const service = await serviceForFile({ wait_seconds_max: 0 });

const doc = inlined((await service.call("GET", "/v1/swagger/doc.json")).body as Document);

// Few ids, so that requests meet what others have made.
const ids: Record<string, fc.Arbitrary<string>> = {
  queue_id: fc.constantFrom("q0", "q1", "q2", "-._Q"),
  topic_id: fc.constantFrom("t0", "t1", "t2"),
  subscription_id: fc.constantFrom("s0", "s1", "s2", "s3"),
  dead_queue_id: fc.constantFrom("q0", "q1"),
  destination_queue_id: fc.constantFrom("q0", "q1"),
  source_queue_id: fc.constantFrom("q0", "q1"),
  message_id: fc.constant("a message"),
  task_id: fc.constant("a task"),
  key_id: fc.constant("a key"),
};

/** Rules between members, and against what is stored, which a schema cannot say. */
const between_members = new RegExp(
  [
    "given together with",
    "is not enabled for this queue",
    "is not enabled for this server",
    "must be in the future",
    "deliver_at: must be no greater than 20",
    "must not (lead back|be the queue)",
    "must be the same for a queue and its dead-letter queue",
    "must stay, for with ordering_scope key_label",
    "retry_policy\\.max_seconds: must be no less",
    "ack_deadline_seconds: (cannot be blank|must be no greater)",
    "(limit|lease_token): cannot be blank",
    "limit: must be no greater",
  ].join("|"),
);
// Dot segments are another path, and so another operation: see input.test.ts.
const odd_ids = ["%00", "%ff", "%2F", "é", "%20", "a;b", "x".repeat(300), "%zz", "q0%0d%0a", "__proto__", "nobody"];

const isStorable = (value: string) => value.isWellFormed() && !value.includes("\0");
const someText = fc
  .oneof(
    fc.string({ unit: "binary" }),
    fc.string(),
    fc.constantFrom("😀", "\u202eabc", "__proto__", "constructor", "\u2028", " "),
  )
  .filter(isStorable);

/** JSON text that the schema allows. */
function valid(name: string, schema: Schema, kind: string): fc.Arbitrary<string> {
  const nullable = (own: fc.Arbitrary<string>) => (schema.nullable ? fc.oneof(own, fc.constant("null")) : own);
  const text = (own: fc.Arbitrary<string>) => nullable(own.map((value) => JSON.stringify(value)));
  if (schema.enum) return text(fc.constantFrom(...(schema.enum as string[])));
  if (schema.type === "boolean") return nullable(fc.constantFrom("true", "false"));
  if (schema.type === "integer" || schema.type === "number") {
    const { minimum = 0, maximum = 1_000_000 } = schema;
    // Long waits would empty the queues for the rest of the run.
    const usual = fc.integer({ min: minimum, max: Math.max(minimum, Math.min(maximum, 3)) });
    return nullable(fc.oneof(usual, fc.constantFrom(minimum, maximum)).map(String));
  }
  if (schema.type === "string") {
    if (schema.format === "date-time")
      return text(fc.constantFrom("2026-01-31T23:59:59Z", "2024-02-29T00:00:00.5+01:00"));
    if (name === "lease_token") return text(fc.constant("a token"));
    if (schema.pattern !== undefined)
      return text(ids[name === "id" ? kind : name] ?? fc.stringMatching(new RegExp(schema.pattern)));
    const bytes = (value: string) => Buffer.byteLength(value);
    const fits = (value: string) =>
      value.length >= (schema.minLength ?? 0) && bytes(value) <= (schema.maxLength ?? 1e9);
    return text(someText.filter(fits));
  }
  if (schema.type === "array") {
    return nullable(
      fc
        .array(valid(name, schema.items ?? {}, kind), { minLength: schema.minItems ?? 0, maxLength: 3 })
        .map((items) => `[${items.join()}]`),
    );
  }
  if (schema.additionalProperties) {
    const entry = fc.tuple(someText, valid(name, schema.additionalProperties, kind));
    const member = entry.map(([key, value]) => `${JSON.stringify(key)}:${value}`);
    return nullable(fc.array(member, { maxLength: 4 }).map((members) => `{${members.join()}}`));
  }
  return validMembers(schema, kind).map(join);
}

type Members = [name: string, text: string][];
const join = (members: Members) => `{${members.map(([name, text]) => `${JSON.stringify(name)}:${text}`).join()}}`;

function validMembers(schema: Schema, kind: string): fc.Arbitrary<Members> {
  const members = Object.entries(schema.properties ?? {}).map(([name, own]) => {
    const member = valid(name, own, kind).map((text): Members => [[name, text]]);
    return schema.required?.includes(name) ? member : fc.option(member, { nil: [] as Members, freq: 2 });
  });
  return fc.tuple(...members).map((lists) => lists.flat());
}

const deep = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
const nasty = [
  ...[
    "null",
    "true",
    "0",
    "-0",
    "-1",
    "1.5",
    "1e400",
    "-1e400",
    "1e2",
    "2147483647",
    "2147483648",
    "4294967296",
    "43201",
    "1e-400",
  ],
  ...[
    '""',
    '"5"',
    '"\\u0000"',
    '"a\\u0000b"',
    '"\\ud800"',
    '"\\udc00\\ud800"',
    '"😀"',
    '"\\u202e"',
    '" "',
    '"a b"',
    '"x\\n"',
  ],
  ...[
    "[]",
    "{}",
    "[null]",
    "[1]",
    '["\\u0000"]',
    '{"":null}',
    '{"a":1}',
    '{"a":["b"]}',
    '{"a":"\\ud800"}',
    '{"\\u0000":"a"}',
  ],
  ...[
    '{"__proto__":null}',
    '{"__proto__":1}',
    '{"a":null}',
    '{"a":[null]}',
    '{"a":{}}',
    deep(1000),
    `{"a":${deep(1000)}}`,
  ],
  ...[
    JSON.stringify("x".repeat(255)),
    JSON.stringify("x".repeat(256)),
    JSON.stringify("é".repeat(128)),
    JSON.stringify("y".repeat(5000)),
  ],
  ...['"now"', '"2026-02-30T00:00:00Z"', '"999999-01-01T00:00:00Z"'],
];

type Spoilt = { body: string; is_spoilt: boolean };

/** A body, and the same with one thing wrong (which a member that is ignored, or that may be anything, survives). */
function bodies(schema: Schema, kind: string): fc.Arbitrary<Spoilt> {
  const names = [...Object.keys(schema.properties ?? {}), "other", "__proto__"];
  const spoil = fc.record({
    how: fc.constantFrom("replace", "replace", "replace", "drop", "repeat", "cut", "trail", "mark", "all"),
    name: fc.constantFrom(...names),
    text: fc.constantFrom(...nasty),
    at: fc.nat(1000),
  });
  return fc.tuple(validMembers(schema, kind), fc.option(spoil, { freq: 3 })).map(([members, spoilt]) => {
    if (spoilt === null) return { body: join(members), is_spoilt: false };
    const { how, name, text, at } = spoilt;
    const others = members.filter(([own]) => own !== name);
    const whole = join(members);
    const body = {
      replace: () => join([...others, [name, text]]),
      drop: () => join(others),
      repeat: () => join([[name, text], ...members, [name, text]]),
      cut: () => whole.slice(0, at % whole.length),
      trail: () => `${whole}${text}`,
      mark: () => `\ufeff${whole}`,
      all: () => text,
    }[how as "cut"]();
    return { body, is_spoilt: true };
  });
}

type Ask = { name: string; method: string; path: string; query: string; spoilt?: Spoilt; is_plain: boolean };

const odd_queries = [
  "",
  "x",
  "-1",
  "+1",
  "1e3",
  "1.0",
  "%00",
  "%ff",
  "%ed%a0%80",
  "9".repeat(30),
  "0",
  "00010",
  "%31",
  "2147483648",
  "é",
  "%",
];

function asks(path: string, method: string, operation: Operation): fc.Arbitrary<Ask> {
  const kind = `${/^\/v1\/(\w+)s/.exec(path)?.[1]}_id`;
  const parameters = operation.parameters ?? [];
  const often = <T>(usual: fc.Arbitrary<T>, odd: fc.Arbitrary<T>) =>
    fc.oneof({ arbitrary: usual, weight: 15 }, { arbitrary: odd, weight: 1 });
  const filled = parameters
    .filter((parameter) => parameter.in === "path")
    .map(({ name }) =>
      often(
        (ids[name] ?? fc.constant("x")).map((id) => ({ name, id, is_odd: false })),
        fc.constantFrom(...odd_ids).map((id) => ({ name, id, is_odd: true })),
      ),
    );
  const queried = parameters
    .filter((parameter) => parameter.in === "query")
    .map(({ name, schema }) => {
      const usual = valid(name, schema, kind).map((text) => ({
        text: `${name}=${encodeURIComponent(schema.type === "string" ? JSON.parse(text) : text)}`,
        is_odd: false,
      }));
      const odd = fc.constantFrom(...odd_queries).map((text) => ({ text: `${name}=${text}`, is_odd: true }));
      return fc.option(often(usual, odd), { nil: undefined });
    });
  const schema = operation.requestBody?.content?.["application/json"].schema;
  const body = schema === undefined ? fc.constant(undefined) : bodies(schema, kind);
  return fc.tuple(fc.tuple(...filled), fc.tuple(...queried), body).map(([segments, pairs, spoilt]) => {
    const given = pairs.filter((pair) => pair !== undefined);
    return {
      name: `${method} ${path}`,
      method: method.toUpperCase(),
      path: segments.reduce((at, { name, id }) => at.replace(`{${name}}`, () => id), path),
      query: given.map(({ text }) => text).join("&"),
      ...(spoilt && { spoilt }),
      is_plain: !spoilt?.is_spoilt && ![...segments, ...given].some(({ is_odd }) => is_odd),
    };
  });
}

const operations = Object.entries(doc.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ path, method, operation })),
);
// Publishing, receiving and settling more often than pausing and deleting: there must be something to meet.
function weightOf(method: string, path: string): number {
  if (/\/messages$/.test(path)) return 30;
  if (/\/(purge|cleanup|pause)$/.test(path) || method === "delete") return 1;
  if (path.includes("/messages/{message_id}")) return 14;
  return /\/(resume|extend|redrive)$|tasks/.test(path) ? 8 : 4;
}

const anything = fc.oneof(
  ...operations.map(({ path, method, operation }) => ({
    weight: weightOf(method, path),
    arbitrary: asks(path, method, operation).map((ask) => ({ ask, operation })),
  })),
);

async function contents(): Promise<string> {
  const tables = ["queues", "messages", "archived_messages", "topics", "subscriptions"];
  // A sum needs no order: sorting what thousands of requests left behind would take most of the run.
  const parts = tables.map(
    (name) => `select hashtextextended(to_jsonb(item)::text, 0)::numeric as row from psqlqueue.${name} as item`,
  );
  const [row] = await service.sql.unsafe(
    `select concat(count(*), ' ', sum(item.row)) as hash from (${parts.join(" union all ")}) as item`,
  );
  return String(row?.["hash"]);
}

const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };

/** A message under a lease in `sure`, for requests that need one. */
const leased: Step[] = [
  ["POST", "/v1/queues/sure/messages", { body: "x" }],
  ["GET", "/v1/queues/sure/messages?limit=1"],
];
const published: Step[] = [leased[0] as Step];
const task: Step[] = [["PUT", "/v1/queues/sure/purge?async=true"]];

type Step = [method: string, path: string, body?: object];

/** What comes first for all: nothing that the requests before may have left is in the way. */
const ground: Step[] = [
  ["DELETE", "/v1/queues/sure?force=true"],
  ["DELETE", "/v1/topics/sure"],
  ["DELETE", "/v1/subscriptions/sure"],
  ["DELETE", "/v1/queues/new?force=true"],
  ["DELETE", "/v1/topics/new"],
  ["POST", "/v1/queues", { id: "sure", ...settings }],
  ["POST", "/v1/topics", { id: "sure" }],
];
const key = { name: "sure", scopes: [{ actions: ["publish"], queues: ["sure*"] }] };
const subscription = { id: "sure", topic_id: "sure", queue_id: "sure" };
const subscribed: Step[] = [["POST", "/v1/subscriptions", subscription]];

/** One request for each operation that succeeds on its ground, so that no verdict is left to chance. */
const sure: Record<string, { ground?: Step[]; body?: object }> = {
  "post /v1/queues": { body: { id: "new", ...settings } },
  "get /v1/queues": {},
  "get /v1/queues/{queue_id}": {},
  "put /v1/queues/{queue_id}": { body: settings },
  "delete /v1/queues/{queue_id}": {},
  "put /v1/queues/{queue_id}/pause": { body: {} },
  "put /v1/queues/{queue_id}/resume": {},
  "get /v1/queues/{queue_id}/stats": {},
  "put /v1/queues/{queue_id}/purge": {},
  "put /v1/queues/{queue_id}/cleanup": {},
  "post /v1/queues/{queue_id}/messages": { body: { body: "x" } },
  "get /v1/queues/{queue_id}/messages": {},
  "post /v1/queues/{queue_id}/messages/batch": { body: { messages: [{ body: "x" }] } },
  "get /v1/queues/{queue_id}/messages/peek": {},
  "get /v1/queues/{queue_id}/messages/count": {},
  "get /v1/queues/{queue_id}/messages/groups": {},
  "post /v1/queues/{queue_id}/messages/matching": { body: { action: "nack" } },
  "get /v1/queues/{queue_id}/rates": {},
  "get /v1/rates": {},
  "get /v1/stats": {},
  "get /v1/queues/{queue_id}/messages/{message_id}": { ground: leased },
  "put /v1/queues/{queue_id}/messages/{message_id}": { ground: published, body: { label: "l" } },
  "delete /v1/queues/{queue_id}/messages/{message_id}": { ground: published },
  "put /v1/queues/{queue_id}/messages/{message_id}/ack": { ground: leased },
  "put /v1/queues/{queue_id}/messages/{message_id}/nack": { ground: leased, body: {} },
  "put /v1/queues/{queue_id}/messages/{message_id}/extend": {
    ground: leased,
    body: { ack_deadline_seconds: 9, lease_token: "a token" },
  },
  "post /v1/queues/{queue_id}/ack": { ground: leased, body: { items: [{ id: "a message" }] } },
  "post /v1/queues/{queue_id}/nack": { ground: leased, body: { items: [{ id: "a message" }] } },
  "post /v1/queues/{queue_id}/extend": {
    ground: leased,
    body: { items: [{ id: "a message", lease_token: "a token" }], ack_deadline_seconds: 9 },
  },
  "post /v1/queues/{queue_id}/redrive": { body: {} },
  "get /v1/tasks": {},
  "get /v1/tasks/{task_id}": { ground: task },
  "delete /v1/tasks/{task_id}": { ground: task },
  "post /v1/topics": { body: { id: "new" } },
  "get /v1/topics": {},
  "get /v1/topics/{topic_id}": {},
  "delete /v1/topics/{topic_id}": {},
  "post /v1/topics/{topic_id}/messages": { ground: subscribed, body: { body: "x" } },
  "post /v1/topics/{topic_id}/messages/batch": { ground: subscribed, body: { messages: [{ body: "x" }] } },
  "post /v1/subscriptions": { body: subscription },
  "get /v1/subscriptions": {},
  "get /v1/subscriptions/{subscription_id}": { ground: subscribed },
  "delete /v1/subscriptions/{subscription_id}": { ground: subscribed },
  "get /v1/queues/{queue_id}/keys": {},
  "post /v1/queues/{queue_id}/repair": {},
  "post /v1/keys": { body: key },
  "get /v1/keys": {},
  "delete /v1/keys/{key_id}": { ground: [["POST", "/v1/keys", key]] },
  "get /v1/info": {},
  "get /v1/maintenance": {},
  "get /v1/healthz": {},
};

/** Is the answer one that the document promises? */
function judge(name: string, operation: Operation, { status, body, text }: Answer): void {
  const what = `${name} answered ${status} ${text.slice(0, 200)}`;
  if (status >= 500) throw new Error(`our fault: ${what}`);
  const is_routing = (status === 404 && body?.code === 23) || (status === 405 && body?.code === 24);
  const response = operation.responses[status];
  if (response === undefined && !is_routing) throw new Error(`not documented: ${what}`);
  const schema = is_routing ? doc.components.schemas["Error"] : response?.content?.["application/json"].schema;
  if (schema === undefined && text !== "") throw new Error(`a body that is not documented: ${what}`);
  const wrong = schema === undefined ? [] : misfits(schema, body);
  if (wrong.length > 0) throw new Error(`${wrong.join(", ")}: ${what}`);
}

test(`${requests} requests from the document and next to it are answered as the document says`, async () => {
  let refusals = 0;
  let last = { id: "01HZZZZZZZZZZZZZZZZZZZZZ01", queue_id: "q0", lease_token: "1" };
  let last_task = "01HZZZZZZZZZZZZZZZZZZZZZ01";
  let last_key = "none";
  const fill = (text: string) =>
    text
      .replaceAll("a message", last.id)
      .replaceAll(/a(\+|%20| )token/g, last.lease_token)
      .replaceAll("a task", last_task)
      .replaceAll("a key", last_key);
  const learn = (body: Answer["body"]) => {
    const [message] = body?.data ?? [];
    if (message?.lease_token !== undefined) last = message;
    if (body?.task_id !== undefined) last_task = body.task_id;
    if (body?.key !== undefined) last_key = body.id;
  };

  async function check({ ask, operation }: { ask: Ask; operation: Operation }): Promise<void> {
    const is_compared = refusals % compared_every === 0;
    const before = is_compared ? await contents() : "";
    // A message's own queue, but for one time in three.
    const own = refusals % 3 === 0 ? "$&" : `/queues/${last.queue_id}/messages/a message`;
    const path = ask.path.replace(/\/queues\/[\w.-]+\/messages\/a message/, own);
    const target = fill(`${path}${ask.query && `?${ask.query}`}`);
    const answer = await service.call(ask.method, target, ask.spoilt?.body && fill(ask.spoilt.body));
    const { status, body } = answer;
    const what = `${ask.name} answered ${status} ${answer.text.slice(0, 200)}`;
    judge(ask.name, operation, answer);
    // What the document allows is not refused as bad input.
    const is_refused = body?.code === 2 || (body?.code === 3 && !between_members.test(body.details));
    if (ask.is_plain && is_refused) throw new Error(`valid and yet refused: ${what}`);
    if (status >= 400) {
      refusals += 1;
      if (is_compared && (await contents()) !== before) throw new Error(`a refusal changed something: ${what}`);
    }
    learn(body);
  }

  await fc.assert(fc.asyncProperty(anything, check), { numRuns: requests, verbose: 0 });

  // And each can succeed, on ground that is prepared for it.
  for (const { path, method, operation } of operations) {
    const name = `${method} ${path}`;
    const { ground: own = [], body } = sure[name] ?? {};
    for (const step of [...ground, ...own]) {
      const answer = await service.call(...step);
      const id = answer.headers.get("x-message-id");
      if (id !== null) last = { id, queue_id: "sure", lease_token: "1" };
      learn(answer.body);
    }
    const target = fill(
      path.replace("{message_id}", "a message").replace("{task_id}", "a task").replace("{key_id}", "a key"),
    );
    const answer = await service.call(
      method.toUpperCase(),
      target.replaceAll(/{\w+}/g, "sure"),
      body && fill(JSON.stringify(body)),
    );
    judge(name, operation, answer);
    expect({ name, is_success: answer.status < 300 }).toEqual({ name, is_success: true });
  }
  expect(operations.map(({ path, method }) => `${method} ${path}`).sort()).toEqual(Object.keys(sure).sort());
  expect((await service.call("GET", "/v1/healthz")).body).toEqual({ success: true });
}, 150_000);
