import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import type { Identity } from "../web/identity.ts";
import { SqsError, type SqsErrorName } from "./errors.ts";

// AWS Signature Version 4: in the Authorization header, or in the query of a presigned URL.

/** What a request must have for its signature to be checked. */
export type Signed = {
  method: string;
  /** As they were sent. */
  path: string;
  query: string;
  headers: { get(name: string): string | null; [Symbol.iterator](): Iterator<[string, string]> };
  body: Uint8Array;
};

/** `identity`: what it may do; without it everything. `admit` counts the request against its rate. */
export type AccessKey = { secret: string; identity?: Identity; admit?(): unknown };

export type SignatureRules = {
  /** The key of that id, or undefined. */
  findKey(id: string): Promise<AccessKey | undefined>;
  /** A sender may leave the body out of its signature. */
  takes_unsigned_payload: boolean;
};

const algorithm = "AWS4-HMAC-SHA256";
const unsigned_payload = "UNSIGNED-PAYLOAD";
/** How far the clocks may differ. */
const skew_ms_max = 900_000;
const presigned_seconds_max = 604_800;

const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
const hmac = (key: string | Uint8Array, data: string) => createHmac("sha256", key).update(data).digest();

const encode = (text: string) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`);

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Names and values of a query, decoded. */
const parametersOf = (query: string): [string, string][] =>
  query.split("&").flatMap((pair): [string, string][] => {
    if (pair === "") return [];
    const equals = pair.indexOf("=");
    return equals < 0 ? [[decode(pair), ""]] : [[decode(pair.slice(0, equals)), decode(pair.slice(equals + 1))]];
  });

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

function canonicalQuery(query: string): string {
  return parametersOf(query)
    .filter(([name]) => name !== "X-Amz-Signature")
    .map(([name, value]): [string, string] => [encode(name), encode(value)])
    .sort(([a, x], [b, y]) => compare(a, b) || compare(x, y))
    .map((pair) => pair.join("="))
    .join("&");
}

/** What an Authorization header or a presigned query says. */
export type Claim = {
  key_id: string;
  date: string;
  region: string;
  service: string;
  signed_headers: string[];
  signature: string;
  /** `20150830T123600Z` */
  at: string;
  /** How long a presigned URL holds; undefined for a header. */
  expires_seconds: number | undefined;
};

/** The signature that these headers of a request have under a secret. */
export function signatureOf(signed: Signed, claim: Claim, secret: string, payload_hash: string): string {
  const { date, region, service, signed_headers, at } = claim;
  const headers = signed_headers.map((name) => {
    const value = (signed.headers.get(name) ?? "").trim().replaceAll(/\s+/g, " ");
    return `${name}:${value}\n`;
  });
  const canonical = [
    signed.method,
    signed.path.split("/").map(encode).join("/"),
    canonicalQuery(signed.query),
    headers.join(""),
    signed_headers.join(";"),
    payload_hash,
  ].join("\n");
  const scope = `${date}/${region}/${service}/aws4_request`;
  const key = [region, service, "aws4_request"].reduce(hmac, hmac(`AWS4${secret}`, date));
  return hmac(key, `${algorithm}\n${at}\n${scope}\n${sha256(canonical)}`).toString("hex");
}

const refuse = (error: SqsErrorName, message: string) => new SqsError(error, message);
const incomplete = (what: string) => refuse("IncompleteSignature", `The request signature is incomplete: ${what}.`);

function readCredential(credential: string | undefined): Pick<Claim, "key_id" | "date" | "region" | "service"> {
  const [key_id, date, region, service, end, ...more] = credential?.split("/") ?? [];
  const is_whole = key_id && date && region !== undefined && service && end === "aws4_request" && more.length === 0;
  if (!is_whole) throw incomplete("Credential must be key/date/region/service/aws4_request");
  return { key_id, date, region, service };
}

function readHeader(header: string, at: string | null): Claim {
  const parts = new Map(
    header
      .slice(algorithm.length)
      .split(",")
      .map((part): [string, string] => {
        const equals = part.indexOf("=");
        return [part.slice(0, equals).trim(), part.slice(equals + 1).trim()];
      }),
  );
  const signature = parts.get("Signature");
  const signed_headers = parts.get("SignedHeaders");
  if (signature === undefined) throw incomplete("there is no Signature");
  if (signed_headers === undefined) throw incomplete("there is no SignedHeaders");
  if (at === null) throw incomplete("there is no X-Amz-Date header");
  const credential = readCredential(parts.get("Credential"));
  return { ...credential, signature, signed_headers: signed_headers.split(";"), at, expires_seconds: undefined };
}

function readPresigned(parameters: Map<string, string>): Claim {
  const credential = readCredential(parameters.get("X-Amz-Credential"));
  const [signature, signed_headers] = [parameters.get("X-Amz-Signature"), parameters.get("X-Amz-SignedHeaders")];
  const [at, expires] = [parameters.get("X-Amz-Date"), parameters.get("X-Amz-Expires") ?? ""];
  if (signature === undefined || signed_headers === undefined || at === undefined) {
    throw incomplete("X-Amz-Signature, X-Amz-SignedHeaders and X-Amz-Date are needed");
  }
  const expires_seconds = /^\d{1,6}$/.test(expires) ? Number(expires) : 0;
  if (expires_seconds < 1 || expires_seconds > presigned_seconds_max) {
    throw incomplete(`X-Amz-Expires must be from 1 to ${presigned_seconds_max}`);
  }
  return { ...credential, signature, signed_headers: signed_headers.split(";"), at, expires_seconds };
}

/** What the request says of its signature; undefined: nothing. Throws IncompleteSignature. */
function readClaim({ headers, query }: Signed): Claim | undefined {
  const header = headers.get("authorization");
  if (header !== null) {
    if (!header.startsWith(`${algorithm} `)) throw incomplete(`Authorization must begin with ${algorithm}`);
    return readHeader(header, headers.get("x-amz-date"));
  }
  if (!query.includes("X-Amz-")) return undefined;
  const parameters = new Map(parametersOf(query));
  return parameters.has("X-Amz-Signature") || parameters.has("X-Amz-Algorithm") ? readPresigned(parameters) : undefined;
}

function timeOf(at: string): number {
  const match = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(at);
  if (match === null) throw incomplete("X-Amz-Date must be like 20150830T123600Z");
  const [, year, month, day, hour, minute, second] = match;
  return Date.parse(`${year}-${month}-${day}T${hour}:${minute}:${second}Z`);
}

function checkTime({ at, expires_seconds }: Claim): void {
  const age_ms = Date.now() - timeOf(at);
  const latest_ms = expires_seconds === undefined ? skew_ms_max : expires_seconds * 1000;
  if (age_ms >= -skew_ms_max && age_ms <= latest_ms) return;
  throw refuse("RequestExpired", `Request has expired: it was signed at ${at}, and it is ${new Date().toISOString()}.`);
}

/** The hash of the body that the signature is over. */
function payloadHash(signed: Signed, rules: SignatureRules): string {
  const own = sha256(signed.body);
  const told = signed.headers.get("x-amz-content-sha256");
  if (told === null || told === own) return own;
  if (told === unsigned_payload && rules.takes_unsigned_payload) return told;
  const why =
    told === unsigned_payload
      ? "UNSIGNED-PAYLOAD is taken only with PSQLQUEUE_SQS_UNSIGNED_PAYLOAD=on"
      : "the body is not the one whose hash X-Amz-Content-Sha256 tells";
  throw refuse("SignatureDoesNotMatch", `The request signature does not match: ${why}.`);
}

/** Host and everything that says what is asked for must be signed, or it could be exchanged. */
function checkSignedHeaders(signed: Signed, { signed_headers }: Claim): void {
  const names = new Set(signed_headers);
  const missing = [...signed.headers].flatMap(([name]) =>
    name.startsWith("x-amz-") && !names.has(name) ? [name] : [],
  );
  if (!names.has("host")) missing.unshift("host");
  if (missing.length > 0) throw incomplete(`SignedHeaders must name ${missing.join(", ")}`);
}

/**
 * Checks the signature of a request, and answers its key. Throws why it is refused. `onKnown` is told the key's id as
 * soon as there is such a key, whatever the signature is.
 */
export async function checkSignature(
  signed: Signed,
  rules: SignatureRules,
  onKnown: (key_id: string) => void,
): Promise<AccessKey> {
  const claim = readClaim(signed);
  if (claim === undefined) {
    throw refuse(
      "MissingAuthenticationToken",
      "The request must be signed with an access key (AWS Signature Version 4).",
    );
  }
  checkTime(claim);
  checkSignedHeaders(signed, claim);
  const key = await rules.findKey(claim.key_id);
  if (key === undefined) {
    throw refuse("InvalidClientTokenId", "The security token included in the request is invalid: unknown access key.");
  }
  onKnown(claim.key_id);
  if (claim.service !== "sqs" || !claim.at.startsWith(claim.date)) {
    throw refuse(
      "SignatureDoesNotMatch",
      "Credential should be scoped to the service sqs and the date of the request.",
    );
  }
  const expected = Buffer.from(signatureOf(signed, claim, key.secret, payloadHash(signed, rules)));
  const given = Buffer.from(claim.signature);
  if (expected.length === given.length && timingSafeEqual(expected, given)) {
    await key.admit?.();
    return key;
  }
  throw refuse(
    "SignatureDoesNotMatch",
    "The request signature we calculated does not match the signature you provided. Check your secret access key and " +
      "how the request was signed.",
  );
}

/** The access key that a request names, checked or not; undefined: none. */
export function keyIdOf(headers: Signed["headers"], query: string): string | undefined {
  const header = headers.get("authorization");
  const named =
    header === null ? /(?:^|&)X-Amz-Credential=([^&/%]+)/.exec(query)?.[1] : /Credential=([^/,\s]+)/.exec(header)?.[1];
  return named !== undefined && /^[!-~]{1,128}$/.test(named) ? named : undefined;
}
