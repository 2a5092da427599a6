import { readFileSync } from "node:fs";
import path from "node:path";

/** Paths: an authority to trust, and a certificate for servers that ask for one, with its key; all PEM. */
export type CertificateFiles = Partial<Record<(typeof file_names)[number], string | undefined>>;

/** Where a server is, with which key it is asked, and over which TLS. */
export type Target = { url: string; key: string | undefined; files: CertificateFiles };

const file_names = ["cacert", "client_cert", "client_cert_key"] as const;

const default_url = "http://localhost:8000";

type Environment = Readonly<Record<string, string | undefined>>;
type Profile = CertificateFiles & { url?: string; key?: string };
type Profiles = { profile?: string; profiles?: Record<string, Profile> };

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
 * PSQLQUEUE_CACERT, PSQLQUEUE_CLIENT_CERT and PSQLQUEUE_CLIENT_CERT_KEY, else those of a profile, from where its file
 * is.
 */
function filesOf(env: Environment, profile: Profile = {}, directory = ""): CertificateFiles {
  const pathOf = (name: (typeof file_names)[number]) => {
    const given = profile[name];
    return env[`PSQLQUEUE_${name.toUpperCase()}`] || (given ? path.resolve(directory, given) : undefined);
  };
  return Object.fromEntries(file_names.map((name) => [name, pathOf(name)]));
}

/**
 * The server to ask: of `--url`, `--profile`, PSQLQUEUE_URL, PSQLQUEUE_PROFILE, the file's own `profile`, or this
 * machine. The key is PSQLQUEUE_KEY, or the profile's: a key is never sent to another server than it was written for.
 * Throws a sentence.
 */
export function targetOf(options: { url?: string; profile?: string }, env: Environment): Target {
  const key = env["PSQLQUEUE_KEY"] || undefined;
  const at = (url: string): Target => ({ url, key, files: filesOf(env) });
  if (options.url !== undefined) return at(options.url);
  if (options.profile === undefined && env["PSQLQUEUE_URL"]) return at(env["PSQLQUEUE_URL"]);
  const file = profilesFile(env);
  const known = file === undefined ? undefined : readProfiles(file);
  const name = options.profile ?? (env["PSQLQUEUE_PROFILE"] || known?.profile);
  if (name === undefined) return at(default_url);
  const names = Object.keys(known?.profiles ?? {});
  const profile = names.includes(name) ? known?.profiles?.[name] : undefined;
  if (profile?.url === undefined) {
    const there = names.length === 0 ? "there are none" : `there are ${names.join(", ")}`;
    throw new Error(`no profile ${JSON.stringify(name)} with a url in ${file ?? "a home directory"}; ${there}`);
  }
  return { url: profile.url, key: key ?? profile.key, files: filesOf(env, profile, path.dirname(file ?? "")) };
}
