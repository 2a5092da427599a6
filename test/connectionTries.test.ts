// Connection strings tried on a real PostgreSQL, which lets users in by TLS, certificate, password or socket only. The
// certificates in test/certificates are for nothing else: an authority, a server named localhost, the client tls_user.

import { afterAll, beforeAll, expect, setDefaultTimeout, test } from "bun:test";
import { chmodSync, chownSync, copyFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type postgres from "postgres";
import { openPostgres } from "../src/db/db.ts";
import { connectOnce } from "../src/db/migrate.ts";
import { until } from "./harness.ts";
import { type Cluster, freePort, startCluster } from "./postgres.ts";

setDefaultTimeout(90_000);

const certificates = path.join(import.meta.dir, "certificates");
const file = (name: string) => path.join(certificates, `${name}.pem`);
const password = "p@ s:s/w?o#r%d ü'\\";
const access = `
  hostssl all over_tls 127.0.0.1/32 trust
  hostnossl all in_plain 127.0.0.1/32 trust
  hostssl all tls_user 127.0.0.1/32 cert
  host all by_password 127.0.0.1/32 scram-sha-256
  host all postgres 127.0.0.1/32 trust
  local all all trust
`;

const scratch = mkdtempSync(path.join(process.getuid?.() === 0 ? "/tmp" : tmpdir(), "psqlqueue-tries-"));
let cluster: Cluster;
let admin: postgres.Sql;
/** Without TLS. */
let other: Cluster;

/** Nothing of this may count. */
const misleading = {
  PGHOST: "nowhere.invalid",
  PGPORT: "1",
  PGUSER: "nobody",
  PGPASSWORD: "wrong",
  PGDATABASE: "nowhere",
  PGSSLMODE: "verify-full",
  PGSSL: "verify-full",
  PGSSLNEGOTIATION: "direct",
  PGAPPNAME: "misled",
  PGOPTIONS: "-c work_mem=64kB",
  PGCONNECT_TIMEOUT: "1",
  PGPREPARE: "",
  PGTARGETSESSIONATTRS: "standby",
  PGTARGET_SESSION_ATTRS: "standby",
};

beforeAll(async () => {
  Object.assign(process.env, misleading);
  chmodSync(scratch, 0o777);
  // PostgreSQL 17 and newer know direct negotiation.
  const settings = { unix_socket_directories: scratch };
  [cluster, other] = await Promise.all([startCluster({ is_embedded: true, settings }), startCluster()]);
  const { uid, gid } = statSync(cluster.data_directory);
  for (const [from, to] of [
    ["server", "server.crt"],
    ["server-key", "server.key"],
    ["authority", "authority.crt"],
  ] as const) {
    const target = path.join(cluster.data_directory, to);
    copyFileSync(file(from), target);
    chmodSync(target, 0o600);
    chownSync(target, uid, gid);
  }
  writeFileSync(path.join(cluster.data_directory, "pg_hba.conf"), access);
  admin = await connectOnce(`host=127.0.0.1 port=${cluster.port} user=postgres`);
  for (const user of ["over_tls", "in_plain", "tls_user"]) await admin.unsafe(`create role ${user} login`);
  await admin.unsafe(`create role by_password login password '${password.replaceAll("'", "''")}'`);
  await admin.unsafe("alter system set ssl_ca_file = 'authority.crt'");
  await admin.unsafe("alter system set ssl = on");
  await admin`select pg_reload_conf()`;
  const isOn = () => outcomeOf(`host=127.0.0.1 port=${cluster.port} user=over_tls dbname=postgres sslmode=require`);
  await until(async () => (await isOn()) === "over_tls@postgres, TLSv1.3");
}, 120_000);

afterAll(async () => {
  for (const name of Object.keys(misleading)) delete process.env[name];
  await admin.end({ timeout: 1 });
  await Promise.all([cluster.remove(), other.remove()]);
  rmSync(scratch, { recursive: true, force: true });
});

/** `user@database, TLSv1.3`, and what else differs from the usual; or the error. */
async function outcomeOf(text: string): Promise<string> {
  let sql: postgres.Sql;
  try {
    sql = await connectOnce(text);
  } catch (error) {
    return (error as Error).message;
  }
  const [row] = await sql`
    select current_user as user, current_database() as database, coalesce(version, 'plain') as version,
      client_dn, current_setting('application_name') as application_name, current_setting('work_mem') as work_mem
    from (select pg_backend_pid() as pid) as own left join pg_stat_ssl using (pid)`;
  await sql.end({ timeout: 1 });
  const odd = [row?.["client_dn"], row?.["application_name"], row?.["work_mem"]];
  const usual = [null, "psqlqueue migrate", "4MB"];
  const differences = odd.filter((value, i) => value !== usual[i]);
  return [`${row?.["user"]}@${row?.["database"]}`, row?.["version"], ...differences].join(", ");
}

const escaped = encodeURIComponent(password);
const quoted = `'${password.replace(/['\\]/g, "\\$&")}'`;
const root = `sslrootcert=${file("authority")}`;
const client = `sslcert=${file("client")}`;
const key = `sslkey=${file("client-key")}`;
/** The server's name, which the certificate is for, without a look-up that gives ::1. */
const by_name = "localhost:PORT/postgres?hostaddr=127.0.0.1";
const bound = "channel_binding=require";
const over_tls = "postgres://over_tls@127.0.0.1:PORT/postgres?";

/** PORT is the server's, OTHER that of one without TLS, FREE one that nobody listens on. */
const tries: [text: string, outcome: string | RegExp][] = [
  ["postgres://postgres@127.0.0.1:PORT", "postgres@postgres, plain"],
  ["POSTGRESQL://postgres@127.0.0.1:PORT/template1\n", "postgres@template1, plain"],
  ["host=127.0.0.1 port=PORT user=postgres", "postgres@postgres, plain"],
  ["postgres://postgres@localhost:PORT?hostaddr=127.0.0.1", "postgres@postgres, plain"],
  [`postgres://by_password:${escaped}@127.0.0.1:PORT/postgres`, "by_password@postgres, plain"],
  [`host=127.0.0.1 port=PORT user=by_password dbname=postgres password=${quoted}`, "by_password@postgres, plain"],
  [`postgres://by_password@127.0.0.1:PORT/postgres?password=${escaped}`, "by_password@postgres, plain"],
  [`postgres://by_password@127.0.0.1:PORT/postgres?passfile=SCRATCH/pgpass`, "by_password@postgres, plain"],
  [`postgres://by_password@127.0.0.1:PORT/template1?passfile=SCRATCH/pgpass`, /does not take this password/],
  // Sockets, TLS or not.
  ["postgres://in_plain@/postgres?host=SCRATCH&port=PORT", "in_plain@postgres, plain"],
  ["host=SCRATCH port=PORT user=over_tls dbname=postgres sslmode=verify-full", "over_tls@postgres, plain"],
  ["postgres://postgres@OPENED:PORT", "postgres@postgres, plain"],
  ["host=/nowhere,SCRATCH port=PORT user=postgres", "postgres@postgres, plain"],
  // Several hosts.
  ["postgres://postgres@127.0.0.1:FREE,127.0.0.1:PORT", "postgres@postgres, plain"],
  ["postgres://postgres@127.0.0.1:FREE,127.0.0.1:PORT?load_balance_hosts=random", "postgres@postgres, plain"],
  ["host=127.0.0.1,127.0.0.1 port=FREE,PORT user=postgres", "postgres@postgres, plain"],
  // TLS: `prefer` goes without it where the server does not offer it.
  ["postgres://in_plain@127.0.0.1:PORT/postgres", "in_plain@postgres, plain"],
  ["postgres://in_plain@127.0.0.1:PORT/postgres?sslmode=require", /does not let user "in_plain" in/],
  [`${over_tls}sslmode=disable`, /does not let user "over_tls" in .*pg_hba.conf/],
  [`${over_tls}sslmode=allow`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=prefer`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=require`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=require&sslsni=0`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=require&sslnegotiation=direct`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=require&ssl_max_protocol_version=TLSv1.2`, "over_tls@postgres, TLSv1.2"],
  ["postgres://postgres@127.0.0.1:OTHER?sslmode=prefer", "postgres@postgres, plain"],
  ["postgres://postgres@127.0.0.1:OTHER?sslmode=require", /:OTHER: the server does not offer TLS: switch it on there/],
  [`${over_tls}sslmode=require&${root}`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=verify-ca&${root}`, "over_tls@postgres, TLSv1.3"],
  [`${over_tls}sslmode=verify-ca&sslrootcert=${file("other-authority")}`, /TLS failed \(\w+\), .*other-authority\.pem/],
  [`${over_tls}sslmode=verify-ca`, /TLS failed \(\w+\), maybe since no authority that is known here has signed/],
  [`${over_tls}sslrootcert=system`, /TLS failed/],
  [`${over_tls}ssl=true`, /TLS failed/],
  [`${over_tls}sslmode=verify-full&${root}`, /the server's certificate is for another host/],
  [`postgres://over_tls@${by_name}&sslmode=verify-full&${root}`, "over_tls@postgres, TLSv1.3"],
  [`postgres://over_tls@${by_name}&sslmode=verify-full&${root}&sslnegotiation=direct`, "over_tls@postgres, TLSv1.3"],
  [`postgres://over_tls@${by_name}&sslmode=verify-full&sslrootcert=${file("other-authority")}`, /TLS failed/],
  [`postgres://tls_user@${by_name}&sslmode=require&${client}&${key}`, "tls_user@postgres, TLSv1.3, /CN=tls_user"],
  [
    `postgres://tls_user@${by_name}&sslmode=require&${client}&sslkey=${file("client-key-encrypted")}&sslpassword=secret`,
    "tls_user@postgres, TLSv1.3, /CN=tls_user",
  ],
  [`postgres://tls_user@${by_name}&sslmode=require`, /does not let user "tls_user" in/],
  [
    `postgres://by_password:${escaped}@127.0.0.1:PORT/postgres?sslmode=require&${bound}`,
    "by_password@postgres, TLSv1.3",
  ],
  [`postgres://by_password:s3cret@127.0.0.1:PORT/postgres?sslmode=require&${bound}`, /does not take this password/],
  [`${over_tls}sslmode=require&${bound}`, /does not bind the authentication to TLS/],
  // What is sent to PostgreSQL.
  ["postgres://postgres@127.0.0.1:PORT?application_name=orders", "postgres@postgres, plain, orders"],
  ["postgres://postgres@127.0.0.1:PORT?fallback_application_name=orders", "postgres@postgres, plain, orders"],
  ["postgres://postgres@127.0.0.1:PORT?work_mem=64MB", "postgres@postgres, plain, 64MB"],
  [
    "postgres://postgres@127.0.0.1:PORT?options=-c%20work_mem%3D64MB%20-c%20role%3Din_plain",
    "in_plain@postgres, plain, 64MB",
  ],
  ["postgres://postgres@127.0.0.1:PORT?keepalives=0&connect_timeout=0&prepare=false", "postgres@postgres, plain"],
  ["postgres://postgres@127.0.0.1:PORT?x-migrations-table=m&pgbouncer=true&schema=x", "postgres@postgres, plain"],
  // What cannot be reached.
  [
    "postgres://postgres:s3cret@127.0.0.1:FREE",
    /^postgres:..postgres:\*\*\*@.* cannot be used: 127\.0\.0\.1:FREE: nobody listens/,
  ],
  ["postgres://postgres:s3cret@no-such-host.invalid", /no-such-host\.invalid:5432: there is no such host/],
  ["postgres://postgres@127.0.0.1:FREE,127.0.0.1:1", /127\.0\.0\.1:FREE: nobody .*; 127\.0\.0\.1:1: nobody/],
  [
    "postgres://by_password:s3cret@127.0.0.1:PORT/postgres",
    /:PORT: the server does not take this password for user "by_password"/,
  ],
  [
    "postgres://by_password@127.0.0.1:PORT/postgres",
    /:PORT: the server does not take this password for user "by_password"/,
  ],
  ["postgres://postgres:s3cret@127.0.0.1:PORT/nowhere", /:PORT: there is no database "nowhere": create it/],
  ["postgres://nobody:s3cret@127.0.0.1:PORT/postgres", /:PORT: the server does not let user "nobody" in/],
  ["postgres://postgres@[fe80::1%25nowhere]:PORT", / \[fe80::1%nowhere\]:PORT: /],
  ["host=SCRATCH port=FREE user=postgres", /SCRATCH.\.s\.PGSQL\.FREE: there is no such socket/],
];

test.each(tries)("%p", async (text, outcome) => {
  const line = `#comment\n127.0.0.1:${cluster.port}:postgres:by_password:${password.replace(/[:\\]/g, "\\$&")}\n`;
  writeFileSync(path.join(scratch, "pgpass"), line);
  const words = { PORT: cluster.port, OTHER: other.port, FREE: await freePort(), SCRATCH: scratch };
  const fill = (template: string) =>
    Object.entries({ ...words, OPENED: encodeURIComponent(scratch) }).reduce(
      (filled, [word, value]) => filled.replaceAll(word, String(value)),
      template,
    );
  const found = await outcomeOf(fill(text));
  expect(found).not.toContain("s3cret");
  if (typeof outcome === "string") expect(found).toBe(fill(outcome));
  else expect(found).toMatch(new RegExp(fill(outcome.source)));
});

test("over TLS a pool and its listener find the next host, and live on when their connections are ended", async () => {
  const address = `127.0.0.1:${other.port},127.0.0.1:${cluster.port}`;
  const text = `postgres://postgres@${address}/postgres?sslmode=verify-ca&sslrootcert=${file("authority")}`;
  const db = openPostgres({ server: text, connections_max: 3, statement_timeout_ms: 2000 });
  const heard: string[] = [];
  const changes: boolean[] = [];
  await db.listen(
    "tries",
    (payload) => heard.push(payload),
    (is_listening) => changes.push(is_listening),
  );
  await until(() => changes.includes(true));
  const notify = (payload: string) =>
    db.run("notify", () => db.client`select pg_notify('tries', ${payload})::text as sent`, true);
  await notify("first");
  await until(() => heard.length === 1);
  const ours = () => admin`
    select ssl, application_name from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'psqlqueue'`;
  expect(new Set((await ours()).map(({ ssl }) => ssl))).toEqual(new Set([true]));
  await admin`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'psqlqueue'`;
  await until(async () => {
    await notify("again").catch(() => {});
    return heard.includes("again");
  });
  await db.close();
}, 60_000);

test("a certificate that is missing for a while is an outage: 503, until the file is back", async () => {
  const root_file = path.join(scratch, "root.pem");
  copyFileSync(file("authority"), root_file);
  const text = `host=127.0.0.1 port=${cluster.port} user=postgres sslmode=verify-ca sslrootcert=${root_file}`;
  const db = openPostgres({ server: text, connections_max: 1, statement_timeout_ms: 2000 });
  const ping = () =>
    db.ping().then(
      () => "fine",
      ({ failure, code }) => [failure, code],
    );
  expect(await ping()).toBe("fine");
  const end = () => admin`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'psqlqueue'`;
  rmSync(root_file);
  await end();
  expect(await ping()).toEqual(["unavailable", "CREDENTIAL_FILE"]);
  copyFileSync(file("other-authority"), root_file);
  expect(await ping()).toEqual(["unavailable", expect.stringMatching(/CERT|UNABLE_TO/)]);
  copyFileSync(file("authority"), root_file);
  await until(async () => (await ping()) === "fine");
  await db.close();
}, 60_000);
