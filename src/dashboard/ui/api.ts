/** A refusal, or no answer at all: what went wrong, in words for people. */
class ApiError extends Error {
  override readonly name = "ApiError";
  readonly status: number;
  readonly code: number;

  constructor(status: number, code: number, text: string) {
    super(text);
    this.status = status;
    this.code = code;
  }
}

const from_script = "../../";

/** The directory above `/ui/`, wherever a proxy shows it: the script lies in `ui/assets/`. */
export const root = new URL(from_script, import.meta.url);

// Some servers ask for a key. It is kept here and nowhere else: with the page it is gone.
let key = "";
let asking: PromiseWithResolvers<void> | undefined;
const watchers = new Set<() => void>();

const tellWatchers = () => {
  for (const watch of watchers) watch();
};

/** Calls back when a key is asked for, or no longer; answers how to stop. */
export function watchKey(watch: () => void): () => void {
  watchers.add(watch);
  return () => {
    watchers.delete(watch);
  };
}

/** What the page must ask its reader for; undefined: nothing. */
export const askedForKey = (): "key" | "another key" | undefined =>
  asking === undefined ? undefined : key === "" ? "key" : "another key";

/** The reader has given a key: what waits for one goes on. */
export function giveKey(given: string): void {
  key = given.trim();
  asking?.resolve();
  asking = undefined;
  tellWatchers();
}

/** Resolves when the reader has given a key. */
function needKey(): Promise<void> {
  if (asking === undefined) {
    asking = Promise.withResolvers();
    tellWatchers();
  }
  return asking.promise;
}

type Answer = { code?: number; message?: string; details?: string };

async function refusal(response: Response): Promise<ApiError> {
  const { code = 0, message, details } = (await response.json().catch(() => ({}))) as Answer;
  const text = [message ?? `The server answered ${response.status}`, details].filter(Boolean).join(": ");
  return new ApiError(response.status, code, text.charAt(0).toUpperCase() + text.slice(1));
}

/** Asks the API: `path` is below `v1/`. Throws ApiError. Answers undefined where there is no body. */
export async function ask<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
  const init: RequestInit = { method, ...(signal && { signal }) };
  const used = key;
  init.headers = {
    ...(used !== "" && { authorization: `Bearer ${used}` }),
    ...(body !== undefined && { "content-type": "application/json" }),
  };
  if (body !== undefined) init.body = JSON.stringify(body);
  const response = await fetch(new URL(`v1/${path}`, root), init).catch((cause) => {
    if (signal?.aborted) throw cause;
    throw new ApiError(0, 0, "The server does not answer. It is asked again every few seconds.");
  });
  if (response.status === 401) {
    // Others may have asked with the same key, and a new one be there already.
    if (used === key) await needKey();
    signal?.throwIfAborted();
    return await ask(method, path, body, signal);
  }
  if (!response.ok) throw await refusal(response);
  return (response.status === 204 ? undefined : await response.json()) as T;
}

/** The query of a path: members without a value are left out. */
export function query(members: Record<string, string | number | boolean | undefined>): string {
  const given = Object.entries(members).filter(([, value]) => value !== undefined && value !== "");
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return text && `?${text}`;
}

/** The path of a queue, and of what is below it. */
export const queuePath = (queue_id: string, ...rest: string[]): string =>
  ["queues", queue_id, ...rest].map(encodeURIComponent).join("/");

/** Asks for page after page of a list, up to a bound. */
export async function askAll<T>(path: string, rows_max = 2000): Promise<T[]> {
  const rows: T[] = [];
  const limit = 1000;
  while (rows.length < rows_max) {
    const separator = path.includes("?") ? "&" : "?";
    const page = await ask<{ data: T[] }>("GET", `${path}${separator}limit=${limit}&offset=${rows.length}`);
    rows.push(...page.data);
    if (page.data.length < limit) break;
  }
  return rows;
}

/** Message of whatever was thrown. */
export const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
