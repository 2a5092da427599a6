// API keys that sign: what they may do through SQS, and that they can be revoked.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import {
  CreateQueueCommand,
  GetQueueAttributesCommand,
  ListQueuesCommand,
  ReceiveMessageCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
  StartMessageMoveTaskCommand,
} from "@aws-sdk/client-sqs";
import { decrypt, encrypt } from "../src/broker/masterKeys.ts";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { type Log, logObserver } from "../src/log.ts";
import { addObserver } from "../src/observe.ts";
import { emptyDirectory } from "./child.ts";
import { createMigratedDatabase, is_embedded, openService, until } from "./harness.ts";

setDefaultTimeout(90_000);

const root_key = "root-key-of-the-tests";
const master_key = Buffer.alloc(32, 7).toString("base64");
const url = is_embedded ? "" : await createMigratedDatabase();
const server = await startServer(
  readConfig({
    PSQLQUEUE_DATABASE_URL: url,
    PSQLQUEUE_DATA_DIR: emptyDirectory(),
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    PSQLQUEUE_AUTH: "on",
    PSQLQUEUE_ROOT_KEY: root_key,
    PSQLQUEUE_MASTER_KEY: `now:${master_key},before:${Buffer.alloc(32, 8).toString("base64")}`,
  }),
  () => {},
);
const origin = `http://127.0.0.1:${server.port}`;
const clients: SQSClient[] = [];
afterAll(async () => {
  for (const client of clients) client.destroy();
  await server.stop();
});

async function callRoot(method: string, path: string, body?: unknown) {
  const headers = { authorization: `Bearer ${root_key}` };
  const init = body === undefined ? { method, headers } : { method, headers, body: JSON.stringify(body) };
  const response = await fetch(origin + path, init);
  const text = await response.text();
  return { status: response.status, body: text === "" ? undefined : JSON.parse(text) };
}

async function clientOf(scopes: unknown[], given: Record<string, unknown> = {}) {
  const { body, status } = await callRoot("POST", "/v1/keys", { name: "sqs", scopes, sigv4: true, ...given });
  expect([status, body.sigv4]).toEqual([201, true]);
  const [, accessKeyId = "", secretAccessKey = ""] = body.key.split("_");
  const credentials = { accessKeyId, secretAccessKey };
  const client = new SQSClient({ endpoint: origin, region: "us-east-1", credentials, maxAttempts: 1 });
  clients.push(client);
  return { client, id: body.id as string, bearer: { authorization: `Bearer ${body.key}` } };
}
const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: Error) => error.name,
  );
const urlOf = (name: string) => `${origin}/000000000000/${name}`;
const arnOf = (name: string) => `arn:aws:sqs:us-east-1:000000000000:${name}`;

test("a key does through SQS what it may, to what it is for", async () => {
  const { client: owner } = await clientOf([{ actions: ["*"] }]);
  for (const QueueName of ["orders", "other"]) await owner.send(new CreateQueueCommand({ QueueName }));
  const { client } = await clientOf([
    { actions: ["publish", "peek"], queues: ["ord*"] },
    { actions: ["manage"], queues: ["ord*"] },
  ]);
  const send = (name: string) => client.send(new SendMessageCommand({ QueueUrl: urlOf(name), MessageBody: "x" }));
  expect(await outcome(send("orders"))).toBe("done");
  for (const name of ["other", "nowhere"]) expect([name, await outcome(send(name))]).toEqual([name, "AccessDenied"]);
  expect(await outcome(client.send(new ReceiveMessageCommand({ QueueUrl: urlOf("orders") })))).toBe("AccessDenied");
  expect(await outcome(client.send(new GetQueueAttributesCommand({ QueueUrl: urlOf("orders") })))).toBe("done");
  expect(await outcome(client.send(new CreateQueueCommand({ QueueName: "ordinary" })))).toBe("done");
  expect(await outcome(client.send(new CreateQueueCommand({ QueueName: "mine" })))).toBe("AccessDenied");
  const { QueueUrls = [] } = await client.send(new ListQueuesCommand({}));
  expect(QueueUrls.map((one) => one.split("/").at(-1))).toEqual(["orders", "ordinary"]);
  // What names another queue needs the right to that one too.
  const policy = JSON.stringify({ deadLetterTargetArn: arnOf("other"), maxReceiveCount: 3 });
  const Attributes = { RedrivePolicy: policy };
  const change = client.send(new SetQueueAttributesCommand({ QueueUrl: urlOf("orders"), Attributes }));
  expect(await outcome(change)).toBe("AccessDenied");
  const move = (DestinationArn?: string) =>
    outcome(client.send(new StartMessageMoveTaskCommand({ SourceArn: arnOf("orders"), DestinationArn })));
  expect(await move()).toBe("AccessDenied");
  expect(await move(arnOf("other"))).toBe("AccessDenied");
});

test("a key that is revoked signs nothing any more; a wrong secret and one that cannot sign never do", async () => {
  const { client, id, bearer } = await clientOf([{ actions: ["peek"] }]);
  expect(await outcome(client.send(new ListQueuesCommand({})))).toBe("done");
  // Over v1 it is a key as every other.
  expect((await fetch(`${origin}/v1/queues`, { headers: bearer })).status).toBe(200);
  await callRoot("DELETE", `/v1/keys/${id}`);
  await until(async () => (await outcome(client.send(new ListQueuesCommand({})))) === "InvalidClientTokenId", 1000);

  const { body } = await callRoot("POST", "/v1/keys", { name: "plain", scopes: [{ actions: ["peek"] }] });
  const [, accessKeyId = "", secretAccessKey = ""] = body.key.split("_");
  const signing = { endpoint: origin, region: "us-east-1", maxAttempts: 1 };
  const plain = new SQSClient({ ...signing, credentials: { accessKeyId, secretAccessKey } });
  const other = await clientOf([{ actions: ["peek"] }]);
  const wrong = new SQSClient({ ...signing, credentials: { accessKeyId: other.id, secretAccessKey } });
  clients.push(plain, wrong);
  expect(await outcome(plain.send(new ListQueuesCommand({})))).toBe("InvalidClientTokenId");
  expect(await outcome(wrong.send(new ListQueuesCommand({})))).toBe("SignatureDoesNotMatch");
});

test("a key whose master key is gone is a Bearer key still, signs nothing, and is named once", async () => {
  const given = {
    PSQLQUEUE_DATABASE_URL: is_embedded ? "" : await createMigratedDatabase(),
    PSQLQUEUE_DATA_DIR: emptyDirectory(),
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    PSQLQUEUE_AUTH: "on",
    PSQLQUEUE_ROOT_KEY: root_key,
  };
  const before = await startServer(readConfig({ ...given, PSQLQUEUE_MASTER_KEY: `2025:${master_key}` }), () => {});
  const made = await fetch(`http://127.0.0.1:${before.port}/v1/keys`, {
    method: "POST",
    headers: { authorization: `Bearer ${root_key}` },
    body: JSON.stringify({ name: "old", scopes: [{ actions: ["peek"] }], sigv4: true }),
  });
  const { id, key } = (await made.json()) as { id: string; key: string };
  await before.stop();

  const logged: Record<string, unknown>[] = [];
  const log: Log = (level, msg, details) => void (level === "info" || logged.push({ level, msg, ...details }));
  const removeObserver = addObserver(logObserver(log, "warn"));
  const rotated = `2026:${Buffer.alloc(32, 9).toString("base64")}`;
  const after = await startServer(readConfig({ ...given, PSQLQUEUE_MASTER_KEY: rotated }), log);
  const own = `http://127.0.0.1:${after.port}`;
  const list = async (authorization: string) => {
    const response = await fetch(`${own}/v1/queues`, { headers: { authorization } });
    return [response.status, await response.text()];
  };
  const unknown = await list(`Bearer ${key.replace(id, "A".repeat(12))}`);
  expect(unknown[0]).toBe(401);
  const wrong = `${key.slice(0, -1)}${key.endsWith("a") ? "b" : "a"}`;
  for (let i = 0; i < 3; i += 1) expect(await list(`Bearer ${wrong}`)).toEqual(unknown);
  expect((await list(`Bearer ${key}`))[0]).toBe(200);
  const credentials = { accessKeyId: id, secretAccessKey: key.split("_")[2] ?? "" };
  const client = new SQSClient({ endpoint: own, region: "us-east-1", credentials, maxAttempts: 1 });
  clients.push(client);
  for (let i = 0; i < 3; i += 1) {
    expect(await outcome(client.send(new ListQueuesCommand({})))).toBe("InvalidClientTokenId");
  }
  await after.stop();
  removeObserver();
  const remedy = expect.stringContaining("PSQLQUEUE_MASTER_KEY");
  const effect = expect.stringContaining("refused");
  expect(logged).toEqual([
    { level: "warn", msg: "keys sign requests, and their secrets cannot be decrypted", keys: id, effect, remedy },
    {
      level: "warn",
      msg: "a key signs requests, and its secret cannot be decrypted",
      key_id: id,
      reason: 'the master key "2025" is not in PSQLQUEUE_MASTER_KEY',
      effect,
      remedy,
    },
  ]);
});

test("without a master key there are none; with it the secret is stored encrypted", async () => {
  const service = await openService();
  const key = { name: "sqs", scopes: [{ actions: ["peek"] }], sigv4: true };
  const refused = await service.call("POST", "/v1/keys", key);
  expect([refused.status, refused.body.details]).toEqual([400, "sigv4: is not enabled for this server."]);
  await service.close();

  const keys = new Map([["now", Buffer.alloc(32, 1)]]);
  const encrypted = encrypt(keys, "a secret");
  expect(encrypted.text).not.toContain(Buffer.from("a secret").toString("base64"));
  expect(encrypt(keys, "a secret").text).not.toBe(encrypted.text);
  expect(decrypt(new Map([["next", Buffer.alloc(32, 2)], ...keys]), encrypted)).toBe("a secret");
  expect(() => decrypt(new Map([["now", Buffer.alloc(32, 2)]]), encrypted)).toThrow();
  expect(() => decrypt(new Map(), encrypted)).toThrow("PSQLQUEUE_MASTER_KEY");
  expect(() => readConfig({ PSQLQUEUE_MASTER_KEY: "short" })).toThrow('PSQLQUEUE_MASTER_KEY="***" cannot be used');
});
