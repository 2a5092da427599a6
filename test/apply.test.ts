import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { emptyDirectory, killChildren, runChild } from "./child.ts";
import { listen, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);
const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(() => listener.stop(true));
const directory = emptyDirectory();

async function apply(text: string, args: string[] = []) {
  const file = path.join(directory, "queues.yaml");
  writeFileSync(file, text);
  const env = { PSQLQUEUE_URL: `http://127.0.0.1:${listener.port}` };
  const { code, stdout, stderr } = await runChild(["apply", "--file", file, ...args], { env });
  return { code, stdout, stderr: stderr.replaceAll(file, "FILE") };
}

const declared = `
queues:
  - id: orders
    ack_deadline_seconds: 60
    dead_queue_id: orders-dead
    message_max_deliveries: 5
    retry_policy: { min_seconds: 1 }
  - id: orders-dead
  - id: "4711"
topics:
  - id: events
subscriptions:
  - { id: to-orders, topic_id: events, queue_id: orders, message_filters: { kind: [order, refund] } }
`;
const made = "+ queue orders-dead\n+ queue orders\n+ queue 4711\n+ topic events\n+ subscription to-orders\n";

/** All ids that there are. */
async function ids() {
  const lists = ["queues", "topics", "subscriptions"].map(async (kind) => {
    const { body } = await service.call("GET", `/v1/${kind}?limit=1000`);
    return [kind, body.data.map(({ id }: { id: string }) => id)] as const;
  });
  return Object.fromEntries(await Promise.all(lists));
}

test("a file is made so, shows first what it would do, and does nothing the second time", async () => {
  const dry = await apply(declared, ["--dry-run"]);
  expect(dry).toEqual({ code: 0, stdout: made, stderr: "5 would change\n" });
  expect(await ids()).toEqual({ queues: [], topics: [], subscriptions: [] });
  expect(await apply(declared)).toEqual({ code: 0, stdout: made, stderr: "5 changed\n" });
  const { body } = await service.call("GET", "/v1/queues/orders");
  expect(body).toMatchObject({
    ack_deadline_seconds: 60,
    message_retention_seconds: 1_209_600,
    dead_queue_id: "orders-dead",
  });
  expect(await apply(declared)).toEqual({ code: 0, stdout: "", stderr: "nothing to change\n" });

  const other = declared.replace("seconds: 60", "seconds: 90").replace("[order, refund]", "[order]");
  const changed = await apply(other);
  expect(changed).toEqual({ code: 0, stdout: expect.any(String), stderr: "2 changed\n" });
  expect(changed.stdout.split("\n")).toEqual([
    "~ queue orders",
    "    ack_deadline_seconds: 60 → 90",
    "~ subscription to-orders",
    expect.stringMatching(/^ {4}message_filters: .*refund.* → /),
    "    made anew: what is published at that moment does not reach its queue",
    "",
  ]);
  expect(await apply(other)).toMatchObject({ stdout: "" });
  // What is not declared of a queue stays.
  await apply("queues: [{ id: orders, max_depth: 9 }]");
  expect((await service.call("GET", "/v1/queues/orders")).body).toMatchObject({
    ack_deadline_seconds: 90,
    max_depth: 9,
  });
});

test("what is not declared is deleted when asked for, and never without being named and agreed to", async () => {
  await apply(declared);
  const kept = "queues: [{ id: orders, dead_queue_id: null, message_max_deliveries: null }]";
  const before = await ids();
  const dry = await apply(kept, ["--prune", "--dry-run"]);
  const removed = "- subscription to-orders\n- topic events\n- queue 4711\n- queue orders-dead\n";
  expect(dry.stdout.endsWith(removed)).toBe(true);
  const asked = await apply(kept, ["--prune"]);
  expect(asked.code).toBe(2);
  expect(asked.stderr).toContain(
    "this deletes what FILE does not declare: subscription to-orders, topic events, queue 4711, queue orders-dead",
  );
  expect(await ids()).toEqual(before);
  expect((await apply(kept, ["--prune", "--yes"])).stdout).toBe(dry.stdout);
  expect(await ids()).toEqual({ queues: ["orders"], topics: [], subscriptions: [] });
});

test("a file that cannot be understood changes nothing, and is told why", async () => {
  await apply("queues: [{ id: known }]");
  const before = await ids();
  const cases: [text: string, sentence: string][] = [
    ["", "FILE declares nothing; write it as queues: [{ id: orders, ack_deadline_seconds: 60 }]"],
    ["queues: [", "FILE is neither YAML nor JSON: "],
    ["queue: []", "FILE: there is no queue; there are queues, topics, subscriptions"],
    ["queues: { id: a }", "FILE: queues is no list"],
    ["queues: [a]", "FILE: queues[0] is no object"],
    ["topics: [{}]", "FILE: topics[0] has no id"],
    ["subscriptions: [{ id: a, topic_id: b }]", "FILE: subscriptions[0] has no queue_id"],
    ["queues: [{ id: a }, { id: a }]", "FILE: queues names a twice"],
    [
      "queues: [{ id: a, ack_deadline: 60 }]",
      "FILE: queues: ack_deadline: this server has no such setting; it has ack_deadline_seconds,",
    ],
    ["queues: [{ id: a, paused: true }]", "FILE: queues: paused is no setting of queues: psqlqueue queue pause"],
    ["queues: [{ id: 1e3 }]", 'FILE: queues[0].id is a number; write the id in quotes, as id: "4711"'],
    ["topics: [{ id: t, queue: a }]", "FILE: topics[0] has no member queue to declare; there are id\n"],
    [
      "subscriptions: [{ id: s, topic_id: t, queue_id: a, filters: { a: [b] } }]",
      "FILE: subscriptions[0] has no member filters to declare; there are id, topic_id, queue_id, message_filters",
    ],
  ];
  for (const [text, sentence] of cases) {
    const { code, stdout, stderr } = await apply(text);
    expect({ text, code, stdout, stderr }).toEqual({
      text,
      code: 2,
      stdout: "",
      stderr: expect.stringContaining(sentence),
    });
  }
  expect(await ids()).toEqual(before);
  const missing = await runChild(["apply", "--file", path.join(directory, "none")]);
  expect(missing).toMatchObject({ code: 2, stderr: expect.stringContaining("none cannot be read: ") });
});
