// Clients of Amazon SQS, unmodified.

import { afterAll, describe, expect, test } from "bun:test";
import {
  ChangeMessageVisibilityCommand,
  CreateQueueCommand,
  DeleteMessageBatchCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  QueueDoesNotExist,
  ReceiveMessageCommand,
  SendMessageBatchCommand,
  SendMessageCommand,
} from "@aws-sdk/client-sqs";
import { openSqs } from "./sqs.ts";

const sqs = await openSqs();
afterAll(() => sqs.close());
const client = sqs.client();

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
