// v1 and SQS see the same queues and messages, both ways, and share a port.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { md5OfAttributes } from "../src/sqs/messages.ts";
import { uniqueId } from "./harness.ts";
import { openSqs, resultOf } from "./sqs.ts";
import { verbsOf } from "./verbs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
afterAll(() => sqs.close());
const { service, call } = sqs;
const verbs = verbsOf(service);
const name = (url: string) => url.split("/").at(-1) ?? "";
const json = async (action: string, input: Record<string, unknown>) => (await call("json", action, input)).body;

describe("queues", () => {
  test("one that SQS makes is v1's, with every attribute where v1 has a setting", async () => {
    const dead = await sqs.queue();
    const queue = name(
      await sqs.queue({
        VisibilityTimeout: "0",
        MessageRetentionPeriod: "60",
        DelaySeconds: "5",
        MaximumMessageSize: "2048",
        ReceiveMessageWaitTimeSeconds: "3",
        RedrivePolicy: JSON.stringify({
          deadLetterTargetArn: `arn:aws:sqs:us-east-1:000000000000:${name(dead)}`,
          maxReceiveCount: "4",
        }),
      }),
    );
    const { body } = await service.call("GET", `/v1/queues/${queue}`);
    expect(body).toMatchObject({
      id: queue,
      ack_deadline_seconds: 0,
      message_retention_seconds: 60,
      delivery_delay_seconds: 5,
      max_message_bytes: 2048,
      receive_wait_seconds: 3,
      dead_queue_id: name(dead),
      message_max_deliveries: 4,
    });
    expect(Object.keys(body)).not.toContain("extras");
  });

  test("one that v1 makes is SQS's, also with a name and settings that SQS does not have", async () => {
    const id = `${uniqueId()}.with.dots`;
    const settings = { id, ack_deadline_seconds: 100_000, message_retention_seconds: 5, delivery_delay_seconds: 2000 };
    await service.call("POST", "/v1/queues", settings);
    const QueueUrl = (await json("GetQueueUrl", { QueueName: id })).QueueUrl;
    expect(QueueUrl).toBe(`${sqs.origin}/000000000000/${id}`);
    expect((await json("GetQueueAttributes", { QueueUrl, AttributeNames: ["All"] })).Attributes).toEqual({
      ApproximateNumberOfMessages: "0",
      ApproximateNumberOfMessagesNotVisible: "0",
      ApproximateNumberOfMessagesDelayed: "0",
      CreatedTimestamp: expect.stringMatching(/^\d{10}$/),
      LastModifiedTimestamp: expect.stringMatching(/^\d{10}$/),
      QueueArn: `arn:aws:sqs:us-east-1:000000000000:${id}`,
      VisibilityTimeout: "100000",
      MessageRetentionPeriod: "5",
      DelaySeconds: "2000",
      MaximumMessageSize: "1048576",
      ReceiveMessageWaitTimeSeconds: "0",
      SqsManagedSseEnabled: "true",
    });
  });

  test("a change by one edge leaves alone what only the other one knows", async () => {
    const QueueUrl = await sqs.queue({ Policy: "{}", KmsMasterKeyId: "key" });
    await verbs.update(name(QueueUrl), { retry_policy: { min_seconds: 7 } });
    await json("SetQueueAttributes", { QueueUrl, Attributes: { DelaySeconds: "1" } });
    const { body } = await service.call("GET", `/v1/queues/${name(QueueUrl)}`);
    expect([body.retry_policy.min_seconds, body.ack_deadline_seconds, body.delivery_delay_seconds]).toEqual([7, 30, 1]);
    const names = ["Policy", "KmsMasterKeyId", "SqsManagedSseEnabled"];
    expect((await json("GetQueueAttributes", { QueueUrl, AttributeNames: names })).Attributes).toEqual({
      Policy: "{}",
      KmsMasterKeyId: "key",
      SqsManagedSseEnabled: "false",
    });
  });
});

describe("messages", () => {
  test("one that SQS sends is received by v1, with its String attributes", async () => {
    const QueueUrl = await sqs.queue();
    const { MessageId } = await json("SendMessage", {
      QueueUrl,
      MessageBody: "from SQS",
      MessageAttributes: {
        s: { DataType: "String", StringValue: "text" },
        c: { DataType: "String.custom", StringValue: "own" },
        n: { DataType: "Number", StringValue: "5" },
        __proto__x: { DataType: "String", StringValue: "p" },
      },
    });
    const message = await verbs.take(name(QueueUrl));
    expect(message).toMatchObject({
      id: MessageId,
      body: "from SQS",
      label: null,
      attributes: { s: "text", c: "own", __proto__x: "p" },
    });
    expect((await verbs.ack(name(QueueUrl), message.id, message.lease_token)).status).toBe(204);
  });

  test("one that v1 publishes is received by SQS: attributes as String, the label when it is asked for", async () => {
    const QueueUrl = await sqs.queue();
    const id = await verbs.put(name(QueueUrl), { body: "from v1", label: "l", attributes: { a: "1", b: "2" } });
    const receive = async (MessageAttributeNames: string[]) =>
      (await json("ReceiveMessage", { QueueUrl, VisibilityTimeout: 0, MessageAttributeNames })).Messages[0];
    const text = (StringValue: string) => ({ DataType: "String", StringValue });
    expect(await receive(["All"])).toMatchObject({
      MessageId: id,
      Body: "from v1",
      MessageAttributes: { a: text("1"), b: text("2") },
    });
    expect((await receive(["psqlqueue.label", "b"])).MessageAttributes).toEqual({
      b: text("2"),
      "psqlqueue.label": text("l"),
    });
    const { ReceiptHandle } = await receive([]);
    expect(await json("DeleteMessage", { QueueUrl, ReceiptHandle })).toEqual({});
    expect((await verbs.look(name(QueueUrl), id)).body.state).toBe("acked");
  });

  test("attributes that v1 changes are those that SQS shows", async () => {
    const QueueUrl = await sqs.queue();
    const attributes = { a: { DataType: "String", StringValue: "1" }, n: { DataType: "Number", StringValue: "5" } };
    const { MessageId } = await json("SendMessage", { QueueUrl, MessageBody: "m", MessageAttributes: attributes });
    await verbs.change(name(QueueUrl), MessageId, { attributes: { a: "2" } });
    const { Messages } = await json("ReceiveMessage", { QueueUrl, MessageAttributeNames: [".*"] });
    expect(Messages[0].MessageAttributes).toEqual({ ...attributes, a: { DataType: "String", StringValue: "2" } });
  });

  test("the group of a message of a standard queue is its fairness key", async () => {
    const QueueUrl = await sqs.queue();
    const queue = name(QueueUrl);
    await verbs.update(queue, { fair_by: "fairness_key" });
    for (const MessageBody of ["a0", "a1", "a2"]) {
      await json("SendMessage", { QueueUrl, MessageBody, MessageGroupId: "a" });
    }
    const entry = { Id: "1", MessageBody: "b0", MessageGroupId: "b", DelaySeconds: 0 };
    const { Successful } = await json("SendMessageBatch", { QueueUrl, Entries: [entry] });
    expect((await verbs.look(queue, Successful[0].MessageId)).body.fairness_key).toBe("b");
    const asked = { QueueUrl, MaxNumberOfMessages: 2, MessageSystemAttributeNames: ["MessageGroupId"] };
    const { Messages } = await json("ReceiveMessage", asked);
    const groups = Messages.map((own: { Attributes: Record<string, string> }) => own.Attributes["MessageGroupId"]);
    expect(groups).toEqual(["a", "b"]);
    expect(await verbs.bodies(queue)).toEqual(["a1", "a2"]);
  });

  test("a long poll of one edge is woken by a publish of the other", async () => {
    const QueueUrl = await sqs.queue();
    const waiting = json("ReceiveMessage", { QueueUrl, WaitTimeSeconds: 20 });
    await verbs.put(name(QueueUrl), { body: "wake" });
    expect((await waiting).Messages[0].Body).toBe("wake");
    const other = verbs.receive(name(QueueUrl), "?wait_seconds=20");
    await json("SendMessage", { QueueUrl, MessageBody: "again" });
    expect((await other)[0]?.body).toBe("again");
  });

  test("dead letters: counted on, with where they come from, and moved back by either", async () => {
    const dead = await sqs.queue();
    const arn = (url: string) => `arn:aws:sqs:us-east-1:000000000000:${name(url)}`;
    const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: arn(dead), maxReceiveCount: 1 });
    const QueueUrl = await sqs.queue({ VisibilityTimeout: "0", RedrivePolicy });
    await json("SendMessage", {
      QueueUrl,
      MessageBody: "m",
      MessageAttributes: { n: { DataType: "Number", StringValue: "1" } },
      MessageSystemAttributes: { AWSTraceHeader: { DataType: "String", StringValue: "Root=1" } },
    });
    const all = { MessageAttributeNames: ["All"], MessageSystemAttributeNames: ["All"] };
    await json("ReceiveMessage", { QueueUrl });
    expect(await json("ReceiveMessage", { QueueUrl })).toEqual({});
    const { Messages } = await json("ReceiveMessage", { QueueUrl: dead, VisibilityTimeout: 0, ...all });
    expect(Messages[0]).toMatchObject({
      Body: "m",
      MessageAttributes: { n: { DataType: "Number", StringValue: "1" } },
      Attributes: { ApproximateReceiveCount: "2", AWSTraceHeader: "Root=1", DeadLetterQueueSourceArn: arn(QueueUrl) },
    });
    const { body } = await service.call("POST", `/v1/queues/${name(dead)}/redrive?wait=true`, { limit: 10 });
    expect(body).toEqual({ moved: 1 });
    const { Results } = await json("ListMessageMoveTasks", { SourceArn: arn(dead) });
    expect(Results).toEqual([
      {
        Status: "COMPLETED",
        SourceArn: arn(dead),
        ApproximateNumberOfMessagesMoved: 1,
        ApproximateNumberOfMessagesToMove: 1,
        StartedTimestamp: expect.any(Number),
      },
    ]);
  });
});

describe("one port", () => {
  const plain = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(sqs.origin + path, init);
    return { status: response.status, type: response.headers.get("content-type"), text: await response.text() };
  };
  const json_type = "application/json; charset=utf-8";

  test("what is no request for SQS is v1's, at / too", async () => {
    const unknown = { status: 404, type: json_type, text: '{"code":23,"message":"route not found"}' };
    expect(await plain("/", { method: "POST", body: "{}" })).toEqual(unknown);
    expect(await plain("/")).toEqual(unknown);
    expect(await plain("/", { method: "POST", body: new URLSearchParams({ a: "b" }) })).toEqual(unknown);
    expect(await plain("/queue/x")).toEqual(unknown);
    expect((await plain("/", { headers: { accept: "application/json" } })).text).toContain('"name":"psqlqueue"');
    expect((await plain("/v1/queues")).status).toBe(200);
  });

  test("the address of a queue serves it, by GET and POST, and names its queue", async () => {
    const path = new URL(await sqs.queue()).pathname;
    expect((await plain(`${path}?Action=SendMessage&MessageBody=hi`)).status).toBe(200);
    const own = await plain(`${path}/`, { method: "POST", body: new URLSearchParams({ Action: "ReceiveMessage" }) });
    expect(own.text).toContain("<Body>hi</Body>");
    expect(own.type).toBe("text/xml");
    expect((await plain(`/queue/${name(path)}?Action=ReceiveMessage`)).text).toContain("<ReceiveMessageResult/>");
    expect(await plain(path)).toEqual({ status: 404, type: "text/xml", text: "<UnknownOperationException/>" });
    expect((await plain(`${path}?Action=ListQueues`)).text).toContain(
      "<Code>InvalidAction</Code><Message>The action ListQueues is not valid for this endpoint.</Message>",
    );
    const other = await sqs.queue();
    const named = await plain(`${path}?Action=GetQueueAttributes&AttributeName=QueueArn&QueueUrl=${other}`);
    expect(named.text).toContain(name(other));
  });

  test("methods, pages of other sites and sizes are refused in the words of SQS", async () => {
    const path = new URL(await sqs.queue()).pathname;
    const put = await plain(path, { method: "PUT" });
    expect([put.status, put.type, put.text.includes("<Code>MethodNotAllowed</Code>")]).toEqual([405, "text/xml", true]);
    const foreign = await call("json", "ListQueues", {}, { origin: "https://evil.example" });
    expect([foreign.status, foreign.body.__type]).toEqual([403, "com.amazonaws.sqs#AccessDenied"]);
    const large = await call("json", "ListQueues", { a: "x".repeat(17_000_000) });
    expect([large.status, large.body.__type]).toEqual([413, "com.amazonaws.sqs#RequestEntityTooLarge"]);
  });

  test("off, it is as if it were not there", async () => {
    const off = await openSqs({ PSQLQUEUE_SQS: "off" });
    const answer = await off.call("json", "ListQueues");
    expect([answer.status, answer.body]).toEqual([404, { code: 23, message: "route not found" }]);
    await off.close();
  });
});

test("what XML cannot carry is shown with the sums of what is shown, and whole where it can be", async () => {
  const QueueUrl = await sqs.queue();
  const body = "a\u0001b\r😀";
  const attributes = { "n\u0002": "v\u0001", plain: "w" };
  expect((await service.call("POST", `/v1/queues/${name(QueueUrl)}/messages`, { body, attributes })).status).toBe(204);
  const input = { QueueUrl, VisibilityTimeout: 0, MessageAttributeNames: ["All"] };
  const md5 = (text: string) => new Bun.CryptoHasher("md5").update(text).digest("hex");
  const [whole] = (await json("ReceiveMessage", input)).Messages;
  expect({ body: whole.Body, md5: whole.MD5OfBody }).toEqual({ body, md5: md5(body) });
  expect(whole.MessageAttributes["n\u0002"].StringValue).toBe("v\u0001");

  const shown = resultOf(await call("query", "ReceiveMessage", input), "ReceiveMessage").Message;
  const carried = body.replace("\u0001", "\ufffd");
  expect({ body: shown.Body, md5: shown.MD5OfBody }).toEqual({ body: carried, md5: md5(carried) });
  const own = shown.MessageAttribute.map(
    ({ Name, Value }: { Name: string; Value: { DataType: string; StringValue: string } }) => [
      Name,
      { type: Value.DataType, value: Value.StringValue },
    ],
  );
  expect(own.map(([key]: [string]) => key).sort()).toEqual(["n\ufffd", "plain"]);
  expect(shown.MD5OfMessageAttributes).toBe(md5OfAttributes(Object.fromEntries(own)));
});
