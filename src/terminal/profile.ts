import { readFileSync } from "node:fs";
import path from "node:path";

/** Where a server is, and with which key it is asked. */
export type Target = { url: string; key: string | undefined };

const default_url = "http://localhost:8000";

type Environment = Readonly<Record<string, string | undefined>>;
type Profiles = { profile?: string; profiles?: Record<string, { url?: string; key?: string }> };

function readProfiles(file: string): Profiles | undefined {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new Error(`${file} cannot be read: ${(error as Error).message}`);
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  } catch {
    // The parser quotes the text, and a key may be in it.
  }
  throw new Error(
    `${file} is no JSON object; write it as {"profiles":{"NAME":{"url":"http://localhost:8000","key":"…"}}}`,
  );
}

/** The file of profiles: XDG_CONFIG_HOME, else ~/.config. */
function profilesFile(env: Environment): string | undefined {
  const directory = env["XDG_CONFIG_HOME"] || (env["HOME"] ? path.join(env["HOME"], ".config") : undefined);
  return directory === undefined ? undefined : path.join(directory, "psqlqueue/config.json");
}

/**
 * The server to ask: of `--url`, `--profile`, PSQLQUEUE_URL, PSQLQUEUE_PROFILE, the file's own `profile`, or this
 * machine. The key is PSQLQUEUE_KEY, or the profile's: a key is never sent to another server than it was written for.
 * Throws a sentence.
 */
export function targetOf(options: { url?: string; profile?: string }, env: Environment): Target {
  const key = env["PSQLQUEUE_KEY"] || undefined;
  if (options.url !== undefined) return { url: options.url, key };
  if (options.profile === undefined && env["PSQLQUEUE_URL"]) return { url: env["PSQLQUEUE_URL"], key };
  const file = profilesFile(env);
  const known = file === undefined ? undefined : readProfiles(file);
  const name = options.profile ?? (env["PSQLQUEUE_PROFILE"] || known?.profile);
  if (name === undefined) return { url: default_url, key };
  const names = Object.keys(known?.profiles ?? {});
  const profile = names.includes(name) ? known?.profiles?.[name] : undefined;
  if (profile?.url === undefined) {
    const there = names.length === 0 ? "there are none" : `there are ${names.join(", ")}`;
    throw new Error(`no profile ${JSON.stringify(name)} with a url in ${file ?? "a home directory"}; ${there}`);
  }
  return { url: profile.url, key: key ?? profile.key };
}
