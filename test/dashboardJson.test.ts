import { expect, setDefaultTimeout, test } from "bun:test";
import { Digits, indentJson, readJson } from "../src/dashboard/ui/json.ts";

setDefaultTimeout(90_000);

test("JSON is put on lines of its own, and no digit, member or character of it changes", () => {
  for (const value of [
    {},
    [],
    { a: {}, b: [] },
    { a: [1, { b: 'x,{}:[]\\" \\n' }, null], c: true },
    "text",
    5,
    [[[]]],
  ]) {
    expect(indentJson(JSON.stringify(value))).toBe(JSON.stringify(value, null, 2));
  }
  const odd = '{"a":12345678901234567890,"a":1e400,"b":[1.0,-0,\t1E2],"c":"\\u00e9 \\/"}';
  expect(indentJson(odd).replace(/\s/g, "")).toBe(odd.replace(/\s/g, ""));
  expect(indentJson(odd).split("\n").length).toBe(10);
  for (const broken of ["{", "[1,]", "a", ""]) expect(() => indentJson(broken)).toThrow(SyntaxError);
});

test("numbers are shown as they were written", () => {
  expect(readJson('{"a":12345678901234567890,"b":[1,1.0,1e400],"c":"1.0"}')).toEqual({
    a: new Digits("12345678901234567890"),
    b: [1, new Digits("1.0"), new Digits("1e400")],
    c: "1.0",
  });
});
