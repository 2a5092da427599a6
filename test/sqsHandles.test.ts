// What a receipt handle is worth: a row of the table a test, on both protocols.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { openSqs, protocols, refusedAs, resultOf } from "./sqs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
const legacy = await openSqs({ PSQLQUEUE_SQS_LEGACY_HANDLES: "on" });
afterAll(async () => {
  await sqs.close();
  await legacy.close();
});

type Json = Record<string, unknown>;

const unavailable = (handle: string) => ({
  status: 400,
  code: "InvalidParameterValue",
  message:
    `Value ${handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for ` +
    "visibility timeout change.",
});

for (const protocol of protocols) {
  describe(protocol, () => {
    const on = (own: typeof sqs, QueueUrl: string) => {
      const call = (action: string, input: Json = {}) => own.call(protocol, action, { QueueUrl, ...input });
      return {
        call,
        send: () => call("SendMessage", { MessageBody: "m" }),
        /** The handle of what a receive returns; undefined: nothing. */
        async receive(input: Json = {}): Promise<string | undefined> {
          const result = resultOf(await call("ReceiveMessage", input), "ReceiveMessage");
          return protocol === "json" ? result.Messages?.[0]?.ReceiptHandle : result.Message?.ReceiptHandle;
        },
        remove: (ReceiptHandle: unknown) => call("DeleteMessage", { ReceiptHandle }),
        change: (ReceiptHandle: unknown, VisibilityTimeout: number) =>
          call("ChangeMessageVisibility", { ReceiptHandle, VisibilityTimeout }),
      };
    };
    const fresh = async (own = sqs) => {
      const queue = on(own, await own.queue());
      await queue.send();
      return queue;
    };

    test("current, in flight: it deletes, and changes", async () => {
      const { receive, change, remove } = await fresh();
      const handle = await receive();
      expect((await change(handle, 100)).status).toBe(200);
      expect((await remove(handle)).status).toBe(200);
      await sqs.service.elapse(200);
      expect(await receive()).toBeUndefined();
    });

    test("its time is over, not received again: it deletes", async () => {
      const { receive, remove } = await fresh();
      const handle = await receive();
      await sqs.service.elapse(31);
      expect((await remove(handle)).status).toBe(200);
      expect(await receive()).toBeUndefined();
    });

    test("its time is over, not received again: it hides the message again", async () => {
      const { receive, change } = await fresh();
      const handle = await receive();
      await sqs.service.elapse(31);
      expect((await change(handle, 100)).status).toBe(200);
      expect(await receive()).toBeUndefined();
      await sqs.service.elapse(101);
      expect(await receive()).toBeString();
    });

    test("shown again by a change to 0: it still deletes, until the message is received again", async () => {
      const { receive, change, remove } = await fresh();
      const handle = await receive();
      expect((await change(handle, 0)).status).toBe(200);
      expect((await remove(handle)).status).toBe(200);
      expect(await receive()).toBeUndefined();
      const other = await fresh();
      const first = await other.receive();
      await other.change(first, 0);
      const second = await other.receive();
      expect(second).not.toBe(first as string);
      expect((await other.remove(first)).status).toBe(200);
      expect((await other.change(second, 0)).status).toBe(200);
      expect(await other.receive()).toBeString();
    });

    test("received again since: it deletes nothing, and changes nothing", async () => {
      const { receive, change, remove } = await fresh();
      const old = (await receive({ VisibilityTimeout: 0 })) ?? "";
      const current = await receive();
      expect((await remove(old)).status).toBe(200);
      expect(refusedAs(await change(old, 0))).toEqual(unavailable(old));
      expect(await receive()).toBeUndefined();
      expect((await change(current, 0)).status).toBe(200);
      expect(await receive()).toBeString();
    });

    test("received again since, where old handles count: it deletes", async () => {
      const { receive, remove } = await fresh(legacy);
      const old = await receive({ VisibilityTimeout: 0 });
      await receive();
      expect((await remove(old)).status).toBe(200);
      await legacy.service.elapse(31);
      expect(await receive()).toBeUndefined();
    });

    test("of a deleted message: it deletes again, and changes nothing", async () => {
      const { receive, change, remove } = await fresh();
      const handle = (await receive()) ?? "";
      for (let i = 0; i < 3; i++) expect((await remove(handle)).status).toBe(200);
      expect(refusedAs(await change(handle, 10))).toEqual(unavailable(handle));
    });

    test("garbage, of another queue, and one that was changed by a letter", async () => {
      const { receive, change, remove } = await fresh();
      const handle = (await receive()) ?? "";
      const other = await fresh();
      const foreign = (await other.receive()) ?? "";
      const status = protocol === "json" ? 400 : 404;
      for (const bad of ["garbage", foreign, `${handle}A`, `x${handle.slice(1)}`, "é", "a b"]) {
        const refused = {
          status,
          code: "ReceiptHandleIsInvalid",
          message: `The input receipt handle "${bad}" is not a valid receipt handle.`,
        };
        expect(refusedAs(await remove(bad))).toEqual(refused);
        expect(refusedAs(await change(bad, 1))).toEqual(refused);
      }
      expect((await remove(handle)).status).toBe(200);
    });

    test("more than twelve hours since the receive", async () => {
      const { receive, change } = await fresh();
      const handle = await receive({ VisibilityTimeout: 43_200 });
      await sqs.service.elapse(100);
      expect((await change(handle, 43_000)).status).toBe(200);
      expect(refusedAs(await change(handle, 43_200))).toEqual({
        status: 400,
        code: "InvalidParameterValue",
        message:
          "Value 43200 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is " +
          "beyond the limit [43200 seconds].",
      });
    });

    test("a batch: each handle is answered for itself", async () => {
      const { receive, call } = await fresh();
      const handle = await receive();
      const Entries = [
        { Id: "good", ReceiptHandle: handle, VisibilityTimeout: 5 },
        { Id: "bad", ReceiptHandle: "garbage", VisibilityTimeout: 5 },
        { Id: "none", ReceiptHandle: handle, VisibilityTimeout: 43_201 },
      ];
      const listOf = (own: unknown) => (own === undefined ? [] : [own].flat()) as Json[];
      const idsOf = async (action: string, given: Json[]) => {
        const result = resultOf(await call(action, { Entries: given }), action);
        const done = listOf(protocol === "json" ? result.Successful : result[`${action}ResultEntry`]);
        const failed = listOf(protocol === "json" ? result.Failed : result["BatchResultErrorEntry"]);
        return [done.map(({ Id }) => Id), failed.map(({ Id, Code }) => [Id, Code])];
      };
      expect(await idsOf("ChangeMessageVisibilityBatch", Entries)).toEqual([
        ["good"],
        [
          ["bad", "ReceiptHandleIsInvalid"],
          ["none", "InvalidParameterValue"],
        ],
      ]);
      const handles = Entries.slice(0, 2).map(({ Id, ReceiptHandle }) => ({ Id, ReceiptHandle }));
      expect(await idsOf("DeleteMessageBatch", handles)).toEqual([["good"], [["bad", "ReceiptHandleIsInvalid"]]]);
    });
  });
}
