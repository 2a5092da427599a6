// Says in one line how the tests went: bun test/report.ts <JUnit file> <exit code of bun test>

/** The closing line of a test run, and whether all is well: something passed, nothing failed, and bun says so too. */
export function report(junit: string, exit_code: number): { line: string; is_good: boolean } {
  const root = /<testsuites\s[^>]*>/.exec(junit)?.[0] ?? "";
  const count = (name: string) => Number(new RegExp(`\\s${name}="(\\d+)"`).exec(root)?.[1] ?? 0);
  const skipped = count("skipped");
  const passed = count("tests") - count("failures") - skipped;
  // A file that does not load, or a run that dies, fails no test by name; nor does a run without tests.
  const has_nameless_failure = count("failures") === 0 && (exit_code !== 0 || passed === 0);
  const failed = count("failures") + (has_nameless_failure ? 1 : 0);
  const line = `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`;
  return { line, is_good: failed === 0 && exit_code === 0 };
}

if (import.meta.main) {
  const [file = "", exit_code = ""] = Bun.argv.slice(2);
  const junit = await Bun.file(file)
    .text()
    .catch(() => "");
  const { line, is_good } = report(junit, exit_code === "0" ? 0 : 1);
  console.log(line);
  process.exitCode = is_good ? 0 : 1;
}
