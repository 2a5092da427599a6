// The two protocols: what is legal in XML, how parameters are read, and what actions answer in either.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { readConfig } from "../src/config.ts";
import { element, escapeXml, isXmlText } from "../src/sqs/xml.ts";
import { openSqs, parseXml, protocols, refusedAs, resultOf, type SqsAnswer } from "./sqs.ts";

setDefaultTimeout(90_000);

const sqs = await openSqs();
afterAll(() => sqs.close());

type Json = Record<string, unknown>;
const listOf = (own: unknown): unknown[] => (own === undefined ? [] : Array.isArray(own) ? own : [own]);
const name = (url: string) => url.split("/").at(-1) ?? "";
const arn = (url: string) => `arn:aws:sqs:us-east-1:000000000000:${name(url)}`;

describe("XML", () => {
  /** As XML 1.0 says it: the production Char. */
  const isLegal = (code: number) =>
    [9, 10, 13].includes(code) ||
    (code >= 0x20 && code <= 0xd7ff) ||
    (code >= 0xe000 && code <= 0xfffd) ||
    (code >= 0x10000 && code <= 0x10ffff);

  test("every legal character comes back as it was, no illegal one is ever written", () => {
    let legal = 0;
    for (let code = 0; code <= 0x10ffff; code++) {
      const character = String.fromCodePoint(code);
      const expected = isLegal(code) ? character : "\ufffd";
      if (isXmlText(character) !== isLegal(code)) throw new Error(`isXmlText of ${code.toString(16)}`);
      const text = escapeXml(character);
      // What needs no escape is itself; the others are read back by a parser.
      const read = text === character ? character : (parseXml(element("A", text)) as Json)["A"];
      if (read !== expected) throw new Error(`${code.toString(16)} became ${JSON.stringify(read)}`);
      legal += Number(isLegal(code));
    }
    expect(legal).toBe(0x110000 - 2048 - 29 - 2);
  });

  test("lone surrogates and pairs, entities and sections are text", () => {
    for (const text of ["a\ud800b", "\udc00", "\ude00\ud83d"]) {
      expect([isXmlText(text), escapeXml(text).includes("\ufffd")]).toEqual([false, true]);
    }
    const odd = "😀&amp;<![CDATA[x]]>&#0;<!-- -->'\"\r\n\t";
    expect(parseXml(element("A", element("B", escapeXml(odd))))).toEqual({ A: { B: odd } });
    expect(element("A", "")).toBe("<A/>");
  });
});

for (const protocol of protocols) {
  describe(protocol, () => {
    const call = async (action: string, input: Json = {}) => resultOf(await sqs.call(protocol, action, input), action);
    /** A map of an answer, of whatever protocol. */
    const mapOf = (result: Json, json_name: string, xml_name: string, key = "Name"): Json =>
      protocol === "json"
        ? ((result[json_name] ?? {}) as Json)
        : Object.fromEntries(listOf(result[xml_name]).map((item) => [(item as Json)[key], (item as Json)["Value"]]));
    const urlsOf = (result: Json, json_name = "QueueUrls") =>
      protocol === "json" ? result[json_name] : listOf(result["QueueUrl"]);
    const messagesOf = (result: Json) => listOf(protocol === "json" ? result["Messages"] : result["Message"]) as Json[];

    test("queues: made twice with what they have, found, listed by prefix in pages, deleted", async () => {
      const names = ["a", "b", "c"].map((letter) => `${protocol}-list-${letter}`);
      const urls: string[] = [];
      for (const QueueName of names) urls.push((await call("CreateQueue", { QueueName })).QueueUrl);
      expect(await call("CreateQueue", { QueueName: names[0], Attributes: { VisibilityTimeout: "30" } })).toEqual({
        QueueUrl: urls[0],
      });
      expect(await call("GetQueueUrl", { QueueName: names[1] })).toEqual({ QueueUrl: urls[1] });
      const QueueNamePrefix = `${protocol}-list-`;
      expect(urlsOf(await call("ListQueues", { QueueNamePrefix }))).toEqual(urls);
      const first = await call("ListQueues", { QueueNamePrefix, MaxResults: 2 });
      expect(urlsOf(first)).toEqual(urls.slice(0, 2));
      const last = await call("ListQueues", { QueueNamePrefix, MaxResults: 2, NextToken: first.NextToken });
      expect([urlsOf(last), last.NextToken]).toEqual([urls.slice(2), undefined]);
      expect(urlsOf(await call("ListQueues", { QueueNamePrefix: "nothing-" }))).toEqual(
        protocol === "json" ? undefined : [],
      );
      for (const QueueUrl of urls) await call("DeleteQueue", { QueueUrl });
      expect(refusedAs(await sqs.call(protocol, "GetQueueUrl", { QueueName: names[0] })).code).toBe(
        "AWS.SimpleQueueService.NonExistentQueue",
      );
    });

    test("attributes: those that are asked for; an empty text takes policies away", async () => {
      const QueueUrl = await sqs.queue();
      const attributes = async (...AttributeNames: string[]) =>
        mapOf(await call("GetQueueAttributes", { QueueUrl, AttributeNames }), "Attributes", "Attribute");
      expect(await attributes()).toEqual({});
      expect(await attributes("VisibilityTimeout", "QueueArn", "FifoQueue", "Policy")).toEqual({
        VisibilityTimeout: "30",
        QueueArn: arn(QueueUrl),
      });
      const dead = await sqs.queue();
      const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: arn(dead), maxReceiveCount: 10 });
      await call("SetQueueAttributes", {
        QueueUrl,
        Attributes: {
          RedrivePolicy: JSON.stringify({ deadLetterTargetArn: arn(dead) }),
          Policy: '{"a":"<&>"}',
          KmsMasterKeyId: "key",
          MaximumMessageSize: "2048",
        },
      });
      const names = ["RedrivePolicy", "Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds", "MaximumMessageSize"];
      expect(await attributes(...names)).toEqual({
        RedrivePolicy,
        Policy: '{"a":"<&>"}',
        KmsMasterKeyId: "key",
        KmsDataKeyReusePeriodSeconds: "300",
        MaximumMessageSize: "2048",
      });
      expect(urlsOf(await call("ListDeadLetterSourceQueues", { QueueUrl: dead }), "queueUrls")).toEqual([QueueUrl]);
      await call("SetQueueAttributes", {
        QueueUrl,
        Attributes: { RedrivePolicy: "", Policy: "", KmsMasterKeyId: "", MaximumMessageSize: "1048576" },
      });
      expect(await attributes(...names)).toEqual({ MaximumMessageSize: "1048576" });
    });

    test("who may send dead letters here is kept to", async () => {
      const QueueUrl = await sqs.queue();
      const set = async (RedriveAllowPolicy: Json) => {
        const dead = await sqs.queue({ RedriveAllowPolicy: JSON.stringify(RedriveAllowPolicy) });
        const RedrivePolicy = JSON.stringify({ deadLetterTargetArn: arn(dead), maxReceiveCount: 1 });
        return (await sqs.call(protocol, "SetQueueAttributes", { QueueUrl, Attributes: { RedrivePolicy } })).status;
      };
      expect(await set({ redrivePermission: "denyAll" })).toBe(400);
      expect(await set({ redrivePermission: "byQueue", sourceQueueArns: [arn("other")] })).toBe(400);
      expect(await set({ redrivePermission: "byQueue", sourceQueueArns: [arn(QueueUrl)] })).toBe(200);
      expect(await set({ redrivePermission: "allowAll" })).toBe(200);
    });

    test("tags: added, replaced, removed, told apart by case", async () => {
      const QueueUrl = await sqs.queue();
      const tags = async () => mapOf(await call("ListQueueTags", { QueueUrl }), "Tags", "Tag", "Key");
      await call("TagQueue", { QueueUrl, Tags: { a: "1", A: "2", b: "" } });
      expect(await tags()).toEqual({ a: "1", A: "2", b: "" });
      await call("TagQueue", { QueueUrl, Tags: { a: "3" } });
      await call("UntagQueue", { QueueUrl, TagKeys: ["A", "none"] });
      expect(await tags()).toEqual({ a: "3", b: "" });
    });

    test("permissions are statements of the policy", async () => {
      const QueueUrl = await sqs.queue();
      const read = async () => {
        const result = await call("GetQueueAttributes", { QueueUrl, AttributeNames: ["Policy"] });
        const { Policy } = mapOf(result, "Attributes", "Attribute");
        return Policy === undefined ? undefined : JSON.parse(Policy as string);
      };
      const AWSAccountIds = ["111111111111", "222222222222"];
      await call("AddPermission", { QueueUrl, Label: "both", AWSAccountIds, Actions: ["ReceiveMessage"] });
      await call("AddPermission", {
        QueueUrl,
        Label: "one",
        AWSAccountIds: ["111111111111"],
        Actions: ["SendMessage"],
      });
      const principal = (id: string) => `arn:aws:iam::${id}:root`;
      const one = {
        Sid: "one",
        Effect: "Allow",
        Principal: { AWS: principal("111111111111") },
        Action: "SQS:SendMessage",
        Resource: arn(QueueUrl),
      };
      expect(await read()).toEqual({
        Version: "2008-10-17",
        Id: `${arn(QueueUrl)}/SQSDefaultPolicy`,
        Statement: [
          { ...one, Sid: "both", Principal: { AWS: AWSAccountIds.map(principal) }, Action: "SQS:ReceiveMessage" },
          one,
        ],
      });
      await call("RemovePermission", { QueueUrl, Label: "both" });
      expect((await read()).Statement).toEqual([one]);
      await call("RemovePermission", { QueueUrl, Label: "one" });
      expect(await read()).toBeUndefined();
    });

    test("two permissions at once are both there", async () => {
      const QueueUrl = await sqs.queue();
      const add = (Label: string) =>
        sqs.call(protocol, "AddPermission", { QueueUrl, Label, AWSAccountIds: ["111111111111"], Actions: ["*"] });
      const answers = await Promise.all(["a", "b", "c", "d"].map(add));
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
      const { extras } = await sqs.service.broker.getQueueAndExtras(name(QueueUrl));
      const statements = JSON.parse(extras["Policy"] ?? "").Statement as { Sid: string }[];
      expect(statements.map(({ Sid }) => Sid).sort()).toEqual(["a", "b", "c", "d"]);
    });

    test("a receive shows the attributes that it names, and their MD5 covers those", async () => {
      const QueueUrl = await sqs.queue({ VisibilityTimeout: "0" });
      const text = (StringValue: string) => ({ DataType: "String", StringValue });
      const all = { "Help.Me": text("Me"), Hello: text("There"), General: text("Kenobi") };
      const sent = await call("SendMessage", { QueueUrl, MessageBody: "msg", MessageAttributes: all });
      expect(sent.MD5OfMessageAttributes).toBe("4c360f3fdafd970e05fae2f149d997f5");
      const seen = async (MessageAttributeNames: string[]) => {
        const [message = {}] = messagesOf(await call("ReceiveMessage", { QueueUrl, MessageAttributeNames }));
        const names = Object.keys(mapOf(message, "MessageAttributes", "MessageAttribute")).sort();
        return [names, message["MD5OfMessageAttributes"]];
      };
      const everything = [["General", "Hello", "Help.Me"], "4c360f3fdafd970e05fae2f149d997f5"];
      for (const names of [["All"], ["*"], [".*"]]) expect(await seen(names)).toEqual(everything);
      expect(await seen(["Hello", "General"])).toEqual([["General", "Hello"], "fca026605781cb4126a1e9044df24232"]);
      expect(await seen(["Foo", "Hello"])).toEqual([["Hello"], "a311262e065454b75da111d535b8dacd"]);
      expect(await seen(["Hel.*"])).toEqual([["Hello", "Help.Me"], "83fee93c1bcd8b9a5a923ffacdc636c7"]);
      for (const names of [[], ["Foo", "Help"], ["AWS."], ["..foo"]])
        expect(await seen(names)).toEqual([[], undefined]);
    });

    test("system attributes: those that are asked for by either name; a trace by attribute or header", async () => {
      const QueueUrl = await sqs.queue({ VisibilityTimeout: "0" });
      const trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1";
      const sent = await call("SendMessage", {
        QueueUrl,
        MessageBody: "m",
        MessageGroupId: "fair",
        MessageSystemAttributes: { AWSTraceHeader: { DataType: "String", StringValue: trace } },
      });
      expect([sent.MD5OfMessageSystemAttributes, sent.MD5OfMessageAttributes]).toEqual([
        "5ae4d5d7636402d80f4eb6d213245a88",
        undefined,
      ]);
      const seen = async (input: Json) => {
        const [message = {}] = messagesOf(await call("ReceiveMessage", { QueueUrl, ...input }));
        return mapOf(message, "Attributes", "Attribute");
      };
      expect(await seen({})).toEqual({});
      expect(await seen({ AttributeNames: ["AWSTraceHeader", "SequenceNumber"] })).toEqual({ AWSTraceHeader: trace });
      const all = await seen({ MessageSystemAttributeNames: ["All"], AttributeNames: ["SenderId"] });
      expect(all).toEqual({
        SenderId: "000000000000",
        SentTimestamp: expect.stringMatching(/^\d{13}$/),
        ApproximateFirstReceiveTimestamp: expect.stringMatching(/^\d{13}$/),
        ApproximateReceiveCount: "3",
        MessageGroupId: "fair",
        AWSTraceHeader: trace,
      } as never);
      const again = await seen({ AttributeNames: ["All"] });
      expect(again["ApproximateFirstReceiveTimestamp"]).toBe(all["ApproximateFirstReceiveTimestamp"]);
      const other = await sqs.queue();
      await sqs.call(protocol, "SendMessage", { QueueUrl: other, MessageBody: "m" }, { "x-amzn-trace-id": trace });
      const [message = {}] = messagesOf(await call("ReceiveMessage", { QueueUrl: other, AttributeNames: ["All"] }));
      expect(mapOf(message, "Attributes", "Attribute")).toMatchObject({ AWSTraceHeader: trace });
    });

    test("names, types and values of attributes that are legal, and some that are not", async () => {
      const QueueUrl = await sqs.queue();
      const status = async (own: Json) =>
        (await sqs.call(protocol, "SendMessage", { QueueUrl, MessageBody: "m", MessageAttributes: own })).status;
      const valid = { DataType: "String", StringValue: "x" };
      for (const given of ["a", "attr.1øßä", "A_b-c.d", "x".repeat(256), "constructor", "__proto__"]) {
        expect([given, await status(Object.fromEntries([[given, valid]]))]).toEqual([given, 200]);
      }
      for (const given of ["", ".a", "a.", "a..b", "aWs.x", "AMAZON.x", "a!", 'a"', "a§", "a?", "x".repeat(257)]) {
        expect([given, await status(Object.fromEntries([[given, valid]]))]).toEqual([given, 400]);
      }
      for (const DataType of ["Number", "Number.int", "String.x"]) {
        expect(await status({ a: { DataType, StringValue: "1" } })).toBe(200);
      }
      for (const DataType of ["number", "Numberx", "Invalid", `Number.${"L".repeat(256)}`]) {
        expect(await status({ a: { DataType, StringValue: "1" } })).toBe(400);
      }
      for (const StringValue of ["1", "-1.5", "+2", ".5", "1e10"]) {
        expect(await status({ a: { DataType: "Number", StringValue } })).toBe(200);
      }
      for (const StringValue of ["", "a", "1.2.3", "0x1"]) {
        expect(await status({ a: { DataType: "Number", StringValue } })).toBe(400);
      }
      expect(await status({ a: { DataType: "String", StringValue: "x\u0008" } })).toBe(400);
    });

    test("delays hide, a purge removes whatever is there, counts tell", async () => {
      const QueueUrl = await sqs.queue();
      await call("SendMessageBatch", {
        QueueUrl,
        Entries: [
          { Id: "a", MessageBody: "a" },
          { Id: "b", MessageBody: "b" },
          { Id: "c", MessageBody: "c", DelaySeconds: 900 },
        ],
      });
      await call("ReceiveMessage", { QueueUrl });
      const AttributeNames = ["", "NotVisible", "Delayed"].map((own) => `ApproximateNumberOfMessages${own}`);
      const counts = async () =>
        Object.values(mapOf(await call("GetQueueAttributes", { QueueUrl, AttributeNames }), "Attributes", "Attribute"));
      expect(await counts()).toEqual(["1", "1", "1"]);
      await call("PurgeQueue", { QueueUrl });
      expect(await counts()).toEqual(["0", "0", "0"]);
    });
  });
}

describe("parameters of the query protocol", () => {
  const get = async (query: string): Promise<SqsAnswer> => {
    const response = await fetch(`${sqs.origin}/?${query}`);
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: parseXml(text) };
  };

  test("one without a number, numbers with gaps and out of order, and under `member`", async () => {
    const QueueUrl = encodeURIComponent(await sqs.queue());
    const names = async (query: string) => {
      const answer = await get(`Action=GetQueueAttributes&QueueUrl=${QueueUrl}&${query}`);
      const result = answer.body.GetQueueAttributesResponse.GetQueueAttributesResult;
      return listOf(result.Attribute).map((own) => (own as Json)["Name"]);
    };
    expect(await names("AttributeName=DelaySeconds")).toEqual(["DelaySeconds"]);
    expect(await names("AttributeName.7=QueueArn&AttributeName.2=DelaySeconds")).toEqual(["DelaySeconds", "QueueArn"]);
    expect(await names("AttributeNames.member.1=DelaySeconds")).toEqual(["DelaySeconds"]);
    const set = await get(
      `Action=SetQueueAttributes&QueueUrl=${QueueUrl}&Attribute.Name=DelaySeconds&Attribute.Value=3`,
    );
    expect(set.status).toBe(200);
    const response =
      '<SetQueueAttributesResponse xmlns="http://queue.amazonaws.com/doc/2012-11-05/"><ResponseMetadata>';
    expect(set.text).toStartWith(`<?xml version="1.0"?>${response}<RequestId>`);
    expect(set.text).toEndWith("</RequestId></ResponseMetadata></SetQueueAttributesResponse>");
  });

  test("numbers that are none, base64 that is none, bad escapes, too many parameters", async () => {
    const QueueUrl = encodeURIComponent(await sqs.queue());
    const many = Array.from({ length: 25_001 }, (_, i) => `a${i}`).join("&");
    const refuse = async (body: string) => {
      const headers = { "content-type": "application/x-www-form-urlencoded" };
      const response = await fetch(`${sqs.origin}/`, { method: "POST", headers, body });
      const { ErrorResponse } = parseXml(await response.text()) as { ErrorResponse: { Error: { Code: string } } };
      return [response.status, ErrorResponse.Error.Code];
    };
    const malformed = [400, "MalformedInput"];
    expect(await refuse(`Action=ReceiveMessage&QueueUrl=${QueueUrl}&MaxNumberOfMessages=x`)).toEqual(malformed);
    expect(await refuse(`Action=ReceiveMessage&QueueUrl=%E0%A4%A`)).toEqual(malformed);
    expect(await refuse(`Action=ListQueues&${many}`)).toEqual(malformed);
    const attribute = "MessageAttribute.1.Name=a&MessageAttribute.1.Value.DataType=Binary";
    const binary = `Action=SendMessage&QueueUrl=${QueueUrl}&MessageBody=m&${attribute}`;
    expect(await refuse(`${binary}&MessageAttribute.1.Value.BinaryValue=%21`)).toEqual(malformed);
  });
});

describe("bodies of the JSON protocol", () => {
  test("what is no object, not JSON, not UTF-8, nested too deep, or of another type is refused", async () => {
    const send = async (body: string | Uint8Array<ArrayBuffer>) => {
      const headers = { "content-type": "application/x-amz-json-1.0", "x-amz-target": "AmazonSQS.ReceiveMessage" };
      const response = await fetch(`${sqs.origin}/`, { method: "POST", headers, body });
      return [response.status, ((await response.json()) as Json)["__type"]];
    };
    const refused = [400, "com.amazonaws.sqs#SerializationException"];
    const deep = `{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`;
    const bodies = [
      "[]",
      "1",
      "null",
      "{",
      '"x"',
      '{"QueueUrl":5}',
      '{"MaxNumberOfMessages":"5"}',
      '{"AttributeNames":{}}',
    ];
    for (const body of [...bodies, new Uint8Array([123, 255, 125]), deep.slice(0, -100)]) {
      expect(await send(body)).toEqual(refused);
    }
    expect((await send(""))[0]).toBe(400);
  });

  test("unknown members are passed over, null is absent", async () => {
    const QueueUrl = await sqs.queue();
    const answer = await sqs.call("json", "ReceiveMessage", { QueueUrl, Foo: [{}], MaxNumberOfMessages: null });
    expect([answer.status, answer.text]).toEqual([200, "{}"]);
  });
});

test("relaxed limits: names with dots, a thousand at once, a hundred attributes", async () => {
  const relaxed = await openSqs({ PSQLQUEUE_SQS_LIMITS: "relaxed" });
  const QueueUrl = await relaxed.queue({}, "a.b");
  const Entries = Array.from({ length: 1000 }, (_, i) => ({ Id: `e${i}`, MessageBody: `m${i}` }));
  const sent = await relaxed.call("json", "SendMessageBatch", { QueueUrl, Entries });
  expect(sent.body.Successful).toHaveLength(1000);
  const { body } = await relaxed.call("json", "ReceiveMessage", { QueueUrl, MaxNumberOfMessages: 1000 });
  expect(body.Messages.map(({ Body }: Json) => Body)).toEqual(Entries.map(({ MessageBody }) => MessageBody));
  const handles = body.Messages.map(({ ReceiptHandle }: Json, i: number) => ({ Id: `e${i}`, ReceiptHandle }));
  const deleted = await relaxed.call("json", "DeleteMessageBatch", { QueueUrl, Entries: handles });
  expect([deleted.body.Successful.length, deleted.body.Failed]).toEqual([1000, undefined]);
  await relaxed.close();
});

test("the address that the client used is told by a trusted proxy, and by nobody else", async () => {
  const headers = { "x-forwarded-host": "queue.example.com, lb.internal", "x-forwarded-proto": "https" };
  const told = async (settings: Record<string, string>, given: Record<string, string>) => {
    const own = await openSqs(settings);
    await own.queue({}, "q");
    const url = `${own.origin}/?Action=GetQueueUrl&QueueName=q`;
    const text = await (await fetch(url, { headers: given })).text();
    await own.close();
    return /<QueueUrl>(.*?)<\/QueueUrl>/.exec(text)?.[1]?.replace(own.origin, "itself");
  };
  const path = "/000000000000/q";
  expect(await told({}, headers)).toBe(`itself${path}`);
  expect(await told({ PSQLQUEUE_TRUSTED_PROXIES: "10.0.0.0/8, ::1" }, headers)).toBe(`itself${path}`);
  const trusting = { PSQLQUEUE_TRUSTED_PROXIES: "10.0.0.1,127.0.0.0/8" };
  expect(await told(trusting, headers)).toBe(`https://queue.example.com${path}`);
  expect(await told(trusting, {})).toBe(`itself${path}`);
  expect(await told(trusting, { "x-forwarded-host": "<evil>", "x-forwarded-proto": "gopher" })).toBe(`itself${path}`);
  for (const wrong of ["10.0.0.0/33", "nobody", "10.0.0", "::1/129", "10.0.0.0/8/8", "10.0.0.1/"]) {
    expect(() => readConfig({ PSQLQUEUE_TRUSTED_PROXIES: wrong })).toThrow("such as 10.0.0.0/8");
  }
});

test("addresses and ARNs as they are configured", async () => {
  const own = await openSqs({
    PSQLQUEUE_SQS_PUBLIC_URL: "https://queue.example.com/sqs/",
    PSQLQUEUE_SQS_ACCOUNT_ID: "123456789012",
    PSQLQUEUE_SQS_REGION: "eu-central-1",
  });
  const QueueUrl = await own.queue({}, "q");
  expect(QueueUrl).toBe("https://queue.example.com/sqs/123456789012/q");
  const { body } = await own.call("json", "GetQueueAttributes", { QueueUrl, AttributeNames: ["QueueArn"] });
  expect(body.Attributes.QueueArn).toBe("arn:aws:sqs:eu-central-1:123456789012:q");
  await own.close();
});
