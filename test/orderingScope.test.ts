// What a queue keeps its order in: the key, or the key and the label.

import { expect, setDefaultTimeout, test } from "bun:test";
import { createQueue, serviceForFile } from "./harness.ts";
import { refused, verbsOf } from "./verbs.ts";

setDefaultTimeout(30_000);

const service = await serviceForFile({ receive_limit_max: 100 });
const { put, bodies, change } = verbsOf(service);

const invalid = (details: string) => refused(3, "request validation failed", details);
const all = "?limit=100";

test("a message keeps its label where the order is kept by key and label", async () => {
  const queue = await createQueue(service, { ordering_scope: "key_label" });
  const id = await put(queue, { body: "a1", ordering_key: "k", label: "a" });
  await put(queue, { body: "b1", ordering_key: "k", label: "b" });
  const { status, body } = await change(queue, id, { label: "b", attributes: { k: "v" } });
  expect({ status, body }).toEqual({
    status: 400,
    body: invalid(
      "label: must stay, for with ordering_scope key_label the order is kept by it; publish the message anew instead.",
    ),
  });
  const changed = await change(queue, id, { label: "a", attributes: { k: "v" } });
  expect(changed.body).toMatchObject({ label: "a", attributes: { k: "v" } });
  expect((await bodies(queue, all)).sort()).toEqual(["a1", "b1"]);
});

test("a label is changed where it is no part of an order", async () => {
  const scoped = await createQueue(service, { ordering_scope: "key_label" });
  const keyed = await createQueue(service);
  for (const [queue, ordering_key] of [
    [scoped, undefined],
    [keyed, "k"],
  ] as const) {
    const id = await put(queue, { body: "x", label: "a", ...(ordering_key && { ordering_key }) });
    expect((await change(queue, id, { label: "b" })).body).toMatchObject({ label: "b" });
    expect(await bodies(queue, "?label=b")).toEqual(["x"]);
  }
});
