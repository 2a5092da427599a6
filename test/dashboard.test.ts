// The dashboard as people use it: a browser on a real server, with real consumers.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import postgres from "postgres";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { closeBrowser, expectClean, findObstacles, has_browser, openPage } from "./browser.ts";
import { createMigratedDatabase, uniqueId, until } from "./harness.ts";

setDefaultTimeout(90_000);

type Json = Record<string, unknown>;

const database_url = await createMigratedDatabase();
const server = await startServer(
  readConfig({
    PSQLQUEUE_DATABASE_URL: database_url,
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
    PSQLQUEUE_QUEUE_MAX_NUMBER_OF_MESSAGES: "1000",
  }),
  () => {},
);
const url = `http://127.0.0.1:${server.port}`;
const sql = postgres(database_url, { max: 1, onnotice() {} });
afterAll(async () => {
  await closeBrowser();
  await server.stop();
  await sql.end({ timeout: 1 });
});

async function call(method: string, path: string, body?: Json): Promise<Json> {
  const init = { method, ...(body !== undefined && { body: JSON.stringify(body) }) };
  const response = await fetch(`${url}/v1/${path}`, init);
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
  return text === "" ? {} : (JSON.parse(text) as Json);
}

async function makeQueue(settings: Json = {}, id = uniqueId("queue")): Promise<string> {
  await call("POST", "queues", { id, ack_deadline_seconds: 30, message_retention_seconds: 3600, ...settings });
  return id;
}

const publish = (queue: string, messages: Json[]) => call("POST", `queues/${queue}/messages/batch`, { messages });
const statsOf = (queue: string) => call("GET", `queues/${queue}/stats`);
const receive = async (queue: string, limit: number) =>
  (await call("GET", `queues/${queue}/messages?limit=${limit}`))["data"] as { id: string }[];

const kinds = [
  (n: number) => `timeout after ${n} ms`,
  (n: number) => `no row with id ${1000 + n} in "orders"`,
  () => "card declined",
];

/** A dead-letter queue with so many messages, of three kinds of error. */
async function bury(count: number): Promise<{ queue: string; dead: string }> {
  const dead = await makeQueue();
  const queue = await makeQueue({ dead_queue_id: dead, message_max_deliveries: 3 });
  for (let at = 0; at < count; at += 1000) {
    await publish(
      queue,
      Array.from({ length: Math.min(1000, count - at) }, (_, i) => ({ body: `message ${at + i}` })),
    );
    const items = (await receive(queue, 1000)).map(({ id }, i) => ({
      id,
      dead_letter: true,
      error: kinds[i % 3]?.(i),
    }));
    await call("POST", `queues/${queue}/nack`, { items });
  }
  return { queue, dead };
}

describe.if(has_browser)("in a browser", () => {
  test("a queue is made, published to, looked at, edited, paused and deleted", async () => {
    const seen = await openPage(url);
    const { page } = seen;
    const id = uniqueId("made");
    await page.goto("/");
    expect(new URL(page.url()).pathname).toBe("/ui");
    await page.getByRole("link", { name: "New queue" }).first().click();
    await page.getByLabel(/^Id/).fill(id);
    await page.getByRole("button", { name: "Create queue" }).click();
    await page.getByRole("heading", { name: id }).waitFor();

    await page.getByRole("link", { name: "Publish", exact: true }).click();
    await page.getByLabel("Body").fill('{"order":7,"lines":[{"sku":"A-1"}]}');
    await page.getByLabel("Label", { exact: true }).fill("placed");
    await page.getByRole("button", { name: "Add an attribute" }).click();
    await page.getByLabel("Name of attribute 1").fill("region");
    await page.getByLabel("Value of attribute 1").fill("eu");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByRole("heading", { name: "1 message published" }).waitFor();
    await page.locator(".sent a").click();
    await page.getByText('"A-1"').waitFor({ state: "detached" });
    await page.getByRole("button", { name: /^0/ }).click();
    await page.getByText('"A-1"').waitFor();
    await page.getByText("region").waitFor();
    expect(await page.locator(".facts").textContent()).toContain("placed");

    await page.getByRole("link", { name: id }).click();
    await page.getByRole("link", { name: "Settings" }).click();
    await page.getByLabel("Ack deadline").fill("45");
    await page.getByRole("button", { name: "Save" }).click();
    await page.getByText("Settings saved").waitFor();
    expect(await call("GET", `queues/${id}`)).toMatchObject({ ack_deadline_seconds: 45 });

    await page.getByRole("button", { name: "Pause…" }).click();
    await page.locator("dialog").getByRole("button", { name: "Pause" }).click();
    await page.getByText("consuming paused").waitFor();
    expect(await receive(id, 1)).toEqual([]);
    await page.getByRole("button", { name: "Resume" }).click();
    await page.getByText("consuming paused").waitFor({ state: "detached" });

    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByText("1 message (1 ready, 0 leased)").last().waitFor();
    const confirm = page.locator("dialog").getByRole("button", { name: "Delete" });
    expect(await confirm.isDisabled()).toBe(true);
    await page.getByLabel(`Type ${id} to confirm`).fill(id);
    expectClean(seen);
    await confirm.click();
    await page.getByRole("heading", { name: "Queues", exact: true }).waitFor();
    expect((await fetch(`${url}/v1/queues/${id}`)).status).toBe(404);
    // The page may have asked how the queue is while it was being deleted.
    seen.errors = seen.errors.filter((text) => !text.includes("status of 404"));
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("the lease of a consumer that was killed runs out before one's eyes", async () => {
    const queue = await makeQueue({ ack_deadline_seconds: 8 });
    await publish(queue, [{ body: "work" }]);
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto(`/ui/queues/${queue}`);
    const figure = (name: string) =>
      page
        .locator(".figures > div")
        .filter({ has: page.getByText(name, { exact: true }) })
        .locator("dd");
    const consumer = `const answer = await fetch("${url}/v1/queues/${queue}/messages?limit=1");
      console.log((await answer.json()).data.length); await Bun.sleep(60_000);`;
    const child = Bun.spawn([process.execPath, "-e", consumer], { stdout: "pipe" });
    for await (const chunk of child.stdout) if (new TextDecoder().decode(chunk).includes("1")) break;
    await until(async () => (await figure("Leased").textContent()) === "1");
    child.kill("SIGKILL");
    await child.exited;
    await until(async () => (await figure("Ready").textContent()) === "1", 20_000);
    const [message] = await receive(queue, 1);
    await page.goto(`/ui/queues/${queue}/messages/${message?.id}`);
    await page.getByText("Lease ran out, delivery 1").waitFor();
    await page.getByText("With a consumer, delivery 2").waitFor();
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("a thousand dead letters of three kinds are three groups; a canary goes back first, then the rest", async () => {
    const { queue, dead } = await bury(1000);
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto(`/ui/queues/${dead}/dead`);
    await page.getByRole("heading", { name: "3 groups of errors, 1,000 dead letters" }).waitFor();
    const counts = await page.locator(".group-count").allInnerTexts();
    expect(counts.toSorted()).toEqual(["333", "333", "334"]);
    const errors = await page.locator(".group-error").allInnerTexts();
    expect(errors.toSorted()).toEqual(["card declined", 'no row with id # in "orders"', "timeout after # ms"]);
    const timeouts = page.locator(".group", { hasText: "timeout after # ms" });
    await timeouts.getByRole("button", { name: "Redrive 10 first" }).click();
    await page.getByText("0 messages survived, 10 waiting, 0 died again").waitFor();
    const rest = page.getByRole("button", { name: "Redrive the rest…" });
    expect(await rest.isDisabled()).toBe(true);
    const items = (await receive(queue, 10)).map(({ id }) => ({ id }));
    expect(items).toHaveLength(10);
    await call("POST", `queues/${queue}/ack`, { items });
    await page.getByText("10 messages survived, 0 waiting, 0 died again. All survived").waitFor();
    await rest.click();
    await page.getByRole("button", { name: /^Redrive 32/ }).click();
    await page.locator(".task").getByText("completed").waitFor();
    await until(async () => (await page.locator(".group").count()) === 2);
    const { ready } = await statsOf(queue);
    expect([324, 323]).toContain(ready as number);
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("a canary whose messages die again says so", async () => {
    const { queue, dead } = await bury(40);
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto(`/ui/queues/${dead}/dead`);
    await page
      .locator(".group", { hasText: "card declined" })
      .getByRole("button", { name: "Redrive 10 first" })
      .click();
    await page.getByText("10 waiting").waitFor();
    const items = (await receive(queue, 10)).map(({ id }) => ({ id, dead_letter: true, error: "card declined" }));
    await call("POST", `queues/${queue}/nack`, { items });
    await page.getByText("0 messages survived, 0 waiting, 10 died again. All died again").waitFor();
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("everything that a search matches is deleted after its count was shown, and the page shows how far it is", async () => {
    const queue = await makeQueue();
    await publish(
      queue,
      Array.from({ length: 300 }, (_, i) => ({ body: i % 3 ? `keep ${i}` : `drop ${i}` })),
    );
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto(`/ui/queues/${queue}/messages`);
    await page.getByLabel("Search body, attributes, error, id").fill("DROP");
    await until(async () => (await page.locator("tbody tr").count()) === 50 && page.url().includes("search=DROP"));
    expect((await page.locator(".preview").allInnerTexts()).every((text) => text.startsWith("drop"))).toBe(true);
    await page.getByRole("button", { name: "Delete…" }).click();
    await page.getByText("100 messages").waitFor();
    await page.getByRole("button", { name: "Delete 100" }).click();
    await page.locator(".task").getByText("completed").waitFor();
    await page.getByText("No message matches").waitFor();
    expect((await statsOf(queue))["ready"]).toBe(200);
    // A few of those that are shown.
    await page.goto(`/ui/queues/${queue}/messages`);
    await page.locator("tbody input").first().check();
    await page.locator("tbody input").nth(1).check();
    await page.getByText("2 messages selected").waitFor();
    await page.getByRole("button", { name: "Ack", exact: true }).click();
    await page.getByText("Acked 2 messages").waitFor();
    expect((await statsOf(queue))["ready"]).toBe(198);
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("a slow task is seen and cancelled", async () => {
    const { dead } = await bury(30);
    await call("POST", `queues/${dead}/redrive`, { rate_per_second: 1 });
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto("/ui/tasks");
    const row = page.locator("tr", { hasText: dead });
    await row.getByText("running").waitFor();
    await row.getByRole("button", { name: /^Cancel/ }).click();
    await row.getByText("cancelled").waitFor();
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("whatever a message holds stays text", async () => {
    const attack = '<img src=x onerror="alert(1)"><script>alert(2)</script>';
    const queue = await makeQueue();
    await publish(queue, [
      { body: attack, label: attack.slice(0, 40), attributes: { [attack]: attack } },
      { body: JSON.stringify({ [attack]: attack, url: "javascript:alert(3)" }) },
    ]);
    const ids = (await receive(queue, 2)).map(({ id }) => id);
    await call("POST", `queues/${queue}/nack`, {
      items: ids.map((id) => ({ id, visibility_timeout_seconds: 0, error: attack })),
    });
    const seen = await openPage(url);
    const { page } = seen;
    for (const path of [`/messages`, ...ids.map((id) => `/messages/${id}`), `/publish?from=${ids[0]}`]) {
      await page.goto(`/ui/queues/${queue}${path}`);
      if (path.includes("publish")) await until(async () => (await page.getByLabel("Body").inputValue()) === attack);
      else await page.getByText("<img src=x").first().waitFor();
      expect([path, await page.locator("#app img, #app script, #app a[href^=javascript]").count()]).toEqual([path, 0]);
    }
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("a topic is made, subscribed to and published to", async () => {
    const queue = await makeQueue();
    const topic = uniqueId("topic");
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto("/ui/topics");
    await page.getByLabel("Id of a new topic").fill(topic);
    await page.getByRole("button", { name: "Create topic" }).click();
    await page.getByRole("link", { name: topic }).click();
    await page.getByLabel("Queue", { exact: true }).fill(queue);
    await page.getByLabel(/^Filter/).fill('{"status":["paid"]}');
    await page.getByRole("button", { name: "Subscribe" }).click();
    await page.getByRole("heading", { name: "1 subscription" }).waitFor();
    const trial = page.getByLabel("Try the filters");
    await trial.fill('{"status":"open"}');
    await page.getByText("not this").waitFor();
    await trial.fill('{"status":"paid"}');
    await page.getByText("would get it").waitFor();
    await page.getByLabel("Body").fill("news");
    await page.getByRole("button", { name: "Add an attribute" }).click();
    await page.getByLabel("Name of attribute 1").fill("status");
    await page.getByLabel("Value of attribute 1").fill("paid");
    await page.getByRole("button", { name: "Publish" }).click();
    await page.getByText("Copied to 1 queue").waitFor();
    expect((await statsOf(queue))["ready"]).toBe(1);
    expectClean(seen);
    await page.context().close();
  }, 120_000);
});

describe.if(has_browser)("the page", () => {
  test("is small, and asks for nothing while nobody looks", async () => {
    const seen = await openPage(url);
    const { page, requests } = seen;
    let bytes = 0;
    page.on("response", (response) => {
      bytes += Number(response.headers()["content-length"] ?? 0);
    });
    await page.clock.install();
    await page.goto("/ui");
    await page.getByRole("heading", { name: "Queues", exact: true }).waitFor();
    await page.waitForLoadState("networkidle");
    expect(bytes).toBeWithin(10_000, 150_000);
    const setHidden = (is_hidden: boolean) =>
      page.evaluate(`Object.defineProperty(document, "hidden", { configurable: true, get: () => ${is_hidden} });
        document.dispatchEvent(new Event("visibilitychange"))`);
    await setHidden(true);
    const before = requests.length;
    await page.clock.fastForward(600_000);
    await page.evaluate("fetch('/v1/healthz')");
    expect(requests.slice(before).map((own) => new URL(own).pathname)).toEqual(["/v1/healthz"]);
    await setHidden(false);
    await until(() => requests.slice(before).some((own) => own.includes("/v1/stats")));
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("has no serious obstacle in any view, light and dark, narrow and wide", async () => {
    const { queue, dead } = await bury(12);
    await publish(queue, [{ body: '{"a":{"b":[1,2]}}', label: "l", attributes: { k: "v" } }]);
    await call("POST", "topics", { id: `${queue}.topic` });
    await call("POST", "subscriptions", { id: `${queue}.s`, topic_id: `${queue}.topic`, queue_id: queue });
    await call("PUT", `queues/${dead}/pause`, {});
    const { data } = await call("GET", `queues/${dead}/messages/peek?limit=1`);
    const [message] = data as { id: string }[];
    const views = [
      ...["", "/new", "/tasks", "/keys", "/topics", `/topics/${queue}.topic`, "/nothing"],
      ...["", "/messages", "/dead", "/settings", `/publish?from=${message?.id}&of=${dead}`].map(
        (view) => `/queues/${queue}${view}`,
      ),
      ...["/dead", "/messages?state=dead", `/messages/${message?.id}`].map((view) => `/queues/${dead}${view}`),
    ];
    const obstacles: string[] = [];
    for (const [scheme, width] of [
      ["light", 1280],
      ["dark", 360],
    ] as const) {
      const seen = await openPage(url, { scheme, width });
      for (const view of views) {
        await seen.page.goto(`/ui${view}`);
        await seen.page.locator("main > *").first().waitFor();
        await seen.page.locator(".loading").waitFor({ state: "detached" });
        for (const found of await findObstacles(seen.page)) obstacles.push(`${scheme} ${view} ${found}`);
        const overflow = await seen.page.evaluate("document.documentElement.scrollWidth - innerWidth");
        if (Number(overflow) > 0) obstacles.push(`${scheme} ${view} is ${overflow} px too wide`);
      }
      expectClean(seen);
      await seen.page.context().close();
    }
    expect(obstacles).toEqual([]);
  }, 120_000);

  test("is light or dark as it is told, also after it was left", async () => {
    const seen = await openPage(url, { scheme: "light" });
    const { page } = seen;
    const ground = () => page.evaluate("getComputedStyle(document.documentElement).backgroundColor");
    await page.goto("/ui/topics");
    await page.getByRole("heading", { name: "Topics" }).waitFor();
    const light = await ground();
    await page.getByLabel("Colours").selectOption("dark");
    const dark = await ground();
    expect(dark).not.toBe(light);
    for (const path of ["/ui/tasks", "/v1/swagger/index.html"]) {
      await page.goto(path);
      expect([path, await page.evaluate("document.documentElement.dataset.theme")]).toEqual([path, "dark"]);
    }
    await page.goto("/ui/tasks");
    expect(await ground()).toBe(dark);
    await page.getByLabel("Colours").selectOption("auto");
    expect(await ground()).toBe(light);
    await page.emulateMedia({ colorScheme: "dark" });
    expect(await ground()).toBe(dark);
    expectClean(seen);
    await page.context().close();
  }, 120_000);

  test("is led by the keyboard: the search, a table, a dialog and back", async () => {
    const queue = await makeQueue({}, uniqueId("keys"));
    const seen = await openPage(url);
    const { page } = seen;
    await page.goto("/ui");
    await page.getByRole("heading", { name: "Queues", exact: true }).waitFor();
    await page.getByLabel("Find queues").waitFor();
    await page.keyboard.press("/");
    await page.keyboard.type(queue);
    await until(async () => (await page.locator("tbody tr").count()) === 1);
    await page.getByRole("link", { name: queue }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: queue }).waitFor();
    await until(async () => (await page.evaluate("document.activeElement.tagName")) === "H1");
    await page.getByRole("link", { name: "Settings" }).press("Enter");
    await page.getByRole("button", { name: "Purge…" }).press("Enter");
    await page.locator("dialog").waitFor();
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "detached" });
    await page.goBack();
    await page.goBack();
    await page.getByRole("heading", { name: "Queues", exact: true }).waitFor();
    expect(await page.getByLabel("Find queues").inputValue()).toBe(queue);
    expectClean(seen);
    await page.context().close();
  }, 120_000);
});
