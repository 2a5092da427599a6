// FIFO queues: message groups, deduplication, sequence numbers, on both protocols.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { uniqueId } from "./harness.ts";
import { openSqs, protocols, refusedAs, resultOf } from "./sqs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
afterAll(() => sqs.close());

type Json = Record<string, unknown>;
type Message = { Body: string; ReceiptHandle: string; MessageId: string; Attributes?: Json };

const parameter = "InvalidParameterValue";
const listOf = (own: unknown): unknown[] => (own === undefined ? [] : Array.isArray(own) ? own : [own]);
const mapOf = (own: unknown): Json =>
  Object.fromEntries(listOf(own).map((item) => [(item as Json)["Name"], (item as Json)["Value"]]));

for (const protocol of protocols) {
  describe(protocol, () => {
    async function fifo(attributes: Record<string, string> = {}) {
      const given = { FifoQueue: "true", ContentBasedDeduplication: "true", ...attributes };
      const QueueUrl = await sqs.queue(given, `${uniqueId()}.fifo`);
      const call = (action: string, input: Json = {}) => sqs.call(protocol, action, { QueueUrl, ...input });
      const done = async (action: string, input: Json = {}) => resultOf(await call(action, input), action);
      async function receive(MaxNumberOfMessages = 10, input: Json = {}): Promise<Message[]> {
        const result = await done("ReceiveMessage", { MaxNumberOfMessages, ...input });
        if (protocol === "json") return result.Messages ?? [];
        return listOf(result.Message).map((own) => {
          const { Attribute, ...message } = own as Json;
          return { ...message, ...(Attribute !== undefined && { Attributes: mapOf(Attribute) }) } as Message;
        });
      }
      return {
        QueueUrl,
        call,
        done,
        receive,
        bodies: async (...given: Parameters<typeof receive>) => (await receive(...given)).map(({ Body }) => Body),
        send: (group: string, body: string, input: Json = {}) =>
          done("SendMessage", { MessageGroupId: group, MessageBody: body, ...input }),
        remove: ({ ReceiptHandle }: Message) => call("DeleteMessage", { ReceiptHandle }),
        change: ({ ReceiptHandle }: Message, VisibilityTimeout: number) =>
          call("ChangeMessageVisibility", { ReceiptHandle, VisibilityTimeout }),
      };
    }

    test("it has the attributes of its type, and they can be changed", async () => {
      const { done } = await fifo();
      const names = ["FifoQueue", "ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit"];
      const shown = async () => {
        const result = await done("GetQueueAttributes", { AttributeNames: names });
        return protocol === "json" ? result.Attributes : mapOf(result.Attribute);
      };
      expect(await shown()).toEqual({
        FifoQueue: "true",
        ContentBasedDeduplication: "true",
        DeduplicationScope: "queue",
        FifoThroughputLimit: "perQueue",
      });
      const high = { DeduplicationScope: "messageGroup", FifoThroughputLimit: "perMessageGroupId" };
      await done("SetQueueAttributes", {
        Attributes: { FifoQueue: "true", ContentBasedDeduplication: "false", ...high },
      });
      expect(await shown()).toEqual({ FifoQueue: "true", ContentBasedDeduplication: "false", ...high });
    });

    test("its limit is of each group only where its window is, when it is made and ever after", async () => {
      const refused = {
        status: 400,
        code: "InvalidAttributeValue",
        message:
          "Invalid value for the parameter FifoThroughputLimit. Reason: perMessageGroupId is allowed only when the value " +
          "of DeduplicationScope is messageGroup.",
      };
      const { call, done } = await fifo();
      const limit = { FifoThroughputLimit: "perMessageGroupId" };
      const make = (own: Record<string, string>) =>
        sqs.call(protocol, "CreateQueue", {
          QueueName: `${uniqueId()}.fifo`,
          Attributes: { FifoQueue: "true", ...own },
        });
      expect(refusedAs(await make(limit))).toEqual(refused);
      expect(refusedAs(await make({ ...limit, DeduplicationScope: "queue" }))).toEqual(refused);
      expect((await make({ ...limit, DeduplicationScope: "messageGroup" })).status).toBe(200);
      expect(refusedAs(await call("SetQueueAttributes", { Attributes: limit }))).toEqual(refused);
      await done("SetQueueAttributes", { Attributes: { DeduplicationScope: "messageGroup" } });
      await done("SetQueueAttributes", { Attributes: limit });
      const narrow = { Attributes: { DeduplicationScope: "queue" } };
      expect(refusedAs(await call("SetQueueAttributes", narrow))).toEqual(refused);
      await done("SetQueueAttributes", { Attributes: { VisibilityTimeout: "31" } });
    });

    test("its type cannot be changed, and it is made with its name only", async () => {
      const { call, QueueUrl } = await fifo();
      expect(refusedAs(await call("SetQueueAttributes", { Attributes: { FifoQueue: "false" } }))).toEqual({
        status: 400,
        code: "InvalidAttributeValue",
        message: "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
      });
      const QueueName = QueueUrl.split("/").at(-1);
      const Attributes = { FifoQueue: "true", ContentBasedDeduplication: "false" };
      expect(refusedAs(await sqs.call(protocol, "CreateQueue", { QueueName, Attributes }))).toEqual({
        status: 400,
        code: "QueueAlreadyExists",
        message:
          "A queue already exists with the same name and a different value for attribute ContentBasedDeduplication",
      });
      const same = await sqs.call(protocol, "CreateQueue", { QueueName, Attributes: { FifoQueue: "True" } });
      expect(same.status).toBe(200);
      for (const [name, given] of [
        ["plain", { FifoQueue: "true" }],
        ["x.fifo", {}],
      ]) {
        const answer = await sqs.call(protocol, "CreateQueue", { QueueName: name, Attributes: given });
        expect(refusedAs(answer).code).toBe(parameter);
      }
    });

    test("a message needs a group, and an id where contents do not count; alone and in a batch", async () => {
      const { call } = await fifo({ ContentBasedDeduplication: "false" });
      const no_group = "The request must contain the parameter MessageGroupId.";
      const no_id =
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly";
      const send = async (own: Json) => refusedAs(await call("SendMessage", { MessageBody: "m", ...own }));
      expect(await send({ MessageDeduplicationId: "d" })).toEqual({
        status: 400,
        code: "MissingParameter",
        message: no_group,
      });
      expect(await send({ MessageGroupId: "g" })).toEqual({ status: 400, code: parameter, message: no_id });
      const whole = { Id: "a", MessageBody: "m", MessageGroupId: "g", MessageDeduplicationId: "d" };
      const batch = async (own: Json) =>
        refusedAs(await call("SendMessageBatch", { Entries: [whole, { Id: "b", MessageBody: "m", ...own }] }));
      expect(await batch({ MessageDeduplicationId: "e" })).toEqual({ status: 400, code: parameter, message: no_group });
      expect(await batch({ MessageGroupId: "g" })).toEqual({ status: 400, code: parameter, message: no_id });
      expect(await send({ MessageGroupId: "g", MessageDeduplicationId: "d", DelaySeconds: 2 })).toEqual({
        status: 400,
        code: parameter,
        message:
          "Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for " +
          "this queue type.",
      });
    });

    test("a receive fills from as few groups as possible, in order; a group in flight waits", async () => {
      const { send, bodies, receive, remove } = await fifo();
      for (const body of ["g1-m1", "g2-m1", "g1-m2", "g1-m3", "g2-m2", "g3-m1"]) await send(body.slice(0, 2), body);
      const first = await receive(2);
      expect(first.map(({ Body }) => Body)).toEqual(["g1-m1", "g1-m2"]);
      await send("g1", "g1-m4");
      expect(await bodies()).toEqual(["g2-m1", "g2-m2", "g3-m1"]);
      await remove(first[0] as Message);
      expect(await bodies()).toEqual([]);
      await remove(first[1] as Message);
      expect(await bodies()).toEqual(["g1-m3", "g1-m4"]);
    });

    test("ten at once from many groups, and from one", async () => {
      const { done, bodies } = await fifo();
      const entries = (count: number, group: (i: number) => string, name: string) =>
        Array.from({ length: count }, (_, i) => ({
          Id: `e${i}`,
          MessageBody: `${name}${i}`,
          MessageGroupId: group(i),
        }));
      await done("SendMessageBatch", { Entries: entries(10, (i) => `many${i}`, "a") });
      await done("SendMessageBatch", { Entries: entries(10, () => "one", "b") });
      expect(await bodies()).toEqual(Array.from({ length: 10 }, (_, i) => `a${i}`));
      expect(await bodies(6)).toEqual(Array.from({ length: 6 }, (_, i) => `b${i}`));
      expect(await bodies()).toEqual([]);
    });

    test("the order is kept after the timeout, and after a receive that hides nothing", async () => {
      const { send, bodies } = await fifo({ VisibilityTimeout: "5" });
      for (const body of ["m1", "m2", "m3"]) await send("g", body);
      expect(await bodies(10, { VisibilityTimeout: 0 })).toEqual(["m1", "m2", "m3"]);
      expect(await bodies(2)).toEqual(["m1", "m2"]);
      await sqs.service.elapse(6);
      expect(await bodies()).toEqual(["m1", "m2", "m3"]);
    });

    test("a change of one message's visibility keeps the later ones of its group back; 0 gives all back", async () => {
      const { send, receive, bodies, change } = await fifo({ VisibilityTimeout: "5" });
      for (const body of ["m1", "m2", "m3"]) await send("g", body);
      const [first] = await receive();
      expect((await change(first as Message, 60)).status).toBe(200);
      await sqs.service.elapse(10);
      expect(await bodies()).toEqual([]);
      await sqs.service.elapse(60);
      const [again] = await receive();
      expect((await change(again as Message, 0)).status).toBe(200);
      expect(await bodies()).toEqual(["m1", "m2", "m3"]);
    });

    test("a duplicate is answered as the original, and delivered once, also after it was deleted", async () => {
      const { send, receive, bodies, remove } = await fifo();
      const sent = await send("g", "same");
      expect(sent.SequenceNumber).toMatch(/^\d{20}$/);
      expect(await send("g", "same")).toMatchObject({ MessageId: sent.MessageId, SequenceNumber: sent.SequenceNumber });
      expect((await send("h", "same")).MessageId).toBe(sent.MessageId);
      const [message, ...others] = await receive();
      expect(others).toEqual([]);
      await remove(message as Message);
      expect((await send("g", "same")).MessageId).toBe(sent.MessageId);
      expect(await bodies()).toEqual([]);
      await sqs.service.elapse(301);
      expect((await send("g", "same")).MessageId).not.toBe(sent.MessageId);
      expect(await bodies()).toEqual(["same"]);
    });

    test("an id wins over the content; in the scope of a group the same one counts once in each", async () => {
      const { send, bodies } = await fifo({ DeduplicationScope: "messageGroup" });
      const MessageDeduplicationId = "d";
      await send("g", "a", { MessageDeduplicationId });
      await send("g", "b", { MessageDeduplicationId });
      await send("h", "c", { MessageDeduplicationId });
      expect(await bodies()).toEqual(["a", "c"]);
    });

    test("the SHA-256 of a body, given as the id, is what the queue makes of it itself", async () => {
      const { send, bodies } = await fifo();
      const MessageDeduplicationId = new Bun.CryptoHasher("sha256").update("x").digest("hex");
      const first = await send("g", "x");
      expect((await send("g", "y", { MessageDeduplicationId })).MessageId).toBe(first.MessageId);
      expect(await bodies()).toEqual(["x"]);
    });

    test("sequence numbers rise, and are received with group and id", async () => {
      const { send, receive, done } = await fifo();
      const one = await send("g", "1");
      const two = await send("h", "2", { MessageDeduplicationId: "id-2" });
      const batch = await done("SendMessageBatch", {
        Entries: [
          { Id: "a", MessageBody: "3", MessageGroupId: "g" },
          { Id: "b", MessageBody: "4", MessageGroupId: "g" },
        ],
      });
      const sent = protocol === "json" ? batch.Successful : batch.SendMessageBatchResultEntry;
      const numbers = [one, two, ...sent].map(({ SequenceNumber }) => SequenceNumber);
      expect(numbers).toEqual([...numbers].sort());
      expect(new Set(numbers).size).toBe(4);
      const names = ["SequenceNumber", "MessageGroupId", "MessageDeduplicationId", "ApproximateReceiveCount"];
      const received = await receive(10, { MessageSystemAttributeNames: names });
      const of = (SequenceNumber: string, MessageGroupId: string, MessageDeduplicationId: string) => ({
        SequenceNumber,
        MessageGroupId,
        MessageDeduplicationId,
        ApproximateReceiveCount: "1",
      });
      const sha256 = (text: string) => new Bun.CryptoHasher("sha256").update(text).digest("hex");
      expect(received.map(({ Attributes }) => Attributes)).toEqual([
        of(numbers[0], "g", sha256("1")),
        of(numbers[2], "g", sha256("3")),
        of(numbers[3], "g", sha256("4")),
        of(numbers[1], "h", "id-2"),
      ]);
    });

    test("handles: expired when the time is over, whether received again or not; a deleted one is fine", async () => {
      const { send, receive, remove, change } = await fifo({ VisibilityTimeout: "5" });
      await send("g", "m");
      const [first] = (await receive()) as [Message];
      await sqs.service.elapse(6);
      const expired = (handle: string) => ({
        status: 400,
        code: parameter,
        message: `Value ${handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.`,
      });
      expect(refusedAs(await remove(first))).toEqual(expired(first.ReceiptHandle));
      expect(refusedAs(await change(first, 5))).toEqual(expired(first.ReceiptHandle));
      const [second] = (await receive()) as [Message];
      expect(refusedAs(await remove(first))).toEqual(expired(first.ReceiptHandle));
      for (let i = 0; i < 2; i++) expect((await remove(second)).status).toBe(200);
      expect(refusedAs(await change(second, 5)).message).toContain("Message does not exist or is not available");
    });

    test("a dead head frees its group; a purge frees it too, and forgets ids", async () => {
      const dead = await fifo();
      const arn = `arn:aws:sqs:us-east-1:000000000000:${dead.QueueUrl.split("/").at(-1)}`;
      const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: arn, maxReceiveCount: 1 });
      const { send, receive, bodies, done } = await fifo({ VisibilityTimeout: "5", RedrivePolicy });
      await send("g", "poison");
      await send("g", "next");
      expect(await bodies(1)).toEqual(["poison"]);
      await sqs.service.elapse(6);
      expect(await bodies()).toEqual(["next"]);
      const [message] = await dead.receive(1, { AttributeNames: ["MessageGroupId"] });
      expect([message?.Body, message?.Attributes]).toEqual(["poison", { MessageGroupId: "g" }]);
      await done("PurgeQueue");
      await send("g", "next");
      expect((await receive()).map(({ Body }) => Body)).toEqual(["next"]);
    });

    test("the same attempt returns the same messages and handles, until one of them is deleted or changed", async () => {
      const { send, receive, remove, change } = await fifo({ VisibilityTimeout: "5" });
      for (const body of ["m1", "m2"]) await send("g", body);
      await send("h", "m3");
      const attempt = (ReceiveRequestAttemptId: string, count = 2) => receive(count, { ReceiveRequestAttemptId });
      const first = await attempt("one");
      expect(first.map(({ Body }) => Body)).toEqual(["m1", "m2"]);
      await sqs.service.elapse(4);
      expect(await attempt("one")).toEqual(first);
      // Hidden anew.
      await sqs.service.elapse(4);
      expect(await attempt("one")).toEqual(first);
      expect((await attempt("two")).map(({ Body }) => Body)).toEqual(["m3"]);
      await change(first[0] as Message, 60);
      expect(await attempt("one")).toEqual([]);
      await sqs.service.elapse(61);
      const [again] = (await attempt("three", 1)) as [Message];
      await remove(again);
      expect((await attempt("three", 1)).map(({ Body }) => Body)).not.toContain(again.Body);
    });

    test("an attempt whose messages have come back since returns what is there", async () => {
      const { send, receive } = await fifo({ VisibilityTimeout: "5" });
      await send("g", "m");
      const [first] = (await receive(1, { ReceiveRequestAttemptId: "one" })) as [Message];
      await sqs.service.elapse(6);
      const [again] = (await receive(1, { ReceiveRequestAttemptId: "one" })) as [Message];
      expect(again.Body).toBe("m");
      expect(again.ReceiptHandle).not.toBe(first.ReceiptHandle);
    });

    test("the delay of the queue holds, one of 0 too", async () => {
      const { send, bodies } = await fifo({ DelaySeconds: "60" });
      await send("g", "m1", { DelaySeconds: 0 });
      await send("g", "m2");
      expect(await bodies()).toEqual([]);
      await sqs.service.elapse(61);
      expect(await bodies()).toEqual(["m1", "m2"]);
    });
  });
}
