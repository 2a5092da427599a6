import { afterAll, expect, test } from "bun:test";
import { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createReserve, giveReserveWhereFull } from "../src/db/embedded/reserve.ts";

const data_dir = mkdtempSync(path.join(tmpdir(), "psqlqueue-reserve-"));
afterAll(() => rmSync(data_dir, { recursive: true, force: true }));

test("the reserve takes real room, is given once, and is kept again", () => {
  const file = path.join(data_dir, "reserve");
  const reserve = createReserve(data_dir);
  expect(reserve.give()).toBe(false);
  reserve.keep();
  reserve.keep();
  const { size, blocks } = statSync(file);
  expect([size, blocks * 512 >= size]).toEqual([33_554_432, true]);
  // There is room on this disk, so a start leaves it.
  giveReserveWhereFull(data_dir);
  expect(existsSync(file)).toBe(true);
  expect([reserve.give(), existsSync(file), reserve.give()]).toEqual([true, false, false]);
  reserve.keep();
  expect(existsSync(file)).toBe(true);
});
