// The commands that ask a server over TLS whose authority is one's own, and which asks for a certificate.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { runChild } from "./child.ts";
import { createQueue, listen, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const folder = path.join(import.meta.dir, "certificates");
const at = (name: string) => path.join(folder, name);
const read = (name: string) => readFileSync(at(name), "utf8");
const certificates = { cert: read("server.pem"), key: read("server-key.pem"), client_ca: read("authority.pem") };
const service = await serviceForFile();
const queue = await createQueue(service);
const listener = await listen(service.app, { certificates });
const url = `https://localhost:${listener.port}`;
const home = mkdtempSync(path.join(tmpdir(), "psqlqueue-home-"));
afterAll(async () => {
  await listener.stop(true);
  rmSync(home, { recursive: true, force: true });
});

const list = (env: Record<string, string>, ...options: string[]) =>
  runChild(["queue", "list", "--json", ...options], { env: { XDG_CONFIG_HOME: home, ...env } });
const files = {
  PSQLQUEUE_CACERT: at("authority.pem"),
  PSQLQUEUE_CLIENT_CERT: at("client.pem"),
  PSQLQUEUE_CLIENT_CERT_KEY: at("client-key.pem"),
};

test("a certificate and an authority come from the environment, or from a profile, beside its file too", async () => {
  const answer = await list(files, "--url", url);
  expect([answer.code, answer.stdout]).toEqual([0, expect.stringContaining(`"id":"${queue}"`)]);

  const directory = path.join(home, "psqlqueue");
  mkdirSync(directory);
  cpSync(at("client.pem"), path.join(directory, "me.pem"));
  const tls = { cacert: at("authority.pem"), client_cert: "me.pem", client_cert_key: at("client-key.pem") };
  writeFileSync(path.join(directory, "config.json"), JSON.stringify({ profiles: { own: { url, ...tls } } }));
  expect(await list({}, "--profile", "own")).toMatchObject({ code: 0, stdout: answer.stdout });

  // They are no settings of a server, and so not misspelt ones.
  const doctor = await runChild(["doctor", "--url", url], { env: { ...files, PSQLQUEUE_DATA_DIR: home } });
  expect(doctor.stdout).toContain(`server: ${url} has version test`);
  expect(doctor.stdout).toContain("server clock: ");
  expect(doctor.stdout).not.toContain("is no setting");
});

test.each([
  [
    "an authority that nobody knows",
    {},
    url,
    3,
    "PSQLQUEUE_CACERT, or `cacert` of the profile, names an authority to trust",
  ],
  [
    "no certificate",
    { PSQLQUEUE_CACERT: files.PSQLQUEUE_CACERT },
    url,
    3,
    "PSQLQUEUE_CLIENT_CERT and PSQLQUEUE_CLIENT_CERT_KEY",
  ],
  [
    "another name",
    files,
    url.replace("localhost", "127.0.0.1"),
    3,
    "the name in the url must be one of the certificate",
  ],
  ["no TLS", {}, url.replace("https", "http"), 3, "does it want https?"],
  ["no key", { PSQLQUEUE_CLIENT_CERT: at("client.pem") }, url, 2, "there is a certificate without its key"],
  [
    "no certificate to a key",
    { PSQLQUEUE_CLIENT_CERT_KEY: at("client-key.pem") },
    url,
    2,
    "a key without its certificate",
  ],
  [
    "the key of another",
    { ...files, PSQLQUEUE_CLIENT_CERT_KEY: at("server-key.pem") },
    url,
    2,
    "a certificate and its own key",
  ],
  ["a file that is not there", { PSQLQUEUE_CACERT: "/nowhere.pem" }, url, 2, '"/nowhere.pem" cannot be read (ENOENT)'],
] as const)("%s: what to do is said", async (_, env, to, code, words) => {
  const answer = await list(env, "--url", to);
  expect([answer.code, answer.stderr]).toEqual([code, expect.stringContaining(words)]);
  expect(answer.stderr).not.toContain("verbose");
});
