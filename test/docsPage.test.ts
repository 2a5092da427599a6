// The docs page as a newcomer uses it: every body as it stands, in the order of a first walk.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import { closeBrowser, expectClean, has_browser, openPage } from "./browser.ts";
import { listen, serviceForFile } from "./harness.ts";

setDefaultTimeout(90_000);

const service = await serviceForFile();
const listener = await listen(service.app);
afterAll(async () => {
  await closeBrowser();
  await listener.stop(true);
});

test.if(has_browser)(
  "its examples work as they stand: create, publish, receive, ack",
  async () => {
    const origin = `http://127.0.0.1:${listener.port}`;
    const seen = await openPage(origin);
    const { page } = seen;
    await page.goto("/v1/swagger/index.html");

    /** Opens an operation, fills in what no document can know, executes it, and answers the status that is shown. */
    const tryOut = async (id: string, fields: Record<string, string> = {}) => {
      const block = page.locator(`[id$="-${id}"]`);
      await block.locator(".opblock-summary").click();
      await block.getByRole("button", { name: "Try it out" }).click();
      for (const [name, value] of Object.entries(fields)) {
        await block.locator(`tr[data-param-name="${name}"] input`).fill(value);
      }
      await block.getByRole("button", { name: "Execute" }).click();
      const row = block.locator(".live-responses-table .response");
      const status = Number(/\d{3}/.exec((await row.locator(".response-col_status").textContent()) ?? "")?.[0]);
      const body = (await row.locator(".response-col_description").textContent()) ?? "";
      return { status, body };
    };

    expect((await tryOut("createQueue")).status).toBe(201);
    expect((await tryOut("createTopic")).status).toBe(201);
    expect((await tryOut("createSubscription")).status).toBe(201);
    expect((await tryOut("publishMessage")).status).toBe(201);
    expect((await tryOut("publishToTopic")).status).toBe(201);
    const received = await tryOut("receiveMessages");
    expect(received.status).toBe(200);
    const message_id = /"id": "([0-9A-Z]{26})"/.exec(received.body)?.[1] ?? "";
    expect((await tryOut("ackMessage", { message_id })).status).toBe(204);
    expectClean(seen);
  },
  60_000,
);
