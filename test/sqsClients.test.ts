// Clients of Amazon SQS, unmodified.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import {
  CancelMessageMoveTaskCommand,
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ListMessageMoveTasksCommand,
  type Message,
  QueueDoesNotExist,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
  SQS,
  StartMessageMoveTaskCommand,
} from "@aws-sdk/client-sqs";
import AWS from "aws-sdk";
import { Consumer } from "sqs-consumer";
import { Producer } from "sqs-producer";
import { Squiss } from "squiss-ts";
import { until } from "./harness.ts";
import { openSqs } from "./sqs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
afterAll(() => sqs.close());
const client = sqs.client();
const credentials = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret-of-example" };
const arn = (url: string) => `arn:aws:sqs:us-east-1:000000000000:${url.split("/").at(-1)}`;

/** How many messages are where. */
async function countsOf(QueueUrl: string): Promise<string[]> {
  const { Attributes = {} } = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
  return [Attributes.ApproximateNumberOfMessages ?? "", Attributes.ApproximateNumberOfMessagesNotVisible ?? ""];
}

describe("the SDK for JavaScript", () => {
  test("sends, receives, changes the visibility and deletes; it checks every MD5 itself", async () => {
    const { QueueUrl } = await client.send(new CreateQueueCommand({ QueueName: "sdk" }));
    expect(QueueUrl).toBe(`${sqs.origin}/000000000000/sdk`);
    const sent = await client.send(
      new SendMessageCommand({
        QueueUrl,
        MessageBody: "hello ünïcode 😀",
        MessageAttributes: {
          text: { DataType: "String", StringValue: "a" },
          number: { DataType: "Number.int", StringValue: "5" },
          bytes: { DataType: "Binary", BinaryValue: new Uint8Array([1, 2, 0, 255]) },
        },
      }),
    );
    const { Messages = [] } = await client.send(
      new ReceiveMessageCommand({
        QueueUrl,
        MessageAttributeNames: ["All"],
        MessageSystemAttributeNames: ["All"],
      }),
    );
    const [message] = Messages;
    expect(message).toEqual({
      MessageId: sent.MessageId,
      ReceiptHandle: expect.any(String),
      Body: "hello ünïcode 😀",
      MD5OfBody: sent.MD5OfMessageBody,
      MD5OfMessageAttributes: sent.MD5OfMessageAttributes,
      MessageAttributes: {
        text: { DataType: "String", StringValue: "a" },
        number: { DataType: "Number.int", StringValue: "5" },
        bytes: { DataType: "Binary", BinaryValue: new Uint8Array([1, 2, 0, 255]) },
      },
      Attributes: {
        SenderId: "AKIDEXAMPLE",
        SentTimestamp: expect.stringMatching(/^\d{13}$/),
        ApproximateFirstReceiveTimestamp: expect.stringMatching(/^\d{13}$/),
        ApproximateReceiveCount: "1",
      },
    } as never);
    const ReceiptHandle = message?.ReceiptHandle;
    await client.send(new ChangeMessageVisibilityCommand({ QueueUrl, ReceiptHandle, VisibilityTimeout: 0 }));
    const again = await client.send(new ReceiveMessageCommand({ QueueUrl }));
    expect(again.Messages?.[0]?.MessageId).toBe(sent.MessageId);
    await client.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle: again.Messages?.[0]?.ReceiptHandle }));
    const { Attributes } = await client.send(new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ["All"] }));
    expect(Attributes).toMatchObject({ ApproximateNumberOfMessages: "0", ApproximateNumberOfMessagesNotVisible: "0" });
  });

  test("sends and deletes batches", async () => {
    const QueueUrl = await sqs.queue();
    const Entries = Array.from({ length: 10 }, (_, i) => ({ Id: `e${i}`, MessageBody: `m${i}` }));
    const { Successful = [] } = await client.send(new SendMessageBatchCommand({ QueueUrl, Entries }));
    expect(Successful.map(({ Id }) => Id)).toEqual(Entries.map(({ Id }) => Id));
    const { Messages = [] } = await client.send(new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10 }));
    expect(Messages.map(({ Body }) => Body)).toEqual(Entries.map(({ MessageBody }) => MessageBody));
    const deleted = await client.send(
      new DeleteMessageBatchCommand({
        QueueUrl,
        Entries: Messages.map(({ ReceiptHandle }, i) => ({ Id: `d${i}`, ReceiptHandle })),
      }),
    );
    expect([deleted.Successful?.length, deleted.Failed]).toEqual([10, undefined]);
  });

  test("has a typed error for a queue that is not there", async () => {
    const QueueUrl = `${sqs.origin}/000000000000/missing`;
    const error = await client.send(new ReceiveMessageCommand({ QueueUrl })).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(QueueDoesNotExist);
    expect([error.name, error.Code, error.$metadata.httpStatusCode]).toEqual([
      "QueueDoesNotExist",
      "AWS.SimpleQueueService.NonExistentQueue",
      400,
    ]);
  });
});

describe("sqs-consumer and sqs-producer", () => {
  test("what a producer sends, a consumer handles, in batches, with long polls, until the queue is empty", async () => {
    const queueUrl = await sqs.queue();
    const producer = Producer.create({ queueUrl, sqs: client });
    const handled: string[] = [];
    const consumer = Consumer.create({
      queueUrl,
      sqs: client,
      batchSize: 10,
      waitTimeSeconds: 20,
      messageAttributeNames: ["All"],
      async handleMessageBatch(messages) {
        for (const { Body = "", MessageAttributes } of messages) {
          handled.push(`${Body}${MessageAttributes?.["n"]?.StringValue ?? ""}`);
        }
        return messages;
      },
    });
    const errors: unknown[] = [];
    consumer.on("error", (error) => errors.push(error));
    consumer.start();
    const bodies = Array.from({ length: 25 }, (_, i) => `m${i}`);
    const messageAttributes = { n: { DataType: "Number", StringValue: "7" } };
    expect(await producer.send(bodies.map((body) => ({ id: body, body, messageAttributes })))).toHaveLength(25);
    await until(() => handled.length === 25);
    expect(handled.sort()).toEqual(bodies.map((body) => `${body}7`).sort());
    await until(async () => (await countsOf(queueUrl)).join() === "0,0");
    expect(await producer.queueSize()).toBe(0);
    consumer.stop({ abort: true });
    await until(() => !consumer.status.isRunning);
    expect(errors).toEqual([]);
  });

  test("a heartbeat keeps a message hidden for as long as it is handled", async () => {
    const queueUrl = await sqs.queue({ VisibilityTimeout: "4" });
    let deliveries = 0;
    let beats = 0;
    const counting = sqs.client();
    counting.middlewareStack.add(
      (next, context) => async (given) => {
        const answer = await next(given);
        // Not before: it would race the delete that ends the handling.
        if (context.commandName === "ChangeMessageVisibilityCommand") beats += 1;
        return answer;
      },
      { step: "initialize", name: "count" },
    );
    const consumer = Consumer.create({
      queueUrl,
      sqs: counting,
      visibilityTimeout: 4,
      heartbeatInterval: 1,
      async handleMessage(message) {
        deliveries += 1;
        await until(() => beats >= 5);
        return message;
      },
    });
    consumer.start();
    await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: "slow" }));
    await until(async () => beats >= 5 && (await countsOf(queueUrl)).join() === "0,0");
    consumer.stop({ abort: true });
    expect(deliveries).toBe(1);
  });

  test("a failed message is shown again at once, and is dead after its deliveries; a move brings it back", async () => {
    const dead = await sqs.queue();
    const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: arn(dead), maxReceiveCount: 2 });
    const queueUrl = await sqs.queue({ RedrivePolicy });
    let failures = 0;
    const consumer = Consumer.create({
      queueUrl,
      sqs: client,
      terminateVisibilityTimeout: true,
      async handleMessage() {
        failures += 1;
        throw new Error("not today");
      },
    });
    consumer.on("error", () => {});
    consumer.on("processing_error", () => {});
    consumer.start();
    await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: "poison" }));
    await until(async () => (await countsOf(dead))[0] === "1", 20_000);
    consumer.stop({ abort: true });
    await until(() => !consumer.status.isRunning);
    expect(failures).toBe(2);

    const { SourceArn, TaskHandle } = await startMove(dead);
    await sqs.service.broker.runTasks();
    const { Results = [] } = await client.send(new ListMessageMoveTasksCommand({ SourceArn }));
    expect(Results[0]).toMatchObject({ Status: "COMPLETED", SourceArn, ApproximateNumberOfMessagesMoved: 1 });
    // A poll of the consumer that has gone may take it first, and gives it back.
    await until(async () => (await countsOf(queueUrl)).join() === "1,0");
    expect(await countsOf(dead)).toEqual(["0", "0"]);
    const ended = await client.send(new CancelMessageMoveTaskCommand({ TaskHandle })).catch((error) => error);
    expect([ended.name, ended.$metadata.httpStatusCode]).toEqual(["ResourceNotFoundException", 404]);
  });

  test("what a consumer that aborts in the middle of a poll would have got goes to the next one", async () => {
    const queueUrl = await sqs.queue();
    const aborted = new AbortController();
    const waiting = client
      .send(new ReceiveMessageCommand({ QueueUrl: queueUrl, WaitTimeSeconds: 20 }), { abortSignal: aborted.signal })
      .catch((error) => error);
    await until(() => sqs.service.broker.wakeups.size() > 0);
    aborted.abort();
    expect((await waiting).name).toBe("AbortError");
    await client.send(new SendMessageCommand({ QueueUrl: queueUrl, MessageBody: "m" }));
    let message: Message | undefined;
    await until(async () => {
      const { Messages } = await client.send(
        new ReceiveMessageCommand({ QueueUrl: queueUrl, MessageSystemAttributeNames: ["ApproximateReceiveCount"] }),
      );
      message = Messages?.[0];
      return message !== undefined;
    });
    expect(message?.Attributes).toEqual({ ApproximateReceiveCount: "1" });
  });
});

async function startMove(dead: string) {
  const SourceArn = arn(dead);
  const { TaskHandle } = await client.send(new StartMessageMoveTaskCommand({ SourceArn }));
  const again = await client.send(new StartMessageMoveTaskCommand({ SourceArn })).catch((error) => error);
  expect(again.message).toBe(
    "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
  );
  return { SourceArn, TaskHandle };
}

test("squiss-ts makes its queue, sends, handles and deletes", async () => {
  const squiss = new Squiss({
    queueName: "squiss",
    bodyFormat: "json",
    maxInFlight: 10,
    receiveWaitTimeSecs: 1,
    deleteWaitMs: 10,
    autoExtendTimeout: true,
    visibilityTimeoutSecs: 30,
    SQS: new SQS({ endpoint: sqs.origin, region: "us-east-1", credentials }),
  });
  const queueUrl = await squiss.createQueue();
  const handled: unknown[] = [];
  squiss.on("message", (message) => {
    handled.push(message.body);
    message.del();
  });
  await squiss.sendMessages([{ n: 1 }, { n: 2 }], 0, [{ kind: "a" }, { kind: "b" }]);
  await squiss.start();
  await until(async () => handled.length === 2 && (await countsOf(queueUrl)).join() === "0,0");
  expect(handled).toEqual([{ n: 1 }, { n: 2 }]);
  await squiss.stop(false, 1000);
  await squiss.deleteQueue();
  await expect(squiss.getQueueVisibilityTimeout()).rejects.toThrow("The specified queue does not exist.");
});

test("the SDK of version 2 as it was while it spoke the query protocol", async () => {
  const old = new AWS.SQS({ endpoint: sqs.origin, region: "us-east-1", credentials, maxRetries: 0 });
  const { QueueUrl = "" } = await old
    .createQueue({ QueueName: "old", Attributes: { VisibilityTimeout: "20" }, tags: { team: "a&b", empty: "" } })
    .promise();
  expect((await old.listQueueTags({ QueueUrl }).promise()).Tags).toEqual({ team: "a&b", empty: "" });
  const body = "<xml> & \"quotes\" 'single' \r\n\t ]]> 😀";
  const MessageAttributes = {
    text: { DataType: "String", StringValue: "<a>&b" },
    bytes: { DataType: "Binary", BinaryValue: Buffer.from([0, 1, 255]) },
  };
  const sent = await old.sendMessage({ QueueUrl, MessageBody: body, MessageAttributes }).promise();
  const { Messages = [] } = await old
    .receiveMessage({ QueueUrl, MessageAttributeNames: ["All"], AttributeNames: ["All"], WaitTimeSeconds: 1 })
    .promise();
  const { ReceiptHandle = "", ...message } = Messages[0] ?? {};
  expect(message).toMatchObject({
    MessageId: sent.MessageId,
    Body: body,
    MD5OfBody: sent.MD5OfMessageBody,
    MD5OfMessageAttributes: sent.MD5OfMessageAttributes,
    MessageAttributes,
    Attributes: { SenderId: "AKIDEXAMPLE", ApproximateReceiveCount: "1" },
  } as never);
  const Entries = [{ Id: "a", ReceiptHandle, VisibilityTimeout: 0 }];
  expect((await old.changeMessageVisibilityBatch({ QueueUrl, Entries }).promise()).Successful).toEqual([{ Id: "a" }]);
  const deleted = await old
    .deleteMessageBatch({
      QueueUrl,
      Entries: [
        { Id: "a", ReceiptHandle },
        { Id: "b", ReceiptHandle: "garbage" },
      ],
    })
    .promise();
  expect(deleted).toMatchObject({
    Successful: [{ Id: "a" }],
    Failed: [{ Id: "b", Code: "ReceiptHandleIsInvalid", SenderFault: true }],
  });
  expect((await old.receiveMessage({ QueueUrl }).promise()).Messages).toBeUndefined();
  expect((await old.listQueues({ QueueNamePrefix: "ol" }).promise()).QueueUrls).toEqual([QueueUrl]);
  const error = await old
    .getQueueUrl({ QueueName: "missing" })
    .promise()
    .catch((thrown) => thrown);
  expect([error.code, error.statusCode]).toEqual(["AWS.SimpleQueueService.NonExistentQueue", 400]);
});
