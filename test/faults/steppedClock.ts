// Loaded before a server: its clock is as many milliseconds off as the file says.

import { readFileSync } from "node:fs";

const file = process.env["PSQLQUEUE_TEST_CLOCK_FILE"] ?? "";
const actual = Date.now.bind(Date);
const RealDate = Date;
let offset_ms = Number(readFileSync(file, "utf8"));

const timer = setInterval(() => {
  offset_ms = Number(readFileSync(file, "utf8")) || offset_ms;
}, 50);
timer.unref();

const now = () => actual() + offset_ms;

globalThis.Date = new Proxy(RealDate, {
  construct: (target, given) => (given.length === 0 ? new target(now()) : Reflect.construct(target, given)),
  apply: () => new RealDate(now()).toString(),
  get: (target, name) => (name === "now" ? now : Reflect.get(target, name)),
});
