// Lists as PostgreSQL reads them.

import { afterAll, expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import postgres from "postgres";
import { arrayText } from "../src/db/arrayText.ts";
import { sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const cluster = await sharedCluster();
const sql = postgres(await cluster.createDatabase(), { max: 1, onnotice() {} });
afterAll(() => sql.end({ timeout: 1 }));

const readBack = async (text: string): Promise<(string | null)[]> => {
  const rows = await sql`select item from unnest(${text}::text[]) with ordinality as list (item, n) order by n`;
  return rows.map((row) => row["item"]);
};

const awkward = [
  "",
  "null",
  "NULL",
  "{}",
  "a,b",
  '"',
  "\\",
  '\\"',
  '"\\',
  "\\\\n",
  " a ",
  '{"a":"\\""}',
  "\u007f\u2028",
  "ü😀",
];

test("a list is read back as it was, or left to the driver", async () => {
  expect(await readBack(arrayText(awkward) as string)).toEqual(awkward);
  expect(await readBack(arrayText([null, "a", null]) as string)).toEqual([null, "a", null]);
  expect(arrayText([])).toBe("{}");
  const numbers = await sql`select (${arrayText([1, -2, null]) as string}::int[])::text as list`;
  expect([...numbers]).toEqual([{ list: "{1,-2,NULL}" }]);
  const flags = await sql`select (${arrayText([true, false]) as string}::boolean[])::text as list`;
  expect([...flags]).toEqual([{ list: "{t,f}" }]);
  const unit = fc.string({ unit: fc.constantFrom('"', "\\", "n", "u", ",", "{", "}", " ", "é", "😀"), maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.option(unit), { minLength: 1, maxLength: 20 }), async (list) => {
      expect(await readBack(arrayText(list) as string)).toEqual(list);
    }),
    { numRuns: 200 },
  );
});

test("what JSON escapes in its own way is left to the driver", () => {
  for (const own of [
    "\n",
    "\t",
    "\b",
    "\f",
    "\r",
    "\u0001",
    "\u001f",
    "\ud800",
    "a\udc00",
    "\\\\\n",
    '"\n',
    "\\\u0002",
  ]) {
    expect([own, arrayText(["a", own, "b"])]).toEqual([own, undefined]);
  }
  expect(arrayText([undefined])).toBeUndefined();
  expect(arrayText([["a"], ["b"]])).toBeUndefined();
});
