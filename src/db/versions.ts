import type postgres from "postgres";

// A scan by ctid is rechecked after a concurrent update only since these minors. Our statements change the rows that
// they have found by ctid.
const fixed_minors: Record<number, number> = { 13: 23, 14: 20, 15: 15, 16: 11, 17: 7, 18: 1 };

export type KnownBug = { version: string; what: string; remedy: string };

/** What is wrong with a PostgreSQL of this `server_version_num`, such as 150014, and touches our data. */
export function knownBug(version_num: number): KnownBug | undefined {
  const major = Math.floor(version_num / 10_000);
  const minor = version_num % 10_000;
  const fixed = fixed_minors[major];
  if (fixed === undefined || minor >= fixed) return undefined;
  return {
    version: `${major}.${minor}`,
    what: "a row found by its ctid is not checked again after a concurrent update, and a message may be changed wrongly",
    remedy: `update to PostgreSQL ${major}.${fixed} or a later minor version`,
  };
}

/** What is wrong with the server behind this client; rejects with the driver's error. */
export async function findKnownBug(client: postgres.Sql): Promise<KnownBug | undefined> {
  const [row] = await client`select current_setting('server_version_num')::int as number`;
  return knownBug(row?.["number"] as number);
}

/** Without these, PostgreSQL's answer to a commit is no promise. */
const promising = ["fsync", "full_page_writes"] as const;

/** Which of them are off on the server behind this client; rejects with the driver's error. */
export async function findUnsafe(client: postgres.Sql): Promise<string[]> {
  const [row] = await client`
    select current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes`;
  return promising.filter((name) => row?.[name] === "off");
}
