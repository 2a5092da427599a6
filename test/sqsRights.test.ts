// What a key may do through SQS, where a request names or changes more than one queue.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  CreateQueueCommand,
  DeleteQueueCommand,
  GetQueueUrlCommand,
  ListDeadLetterSourceQueuesCommand,
  SQSClient,
  StartMessageMoveTaskCommand,
} from "@aws-sdk/client-sqs";
import { openSecured, settings } from "./secured.ts";

setDefaultTimeout(90_000);

const { ask, origin } = await openSecured({
  PSQLQUEUE_MASTER_KEY: `now:${Buffer.alloc(32, 7).toString("base64")}`,
  PSQLQUEUE_SQS_AUTH: "on",
});
const clients: SQSClient[] = [];
afterAll(() => {
  for (const client of clients) client.destroy();
});

async function clientFor(actions: string[], queues: string[]): Promise<SQSClient> {
  const { body } = await ask("POST", "/v1/keys", { name: "sqs", scopes: [{ actions, queues }], sigv4: true });
  const [, accessKeyId = "", secretAccessKey = ""] = body.key.split("_");
  const credentials = { accessKeyId, secretAccessKey };
  const client = new SQSClient({ endpoint: origin, region: "us-east-1", credentials, maxAttempts: 1 });
  clients.push(client);
  return client;
}
const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: Error) => error.name,
  );
const urlOf = (name: string) => `${origin}/000000000000/${name}`;
const make = async (id: string, dead_queue_id?: string) => {
  const dead = dead_queue_id === undefined ? {} : { dead_queue_id, message_max_deliveries: 3 };
  expect((await ask("POST", "/v1/queues", { id, ...settings, ...dead })).status).toBe(201);
};

test("a name is the whole name, for whose rights are checked and for what is found", async () => {
  await make("secret");
  await make("orders-1");
  const client = await clientFor(["peek", "manage"], ["orders*"]);
  const find = (QueueName: string) => outcome(client.send(new GetQueueUrlCommand({ QueueName })));
  expect(await find("orders-1")).toBe("done");
  expect(await find("secret")).toBe("AccessDenied");
  for (const name of ["orders/secret", "orders?/secret", "orders/secret/", "orders%2Fsecret", "orders/orders-1"]) {
    expect([name, await find(name)]).toEqual([name, "QueueDoesNotExist"]);
  }
  const create = client.send(new CreateQueueCommand({ QueueName: "orders/made" }));
  expect(await outcome(create)).toBe("InvalidParameterValue");
});

test("a dead-letter queue is deleted with the right to those only that lose it by that", async () => {
  await make("cut-dead");
  await make("cut-source", "cut-dead");
  await make("cut.foreign", "cut-dead");
  const client = await clientFor(["*"], ["cut-*"]);
  const remove = () => outcome(client.send(new DeleteQueueCommand({ QueueUrl: urlOf("cut-dead") })));
  expect(await remove()).toBe("AccessDenied");
  expect((await ask("GET", "/v1/queues/cut.foreign")).body.dead_queue_id).toBe("cut-dead");
  await ask("DELETE", "/v1/queues/cut.foreign");
  expect(await remove()).toBe("done");
  expect((await ask("GET", "/v1/queues/cut-source")).body.dead_queue_id).toBe(null);
  expect(await remove()).toBe("QueueDoesNotExist");
});

test("the sources of a dead-letter queue are paged over what the key may see", async () => {
  await make("src-dead");
  const seen = ["src-2", "src-5", "src-8"];
  for (let i = 0; i < 10; i++) await make(seen.includes(`src-${i}`) ? `src-${i}` : `hid-${i}`, "src-dead");
  const client = await clientFor(["peek"], ["src-*"]);
  const pages: string[][] = [];
  let NextToken: string | undefined;
  do {
    const input = { QueueUrl: urlOf("src-dead"), MaxResults: 2, NextToken };
    const page = await client.send(new ListDeadLetterSourceQueuesCommand(input));
    pages.push((page.queueUrls ?? []).map((url) => url.split("/").at(-1) ?? ""));
    NextToken = page.NextToken;
  } while (NextToken !== undefined);
  expect(pages).toEqual([["src-2", "src-5"], ["src-8"]]);
});

test("a move needs the right to move, and none to see", async () => {
  await make("mov-dead");
  await make("mov-source", "mov-dead");
  const client = await clientFor(["manage"], ["mov-*"]);
  const arnOf = (name: string) => `arn:aws:sqs:us-east-1:000000000000:${name}`;
  const move = { SourceArn: arnOf("mov-dead"), DestinationArn: arnOf("mov-source") };
  expect(await outcome(client.send(new StartMessageMoveTaskCommand(move)))).toBe("done");
});
