// A real browser, where there is one: Debian's chromium, driven by playwright-core, which brings none of its own.

import { expect } from "bun:test";
import axe from "axe-core";
import { type Browser, chromium, type Page } from "playwright-core";

const executable = ["chromium", "chromium-browser", "google-chrome"].map((name) => Bun.which(name)).find(Boolean);

/** Whether the tests that need a browser can run. */
export const has_browser = executable !== undefined && executable !== null;
if (!has_browser)
  console.log("no chromium was found: the tests of the dashboard in a browser are not run (apt-get install chromium)");

let browser: Promise<Browser> | undefined;

/** Ends the browser, if one was started; the next page starts another. For `afterAll`. */
export async function closeBrowser(): Promise<void> {
  const started = browser;
  browser = undefined;
  await (await started)?.close();
}

export type Seen = { page: Page; errors: string[]; foreign: string[]; requests: string[] };

/** A page of its own, and what went wrong on it: errors of the console, and requests to anybody else than `origin`. */
export async function openPage(
  origin: string,
  options: { scheme?: "light" | "dark"; width?: number } = {},
): Promise<Seen> {
  // As if somebody's DNS said so: names of this machine that browsers do not know to be its own.
  const names = "--host-resolver-rules=MAP *.example 127.0.0.1,MAP builder 127.0.0.1";
  browser ??= chromium.launch({ executablePath: executable ?? "", args: ["--no-sandbox", "--disable-gpu", names] });
  const context = await (await browser).newContext({
    baseURL: origin,
    colorScheme: options.scheme ?? "light",
    viewport: { width: options.width ?? 1280, height: 900 },
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const seen: Seen = { page, errors: [], foreign: [], requests: [] };
  page.on("console", (message) => {
    if (message.type() === "error") seen.errors.push(message.text());
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("dialog", (dialog) => {
    seen.errors.push(`a dialog: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    seen.requests.push(request.url());
    if (!request.url().startsWith(origin) && !request.url().startsWith("data:")) seen.foreign.push(request.url());
  });
  return seen;
}

/** Nothing went wrong on the page. */
export function expectClean({ errors, foreign }: Seen): void {
  expect({ errors, foreign }).toEqual({ errors: [], foreign: [] });
}

type Finding = { id: string; impact: string | null; nodes: { html: string; failureSummary: string }[] };

/** What axe-core finds that is serious or worse. */
export async function findObstacles(page: Page): Promise<string[]> {
  await page.evaluate(axe.source);
  const findings = (await page.evaluate("axe.run(document).then(({ violations }) => violations)")) as Finding[];
  return findings
    .filter(({ impact }) => impact === "serious" || impact === "critical")
    .flatMap(({ id, nodes }) =>
      nodes.map(({ html, failureSummary }) => `${id}: ${html.slice(0, 160)} ${failureSummary}`),
    );
}
