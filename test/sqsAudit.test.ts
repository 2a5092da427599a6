// What is done through SQS, and what is refused there, is told as what is done through v1.

import { afterAll, beforeEach, expect, setDefaultTimeout, test } from "bun:test";
import {
  AddPermissionCommand,
  CreateQueueCommand,
  DeleteQueueCommand,
  GetQueueAttributesCommand,
  ListQueuesCommand,
  PurgeQueueCommand,
  ReceiveMessageCommand,
  RemovePermissionCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
  StartMessageMoveTaskCommand,
  TagQueueCommand,
  UntagQueueCommand,
} from "@aws-sdk/client-sqs";
import { type AuditObservation, addObserver } from "../src/observe.ts";
import { openSecured } from "./secured.ts";
import { callSqs } from "./sqs.ts";

setDefaultTimeout(90_000);

const { ask, logged, origin } = await openSecured({
  PSQLQUEUE_MASTER_KEY: `now:${Buffer.alloc(32, 7).toString("base64")}`,
  PSQLQUEUE_SQS_ACCESS_KEYS: "AKIDOFTHESETTINGS:secret-of-the-settings",
});

const audits: AuditObservation[] = [];
afterAll(addObserver((one) => (one.kind === "audit" ? audits.push(one) : undefined)));
beforeEach(() => {
  audits.length = 0;
});
const told = () => audits.map(({ key_id, action, target, status }) => ({ key_id, action, target, status }));

const clients: SQSClient[] = [];
afterAll(() => {
  for (const client of clients) client.destroy();
});
function clientOf(accessKeyId: string, secretAccessKey: string): SQSClient {
  const credentials = { accessKeyId, secretAccessKey };
  const client = new SQSClient({ endpoint: origin, region: "us-east-1", credentials, maxAttempts: 1 });
  clients.push(client);
  return client;
}
async function keyFor(queues: string[]) {
  const scopes = [{ actions: ["*"], queues }];
  const { body } = await ask("POST", "/v1/keys", { name: "sqs", scopes, sigv4: true });
  const [, id = "", secret = ""] = body.key.split("_");
  audits.length = 0;
  return { id, secret, client: clientOf(id, secret) };
}
const outcome = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: Error) => error.name,
  );
const urlOf = (name: string) => `${origin}/000000000000/${name}`;
const arnOf = (name: string) => `arn:aws:sqs:us-east-1:000000000000:${name}`;

test("every change is told, with whose key it was and the queue, and nothing else of it", async () => {
  const { id, client } = await keyFor(["told*"]);
  const QueueUrl = urlOf("told");
  const Attributes = { RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arnOf("told-dead"), maxReceiveCount: 3 }) };
  await client.send(new CreateQueueCommand({ QueueName: "told-dead" }));
  await client.send(new CreateQueueCommand({ QueueName: "told" }));
  await client.send(new SetQueueAttributesCommand({ QueueUrl, Attributes }));
  await client.send(new TagQueueCommand({ QueueUrl, Tags: { mark: "hush-tag" } }));
  await client.send(new UntagQueueCommand({ QueueUrl, TagKeys: ["mark"] }));
  const permission = { Label: "hush", AWSAccountIds: ["123456789012"], Actions: ["SendMessage"] };
  await client.send(new AddPermissionCommand({ QueueUrl, ...permission }));
  await client.send(new RemovePermissionCommand({ QueueUrl, Label: "hush" }));
  await client.send(new SendMessageCommand({ QueueUrl, MessageBody: "hush-body" }));
  await client.send(new ReceiveMessageCommand({ QueueUrl }));
  await client.send(new GetQueueAttributesCommand({ QueueUrl }));
  await client.send(new ListQueuesCommand({}));
  await client.send(new PurgeQueueCommand({ QueueUrl }));
  const move = { SourceArn: arnOf("told-dead"), DestinationArn: arnOf("told") };
  await client.send(new StartMessageMoveTaskCommand(move));
  await client.send(new DeleteQueueCommand({ QueueUrl }));
  const again = client.send(new DeleteQueueCommand({ QueueUrl }));
  expect(await outcome(again)).toBe("QueueDoesNotExist");
  const line = (target: string, status = 200) => ({ key_id: id, action: "manage", target, status });
  expect(told()).toEqual([
    line("CreateQueue told-dead"),
    line("CreateQueue told"),
    line("SetQueueAttributes told told-dead"),
    line("TagQueue told"),
    line("UntagQueue told"),
    line("AddPermission told"),
    line("RemovePermission told"),
    line("PurgeQueue told"),
    line("StartMessageMoveTask told-dead told"),
    line("DeleteQueue told"),
    line("DeleteQueue told", 400),
  ]);
  expect(JSON.stringify(audits)).not.toContain("hush");
});

test("every refusal is told, whatever it was for", async () => {
  const { id, secret, client } = await keyFor(["mine"]);
  const QueueUrl = urlOf("theirs");
  expect(await outcome(client.send(new DeleteQueueCommand({ QueueUrl })))).toBe("AccessDenied");
  expect(await outcome(client.send(new SendMessageCommand({ QueueUrl, MessageBody: "hush" })))).toBe("AccessDenied");
  const wrong = clientOf(id, `${secret.slice(1)}x`);
  const send = new SendMessageCommand({ QueueUrl, MessageBody: "hush" });
  expect(await outcome(wrong.send(send))).toBe("SignatureDoesNotMatch");
  const unknown = clientOf("AKIDOFNOBODY", secret);
  expect(await outcome(unknown.send(new PurgeQueueCommand({ QueueUrl })))).toBe("InvalidClientTokenId");
  for (const protocol of ["json", "query"] as const) {
    expect((await callSqs(origin, protocol, "ReceiveMessage", { QueueUrl })).status).toBe(403);
  }
  const large = { QueueUrl, MessageBody: "hush".repeat(10_000) };
  expect((await callSqs(origin, "json", "SendMessage", large)).status).toBe(403);
  expect(told()).toEqual([
    { key_id: id, action: "manage", target: "DeleteQueue theirs", status: 403 },
    { key_id: id, action: "publish", target: "SendMessage theirs", status: 403 },
    { key_id: id, action: "publish", target: "SendMessage theirs", status: 403 },
    { key_id: null, action: "manage", target: "PurgeQueue theirs", status: 403 },
    { key_id: null, action: "consume", target: "ReceiveMessage theirs", status: 403 },
    { key_id: null, action: "consume", target: "ReceiveMessage theirs", status: 403 },
    { key_id: null, action: "", target: "POST /", status: 403 },
  ]);
  expect(JSON.stringify(audits)).not.toMatch(new RegExp(`hush|${secret}`));
});

test("a key of the settings is told by its id, and the line is as one of v1", async () => {
  logged.length = 0;
  const client = clientOf("AKIDOFTHESETTINGS", "secret-of-the-settings");
  await client.send(new CreateQueueCommand({ QueueName: "settings" }));
  const lines = logged.map((line) => JSON.parse(line)).filter(({ message }) => message === "audit");
  expect(lines).toEqual([
    {
      level: "info",
      message: "audit",
      key_id: "AKIDOFTHESETTINGS",
      action: "manage",
      target: "CreateQueue settings",
      outcome: "done",
      status: 200,
      id: expect.stringMatching(/^[\da-f-]{36}$/),
    },
  ]);
});

test("a request that names two keys is the one's whose signature it has", async () => {
  const { id, client } = await keyFor(["two"]);
  client.middlewareStack.add(
    (next) => (given) => {
      const { headers } = given.request as { headers: Record<string, string> };
      const own = headers["authorization"] ?? "";
      headers["authorization"] = own.replace("Credential=", "Credential=AKIDOFTHESETTINGS/x, Credential=");
      return next(given);
    },
    { step: "finalizeRequest", priority: "low" },
  );
  await client.send(new CreateQueueCommand({ QueueName: "two" }));
  expect(told()).toEqual([{ key_id: id, action: "manage", target: "CreateQueue two", status: 200 }]);
});
