// Every row of the table of errors and of the table of receipt handles, on both protocols.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { openSqs, protocols, refusedAs, resultOf, type SqsAnswer } from "./sqs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
afterAll(() => sqs.close());

type Json = Record<string, unknown>;
type Case = {
  title: string;
  action: string;
  /** Of a queue of its own. */
  input: (url: string) => Json;
  attributes?: Record<string, string>;
  code: string;
  message: string | ((url: string) => string);
  status?: number;
};

const prefix = "AWS.SimpleQueueService";
const name = (url: string) => url.split("/").at(-1) ?? "";
const arn = (queue: string) => `arn:aws:sqs:us-east-1:000000000000:${queue}`;
const send = (own: Json) => (QueueUrl: string) => ({ QueueUrl, MessageBody: "m", ...own });
const attribute = (own: Json, key = "a") => send({ MessageAttributes: { [key]: own } });
const entries = (list: Json[]) => (QueueUrl: string) => ({ QueueUrl, Entries: list });
const receive = (own: Json) => (QueueUrl: string) => ({ QueueUrl, ...own });
const created = (Attributes: Json) => (url: string) => ({ QueueName: `${name(url)}-new`, Attributes });
const set = (Attributes: Json) => (QueueUrl: string) => ({ QueueUrl, Attributes });
const large = "x".repeat(1_048_576);
const value = (given: unknown, parameter: string, reason: string) =>
  `Value ${given} for parameter ${parameter} is invalid. Reason: ${reason}`;
const group_rule = "can only include alphanumeric and punctuation characters. 1 to 128 in length.";
const id_rule =
  "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.";

const parameter = "InvalidParameterValue";
const attribute_value = "InvalidAttributeValue";
const range = (own: string, min: number, max: number) =>
  `Invalid value for the parameter ${own}. Reason: Must be an integer from ${min} to ${max}.`;
const policy = (text: string, reason: string) => value(text, "RedrivePolicy", reason);

const messages: Case[] = [
  {
    title: "no body",
    action: "SendMessage",
    input: (QueueUrl) => ({ QueueUrl }),
    code: "MissingParameter",
    message: "The request must contain the parameter MessageBody.",
  },
  {
    title: "an empty body",
    action: "SendMessage",
    input: send({ MessageBody: "" }),
    code: "MissingParameter",
    message: "The request must contain the parameter MessageBody.",
  },
  {
    title: "characters that XML does not have",
    action: "SendMessage",
    input: send({ MessageBody: "a\u0001b" }),
    code: "InvalidMessageContents",
    message:
      "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | " +
      "#x10000 to #x10FFFF.",
  },
  {
    title: "a body that is too large",
    action: "SendMessage",
    input: send({ MessageBody: `${large}x` }),
    code: parameter,
    message: "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
  },
  {
    title: "a body that is too large for the queue, attributes counted",
    action: "SendMessage",
    attributes: { MaximumMessageSize: "1024" },
    input: send({
      MessageBody: "x".repeat(1024 - 7),
      MessageAttributes: { k: { DataType: "String", StringValue: "xx" } },
    }),
    code: parameter,
    message: "One or more parameters are invalid. Reason: Message must be shorter than 1024 bytes.",
  },
  {
    title: "an empty attribute",
    action: "SendMessage",
    input: attribute({ DataType: "String", StringValue: "" }),
    code: parameter,
    message: "Message (user) attribute 'a' must contain a non-empty value of type 'String'.",
  },
  {
    title: "an attribute without a type",
    action: "SendMessage",
    input: attribute({ StringValue: "x" }),
    code: parameter,
    message: "The message attribute 'a' must contain non-empty message attribute type.",
  },
  {
    title: "an attribute of an unknown type",
    action: "SendMessage",
    input: attribute({ DataType: "Text", StringValue: "x" }),
    code: parameter,
    message:
      "The message attribute 'a' has an invalid message attribute type, the set of supported type prefixes is Binary, " +
      "Number, and String.",
  },
  {
    title: "a number that is none",
    action: "SendMessage",
    input: attribute({ DataType: "Number", StringValue: "x" }),
    code: parameter,
    message: "Can't cast the value of message (user) attribute 'a' to a number.",
  },
  {
    title: "eleven attributes",
    action: "SendMessage",
    input: send({
      MessageAttributes: Object.fromEntries(
        Array.from({ length: 11 }, (_, i) => [`a${i}`, { DataType: "String", StringValue: "x" }]),
      ),
    }),
    code: parameter,
    message: "Number of message attributes [11] exceeds the allowed maximum [10].",
  },
  {
    title: "a delay of more than 15 minutes",
    action: "SendMessage",
    input: send({ DelaySeconds: 901 }),
    code: parameter,
    message: value(901, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900."),
  },
  ...["", "a".repeat(129), "group 123"].map((given) => ({
    title: `the group ${JSON.stringify(given.slice(0, 12))}`,
    action: "SendMessage",
    input: send({ MessageGroupId: given }),
    code: parameter,
    message: value(given, "MessageGroupId", `MessageGroupId ${group_rule}`),
  })),
  ...["", "a".repeat(129), "group 123"].map((given) => ({
    title: `the deduplication id ${JSON.stringify(given.slice(0, 12))}`,
    action: "SendMessage",
    input: send({ MessageDeduplicationId: given }),
    code: parameter,
    message: value(given, "MessageDeduplicationId", `MessageDeduplicationId ${group_rule}`),
  })),
];

const receives: Case[] = [
  ...[-1, 21].map((given) => ({
    title: `a wait of ${given} seconds`,
    action: "ReceiveMessage",
    input: receive({ WaitTimeSeconds: given }),
    code: parameter,
    message: value(given, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided."),
  })),
  ...[0, 11].map((given) => ({
    title: `${given} messages at once`,
    action: "ReceiveMessage",
    input: receive({ MaxNumberOfMessages: given }),
    code: parameter,
    message: value(given, "MaxNumberOfMessages", "Must be between 1 and 10, if provided."),
  })),
  {
    title: "a visibility of more than 12 hours",
    action: "ReceiveMessage",
    input: receive({ VisibilityTimeout: 43_201 }),
    code: parameter,
    message: value(43_201, "VisibilityTimeout", "Must be between 0 and 43200, if provided."),
  },
  {
    title: "an attribute of messages that there is not",
    action: "ReceiveMessage",
    input: receive({ AttributeNames: ["Foo"] }),
    code: "InvalidAttributeName",
    message: "Unknown Attribute Foo.",
  },
];

const queues: Case[] = [
  {
    title: "a queue with other attributes",
    action: "CreateQueue",
    attributes: { DelaySeconds: "1" },
    input: (url) => ({ QueueName: name(url), Attributes: { DelaySeconds: "2" } }),
    code: "QueueAlreadyExists",
    message: "A queue already exists with the same name and a different value for attribute DelaySeconds",
  },
  ...["", "a b", "a.b", "x".repeat(81), "q.fifo"].map((given) => ({
    title: `the name ${JSON.stringify(given.slice(0, 9))}`,
    action: "CreateQueue",
    input: () => ({ QueueName: given }),
    code: parameter,
    message: "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
  })),
  {
    title: "a FIFO queue with the name of another one",
    action: "CreateQueue",
    input: created({ FifoQueue: "true" }),
    code: parameter,
    message:
      "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo " +
      "suffix and be 1 to 80 in length.",
  },
  ...["FifoQueue", "ContentBasedDeduplication"].flatMap((own) =>
    [
      { action: "CreateQueue", input: created({ [own]: "false" }) },
      { action: "SetQueueAttributes", input: set({ [own]: "false" }) },
    ].map((given) => ({
      ...given,
      title: `${own} on a standard queue (${given.action})`,
      code: "InvalidAttributeName",
      message: `Unknown Attribute ${own}.`,
    })),
  ),
  ...[
    ["DeduplicationScope", "queue"],
    ["FifoThroughputLimit", "perQueue"],
  ].map(([own = "", given = ""]) => ({
    title: `${own} on a standard queue`,
    action: "CreateQueue",
    input: created({ [own]: given }),
    code: "InvalidAttributeName",
    message: `You can specify the ${own} only when FifoQueue is set to true.`,
  })),
  ...["CreateQueue", "SetQueueAttributes"].map((action) => ({
    title: `an attribute that there is not (${action})`,
    action,
    input: action === "CreateQueue" ? created({ Foo: "1" }) : set({ Foo: "1" }),
    code: "InvalidAttributeName",
    message: "Unknown Attribute Foo.",
  })),
  {
    title: "an attribute that there is not (GetQueueAttributes)",
    action: "GetQueueAttributes",
    input: (QueueUrl) => ({ QueueUrl, AttributeNames: ["Foobar"] }),
    code: "InvalidAttributeName",
    message: "Unknown Attribute Foobar.",
  },
  ...(
    [
      ["VisibilityTimeout", 0, 43_200],
      ["MessageRetentionPeriod", 60, 1_209_600],
      ["DelaySeconds", 0, 900],
      ["MaximumMessageSize", 1024, 1_048_576],
      ["ReceiveMessageWaitTimeSeconds", 0, 20],
      ["KmsDataKeyReusePeriodSeconds", 60, 86_400],
    ] as const
  ).flatMap(([own, min, max]) =>
    [String(min - 1), String(max + 1), "x", ""].map((given) => ({
      title: `${own} ${JSON.stringify(given)}`,
      action: "SetQueueAttributes",
      input: set({ [own]: given }),
      code: attribute_value,
      message: range(own, min, max),
    })),
  ),
  {
    title: "two kinds of encryption",
    action: "SetQueueAttributes",
    input: set({ KmsMasterKeyId: "key", SqsManagedSseEnabled: "true" }),
    code: "InvalidAttributeName",
    message:
      "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
  },
  ...(
    [
      ["x", "Redrive policy is not a valid JSON map."],
      ["{}", "Redrive policy does not contain mandatory attribute: deadLetterTargetArn."],
      [
        JSON.stringify({ deadLetterTargetArn: arn("missing"), maxReceiveCount: 0 }),
        "Invalid value for maxReceiveCount: 0, valid values are from 1 to 1000 both inclusive.",
      ],
      [
        JSON.stringify({ deadLetterTargetArn: arn("missing"), maxReceiveCount: "2" }),
        "Dead letter target does not exist.",
      ],
      [JSON.stringify({ deadLetterTargetArn: "dummy" }), "Invalid value for deadLetterTargetArn."],
      [
        JSON.stringify({ deadLetterTargetArn: arn("other.fifo") }),
        "Dead-letter queue must be same type of queue as the source.",
      ],
    ] as const
  ).map(([text, reason]) => ({
    title: `the RedrivePolicy ${text.slice(0, 40)}: ${reason.slice(0, 30)}`,
    action: "SetQueueAttributes",
    input: set({ RedrivePolicy: text }),
    code: parameter,
    message: policy(text, reason),
  })),
  {
    title: "a permission that is not there",
    action: "RemovePermission",
    input: (QueueUrl) => ({ QueueUrl, Label: "nobody" }),
    code: parameter,
    message: value("nobody", "Label", "can't find label."),
  },
  {
    title: "a page of no queues",
    action: "ListQueues",
    input: () => ({ MaxResults: 0 }),
    code: parameter,
    message: value(0, "MaxResults", "Must be between 1 and 1000, if provided."),
  },
  {
    title: "51 tags",
    action: "TagQueue",
    input: (QueueUrl) => ({ QueueUrl, Tags: Object.fromEntries(Array.from({ length: 51 }, (_, i) => [`t${i}`, "x"])) }),
    code: parameter,
    message: (url) => `Too many tags added for queue ${name(url)}.`,
  },
];

const twenty = (own: Json) => Array.from({ length: 20 }, (_, i) => ({ Id: `e${i}`, ...own }));

const batches: Case[] = (
  [
    ["SendMessage", { MessageBody: "m" }],
    ["DeleteMessage", { ReceiptHandle: "garbage" }],
    ["ChangeMessageVisibility", { ReceiptHandle: "garbage", VisibilityTimeout: 1 }],
  ] as [string, Json][]
).flatMap(([kind, own]) => [
  {
    title: `an empty ${kind}Batch`,
    action: `${kind}Batch`,
    input: entries([]),
    code: `${prefix}.EmptyBatchRequest`,
    message: `There should be at least one ${kind}BatchRequestEntry in the request.`,
  },
  {
    title: `a ${kind}Batch of twenty`,
    action: `${kind}Batch`,
    input: entries(twenty(own)),
    code: `${prefix}.TooManyEntriesInBatchRequest`,
    message: "Maximum number of entries per request are 10. You have sent 20.",
  },
  {
    title: `a ${kind}Batch with an id twice`,
    action: `${kind}Batch`,
    input: entries([
      { Id: "a", ...own },
      { Id: "a", ...own },
    ]),
    code: `${prefix}.BatchEntryIdsNotDistinct`,
    message: "Id a repeated.",
  },
  ...["", "x".repeat(81), "a:b"].map((Id) => ({
    title: `a ${kind}Batch with the id ${JSON.stringify(Id.slice(0, 5))}`,
    action: `${kind}Batch`,
    input: entries([{ Id, ...own }]),
    code: `${prefix}.InvalidBatchEntryId`,
    message: id_rule,
  })),
]);

const others: Case[] = [
  {
    title: "a batch that is too long",
    action: "SendMessageBatch",
    input: entries([
      { Id: "1", MessageBody: large },
      { Id: "2", MessageBody: "a" },
    ]),
    code: `${prefix}.BatchRequestTooLong`,
    message: "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.",
  },
  ...["DeleteMessage", "ChangeMessageVisibility"].flatMap((action) => [
    {
      title: `a garbage handle (${action})`,
      action,
      input: (QueueUrl: string) => ({ QueueUrl, ReceiptHandle: "garbage", VisibilityTimeout: 1 }),
      code: "ReceiptHandleIsInvalid",
      message: 'The input receipt handle "garbage" is not a valid receipt handle.',
      status: 404,
    },
    {
      title: `no handle (${action})`,
      action,
      input: (QueueUrl: string) => ({ QueueUrl, VisibilityTimeout: 1 }),
      code: "MissingParameter",
      message: "The request must contain the parameter ReceiptHandle.",
    },
  ]),
  {
    title: "a source of a move task that there is not",
    action: "StartMessageMoveTask",
    input: () => ({ SourceArn: arn("missing") }),
    code: "ResourceNotFoundException",
    message: "The resource that you specified for the SourceArn parameter doesn't exist.",
    status: 404,
  },
  {
    title: "a destination that there is not",
    action: "StartMessageMoveTask",
    input: (url) => ({ SourceArn: arn(name(url)), DestinationArn: arn("missing") }),
    code: "ResourceNotFoundException",
    message: "The resource that you specified for the DestinationArn parameter doesn't exist.",
    status: 404,
  },
  {
    title: "a source that is nobody's dead-letter queue",
    action: "StartMessageMoveTask",
    input: (url) => ({ SourceArn: arn(name(url)) }),
    code: parameter,
    message: "Source queue must be configured as a Dead Letter Queue.",
  },
  {
    title: "a handle of a task that is none",
    action: "CancelMessageMoveTask",
    input: () => ({ TaskHandle: "foobared" }),
    code: parameter,
    message: "Value for parameter TaskHandle is invalid.",
  },
  {
    title: "a task that there is not",
    action: "CancelMessageMoveTask",
    input: (url) => ({
      TaskHandle: Buffer.from(JSON.stringify({ taskId: "none", sourceArn: arn(name(url)) })).toString("base64"),
    }),
    code: "ResourceNotFoundException",
    message: "Task does not exist.",
    status: 404,
  },
  {
    title: "no queue at all",
    action: "ReceiveMessage",
    input: () => ({}),
    code: "MissingParameter",
    message: "The request must contain the parameter QueueUrl.",
  },
];

for (const protocol of protocols) {
  describe(protocol, () => {
    for (const own of [...messages, ...receives, ...queues, ...batches, ...others]) {
      test(`${own.action}: ${own.title}`, async () => {
        const url = await sqs.queue(own.attributes);
        const { message } = own;
        expect(refusedAs(await sqs.call(protocol, own.action, own.input(url)))).toEqual({
          // The model gives an invalid handle another status in the query protocol.
          status: own.code === "ReceiptHandleIsInvalid" && protocol === "json" ? 400 : (own.status ?? 400),
          code: own.code,
          message: typeof message === "string" ? message : message(url),
        });
      });
    }

    test("every action on a queue that there is not", async () => {
      const QueueUrl = `${sqs.origin}/000000000000/missing`;
      const actions: [string, Json][] = [
        ["GetQueueAttributes", {}],
        ["SetQueueAttributes", { Attributes: { DelaySeconds: "1" } }],
        ["DeleteQueue", {}],
        ["PurgeQueue", {}],
        ["SendMessage", { MessageBody: "m" }],
        ["SendMessageBatch", { Entries: [{ Id: "a", MessageBody: "m" }] }],
        ["ReceiveMessage", {}],
        ["DeleteMessage", { ReceiptHandle: "x" }],
        ["DeleteMessageBatch", { Entries: [{ Id: "a", ReceiptHandle: "x" }] }],
        ["ChangeMessageVisibility", { ReceiptHandle: "x", VisibilityTimeout: 1 }],
        ["ChangeMessageVisibilityBatch", { Entries: [{ Id: "a", ReceiptHandle: "x", VisibilityTimeout: 1 }] }],
        ["TagQueue", { Tags: { a: "b" } }],
        ["UntagQueue", { TagKeys: ["a"] }],
        ["ListQueueTags", {}],
        ["ListDeadLetterSourceQueues", {}],
        ["AddPermission", { Label: "a", AWSAccountIds: ["111111111111"], Actions: ["SendMessage"] }],
        ["RemovePermission", { Label: "a" }],
        ["GetQueueUrl", { QueueName: "missing" }],
      ];
      const message = `The specified queue does not exist${protocol === "query" ? " for this wsdl version" : ""}.`;
      for (const [action, input] of actions) {
        const answer = await sqs.call(protocol, action, { QueueUrl, ...input });
        expect({ action, ...refusedAs(answer) }).toEqual({
          action,
          status: 400,
          code: `${prefix}.NonExistentQueue`,
          message,
        });
      }
    });

    test("an action that there is not", async () => {
      const answer = await sqs.call(protocol, "FooBar");
      if (protocol === "json") expect(answer.body.__type).toBe("com.amazonaws.sqs#UnknownOperationException");
      else {
        expect(refusedAs(answer)).toEqual({
          status: 400,
          code: "InvalidAction",
          message: "The action FooBar is not valid for this endpoint.",
        });
      }
    });

    test("a label that is taken, and the same label again when it is free", async () => {
      const QueueUrl = await sqs.queue();
      const permission = { QueueUrl, Label: "l", AWSAccountIds: ["111111111111"], Actions: ["SendMessage"] };
      const add = () => sqs.call(protocol, "AddPermission", permission);
      expect((await add()).status).toBe(200);
      expect(refusedAs(await add())).toEqual({
        status: 400,
        code: parameter,
        message: value("l", "Label", "Already exists."),
      });
      await sqs.call(protocol, "RemovePermission", { QueueUrl, Label: "l" });
      expect((await add()).status).toBe(200);
    });

    test("a policy whose statements are none, and a label beside one that was stored once", async () => {
      const QueueUrl = await sqs.queue();
      for (const policy of ['{"Statement":[null,5]}', '{"Statement":5}', '{"Statement":[[{}]]}']) {
        const answer = await sqs.call(protocol, "SetQueueAttributes", { QueueUrl, Attributes: { Policy: policy } });
        expect(refusedAs(answer)).toEqual({
          status: 400,
          code: parameter,
          message: value(policy, "Policy", "Statement must be a JSON map, or a list of them."),
        });
      }
      await sqs.service.broker.changeExtras(QueueUrl.split("/").at(-1) ?? "", { Policy: '{"Statement":[null,5]}' });
      const permission = { QueueUrl, Label: "l", AWSAccountIds: ["111111111111"], Actions: ["SendMessage"] };
      expect((await sqs.call(protocol, "AddPermission", permission)).status).toBe(200);
      expect((await sqs.call(protocol, "RemovePermission", { QueueUrl, Label: "l" })).status).toBe(200);
    });

    test("one entry of a batch that is too large fails alone", async () => {
      const QueueUrl = await sqs.queue({ MaximumMessageSize: "1024" });
      const Entries = [
        { Id: "fits", MessageBody: "x".repeat(1024) },
        { Id: "large", MessageBody: "x".repeat(1025) },
        { Id: "illegal", MessageBody: "\u0001" },
      ];
      const answer = await sqs.call(protocol, "SendMessageBatch", { QueueUrl, Entries });
      const result = resultOf(answer, "SendMessageBatch");
      const [sent, failed] =
        protocol === "json"
          ? [result.Successful, result.Failed]
          : [[result.SendMessageBatchResultEntry], result.BatchResultErrorEntry];
      expect(sent.map(({ Id }: Json) => Id)).toEqual(["fits"]);
      expect(failed.map(({ Id, Code, SenderFault }: Json) => [Id, Code, String(SenderFault)])).toEqual([
        ["large", parameter, "true"],
        ["illegal", "InvalidMessageContents", "true"],
      ]);
      expect(failed[0].Message).toBe(
        "One or more parameters cannot be validated. Reason: Message must be shorter than 1024 bytes.",
      );
    });

    test("as many messages in flight as a queue may have", async () => {
      const QueueUrl = await sqs.queue();
      const { sql } = sqs.service;
      await sql`
        insert into psqlqueue.messages (
          queue_no, id, body, visible_at, expires_at, created_at, lease_token, leased_at, lease_expires_at, delivery_attempts)
        select queue.no, n::text, 'm', now() + interval '1 hour', now() + interval '1 day', now(), n, now(),
          now() + interval '1 hour', 1
        from psqlqueue.queues as queue, generate_series(1, 125000) as n
        where queue.id = ${name(QueueUrl)}`;
      await sql`analyze psqlqueue.messages`;
      expect(refusedAs(await sqs.call(protocol, "ReceiveMessage", { QueueUrl }))).toEqual({
        status: 403,
        code: "OverLimit",
        message: "120000 messages of the queue are in flight; delete some, or let their visibility timeouts pass.",
      });
      await sqs.call(protocol, "DeleteQueue", { QueueUrl });
    });

    test("options: one purge a minute, and a name that rests for a minute", async () => {
      const limited = await openSqs({ PSQLQUEUE_SQS_PURGE_LIMIT: "on", PSQLQUEUE_SQS_NAME_LIMIT: "on" });
      const QueueUrl = await limited.queue({}, "limited");
      expect((await limited.call(protocol, "PurgeQueue", { QueueUrl })).status).toBe(200);
      expect(refusedAs(await limited.call(protocol, "PurgeQueue", { QueueUrl }))).toEqual({
        status: 403,
        code: `${prefix}.PurgeQueueInProgress`,
        message: "Only one PurgeQueue operation on limited is allowed every 60 seconds.",
      });
      expect((await limited.call(protocol, "DeleteQueue", { QueueUrl })).status).toBe(200);
      expect(refusedAs(await limited.call(protocol, "CreateQueue", { QueueName: "limited" }))).toEqual({
        status: 400,
        code: `${prefix}.QueueDeletedRecently`,
        message: "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
      });
      await limited.close();
    });
  });
}

test("the JSON protocol says in its header what the query protocol calls it", async () => {
  const { headers, body, status }: SqsAnswer = await sqs.call("json", "ReceiveMessage", { QueueUrl: "missing" });
  expect([status, headers.get("x-amzn-query-error"), body]).toEqual([
    400,
    "AWS.SimpleQueueService.NonExistentQueue;Sender",
    { __type: "com.amazonaws.sqs#QueueDoesNotExist", message: "The specified queue does not exist." },
  ]);
  expect(headers.get("content-type")).toBe("application/x-amz-json-1.0");
  expect(headers.get("x-amzn-requestid")).toMatch(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/);
});
