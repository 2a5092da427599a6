// Pictures of the dashboard from seeded data: bun bench/screenshots.ts [--all <directory>]
// Without arguments the three of the README, in docs/. With --all every view, light and dark, narrow and wide.

import { mkdirSync } from "node:fs";
import path from "node:path";
import { type Browser, chromium, type Page } from "playwright-core";
import postgres from "postgres";
import { startServer } from "../src/commands/server.ts";
import { readConfig } from "../src/config.ts";
import { migrateDatabase } from "../src/db/migrate.ts";
import { sharedCluster } from "../test/postgres.ts";
import { seed } from "./seed.ts";

const readme = path.resolve(import.meta.dir, "../docs");
const views = (ids: { dead: string; live: string }): Record<string, string> => ({
  queues: "",
  queue: "/queues/orders",
  messages: "/queues/orders/messages",
  message: `/queues/payments.dead/messages/${ids.dead}`,
  dead: "/queues/payments.dead/dead",
  settings: "/queues/payments/settings",
  publish: `/queues/payments/publish?from=${ids.dead}&of=payments.dead`,
  new: "/new",
  topics: "/topics",
  topic: "/topics/orders.placed",
  tasks: "/tasks",
  empty: "/queues/invoices/dead",
});

async function open(
  browser: Browser,
  url: string,
  scheme: "light" | "dark",
  width: number,
  height: number,
): Promise<Page> {
  const page = await browser.newPage({ colorScheme: scheme, viewport: { width, height } });
  await page.goto(url);
  await page.waitForLoadState("networkidle");
  await page.locator(".loading").waitFor({ state: "detached" });
  return page;
}

async function shoot(
  browser: Browser,
  url: string,
  to: string,
  how: { scheme: "light" | "dark"; width: number; height: number; is_whole?: boolean },
) {
  const page = await open(browser, url, how.scheme, how.width, how.height);
  await page.screenshot({ path: to, fullPage: how.is_whole ?? false });
  await page.close();
}

async function shootAll(browser: Browser, url: string, directory: string, ids: { dead: string; live: string }) {
  mkdirSync(directory, { recursive: true });
  for (const [name, where] of Object.entries(views(ids))) {
    for (const scheme of ["light", "dark"] as const) {
      for (const width of [360, 1440]) {
        const to = path.join(directory, `${name}-${scheme}-${width}.png`);
        await shoot(browser, `${url}/ui${where}`, to, {
          scheme,
          width,
          height: width === 360 ? 780 : 900,
          is_whole: true,
        });
      }
    }
  }
  await shoot(browser, `${url}/ui`, path.join(directory, "queues-light-2560.png"), {
    scheme: "light",
    width: 2560,
    height: 1200,
  });
  await shoot(browser, `${url}/ui/queues/orders`, path.join(directory, "queue-dark-2560.png"), {
    scheme: "dark",
    width: 2560,
    height: 1200,
  });
  for (const scheme of ["light", "dark"] as const) {
    const to = path.join(directory, `docs-${scheme}-1440.png`);
    await shoot(browser, `${url}/v1/swagger/index.html`, to, { scheme, width: 1440, height: 900 });
  }
}

const server_url = await (await sharedCluster()).createDatabase();
await migrateDatabase(server_url);
const server = await startServer(
  readConfig({
    PSQLQUEUE_DATABASE_URL: server_url,
    PSQLQUEUE_SERVER_HOST: "127.0.0.1",
    PSQLQUEUE_SERVER_PORT: "0",
    PSQLQUEUE_METRICS_HOST: "127.0.0.1",
    PSQLQUEUE_METRICS_PORT: "0",
  }),
  () => {},
);
const url = `http://127.0.0.1:${server.port}`;
const sql = postgres(server_url, { max: 1, onnotice() {} });
const browser = await chromium.launch({ executablePath: Bun.which("chromium") ?? "chromium", args: ["--no-sandbox"] });
try {
  await seed(url, sql);
  const first = async (queue: string, state: string) => {
    const answer = await fetch(`${url}/v1/queues/${queue}/messages/peek?state=${state}&limit=3`);
    return ((await answer.json()) as { data: { id: string }[] }).data.at(-1)?.id ?? "";
  };
  const ids = { dead: await first("payments.dead", "dead"), live: await first("orders", "ready") };
  const [option, directory] = Bun.argv.slice(2);
  if (option === "--all" && directory !== undefined) await shootAll(browser, url, directory, ids);
  else {
    mkdirSync(readme, { recursive: true });
    const wide = { width: 1280, height: 720 };
    await shoot(browser, `${url}/ui`, path.join(readme, "queues.png"), { ...wide, scheme: "light" });
    await shoot(browser, `${url}/ui/queues/orders`, path.join(readme, "queue.png"), { ...wide, scheme: "dark" });
    await shoot(browser, `${url}/ui/queues/payments.dead/dead`, path.join(readme, "dead-letters.png"), {
      ...wide,
      height: 560,
      scheme: "light",
    });
  }
} finally {
  await browser.close();
  await sql.end({ timeout: 1 });
  await server.stop();
}
process.exit(0);
