// Requests from the grammar of the two protocols, right and wrong: no 5xx, and well-formed answers always.
// PSQLQUEUE_TEST_SQS_FUZZ=5000 for many.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { inputs, type Shape } from "../src/sqs/shapes.ts";
import { callSqs, openSqs, type Protocol, parseXml, protocols, refusedAs, toForm } from "./sqs.ts";

setDefaultTimeout(90_000);

const runs = Number(process.env["PSQLQUEUE_TEST_SQS_FUZZ"] ?? 300);

const sqs = await openSqs();
afterAll(() => sqs.close());
const prepared: [name: string, attributes: Record<string, string>][] = [
  ["pool-a", {}],
  ["pool-b", { MaximumMessageSize: "1024" }],
  ["pool.fifo", { FifoQueue: "true", ContentBasedDeduplication: "true" }],
];
const prepare = async () => {
  for (const [name, attributes] of prepared)
    await callSqs(sqs.origin, "json", "CreateQueue", { QueueName: name, Attributes: attributes });
};
const urls = [...prepared.map(([name]) => name), "missing"].map((name) => `${sqs.origin}/000000000000/${name}`);
const names = urls.map((url) => url.split("/").at(-1) ?? "");

type Json = Record<string, unknown>;

const text = fc.oneof(
  fc.string({ unit: "binary", maxLength: 20 }),
  fc.string({ maxLength: 20 }),
  fc.constantFrom("", "\0", "\ud800", "\ufffe", "__proto__", "x".repeat(2000), "<&>'\"", "😀", "a.b", "1"),
);
const attribute_names = [
  "All",
  "VisibilityTimeout",
  "Policy",
  "RedrivePolicy",
  "FifoQueue",
  "ApproximateNumberOfMessages",
  "SenderId",
  "KmsMasterKeyId",
  "SqsManagedSseEnabled",
  "constructor",
];
const arns = names.map((name) => `arn:aws:sqs:us-east-1:000000000000:${name}`);
/** What a member of that name is likely to be. */
const likely: Record<string, fc.Arbitrary<unknown>> = {
  QueueUrl: fc.constantFrom(...urls, ...names),
  QueueName: fc.constantFrom("fuzz-a", "fuzz-b", "fuzz.fifo", "a b"),
  QueueNamePrefix: fc.constantFrom("", "q-", "fuzz"),
  MessageGroupId: fc.constantFrom("g", "h", "a b", ""),
  ReceiveRequestAttemptId: fc.constantFrom("one", "two", "a b"),
  MessageBody: fc.oneof(text, fc.constantFrom("m", "x".repeat(1025))),
  Id: fc.constantFrom("a", "b", "c", "", "a:b"),
  DataType: fc.constantFrom("String", "Number", "Binary", "String.x", "Foo", ""),
  StringValue: fc.oneof(text, fc.constantFrom("1", "")),
  BinaryValue: fc.constantFrom("AAEC", "", "!"),
  // Nobody waits here.
  WaitTimeSeconds: fc.constantFrom(0, 0, 0, -1, 21),
  VisibilityTimeout: fc.constantFrom(0, 0, 30, 43_200, 43_201, -1),
  MaxNumberOfMessages: fc.constantFrom(1, 10, 0, 11),
  SourceArn: fc.constantFrom(...arns, "arn", ""),
  DestinationArn: fc.constantFrom(...arns, "arn", ""),
  ReceiptHandle: fc.constantFrom("garbage", Buffer.from(`r1 5 ${"0".repeat(26)} ${names[0]}`).toString("base64url")),
  NextToken: fc.constantFrom(Buffer.from(names[0] ?? "").toString("base64url"), "!", ""),
  TaskHandle: fc.constantFrom("x", Buffer.from('{"taskId":"\\u0000","sourceArn":"a"}').toString("base64")),
};
const value_of_attribute = fc.oneof(
  fc.constantFrom("0", "30", "1024", "99999999", "true", "false", "", "{}"),
  fc.constantFrom(...arns.map((arn) => JSON.stringify({ deadLetterTargetArn: arn, maxReceiveCount: 1 }))),
  text,
);

function arbitraryOf(shape: Shape, name = ""): fc.Arbitrary<unknown> {
  const own = likely[name];
  if (own !== undefined) return fc.oneof({ weight: 9, arbitrary: own }, { weight: 1, arbitrary: text });
  switch (shape.kind) {
    case "text":
      return fc.oneof(text, fc.constantFrom(...attribute_names, "111111111111", "ReceiveMessage"));
    case "blob":
      return fc.constantFrom("AAEC", "", "!");
    case "integer":
      return fc.oneof(fc.integer({ min: -2, max: 1001 }), fc.constantFrom(2 ** 40, -(2 ** 40)));
    case "list":
      return fc.array(arbitraryOf(shape.of), { maxLength: 12 });
    case "map":
      return fc.dictionary(
        fc.oneof(fc.constantFrom(...attribute_names, "a", "b"), text),
        shape.of.kind === "text" ? value_of_attribute : arbitraryOf(shape.of),
        { maxKeys: 4 },
      );
    case "members": {
      const members = Object.entries(shape.members).map(([member, inner]) => [member, arbitraryOf(inner, member)]);
      return fc.record(Object.fromEntries(members), {
        requiredKeys: Object.keys(shape.members).filter((member) => member === "QueueUrl") as never[],
      });
    }
  }
}

/** Something of another type in the place of a member. */
const broken = fc.constantFrom(null, 5, 1.5, true, [], {}, [[]], { a: { b: {} } }, "x");

/** Once in so many times, else null. */
const rarely = <T>(arbitrary: fc.Arbitrary<T>, times: number): fc.Arbitrary<T | null> =>
  fc.oneof({ weight: times - 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });

const request = fc.constantFrom(...Object.keys(inputs)).chain((action) =>
  fc.record({
    action: fc.constant(action),
    input: arbitraryOf(inputs[action as keyof typeof inputs]) as fc.Arbitrary<Json>,
    change: rarely(fc.record({ member: fc.nat({ max: 5 }), value: broken }), 6),
    noise: rarely(fc.string({ unit: "binary", maxLength: 30 }), 12),
  }),
);

async function send(protocol: Protocol, action: string, input: Json, noise: string | null): Promise<Response> {
  if (protocol === "query") {
    const body = toForm(action, input).toString() + (noise === null ? "" : `&${noise}`);
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return await fetch(`${sqs.origin}/`, { method: "POST", headers, body });
  }
  const text = JSON.stringify(input);
  const at = Math.floor(text.length / 2);
  const body = noise === null ? text : text.slice(0, at) + noise + text.slice(at);
  const headers = { "content-type": "application/x-amz-json-1.0", "x-amz-target": `AmazonSQS.${action}` };
  return await fetch(`${sqs.origin}/`, { method: "POST", headers, body });
}

function assertWellFormed(protocol: Protocol, text: string): void {
  if (protocol === "query") parseXml(text);
  else if (typeof JSON.parse(text) !== "object") throw new Error(`not an object: ${text}`);
}

describe.each(protocols)("%s", (protocol) => {
  test("whatever is asked, the answer is well-formed and no failure of the server", async () => {
    const statuses = new Set<number>();
    await prepare();
    await fc.assert(
      fc.asyncProperty(request, async ({ action, input, change, noise }) => {
        const members = Object.keys(input);
        const changed = change === null ? undefined : members[change.member % Math.max(1, members.length)];
        const given = changed === undefined ? input : { ...input, [changed]: change?.value };
        const response = await send(protocol, action, given, noise);
        const text = await response.text();
        statuses.add(response.status);
        if (response.status >= 500) throw new Error(`${response.status} ${text}`);
        assertWellFormed(protocol, text);
        // Where nothing is left hardly anything can succeed.
        if (action === "DeleteQueue" && response.ok) await prepare();
      }),
      { numRuns: runs / 2 },
    );
    expect([...statuses]).toContain(200);
    expect([...statuses]).toContain(400);
  }, 600_000);
});

describe.each([
  [
    "QueueUrl",
    "GetQueueAttributes",
    // Not "x": what came before may have made a queue of that name.
    { QueueUrl: `${"/".repeat(300_000)}nobody-made-this` },
    "AWS.SimpleQueueService.NonExistentQueue",
  ],
  [
    "number",
    "SendMessage",
    {
      QueueUrl: "pool-a",
      MessageBody: "x",
      MessageAttributes: { n: { DataType: "Number", StringValue: `${"1".repeat(300_000)}x` } },
    },
    "InvalidParameterValue",
  ],
])("a long %s that is none", (_, action, input, expected) => {
  test("is refused at once", async () => {
    await prepare();
    const started_ms = performance.now();
    const { status, code } = refusedAs(await callSqs(sqs.origin, "json", action, input));
    expect({ status, code }).toEqual({ status: 400, code: expected });
    expect(performance.now() - started_ms).toBeLessThan(1000);
  });
});
