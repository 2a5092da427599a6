// AWS Signature Version 4, against the published vectors and the SDK's own signer.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createHash, createHmac } from "node:crypto";
import { GetQueueUrlCommand, ListQueuesCommand, SendMessageCommand, SQSClient } from "@aws-sdk/client-sqs";
import { readConfig } from "../src/config.ts";
import { type Claim, type Signed, signatureOf } from "../src/sqs/signature.ts";
import { callSqs, openSqs, refusedAs, type SqsAnswer, toForm } from "./sqs.ts";

setDefaultTimeout(90_000);

const key_id = "AKIDEXAMPLE";
const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

const sqs = await openSqs({ PSQLQUEUE_SQS_ACCESS_KEYS: `${key_id}:${secret}, OTHER:other-secret` });
afterAll(() => sqs.close());

const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");

describe("the published vectors", () => {
  const signed = (
    given: Partial<Omit<Signed, "headers">> & { headers?: Record<string, string>; body?: Uint8Array },
  ) => {
    const headers = new Headers({ host: "example.amazonaws.com", "x-amz-date": "20150830T123600Z", ...given.headers });
    const body = given.body ?? new Uint8Array();
    const whole: Signed = { method: "GET", path: "/", query: "", ...given, body, headers };
    const claim: Claim = {
      key_id,
      date: "20150830",
      region: "us-east-1",
      service: "service",
      signed_headers: [...headers.keys()].sort(),
      signature: "",
      at: "20150830T123600Z",
      expires_seconds: undefined,
    };
    return signatureOf(whole, claim, secret, sha256(Buffer.from(body).toString("utf8")));
  };

  test("get-vanilla, query order, a form, header values with spaces", () => {
    expect(signed({})).toBe("5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    expect(signed({ query: "Param2=value2&Param1=value1" })).toBe(
      "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
    );
    expect(
      signed({
        method: "POST",
        headers: { "content-type": "application/x-www-form-urlencoded" },
        body: Buffer.from("Param1=value1"),
      }),
    ).toBe("ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a");
    expect(signed({ headers: { "my-header1": " value1", "my-header2": ' "a   b   c"' } })).toBe(
      "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
    );
  });
});

type ClientOptions = { id?: string; secret?: string; clock_offset_ms?: number; origin?: string };
const clientOf = (options: ClientOptions = {}) =>
  new SQSClient({
    endpoint: options.origin ?? sqs.origin,
    region: "eu-west-1",
    credentials: { accessKeyId: options.id ?? key_id, secretAccessKey: options.secret ?? secret },
    systemClockOffset: options.clock_offset_ms ?? 0,
    maxAttempts: 1,
  });

/** What the SDK is told. */
async function failureOf(client: SQSClient): Promise<[string, number | undefined]> {
  const error = await client.send(new ListQueuesCommand({})).catch((thrown) => thrown);
  return [error.name, error.$metadata?.httpStatusCode];
}

describe("the SDK's signer", () => {
  test("the right key may do everything, in any region, and is the sender", async () => {
    const client = clientOf();
    const { QueueUrls = [] } = await client.send(new ListQueuesCommand({}));
    expect(QueueUrls).toEqual([]);
  });

  test("a wrong secret, an unknown key and a clock that is an hour off are refused, each for what it is", async () => {
    expect(await failureOf(clientOf({ secret: "another-secret" }))).toEqual(["SignatureDoesNotMatch", 403]);
    expect(await failureOf(clientOf({ id: "UNKNOWN" }))).toEqual(["InvalidClientTokenId", 403]);
    expect(await failureOf(clientOf({ clock_offset_ms: -3_600_000 }))).toEqual(["RequestExpired", 400]);
    expect(await failureOf(clientOf({ clock_offset_ms: 3_600_000 }))).toEqual(["RequestExpired", 400]);
    expect(await failureOf(clientOf({ clock_offset_ms: 840_000 }))).toEqual([undefined as never, 200]);
  });

  /** Sends what the SDK signed with something changed on the way. */
  async function tampered(
    change: (request: { body: Uint8Array; headers: Record<string, string> }) => void,
    origin = sqs.origin,
  ) {
    const client = clientOf({ origin });
    client.middlewareStack.add(
      (next) => (given) => {
        change(given.request as { body: Uint8Array; headers: Record<string, string> });
        return next(given);
      },
      { step: "deserialize", name: "tamper" },
    );
    const error = await client
      .send(new SendMessageCommand({ QueueUrl: `${origin}/000000000000/q`, MessageBody: "m" }))
      .catch((thrown) => thrown);
    return [error.name, error.$metadata?.httpStatusCode];
  }

  test("a body, an action, a hash or a date that was changed on the way is refused", async () => {
    const body = (request: { body: Uint8Array }) => {
      request.body = Buffer.from(Buffer.from(request.body).toString().replace('"m"', '"n"'));
    };
    expect(await tampered(() => {})).toEqual(["QueueDoesNotExist", 400]);
    expect(await tampered(body)).toEqual(["SignatureDoesNotMatch", 403]);
    expect(
      await tampered((request) => {
        body(request);
        request.headers["x-amz-content-sha256"] = sha256(Buffer.from(request.body).toString());
      }),
    ).toEqual(["SignatureDoesNotMatch", 403]);
    expect(
      await tampered((request) => {
        request.headers["x-amz-target"] = "AmazonSQS.DeleteQueue";
      }),
    ).toEqual(["SignatureDoesNotMatch", 403]);
    expect(
      await tampered((request) => {
        request.headers["x-amz-content-sha256"] = "UNSIGNED-PAYLOAD";
      }),
    ).toEqual(["SignatureDoesNotMatch", 403]);
  });

  test("what was signed for the proxy's name holds behind it, where the proxy is trusted", async () => {
    const keys = { PSQLQUEUE_SQS_ACCESS_KEYS: `${key_id}:${secret}` };
    const behind = await openSqs({ ...keys, PSQLQUEUE_TRUSTED_PROXIES: "127.0.0.1" });
    const forwarded = (request: { headers: Record<string, string> }) => {
      request.headers["x-forwarded-host"] = request.headers["host"] ?? "";
      request.headers["host"] = "psqlqueue.internal";
    };
    expect(await tampered(forwarded)).toEqual(["SignatureDoesNotMatch", 403]);
    expect(await tampered(forwarded, behind.origin)).toEqual(["QueueDoesNotExist", 400]);
    await behind.close();
  });
});

const hmac = (key: string | Buffer, data: string) => createHmac("sha256", key).update(data).digest();

/** A presigned GET, made as the documentation says. */
function presign(parameters: Record<string, string>, options: { at_ms?: number; expires?: number } = {}): string {
  const at = new Date(options.at_ms ?? Date.now()).toISOString().replace(/[-:]|\.\d+/g, "");
  const scope = `${at.slice(0, 8)}/us-east-1/sqs/aws4_request`;
  const all = {
    ...parameters,
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": `${key_id}/${scope}`,
    "X-Amz-Date": at,
    "X-Amz-Expires": String(options.expires ?? 60),
    "X-Amz-SignedHeaders": "host",
  };
  const query = Object.entries(all)
    .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
    .sort()
    .join("&");
  const host = new URL(sqs.origin).host;
  const canonical = ["GET", "/", query, `host:${host}\n`, "host", sha256("")].join("\n");
  const signing_key = [at.slice(0, 8), "us-east-1", "sqs", "aws4_request"].reduce<string | Buffer>(
    hmac,
    `AWS4${secret}`,
  );
  const signature = hmac(signing_key as Buffer, `AWS4-HMAC-SHA256\n${at}\n${scope}\n${sha256(canonical)}`).toString(
    "hex",
  );
  return `${sqs.origin}/?${query}&X-Amz-Signature=${signature}`;
}

const statusAndCode = async (response: Response): Promise<[number, string | undefined]> => [
  response.status,
  /<Code>(.*?)<\/Code>/.exec(await response.text())?.[1],
];

describe("the query protocol", () => {
  test("a presigned URL holds for its time, and for what was signed", async () => {
    const list = { Action: "ListQueues", Version: "2012-11-05" };
    expect(await statusAndCode(await fetch(presign(list)))).toEqual([200, undefined]);
    const late = presign(list, { at_ms: Date.now() - 120_000 });
    expect(await statusAndCode(await fetch(late))).toEqual([400, "RequestExpired"]);
    const changed = presign(list).replace("ListQueues", "PurgeQueue");
    expect(await statusAndCode(await fetch(changed))).toEqual([403, "SignatureDoesNotMatch"]);
    expect(await statusAndCode(await fetch(presign(list, { expires: 1_000_000 })))).toEqual([
      403,
      "IncompleteSignature",
    ]);
  });

  test("without a signature, with half of one, and with another kind", async () => {
    const form = toForm("ListQueues", {}).toString();
    const post = (headers: Record<string, string>) =>
      fetch(`${sqs.origin}/`, {
        method: "POST",
        body: form,
        headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
      });
    expect(await statusAndCode(await post({}))).toEqual([403, "MissingAuthenticationToken"]);
    expect(await statusAndCode(await post({ authorization: "Bearer x" }))).toEqual([403, "IncompleteSignature"]);
    const half = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host";
    expect(await statusAndCode(await post({ authorization: half }))).toEqual([403, "IncompleteSignature"]);
  });
});

test("a refusal of the JSON protocol is worded in JSON", async () => {
  const answer: SqsAnswer = await callSqs(sqs.origin, "json", "ListQueues");
  expect(answer.body.__type).toBe("com.amazonaws.sqs#MissingAuthenticationToken");
  expect(refusedAs(answer)).toEqual({
    status: 403,
    code: "MissingAuthenticationToken",
    message: "The request must be signed with an access key (AWS Signature Version 4).",
  });
});

test("with keys, and signatures switched off, none is asked for; switched on without keys is refused", async () => {
  const keys = { PSQLQUEUE_SQS_ACCESS_KEYS: `${key_id}:${secret}` };
  const off = await openSqs({ ...keys, PSQLQUEUE_SQS_AUTH: "off" });
  expect((await off.call("json", "ListQueues")).status).toBe(200);
  await off.close();
  expect(() => readConfig({ PSQLQUEUE_SQS_AUTH: "on" })).toThrow("nobody could sign");
  expect(readConfig({ ...keys, PSQLQUEUE_SQS_AUTH: "on" }).PSQLQUEUE_SQS_ACCESS_KEYS.size).toBe(1);
  // API keys sign where their secrets can be kept.
  const master = { PSQLQUEUE_MASTER_KEY: Buffer.alloc(32, 7).toString("base64") };
  expect(readConfig({ ...master, PSQLQUEUE_AUTH: "on", PSQLQUEUE_SQS_AUTH: "on" }).PSQLQUEUE_SQS_AUTH).toBe("on");
  for (const given of [master, { PSQLQUEUE_AUTH: "on" }]) {
    expect(() => readConfig({ ...given, PSQLQUEUE_SQS_AUTH: "on" })).toThrow("nobody could sign");
  }
});

test("without access keys any signature will do, and its key is the sender", async () => {
  const open = await openSqs();
  const client = open.client();
  const QueueUrl = await open.queue();
  const { QueueUrl: found } = await client.send(new GetQueueUrlCommand({ QueueName: QueueUrl.split("/").at(-1) }));
  expect(found).toBe(QueueUrl);
  await open.close();
});
