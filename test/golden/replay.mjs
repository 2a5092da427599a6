#!/usr/bin/env node
// Replays recorded request/response cases against a running server. No dependencies; Node >= 20 or Bun.
// Steps of one suite run in order; see the type of a step below and the matchers in compareMatcher.
import { readFileSync } from "node:fs";
import net from "node:net";
import tls from "node:tls";

const USAGE = "usage: replay.mjs BASE_URL FILE.json [--only N] [--suite NAME] [--upstream] [--verbose]";
const REQUEST_TIMEOUT_MS = 15_000;
const PATTERNS = {
  rfc3339: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$/,
  ulid: /^[0-7][0-9A-HJKMNP-TV-Z]{25}$/,
};
// Members with user data: compared exactly. In every other object but an error a server may append members after the
// expected ones; an error with a code above 10 may add `details`.
const USER_MAPS = new Set(["attributes", "message_filters"]);

class Unreachable extends Error {}

function stop(text) {
  console.error(text);
  process.exit(2);
}

function parseArguments(argv) {
  const options = { upstream: false, verbose: false, only: undefined, suite: undefined };
  const rest = [];
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i];
    if (argument === "--upstream") options.upstream = true;
    else if (argument === "--verbose") options.verbose = true;
    else if (argument === "--only") options.only = Number(argv[++i]);
    else if (argument === "--suite") options.suite = argv[++i];
    else if (argument.startsWith("-")) stop(`unknown option ${argument}\n${USAGE}`);
    else rest.push(argument);
  }
  if (rest.length !== 2) stop(USAGE);
  if (options.only !== undefined && !Number.isInteger(options.only)) stop(`--only needs a step number\n${USAGE}`);
  try {
    options.base = new URL(rest[0]);
  } catch {
    stop(`not a URL: ${rest[0]}\n${USAGE}`);
  }
  if (!["http:", "https:"].includes(options.base.protocol)) stop(`not an http(s) URL: ${rest[0]}`);
  try {
    options.suites = JSON.parse(readFileSync(rest[1], "utf8"));
  } catch (error) {
    stop(`cannot read ${rest[1]}: ${error.message}`);
  }
  return options;
}

// ---- one HTTP/1.1 exchange on a fresh connection: the path goes out byte for byte, which fetch() would normalise ----

function decodeChunked(buffer) {
  const parts = [];
  let at = 0;
  for (;;) {
    const end = buffer.indexOf("\r\n", at);
    if (end < 0) return undefined;
    const size = parseInt(buffer.toString("latin1", at, end), 16);
    if (Number.isNaN(size)) throw new Error("bad chunk size in the response");
    if (size === 0) return buffer.indexOf("\r\n\r\n", end) < 0 && buffer.indexOf("\r\n", end + 2) < 0 ? undefined : Buffer.concat(parts);
    if (buffer.length < end + 2 + size + 2) return undefined;
    parts.push(buffer.subarray(end + 2, end + 2 + size));
    at = end + 2 + size + 2;
  }
}

function parseResponse(buffer, method, closed) {
  const end = buffer.indexOf("\r\n\r\n");
  if (end < 0) {
    if (closed) throw new Error("connection closed before the response headers");
    return undefined;
  }
  const [statusLine, ...lines] = buffer.toString("latin1", 0, end).split("\r\n");
  const match = /^HTTP\/1\.[01] (\d{3})/.exec(statusLine);
  if (!match) throw new Error(`not an HTTP response: ${statusLine.slice(0, 60)}`);
  const status = Number(match[1]);
  let rest = buffer.subarray(end + 4);
  if (status < 200) return parseResponse(rest, method, closed);
  const headers = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    headers[name] = headers[name] === undefined ? value : `${headers[name]}, ${value}`;
  }
  if (method === "HEAD" || status === 204 || status === 304) return { status, headers, body: Buffer.alloc(0) };
  if (/chunked/i.test(headers["transfer-encoding"] ?? "")) {
    const body = decodeChunked(rest);
    if (body === undefined && closed) throw new Error("connection closed inside a chunked body");
    return body && { status, headers, body };
  }
  if (headers["content-length"] !== undefined) {
    const length = Number(headers["content-length"]);
    if (rest.length >= length) return { status, headers, body: rest.subarray(0, length) };
    if (closed) throw new Error("connection closed inside the body");
    return undefined;
  }
  return closed ? { status, headers, body: rest } : undefined;
}

function exchange(base, { method, path, headers = {}, body }) {
  const lines = { Host: base.host, Connection: "close", Accept: "*/*" };
  if (body !== undefined) {
    lines["Content-Type"] = "application/json";
    lines["Content-Length"] = String(body.length);
  }
  for (const [name, value] of Object.entries(headers)) {
    const known = Object.keys(lines).find((key) => key.toLowerCase() === name.toLowerCase());
    if (known) delete lines[known];
    if (value !== null) lines[name] = value;
  }
  const head = [`${method} ${path} HTTP/1.1`, ...Object.entries(lines).map(([name, value]) => `${name}: ${value}`), "", ""].join("\r\n");
  const secure = base.protocol === "https:";
  const host = base.hostname.replace(/^\[|\]$/g, "");
  const port = Number(base.port || (secure ? 443 : 80));
  return new Promise((resolve, reject) => {
    const socket = secure ? tls.connect({ host, port, servername: host }) : net.connect({ host, port });
    let received = Buffer.alloc(0);
    let connected = false;
    let settled = false;
    const finish = (call, value) => {
      if (settled) return;
      settled = true;
      clearTimeout(timer);
      socket.destroy();
      call(value);
    };
    const timer = setTimeout(() => finish(reject, new Error(`no answer in ${REQUEST_TIMEOUT_MS / 1000} s`)), REQUEST_TIMEOUT_MS);
    const read = (closed) => {
      try {
        const response = parseResponse(received, method, closed);
        if (response) finish(resolve, response);
      } catch (error) {
        finish(reject, error);
      }
    };
    socket.on(secure ? "secureConnect" : "connect", () => {
      connected = true;
      socket.write(Buffer.concat([Buffer.from(head, "latin1"), body ?? Buffer.alloc(0)]));
    });
    socket.on("data", (chunk) => {
      received = Buffer.concat([received, chunk]);
      read(false);
    });
    socket.on("end", () => read(true));
    socket.on("close", () => read(true));
    socket.on("error", (error) => {
      if (!connected) finish(reject, new Unreachable(`cannot connect to ${base.origin}: ${error.message}`));
      else finish(reject, error);
    });
  });
}

// ---- templates: {{p}} = the suite's prefix, {{origin}} = the server's origin, ${name} = a captured value ----

function fill(value, context) {
  if (typeof value === "string") {
    return value
      .replaceAll("{{p}}", context.prefix)
      .replaceAll("{{origin}}", context.origin)
      .replace(/\$\{(\w+)\}/g, (whole, name) => {
        if (!(name in context.captured)) throw new Error(`no captured value named ${name}`);
        return context.captured[name];
      });
  }
  if (Array.isArray(value)) return value.map((item) => fill(item, context));
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [fill(key, context), fill(item, context)]));
  }
  return value;
}

/** Reads `$.data[0].id` from a parsed body. */
function pick(body, path) {
  let value = body;
  for (const [, key, index] of path.replace(/^\$/, "").matchAll(/\.(\w+)|\[(\d+)\]/g)) {
    value = value?.[key ?? Number(index)];
  }
  return value;
}

// ---- comparison ----

const show = (value) => (value === undefined ? "nothing" : JSON.stringify(value));
const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

function compareArray(matcher, got, at, report) {
  if (!Array.isArray(got)) return report.fail(at, "an array", got);
  if (matcher.length !== undefined && got.length !== matcher.length) report.fail(at, `${matcher.length} items`, `${got.length} items`);
  if (matcher.max !== undefined && got.length > matcher.max) report.fail(at, `at most ${matcher.max} items`, `${got.length} items`);
  const silent = (expected, value) => {
    const probe = { upstream: report.upstream, failures: 0, fail: () => probe.failures++, warn: () => {} };
    compare(expected, value, at, probe);
    return probe.failures === 0;
  };
  if (matcher.contains) {
    let from = 0;
    for (const expected of matcher.contains) {
      const index = got.findIndex((value, i) => i >= from && silent(expected, value));
      if (index < 0) report.fail(at, `to contain, in this order, ${show(matcher.contains)}; missing ${show(expected)}`, got);
      else from = index + 1;
    }
  }
  if (matcher.unordered) {
    if (got.length !== matcher.unordered.length) report.fail(at, `${matcher.unordered.length} items`, got);
    const left = [...got];
    for (const expected of matcher.unordered) {
      const index = left.findIndex((value) => silent(expected, value));
      if (index < 0) report.fail(at, `to contain ${show(expected)}`, got);
      else left.splice(index, 1);
    }
  }
}

function compareMatcher(matcher, got, at, report) {
  const kind = matcher.$match;
  if (kind === "any") {
    if (got === undefined) report.fail(at, "a value", got);
  } else if (kind === "absent") {
    if (got !== undefined) report.fail(at, "to be absent", got);
  } else if (kind === "string") {
    if (typeof got !== "string") report.fail(at, "a string", got);
  } else if (kind === "number") {
    const ok = typeof got === "number" && got >= (matcher.min ?? -Infinity) && got <= (matcher.max ?? Infinity);
    if (!ok) report.fail(at, `a number${matcher.min === undefined ? "" : ` >= ${matcher.min}`}${matcher.max === undefined ? "" : ` <= ${matcher.max}`}`, got);
  } else if (kind === "regex") {
    if (typeof got !== "string" || !new RegExp(matcher.value).test(got)) report.fail(at, `to match /${matcher.value}/`, got);
  } else if (kind === "tokens") {
    const tokens = String(got ?? "").split(",").map((token) => token.trim().toUpperCase());
    if (!matcher.value.every((token) => tokens.includes(token))) report.fail(at, `the tokens ${matcher.value.join(", ")}`, got);
  } else if (kind === "array") {
    compareArray(matcher, got, at, report);
  } else if (PATTERNS[kind]) {
    if (typeof got !== "string" || !PATTERNS[kind].test(got)) report.fail(at, `a value like ${kind}`, got);
  } else {
    stop(`unknown matcher ${kind}`);
  }
}

function compare(expected, got, at, report, isUserMap = false) {
  if (isObject(expected) && "$match" in expected) return compareMatcher(expected, got, at, report);
  if (Array.isArray(expected)) {
    if (!Array.isArray(got)) return report.fail(at, show(expected), got);
    if (got.length !== expected.length) report.fail(at, `${expected.length} items`, got);
    expected.forEach((item, i) => i < got.length && compare(item, got[i], `${at}[${i}]`, report));
    return;
  }
  if (!isObject(expected)) {
    if (expected !== got) report.fail(at, show(expected), got);
    return;
  }
  if (!isObject(got)) return report.fail(at, show(expected), got);
  for (const [key, value] of Object.entries(expected)) compare(value, got[key], `${at}.${key}`, report, USER_MAPS.has(key));
  const isError = "code" in expected && "message" in expected;
  const extra = Object.keys(got).filter((key) => !(key in expected) && !(isError && key === "details" && !(expected.code <= 10)));
  if (extra.length > 0 && (report.upstream || isUserMap || isError)) report.fail(at, `only the members ${Object.keys(expected).join(", ")}`, got);
  if (!isUserMap) {
    const wanted = Object.keys(expected).filter((key) => key in got);
    const order = Object.keys(got);
    if (order.slice(0, wanted.length).join() !== wanted.join()) report.warn(at, wanted, order);
  }
}

const plainType = (type) => (type === undefined || type === null ? null : type.toLowerCase().replaceAll(" ", ""));

function check(expected, response, report) {
  if (response.status !== expected.status) report.fail("status", expected.status, response.status);
  if ("contentType" in expected && plainType(expected.contentType) !== plainType(response.headers["content-type"])) {
    report.fail("content-type", show(expected.contentType), response.headers["content-type"]);
  }
  for (const [name, value] of Object.entries(expected.headers ?? {})) compare(value, response.headers[name.toLowerCase()], `header ${name}`, report);
  const text = response.body.toString("utf8");
  if (expected.bodyText !== undefined && text !== expected.bodyText) report.fail("body", show(expected.bodyText), text);
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    if (expected.bodyJson !== undefined) report.fail("body", show(expected.bodyJson), text);
    return undefined;
  }
  if (expected.bodyJson !== undefined) compare(expected.bodyJson, parsed, "body", report);
  return parsed;
}

// ---- running ----

async function runStep(step, context, options) {
  const failures = [];
  const warnings = [];
  const report = {
    upstream: options.upstream,
    fail: (at, expected, got) => failures.push(`${at}: expected ${expected}, got ${typeof got === "string" ? got : show(got)}`),
    warn: (at, wanted, order) => warnings.push(`${at}: members in the order ${order.join(", ")}; expected first ${wanted.join(", ")}`),
  };
  let line = `${step.method} ${step.path}`;
  let sent;
  let response;
  try {
    const path = fill(step.path, context);
    line = `${step.method} ${path}`;
    sent = step.bodyBase64 !== undefined ? Buffer.from(step.bodyBase64, "base64") : undefined;
    if (step.body !== undefined) sent = Buffer.from(fill(step.body, context), "utf8");
    response = await exchange(context.base, { method: step.method, path, headers: fill(step.headers ?? {}, context), body: sent });
    const expected = fill((options.upstream && step.upstream) || step.expect, context);
    const parsed = check(expected, response, report);
    for (const [name, where] of Object.entries(step.capture ?? {})) {
      const value = pick(parsed, where);
      if (value === undefined || value === null) failures.push(`nothing to capture at ${where}`);
      else context.captured[name] = String(value);
    }
  } catch (error) {
    if (error instanceof Unreachable) throw error;
    failures.push(error.message);
  }
  const got = response && `HTTP ${response.status} ${response.headers["content-type"] ?? "(no content type)"} ${response.body.toString("utf8").slice(0, 1500)}`;
  return { line, sent, got, failures, warnings };
}

async function main() {
  const options = parseArguments(process.argv.slice(2));
  let suites = options.suites;
  if (options.suite !== undefined) suites = suites.filter((suite) => suite.suite === options.suite);
  if (options.only !== undefined) suites = suites.filter((suite) => suite.steps.some((step) => step.n === options.only));
  if (suites.length === 0) stop("no such suite or step");
  const run = `g${Date.now().toString(36)}${Math.floor(Math.random() * 1296).toString(36)}`;
  let passed = 0;
  let failed = 0;
  for (const [index, suite] of suites.entries()) {
    const context = { base: options.base, origin: options.base.origin, prefix: `${run}-${index}`, captured: {} };
    for (const step of suite.steps) {
      if (step.sleep_ms !== undefined) {
        await new Promise((resolve) => setTimeout(resolve, step.sleep_ms));
        continue;
      }
      const result = await runStep(step, context, options);
      const counts = options.only === undefined || step.n === options.only;
      for (const text of result.warnings) console.log(`warning: #${step.n} [${suite.suite}] ${text}`);
      if (result.failures.length > 0) {
        console.log(`${counts ? "FAIL" : "(earlier step failed)"} #${step.n} [${suite.suite}] ${result.line}${step.note ? `  — ${step.note}` : ""}`);
        if (step.deviation && !options.upstream) console.log(`     deviation from 0.4.1: ${step.deviation}`);
        if (result.sent) console.log(`     sent: ${result.sent.toString("utf8").slice(0, 500)}`);
        for (const text of result.failures) console.log(`     ${text}`);
        if (result.got) console.log(`     got: ${result.got}`);
      } else if (options.verbose && counts) console.log(`ok   #${step.n} [${suite.suite}] ${result.line}`);
      if (counts) result.failures.length > 0 ? failed++ : passed++;
      if (step.n === options.only) break;
    }
    for (const path of suite.cleanup ?? []) {
      await exchange(options.base, { method: "DELETE", path: fill(path, context) }).catch(() => undefined);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed > 0 ? 1 : 0;
}

main().catch((error) => stop(error instanceof Unreachable ? error.message : (error.stack ?? String(error))));
