// The dashboard of a server that asks for keys: it asks its reader, and can do what the key allows.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { closeBrowser, expectClean, findObstacles, has_browser, openPage } from "./browser.ts";
import { createMigratedDatabase, until } from "./harness.ts";

setDefaultTimeout(90_000);

const root_key = "root-key-of-the-tests";
const server = await startServer(
  readConfig({
    PSQLQUEUE_DATABASE_URL: await createMigratedDatabase(),
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    PSQLQUEUE_AUTH: "on",
    PSQLQUEUE_ROOT_KEY: root_key,
  }),
  () => {},
);
afterAll(async () => {
  await closeBrowser();
  await server.stop();
});
const url = `http://127.0.0.1:${server.port}`;

async function asRoot(method: string, path: string, body: unknown) {
  const headers = { authorization: `Bearer ${root_key}` };
  const response = await fetch(`${url}/v1/${path}`, { method, headers, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(await response.text());
  return (await response.json()) as { key: string };
}

test("the page itself needs no key, and what it asks does", async () => {
  const page = await fetch(`${url}/ui/queues/x`);
  const script = /src="([^"]*main-[^"]*)"/.exec(await page.text())?.[1] ?? "";
  expect([page.status, (await fetch(new URL(script, page.url))).status]).toEqual([200, 200]);
  expect((await fetch(`${url}/v1/stats`)).status).toBe(401);
});

test.if(has_browser)(
  "asks for a key until one is taken, shows what it may see, and says what it may not do",
  async () => {
    const settings = { ack_deadline_seconds: 30, message_retention_seconds: 3600 };
    for (const id of ["mine", "theirs"]) await asRoot("POST", "queues", { id, ...settings });
    const scopes = [
      { actions: ["peek"], queues: ["mine"] },
      { actions: ["publish"], queues: ["another"] },
    ];
    const { key } = await asRoot("POST", "keys", { name: "reader", scopes });
    const info = await fetch(`${url}/v1/info`, { headers: { authorization: `Bearer ${key}` } });
    expect(await info.json()).toMatchObject({ allowed: ["publish", "peek"] });
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto("/ui");
    await page.getByLabel("API key").fill("pq_nonsense");
    await page.getByRole("button", { name: "Use this key" }).click();
    await page.getByText("does not take the key").waitFor();
    // Asked once without a key and once with it: a dialog that goes away with its key gives it no second time.
    await page.waitForTimeout(100);
    expect(seen.requests.filter((asked) => asked.endsWith("/v1/info"))).toHaveLength(2);
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Use this key" }).click();
    await page.getByRole("link", { name: "mine" }).waitFor();
    expect(await page.getByRole("link", { name: "theirs" }).count()).toBe(0);
    // What the key allows nowhere is not offered; what it allows elsewhere is refused in words.
    await page.getByRole("link", { name: "New queue" }).waitFor({ state: "detached" });
    await page.getByRole("link", { name: "mine" }).click();
    await page.getByRole("link", { name: "Settings" }).click();
    await page.getByRole("heading", { name: "Settings" }).waitFor();
    for (const name of ["Pause…", "Save", "Purge…", "Delete…"])
      expect([name, await page.getByRole("button", { name }).count()]).toEqual([name, 0]);
    await page.getByRole("link", { name: "Publish", exact: true }).click();
    await page.getByLabel("Body").fill("x");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByText("Forbidden: the key does not allow").waitFor();
    // In the page's memory and nowhere else.
    expect(await page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie])")).not.toContain("pq_");
    await page.goto("/ui");
    await page.getByLabel("API key").waitFor();
    await until(() => seen.errors.length > 0);
    // A browser calls every refusal an error.
    seen.errors = seen.errors.filter((text) => !/status of 40[13]/.test(text));
    expectClean(seen);
    await page.context().close();
  },
  60_000,
);

test.if(has_browser)(
  "makes a key and shows its text once; a revoked one is refused",
  async () => {
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto("/ui/keys");
    await page.getByLabel("API key").fill(root_key);
    await page.getByRole("button", { name: "Use this key" }).click();
    await page.getByLabel("Name").fill("billing");
    await page.getByLabel("Queues").fill("orders*, invoices");
    await page.getByRole("checkbox", { name: "consume" }).uncheck();
    await page.getByLabel("Ends after").fill("30");
    await page.getByRole("button", { name: "Create key" }).click();
    const row = page.getByRole("row", { name: /billing/ });
    await row.getByText("publish on orders*, invoices").waitFor();
    await row.getByText(/in (29|30)d/).waitFor();
    const key = await page.getByText(/^pq_/).first().textContent();
    const status = async () =>
      (
        await fetch(`${url}/v1/queues/orders-1/messages`, {
          method: "POST",
          headers: { authorization: `Bearer ${key}` },
        })
      ).status;
    // It may publish there: what is missing is the body.
    expect(await status()).toBe(400);
    expect(await findObstacles(page)).toEqual([]);
    await page.getByRole("link", { name: "Queues", exact: true }).click();
    await page.getByRole("link", { name: "Keys" }).click();
    await row.waitFor();
    expect(await page.content()).not.toContain(key);
    await row.getByRole("button", { name: "Revoke the key of billing" }).click();
    await page.getByRole("dialog").getByRole("button", { name: "Revoke" }).click();
    await row.waitFor({ state: "detached" });
    await until(async () => (await status()) === 401);
    expectClean({ ...seen, errors: seen.errors.filter((text) => !/status of 40[13]/.test(text)) });
    await page.context().close();
  },
  60_000,
);
