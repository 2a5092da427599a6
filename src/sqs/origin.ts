import type { BlockList } from "node:net";
import { addressOf, isEncrypted } from "../web/request.ts";

/** How a client calls this server: its Host header, and with which scheme. */
export type Origin = { host: string | null; scheme: "http" | "https" };

const host_form = /^[A-Za-z0-9._:[\]-]{1,255}$/;

/** The first of a list: what the proxy that the client spoke to was told. */
const firstOf = (header: string | null) => header?.split(",", 1)[0]?.trim();

function isTrusted(request: Request, proxies: BlockList): boolean {
  const address = addressOf(request).replace(/^::ffff:(?=\d+\.)/i, "");
  return address !== "" && proxies.check(address, address.includes(":") ? "ipv6" : "ipv4");
}

/** Where the client sent the request: X-Forwarded-Host and -Proto count where a trusted proxy sends them. */
export function originOf(request: Request, proxies: BlockList): Origin {
  const { headers } = request;
  const host = headers.get("host");
  const scheme = isEncrypted(request) ? "https" : "http";
  const forwarded = [firstOf(headers.get("x-forwarded-host")), firstOf(headers.get("x-forwarded-proto"))] as const;
  if (forwarded.every((value) => value === undefined) || !isTrusted(request, proxies)) return { host, scheme };
  const [own_host, own_scheme] = [forwarded[0], forwarded[1]?.toLowerCase()];
  return {
    host: own_host !== undefined && host_form.test(own_host) ? own_host : host,
    scheme: own_scheme === "http" || own_scheme === "https" ? own_scheme : scheme,
  };
}

type Headers = { get(name: string): string | null; [Symbol.iterator](): Iterator<[string, string]> };

/** Headers as the client sent them to the proxy. */
export const withHost = (headers: Headers, host: string | null): Headers => ({
  get: (name) => (name.toLowerCase() === "host" ? host : headers.get(name)),
  [Symbol.iterator]: () => headers[Symbol.iterator](),
});
