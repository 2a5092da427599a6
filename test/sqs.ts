// The endpoint for clients of Amazon SQS beside v1 on one port, as the server puts them.

import { SQSClient } from "@aws-sdk/client-sqs";
import { createEdges } from "../src/commands/edges.ts";
import { readConfig } from "../src/config.ts";
import { refusal } from "../src/http/output.ts";
import type { Listener } from "../src/web/listener.ts";
import { startListener } from "../src/web/listener.ts";
import { openService, type Service, type ServiceOptions, uniqueId } from "./harness.ts";

export type Protocol = "json" | "query";
export const protocols: Protocol[] = ["json", "query"];

export type SqsAnswer = {
  status: number;
  headers: Headers;
  text: string;
  /** JSON, or XML as `element` → text or elements; repeated ones are lists. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into bodies of every shape
  body: any;
};

type Json = Record<string, unknown>;
type Xml = string | { [name: string]: Xml | Xml[] };

const unescaped = (text: string) =>
  text
    .replaceAll("&lt;", "<")
    .replaceAll("&gt;", ">")
    .replaceAll("&quot;", '"')
    .replaceAll("&apos;", "'")
    .replace(/&#(\d+);/g, (_, code) => String.fromCodePoint(Number(code)))
    .replaceAll("&amp;", "&");

/** Parses what our writer writes, and throws for what is not well-formed. */
export function parseXml(text: string): Xml {
  const source = text.replace(/^<\?xml[^?]*\?>\s*/, "");
  let at = 0;
  const parseElement = (): [string, Xml] => {
    const open = /^<([A-Za-z][\w.]*)(?:\s+[\w:]+="[^"<]*")*\s*(\/?)>/.exec(source.slice(at, at + 400));
    if (open === null) throw new Error(`not an element at ${at}: ${source.slice(at, at + 80)}`);
    const name = open[1] ?? "";
    at += open[0].length;
    if (open[2] === "/") return [name, ""];
    const children: Record<string, Xml | Xml[]> = {};
    let content = "";
    while (!source.startsWith(`</${name}>`, at)) {
      if (at >= source.length) throw new Error(`${name} is not closed`);
      if (source[at] === "<") {
        const [child, value] = parseElement();
        const before = children[child];
        if (before === undefined) children[child] = value;
        else children[child] = Array.isArray(before) ? [...before, value] : [before, value];
      } else {
        const end = source.indexOf("<", at);
        const raw = source.slice(at, end);
        if (/&(?!lt;|gt;|quot;|apos;|amp;|#\d+;)/.test(raw)) throw new Error(`a bare ampersand in ${name}`);
        if (/[^\t\n\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/u.test(raw))
          throw new Error("illegal character");
        content += raw;
        at = end;
      }
    }
    at += name.length + 3;
    return [name, Object.keys(children).length > 0 ? children : unescaped(content)];
  };
  const [name, value] = parseElement();
  if (at !== source.length) throw new Error(`more after the root: ${source.slice(at, at + 80)}`);
  return { [name]: value };
}

/** Names of the items of lists and maps in the query protocol. */
const list_names: Record<string, string> = {
  AttributeNames: "AttributeName",
  MessageAttributeNames: "MessageAttributeName",
  MessageSystemAttributeNames: "MessageSystemAttributeName",
  TagKeys: "TagKey",
  AWSAccountIds: "AWSAccountId",
  Actions: "ActionName",
};
const map_names: Record<string, [string, string]> = {
  Attributes: ["Attribute", "Name"],
  MessageAttributes: ["MessageAttribute", "Name"],
  MessageSystemAttributes: ["MessageSystemAttribute", "Name"],
  Tags: ["Tag", "Key"],
  tags: ["Tag", "Key"],
};

/** Input as the JSON protocol has it, as parameters of the query protocol. */
export function toForm(action: string, input: Json): URLSearchParams {
  const form = new URLSearchParams({ Action: action, Version: "2012-11-05" });
  const add = (prefix: string, name: string, value: unknown): void => {
    const list_name = name === "Entries" ? `${action}RequestEntry` : list_names[name];
    const map_name = map_names[name];
    if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) {
        const place = `${prefix}${list_name ?? name}.${i + 1}`;
        if (typeof item === "object") for (const key in item) add(`${place}.`, key, item[key]);
        else form.set(place, String(item));
      }
    } else if (map_name !== undefined && typeof value === "object" && value !== null) {
      for (const [i, [key, item]] of Object.entries(value as Json).entries()) {
        const place = `${prefix}${map_name[0]}.${i + 1}`;
        form.set(`${place}.${map_name[1]}`, key);
        if (typeof item === "object") for (const own in item) add(`${place}.Value.`, own, (item as Json)[own]);
        else form.set(`${place}.Value`, String(item));
      }
    } else form.set(prefix + name, String(value));
  };
  for (const name in input) add("", name, input[name]);
  return form;
}

export type SqsService = {
  service: Service;
  port: number;
  origin: string;
  /** For the SDK. */
  client(): SQSClient;
  call(protocol: Protocol, action: string, input?: Json, headers?: Record<string, string>): Promise<SqsAnswer>;
  /** Makes a queue and answers its URL. */
  queue(attributes?: Record<string, string>, name?: string): Promise<string>;
  close(): Promise<void>;
};

/** The requests of both protocols on a server's address. */
export async function callSqs(
  origin: string,
  protocol: Protocol,
  action: string,
  input: Json = {},
  headers: Record<string, string> = {},
): Promise<SqsAnswer> {
  const init: RequestInit =
    protocol === "json"
      ? {
          method: "POST",
          headers: { "content-type": "application/x-amz-json-1.0", "x-amz-target": `AmazonSQS.${action}`, ...headers },
          body: JSON.stringify(input),
        }
      : {
          method: "POST",
          headers: { "content-type": "application/x-www-form-urlencoded; charset=utf-8", ...headers },
          body: toForm(action, input).toString(),
        };
  const response = await fetch(`${origin}/`, init);
  const text = await response.text();
  const body = response.headers.get("content-type")?.includes("xml") ? parseXml(text) : JSON.parse(text);
  return { status: response.status, headers: response.headers, text, body };
}

/** A service whose both edges listen on one port. `settings`: of the environment. */
export async function openSqs(
  settings: Record<string, string> = {},
  options: ServiceOptions = {},
): Promise<SqsService> {
  const service = await openService(options);
  const config = readConfig(settings);
  const edges = createEdges(service.broker, service.app, config, undefined, options.isStopping ?? (() => false));
  const listener: Listener = await startListener({
    hostname: "127.0.0.1",
    port: 0,
    fetch: edges.main,
    refusal,
    idle_seconds_max: 120,
    header_seconds_max: 60,
    body_rate_min: 240,
    rate_window_ms: 10_000,
    handler_seconds_max: 300,
  });
  const origin = `http://127.0.0.1:${listener.port}`;
  const clients: SQSClient[] = [];
  const call: SqsService["call"] = (...given) => callSqs(origin, ...given);
  return {
    service,
    port: listener.port,
    origin,
    client() {
      const client = new SQSClient({
        endpoint: origin,
        region: "us-east-1",
        credentials: { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret-of-example" },
        maxAttempts: 1,
      });
      clients.push(client);
      return client;
    },
    call,
    async queue(attributes = {}, name = uniqueId()) {
      const answer = await call("json", "CreateQueue", { QueueName: name, Attributes: attributes });
      if (answer.status !== 200) throw new Error(`queue not created: ${answer.text}`);
      return answer.body.QueueUrl;
    },
    async close() {
      for (const client of clients) client.destroy();
      service.broker.wakeups.stop();
      await listener.stop(true);
      await service.close();
    },
  };
}

/** What a refusal is, of whatever protocol: its code in the query protocol, its text, the HTTP status. */
export function refusedAs(answer: SqsAnswer): { status: number; code: string; message: string } {
  const error = answer.body.ErrorResponse?.Error;
  if (error !== undefined) return { status: answer.status, code: error.Code, message: error.Message };
  const code = answer.headers.get("x-amzn-query-error")?.split(";")[0] ?? "";
  return { status: answer.status, code, message: answer.body.message };
}

/** The result of an action, of whatever protocol. */
export function resultOf(answer: SqsAnswer, action: string): SqsAnswer["body"] {
  if (answer.status !== 200) throw new Error(`${action}: ${answer.text}`);
  return answer.headers.get("content-type")?.includes("xml")
    ? (answer.body[`${action}Response`][`${action}Result`] ?? {})
    : answer.body;
}
