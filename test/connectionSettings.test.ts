// Connection strings as settings: where they come from, what of them is shown, and what a start says about them.

import { afterAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { openStore } from "../src/commands/store.ts";
import { readConfig } from "../src/config.ts";
import { maskConnection } from "../src/connection/mask.ts";
import { emptyDirectory, killChildren, runChild, startChild } from "./child.ts";
import { freePort, sharedCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

afterAll(killChildren);

const directory = emptyDirectory();

function fileOf(content: string): string {
  const file = path.join(directory, crypto.randomUUID());
  writeFileSync(file, content);
  return file;
}

/** The URL that is used, or the refusal. */
function urlOf(environment: Record<string, string>): string {
  try {
    return readConfig(environment).database_url;
  } catch (error) {
    return (error as Error).message;
  }
}

describe("PSQLQUEUE_DATABASE_URL_FILE", () => {
  const url = "postgres://user:s3cret@host/database";

  test("holds the connection string, with or without a line end", () => {
    for (const content of [url, `${url}\n`, `\n  ${url}\r\n`, `"${url}"\n`]) {
      expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: fileOf(content) })).toBe(url);
    }
    expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: "" })).toBe("");
  });

  test("is refused together with PSQLQUEUE_DATABASE_URL", () => {
    const file = fileOf(url);
    expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: file, PSQLQUEUE_DATABASE_URL: url })).toBe(
      `PSQLQUEUE_DATABASE_URL_FILE="${file}" cannot be used together with PSQLQUEUE_DATABASE_URL; allowed: one of the two`,
    );
    expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: file, PSQLQUEUE_DATABASE_URL: "" })).toBe(url);
  });

  test("that is missing, a directory, empty or wrong is named, and no password is shown", () => {
    const empty = fileOf("\n");
    const wrong = fileOf("postgres://user:s3cret@host/database?sslmod=require");
    const allowed = "empty, or postgres://user:password@host:port/database";
    const missing = path.join(directory, "missing");
    for (const file of [missing, directory]) {
      expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: file })).toBe(
        `PSQLQUEUE_DATABASE_URL_FILE="${file}" cannot be used; allowed: empty, or the path of a file that can be read`,
      );
    }
    expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: empty })).toBe(
      `PSQLQUEUE_DATABASE_URL_FILE="${empty}" cannot be used: the file is empty; allowed: a file that holds ${allowed}`,
    );
    expect(urlOf({ PSQLQUEUE_DATABASE_URL_FILE: wrong })).toBe(
      `PSQLQUEUE_DATABASE_URL_FILE="${wrong}" cannot be used: "sslmod" is no parameter that can be set here (the nearest ` +
        `is sslmode): correct it, or leave it out; allowed: a file that holds ${allowed}`,
    );
  });
});

test("a connection string that cannot be used is refused with its reason", () => {
  expect(urlOf({ PSQLQUEUE_DATABASE_URL: "postgres://u:s3cret@a/db?sslmode=on" })).toBe(
    'PSQLQUEUE_DATABASE_URL="postgres://u:***@a/db?sslmode=on" cannot be used: sslmode must be disable, allow, prefer, ' +
      "require, verify-ca or verify-full; allowed: empty, or postgres://user:password@host:port/database",
  );
  expect(urlOf({ PSQLQUEUE_DATABASE_URL: " \n" })).toBe("");
});

describe("the number of connections", () => {
  const countsOf = (query: string, environment: Record<string, string> = {}) => {
    const config = readConfig({ PSQLQUEUE_DATABASE_URL: `postgres://u@a/db?${query}`, ...environment });
    return [config.PSQLQUEUE_DATABASE_MIN_CONNS, config.PSQLQUEUE_DATABASE_MAX_CONNS];
  };

  test("is that of the connection string where no setting says otherwise", () => {
    expect(countsOf("")).toEqual([0, 10]);
    expect(countsOf("pool_max_conns=20&pool_min_conns=3")).toEqual([3, 20]);
    expect(countsOf("connection_limit=4")).toEqual([0, 4]);
    expect(countsOf("pool_max_conns=2&pool_min_conns=3")).toEqual([2, 2]);
    const settings = { PSQLQUEUE_DATABASE_MAX_CONNS: "5", PSQLQUEUE_DATABASE_MIN_CONNS: "1" };
    expect(countsOf("pool_max_conns=20&pool_min_conns=3", settings)).toEqual([1, 5]);
    expect(countsOf("pool_min_conns=30", { PSQLQUEUE_DATABASE_MAX_CONNS: "5" })).toEqual([5, 5]);
  });
});

describe("what is shown of a connection string", () => {
  test.each([
    ["postgres://user:s3cret@host:5432/database", "postgres://user:***@host:5432/database"],
    ["postgresql://user:s3cret@host/database?sslmode=require", "postgresql://user:***@host/database?sslmode=require"],
    ["postgres://user:s3cret@a:1,b:2/database", "postgres://user:***@a:1,b:2/database"],
    ["postgres://user:s3cret@[::1]:5432/database", "postgres://user:***@[::1]:5432/database"],
    ["postgres://user:s3cret@%2Fvar%2Frun/database", "postgres://user:***@%2Fvar%2Frun/database"],
    ["postgres://host/database", "postgres://host/database"],
    ["postgres://", "postgres://"],
    ["host=a user=u dbname=db password='s3cret s3cret'", "host=a user=*** dbname=db password=***"],
    ["localhost:5432", "localhost:5432"],
    ["", ""],
  ])("%p is %p", (text, shown) => {
    expect(maskConnection(text)).toBe(shown);
  });

  test.each([
    "postgres://user:s3cret@host",
    "POSTGRES://user:s3cret@host/x",
    "postgres://user:s3cret@",
    "postgres://user:s3cret",
    "postgres://user:s3cret/database",
    "postgres://user:s3cret?x=y",
    "postgres://user:s3cret#host/database",
    "postgres://:s3cret@host",
    "postgres://s3cret@host",
    "postgres://user:s3cret@s3cret@host",
    "postgres://user:s3cret:s3cret@host",
    "postgres://user:s3cret/s3cret@host",
    "postgres://user:s3cret?s3cret@host",
    "postgres://user:s3cret#s3cret@host",
    "postgres://user:a b s3cret@host",
    "postgres://user:s3cret%@host",
    "postgres://user:s3\ncret@host/s3cret#x",
    "postgres://host/x?password=s3cret",
    "postgres://host/x?PASSWORD=s3cret",
    "postgres://host/x?user=u&password=a&s3cret",
    "postgres://host/x?password=a?s3cret",
    "postgres://host/x?password=a#s3cret",
    "postgres://host/x?password=a@s3cret#",
    "postgres://host/x?sslpassword=s3cret&sslmode=require",
    "postgres://host/x?pasword=s3cret",
    "postgres://host/x?options=-c%20my.key=s3cret",
    "postgres://user:s3cret@host/x?password=s3cret",
    "postgres://user:s3cret@host:port/x",
    "postgres://host:s3cret/x",
    "postgres:/user:s3cret@host",
    "postgres:user:s3cret@host",
    "postgres//user:s3cret@host",
    "user:s3cret@host/database",
    "user:s3cret",
    "s3cret",
    "a s3cret",
    "s3cret@host",
    "mysql://user:s3cret@host/x",
    "https://s3cret/x y",
    "jdbc:postgresql://user:s3cret@host/x",
    "jdbc:postgresql://host/x?user=u&password=s3cret",
    "postgresql+psycopg2://user:s3cret@host/x",
    '"postgres://user:s3cret@host/x"',
    '"postgres://user:s3cret@host/x',
    "'postgres://user:s3cret@host/x",
    "PSQLQUEUE_DATABASE_URL=postgres://user:s3cret@host/x",
    "export URL=postgres://user:s3cret@host/x",
    "psql postgres://user:s3cret@host/x",
    "host=a password=s3cret",
    "host=a password = s3cret",
    "host=a password='s3cret",
    "host=a password='a host=s3cret",
    "host=a password='a' s3cret",
    "host=a password=a s3cret host=b",
    "host=a password='it\\'s s3cret'",
    "host=a passwd=s3cret",
    "host=a user:s3cret@b",
    "host=user:s3cret@b",
    "{host: a, password: s3cret}",
    "-----s3cret=-----",
  ])("no password of %p", (text) => {
    for (const form of [text, ` ${text}\n`]) {
      expect(maskConnection(form)).not.toContain("s3cret");
      const message = urlOf({ PSQLQUEUE_DATABASE_URL: form });
      // One that is fine is used, not shown.
      if (message !== form.trim() && message !== form.trim().slice(1, -1)) expect(message).not.toContain("s3cret");
    }
  });
});

test("a file of the connection string that cannot be used is named, with its parameter", async () => {
  const refusalOf = async (query: string) => {
    const config = readConfig({ PSQLQUEUE_DATABASE_URL: `postgres://u@a/db?${query}` });
    return await openStore(config).then(
      () => "",
      (error) => `${error.name}: ${error.message}`,
    );
  };
  const certificates = path.join(import.meta.dir, "certificates");
  const certificate = `sslmode=require&sslcert=${certificates}/client.pem`;
  const missing = path.join(directory, "missing");
  const empty = fileOf("nothing");
  const begin = 'ConfigError: PSQLQUEUE_DATABASE_URL="postgres://***@a/db?';
  for (const parameter of ["sslmode=require&sslrootcert", "passfile"]) {
    const refusal = await refusalOf(`${parameter}=${missing}`);
    expect(refusal).toStartWith(begin);
    expect(refusal).toEndWith(
      `cannot be used: ${parameter.split("&").at(-1)}: the file ${missing} cannot be read (ENOENT): correct its path, or ` +
        "who may read it",
    );
  }
  expect(await refusalOf(`${certificate}&sslkey=${missing}`)).toContain(`sslkey: the file ${missing} cannot be read`);
  const useless = "holds nothing in PEM that can be used";
  expect(await refusalOf(`sslmode=verify-ca&sslrootcert=${empty}`)).toEndWith(
    `sslrootcert: the file ${empty} ${useless}`,
  );
  expect(await refusalOf(`${certificate}&sslkey=${empty}`)).toEndWith(
    `sslkey: the file ${empty} ${useless}, or sslpassword is missing or wrong`,
  );
  const encrypted = `${certificates}/client-key-encrypted.pem`;
  expect(await refusalOf(`${certificate}&sslkey=${encrypted}`)).toContain(`sslkey: the file ${encrypted} ${useless}`);
  expect(await refusalOf(`${certificate}&sslkey=${encrypted}&sslpassword=secret`)).toBe("");
  // Where they do not matter they are not looked for.
  expect(await refusalOf(`sslmode=disable&sslrootcert=${missing}`)).toBe("");
});

describe("at the start", () => {
  test("the error names the setting, the server, and what to check, for a server that cannot be reached", async () => {
    const port = await freePort();
    const url = `postgres://user:s3cret@127.0.0.1:${port}/x`;
    const settings = [{ PSQLQUEUE_DATABASE_URL: url }, { PSQLQUEUE_TESTING: "1", PSQLQUEUE_TEST_DATABASE_URL: url }];
    const names = ["PSQLQUEUE_DATABASE_URL", "PSQLQUEUE_TEST_DATABASE_URL", "PSQLQUEUE_DATABASE_URL_FILE"];
    const all = [...settings, { PSQLQUEUE_DATABASE_URL_FILE: fileOf(url) }];
    for (const [i, env] of all.entries()) {
      for (const command of ["migrate", "server"]) {
        const { code, lines, stdout, stderr } = await runChild([command], { env: env as Record<string, string> });
        expect(code).toBe(1);
        expect(lines.at(-1)?.["error"]).toStartWith(
          `${names[i]}="postgres://user:***@127.0.0.1:${port}/x" cannot be used: 127.0.0.1:${port}: nobody listens there: ` +
            "check host and port, that PostgreSQL runs, and its listen_addresses",
        );
        expect(stdout + stderr).not.toContain("s3cret");
      }
    }
  });

  test("nothing of the environment but our own settings leads to a database", async () => {
    const url = new URL(await (await sharedCluster()).createDatabase());
    const misleading = {
      PGHOST: "nowhere.invalid",
      PGPORT: "1",
      PGSSLMODE: "verify-full",
      PGTARGETSESSIONATTRS: "any",
    };
    const { code } = await runChild(["migrate"], { env: { PSQLQUEUE_DATABASE_URL: url.href, ...misleading } });
    expect(code).toBe(0);
  });

  test("on the embedded database, variables that other programs read are named in a warning", async () => {
    const data_dir = path.join(directory, "data");
    mkdirSync(data_dir);
    const env = { PSQLQUEUE_DATA_DIR: data_dir, PGHOST: "db", DATABASE_URL: "postgres://u:s3cret@db/x" };
    const child = startChild(["migrate"], { env });
    const { time: _, ...line } = await child.waitFor(
      "variables of other programs do not count: the embedded database is used",
    );
    expect(line).toEqual({
      level: "WARN",
      msg: "variables of other programs do not count: the embedded database is used",
      variables: ["DATABASE_URL", "PGHOST"],
      remedy: "set PSQLQUEUE_DATABASE_URL to use a PostgreSQL server",
    });
    expect(await child.exited).toBe(0);
    expect(child.stdout()).not.toContain("s3cret");
  });
});
