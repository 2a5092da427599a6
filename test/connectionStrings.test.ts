// Every form of a connection string, and what becomes of it: this table is the documentation. A text as outcome is the
// refusal, an object what was read; what it does not name is as in `plain`. connectionTries.test.ts connects for real.

import { describe, expect, test } from "bun:test";
import os from "node:os";
import { type Connection, readConnection } from "../src/connection/connection.ts";
import { fateOf } from "../src/connection/names.ts";
import type { Tls } from "../src/connection/tls.ts";
import { sessionSettings } from "../src/db/session.ts";

type Outcome = string | (Omit<Partial<Connection>, "tls"> & { tls?: Partial<Tls> });
type Row = [text: string, outcome: Outcome];

/** What `postgres://u@a/db` says: libpq's defaults, but for a target that takes writes. */
const plain: Omit<Connection, "shown"> = {
  addresses: [{ host: "a", port: 5432 }],
  is_balanced: false,
  target: "read-write",
  user: "u",
  database: "db",
  tls: { mode: "disable", sends_name: true, is_direct: false, version_min: "TLSv1.2", version_max: "TLSv1.3" },
  is_bound: false,
  is_prepared: true,
  session: {},
};

/** `?…` stands behind `postgres://u@a/db`. */
function check([text, outcome]: Row): void {
  const whole = text.startsWith("?") ? `postgres://u@a/db${text}` : text;
  if (typeof outcome === "string") {
    expect(() => readConnection(whole)).toThrow(outcome);
    return;
  }
  const { shown, ...found } = readConnection(whole);
  expect(shown).toBeString();
  expect(found).toEqual({ ...plain, ...outcome, tls: { ...plain.tls, ...outcome.tls } });
}

const table = (name: string, rows: Row[]) =>
  describe(name, () => test.each(rows)("%p", (text, outcome) => check([text, outcome])));

const as_is = {};
const me = os.userInfo().username;
const local = { addresses: [{ host: "localhost", port: 5432 }] };
const write = "write postgres://user:password@host:5432/database";

table("schemes", [
  ["postgres://u@a/db", as_is],
  ["postgresql://u@a/db", as_is],
  ["POSTGRES://u@a/db", as_is],
  ["PostgreSQL://u@a/db", as_is],
  ["  postgres://u@a/db\r\n", as_is],
  // Docker's env files leave quotes in.
  ['"postgres://u@a/db"', as_is],
  ["'postgres://u@a/db'\n", as_is],
  ["host=a user=u dbname=db", as_is],
  ["postgresql+psycopg2://u@a/db", "postgresql+psycopg2:// is Python's form: write postgresql://"],
  ["postgresql+asyncpg://u@a/db", "postgresql+asyncpg:// is Python's form: write postgresql://"],
  ["jdbc:postgresql://a/db?user=u", `jdbc: is Java's form: ${write}, with user and password before the host`],
  ["mysql://u@a/db", `mysql:// is not PostgreSQL: ${write}`],
  ["postgres:/u@a/db", `it does not begin with postgres://: ${write}`],
  ["u@a/db", `it does not begin with postgres://: ${write}`],
  ["localhost:5432", `it does not begin with postgres://: ${write}`],
]);

table("user, password, database", [
  ["postgres://u:p@a", { password: "p", database: "u" }],
  ["postgres://u:p@a/", { password: "p", database: "u" }],
  ["postgres://u:@a/db", as_is],
  // As libpq: the system's name of who runs the program. PGUSER and PGDATABASE do not count.
  ["postgres://", { ...local, user: me, database: me }],
  ["postgres:///db", { ...local, user: me }],
  ["postgres://a", { user: me, database: me }],
  ["postgres://a/db?user=u&password=p", { password: "p" }],
  ["postgres://x:y@b:1/c?user=u&host=a&port=5432&dbname=db&password=p%26q", { password: "p&q" }],
  ["postgres://u@server:p@a/db", { user: "u@server", password: "p" }],
  ["postgres://u%40x:p%2Fq%3Fr%23s%25t%20%C3%BC%3A@a/db", { user: "u@x", password: "p/q?r#s%t ü:" }],
  ["postgres://u:p@ss@a/db", { password: "p@ss" }],
  ["postgres://u:p:ss@a/db", { password: "p:ss" }],
  ["postgres://u:p#ss@a/db", { password: "p#ss" }],
  ["postgres://u:p ss@a/db", { password: "p ss" }],
  ["postgres://u:p+ss@a/db", { password: "p+ss" }],
  ["postgres://u:pässwörd@a/db", { password: "pässwörd" }],
  ["postgres://u:p&=ss@a/db", { password: "p&=ss" }],
  ["postgres://u:p%ss@a/db", { password: "p%ss" }],
  ["postgres://u:100%@a/db", { password: "100%" }],
  ["postgres://u:p/ss@a/db", "if the password holds an unescaped character, write %2F for /, %3F for ?, %23 for #"],
  ["postgres://u:p?ss@a/db", "if the password holds an unescaped character, write %2F for /, %3F for ?, %23 for #"],
  ["postgres://u:p#s/s@a/db", "if the password holds an unescaped character, write %2F for /, %3F for ?, %23 for #"],
  ["postgres://u:p@s/s@a/db", "if the password holds an unescaped character, write %2F for /, %3F for ?, %23 for #"],
  ["postgres://u:p/ss", "port must be a whole number from 1 to 65535: does the password hold an unescaped character?"],
  ["postgres://u:%FF@a/db", "password holds escapes (%XX) that are not UTF-8"],
  ["postgres://u:p%00@a/db", "password holds %00"],
  ["postgres://u@a/d%20b%2Fc", { database: "d b/c" }],
  ["postgres://u@a/db/", "the database's name holds an unescaped character: write %2F for /, %23 for #"],
  ["postgres://u@a/db#x", "the database's name holds an unescaped character: write %2F for /, %23 for #"],
  ["postgres://u@a/100%", "dbname holds a % that is no escape: write %25 for %"],
]);

table("name=value words", [
  ["host = a  port=5432 dbname=db\n user=u password='p w'", { password: "p w" }],
  ["host=a dbname=db user=u password='it\\'s \\\\ here'", { password: "it's \\ here" }],
  ["host=a dbname=db user=u password=p\\ w", { password: "p w" }],
  ["host=a dbname=db user=u password=''", as_is],
  ["host=a dbname=db user=u password= sslmode=require", "password has no value: write '' for none"],
  ["host=a dbname=db user=u password= p=w", "password has no value: write '' for none"],
  ["host=a dbname=db user=u password='' sslmode=require", { tls: { mode: "require" } }],
  ["dbname=x dbname=db user=u host=a", as_is],
  ["user=u dbname=db", local],
  ["host=a password='p", "it is no list of name=value words: quote a value with blanks ('a b')"],
  ["host=a password=p w", "it is no list of name=value words: quote a value with blanks ('a b')"],
  ["host=a frobnicate=1", '"frobnicate" is no parameter'],
]);

const both = (first: number, second: number) => ({
  addresses: [
    { host: "a", port: first },
    { host: "b", port: second },
  ],
});
const socket = (path: string) => ({ addresses: [{ path }] });

table("hosts and ports", [
  ["postgres://u@a:1/db", { addresses: [{ host: "a", port: 1 }] }],
  ["postgres://u@a:/db", as_is],
  ["postgres://u@:1/db", { addresses: [{ host: "localhost", port: 1 }] }],
  ["postgres://u@a:x/db", "port must be a whole number from 1 to 65535"],
  ["postgres://u@a:65536/db", "port must be a whole number from 1 to 65535"],
  ["postgres://u@a:0/db", "port must be a whole number from 1 to 65535"],
  ["postgres://u@a:1,b:2/db", both(1, 2)],
  ["postgres://u@a:1,b/db", both(1, 5432)],
  ["postgres://u@/db?host=a,b&port=1,2", both(1, 2)],
  ["postgres://u@/db?host=a,b&port=1", both(1, 1)],
  ["host=a,b port=1,2 user=u dbname=db", both(1, 2)],
  ["host=a,b user=u dbname=db", both(5432, 5432)],
  ["postgres://u@/db?host=a,b&port=1,2,3", "port has 3 ports for 2 hosts: write one for all, or one for each"],
  ["postgres://u@/db?port=1,2", "port has 2 ports for 1 hosts: write one for all, or one for each"],
  ["postgres://u@a,/db", "host has an empty place in its list"],
  [`postgres://u@${Array(33).fill("a").join()}/db`, "host has more than 32 hosts"],
  ["postgres://u@[::1]:5433/db", { addresses: [{ host: "::1", port: 5433 }] }],
  ["postgres://u@[::1]/db", { addresses: [{ host: "::1", port: 5432 }] }],
  ["postgres://u@[fe80::1%25eth0]/db", { addresses: [{ host: "fe80::1%eth0", port: 5432 }] }],
  ["host=::1 user=u dbname=db", { addresses: [{ host: "::1", port: 5432 }] }],
  ["postgres://u@::1/db", "host is an IPv6 address without brackets: write [::1]:5432"],
  ["postgres://u@a b/db", "host holds a character that no host has"],
  // TLS checks the name, the connection goes to the address.
  ["?hostaddr=10.0.0.1", { addresses: [{ host: "a", port: 5432, address: "10.0.0.1" }] }],
  ["hostaddr=10.0.0.1 user=u dbname=db", { addresses: [{ host: "10.0.0.1", port: 5432, address: "10.0.0.1" }] }],
  ["?hostaddr=10.0.0.1,10.0.0.2", "hostaddr has 2 addresses for 1 hosts: write one for each"],
  ["postgres://u@/db?host=/var/run/postgresql", socket("/var/run/postgresql/.s.PGSQL.5432")],
  ["postgres://u@/db?host=/cloudsql/project:region:name", socket("/cloudsql/project:region:name/.s.PGSQL.5432")],
  ["postgres://u@%2Fvar%2Frun%2Fpostgresql/db", socket("/var/run/postgresql/.s.PGSQL.5432")],
  ["postgres://u@%2Ftmp:5433/db", socket("/tmp/.s.PGSQL.5433")],
  ["host=/tmp/ port=5433 user=u dbname=db", socket("/tmp/.s.PGSQL.5433")],
  ["host=/tmp,a user=u dbname=db", { addresses: [{ path: "/tmp/.s.PGSQL.5432" }, { host: "a", port: 5432 }] }],
  ["host=@abstract user=u dbname=db", "host is an abstract socket, which is not supported"],
  // libpq would look for a socket, wherever it was built to; localhost, as ever.
  ["postgres://u@/db", local],
  ["?target_session_attrs=read-write", as_is],
  ["?target_session_attrs=primary", { target: "primary" }],
  ["?target_session_attrs=any", { target: "any" }],
  ["?target_session_attrs=read-only", "target_session_attrs must be read-write, primary or any: psqlqueue writes"],
  ["?target_session_attrs=standby", "target_session_attrs must be read-write, primary or any: psqlqueue writes"],
  ["?target_session_attrs=prefer-standby", "target_session_attrs must be read-write, primary or any: psqlqueue writes"],
  ["?load_balance_hosts=disable", as_is],
  ["?load_balance_hosts=random", { is_balanced: true }],
  ["?load_balance_hosts=yes", "load_balance_hosts must be disable or random"],
]);

table("TLS", [
  ["?sslmode=disable", as_is],
  // `allow` tries without TLS first; both reach the same servers.
  ["?sslmode=allow", { tls: { mode: "prefer" } }],
  ["?sslmode=prefer", { tls: { mode: "prefer" } }],
  ["?sslmode=require", { tls: { mode: "require" } }],
  ["?sslmode=no-verify", { tls: { mode: "require" } }],
  ["?sslmode=require&uselibpqcompat=true", { tls: { mode: "require" } }],
  ["?sslmode=require&sslrootcert=/ca.pem", { tls: { mode: "verify-ca", root_file: "/ca.pem" } }],
  ["?sslmode=verify-ca&sslrootcert=/ca.pem", { tls: { mode: "verify-ca", root_file: "/ca.pem" } }],
  ["?sslmode=verify-full&sslrootcert=/ca.pem", { tls: { mode: "verify-full", root_file: "/ca.pem" } }],
  // libpq would look for ~/.postgresql/root.crt; the built-in authorities, as ever.
  ["?sslmode=verify-full", { tls: { mode: "verify-full" } }],
  ["?sslrootcert=system", { tls: { mode: "verify-full" } }],
  ["?sslmode=require&sslrootcert=system", "sslrootcert=system needs sslmode=verify-full"],
  ["?sslmode=", as_is],
  ["?sslmode=on", "sslmode must be disable, allow, prefer, require, verify-ca or verify-full"],
  // As JDBC and postgres.js have it; libpq would not verify.
  ["?ssl=true", { tls: { mode: "verify-full" } }],
  ["?ssl=false", as_is],
  ["?ssl=require", { tls: { mode: "require" } }],
  ["?ssl=true&sslmode=require", { tls: { mode: "require" } }],
  ["?ssl=maybe", "ssl must be true, false, disable"],
  ["?requiressl=1", "requiressl is libpq's of old: write sslmode=require"],
  [
    "?sslmode=require&sslcert=/c.pem&sslkey=/k.pem&sslpassword=s",
    { tls: { mode: "require", certificate_file: "/c.pem", key_file: "/k.pem", key_password: "s" } },
  ],
  ["?sslmode=require&sslcert=/c.pem", "sslcert needs sslkey: write both for a certificate of the client"],
  ["?sslmode=require&sslkey=/k.pem", "sslkey needs sslcert: write both"],
  ["?sslcertmode=disable&sslcert=/c.pem", as_is],
  ["?sslcertmode=require", "sslcertmode must be allow or disable"],
  ["?sslmode=require&sslnegotiation=direct", { tls: { mode: "require", is_direct: true } }],
  ["?sslnegotiation=postgres", as_is],
  ["?sslnegotiation=direct", "sslnegotiation=direct needs sslmode=require, verify-ca or verify-full"],
  ["?sslnegotiation=x", "sslnegotiation must be postgres or direct"],
  ["?sslsni=1", as_is],
  ["?sslsni=0", { tls: { sends_name: false } }],
  ["?ssl_min_protocol_version=TLSv1", as_is],
  ["?ssl_min_protocol_version=TLSv1.3", { tls: { version_min: "TLSv1.3" } }],
  ["?ssl_max_protocol_version=TLSv1.2", { tls: { version_max: "TLSv1.2" } }],
  ["?ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version must be TLSv1.2 or TLSv1.3"],
  [
    "?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
    "ssl_min_protocol_version is above ssl_max_protocol_version",
  ],
  ["?sslcompression=0", as_is],
  ["?sslcrl=/x", "sslcrl cannot be used: revocation lists are not checked: leave it out"],
  ["?sslcrldir=/x", "sslcrldir cannot be used: revocation lists are not checked: leave it out"],
  ["?sslkeylogfile=/x", "sslkeylogfile cannot be used: keys of connections are not written down: leave it out"],
  // Prisma.
  ["?sslmode=require&sslaccept=strict", { tls: { mode: "verify-full" } }],
  ["?sslmode=require&sslaccept=accept_invalid_certs", { tls: { mode: "require" } }],
  ["?sslaccept=strict", "sslaccept=strict needs sslmode=require or sslmode=verify-full"],
  ["?sslmode=verify-ca&sslaccept=accept_invalid_certs", "sslaccept=accept_invalid_certs contradicts sslmode"],
  ["?sslaccept=x", "sslaccept must be strict or accept_invalid_certs"],
  ["?sslidentity=/x.p12", "sslidentity cannot be used: PKCS 12 files are not read"],
  // A socket's file has no TLS, whatever is asked for.
  ["host=/tmp sslmode=verify-full user=u dbname=db", { ...socket("/tmp/.s.PGSQL.5432"), tls: { mode: "verify-full" } }],
]);

table("authentication", [
  ["?channel_binding=disable", as_is],
  ["?channel_binding=prefer", as_is],
  ["?channel_binding=require&sslmode=require", { is_bound: true, tls: { mode: "require" } }],
  ["?channel_binding=require", "channel_binding=require needs TLS: write sslmode=require, verify-ca or verify-full"],
  ["?channel_binding=x", "channel_binding must be disable, prefer or require"],
  ["?gssencmode=disable", as_is],
  ["?gssencmode=prefer", as_is],
  ["?gssencmode=require", "gssencmode must be disable or prefer: GSSAPI is not supported; TLS is (sslmode)"],
  ["?krbsrvname=postgres&gsslib=gssapi&gssdelegation=0", as_is],
  ["?require_auth=scram-sha-256", "require_auth cannot be used"],
  ["?requirepeer=postgres", "requirepeer cannot be used"],
  ["?oauth_issuer=x", "oauth_issuer cannot be used: write a password instead"],
  ["?passfile=/pgpass", { password_file: "/pgpass" }],
  ["postgres://u:p@a/db?passfile=/pgpass", { password: "p" }],
  ["?service=x", "service cannot be used: a service file is not read"],
  ["?servicefile=/x", "servicefile cannot be used: a service file is not read"],
]);

table("connections", [
  ["?connect_timeout=10", { connect_timeout_seconds: 10 }],
  // libpq's least, and its "no limit".
  ["?connect_timeout=1", { connect_timeout_seconds: 2 }],
  ["?connect_timeout=0", { connect_timeout_seconds: 0 }],
  ["?connect_timeout=-1", { connect_timeout_seconds: 0 }],
  ["?connect_timeout=5s", "connect_timeout must be a whole number"],
  ["?keepalives=1&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=5000", as_is],
  ["?keepalives_idle=30", { keepalive_seconds: 30 }],
  ["?keepalives_idle=0", as_is],
  ["?keepalives=0&keepalives_idle=30", { keepalive_seconds: 0 }],
  ["?keepalives_idle=x", "keepalives_idle must be a whole number"],
  ["?replication=database", "replication is for programs that follow a server's changes: leave it out"],
  ["?replication=false", as_is],
  ["?client_encoding=UTF8", as_is],
  ["?client_encoding=auto", as_is],
  ["?client_encoding=latin1", "client_encoding must be UTF8: leave it out"],
  ["?min_protocol_version=3.0&max_protocol_version=3.2", as_is],
  ["?min_protocol_version=3.2", "min_protocol_version must be 3.0: leave it out"],
  ["?application_name=orders", { session: { application_name: "orders" } }],
  ["?fallback_application_name=orders", { session: { application_name: "orders" } }],
  ["?application_name=a&fallback_application_name=b", { session: { application_name: "a" } }],
]);

table("pools and drivers", [
  // pgx, the Go service's driver.
  ["?pool_max_conns=20&pool_min_conns=2", { connections_max: 20, connections_min: 2 }],
  ["?pool_max_conns=0", "pool_max_conns must be a whole number from 1 to 1000"],
  ["?pool_max_conn_lifetime=1h&pool_max_conn_idle_time=30m&pool_health_check_period=1m", as_is],
  ["?pool_max_conn_lifetime_jitter=5m&pool_ping_timeout=1s&pool_min_idle_conns=1", as_is],
  ["?statement_cache_capacity=0&description_cache_capacity=0&default_query_exec_mode=exec", as_is],
  ["?min_read_buffer_size=8192", as_is],
  // golang-migrate.
  ["?x-migrations-table=m&x-multi-statement=true", as_is],
  // Prisma.
  ["?connection_limit=5", { connections_max: 5 }],
  ["?schema=public&pgbouncer=true&pool_timeout=10&socket_timeout=5&statement_cache_size=0", as_is],
  // postgres.js.
  ["?prepare=false", { is_prepared: false }],
  ["?max=5&idle_timeout=20&max_lifetime=60", as_is],
  // Hosters: Neon's and Supabase's proxies find the database by a word in options.
  ["?options=endpoint%3Dep-x-1", { session: { options: "endpoint=ep-x-1" } }],
  ["?options=project%3Dx", { session: { options: "project=x" } }],
  ["?options=reference%3Dx", { session: { options: "reference=x" } }],
  ["?sslmode=require&supa=base-pooler.x", { tls: { mode: "require" } }],
]);

const at = (host: string, port = 5432) => ({ addresses: [{ host, port }], password: "pw" });
const required: Outcome = { tls: { mode: "require" } };

table("as hosters give them", [
  ["postgres://u:pw@ec2-1-2-3-4.compute-1.amazonaws.com:5432/db", at("ec2-1-2-3-4.compute-1.amazonaws.com")],
  [
    "postgresql://u:pw@ep-x-1-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require",
    { ...at("ep-x-1-pooler.eu-central-1.aws.neon.tech"), ...required, is_bound: true },
  ],
  [
    "postgresql://postgres.ref:pw@aws-0-eu-central-1.pooler.supabase.com:6543/postgres?pgbouncer=true&connection_limit=1",
    {
      ...at("aws-0-eu-central-1.pooler.supabase.com", 6543),
      ...{ user: "postgres.ref", database: "postgres", connections_max: 1 },
    },
  ],
  [
    "postgres://u%40server:pw@server.postgres.database.azure.com:5432/db?sslmode=require",
    { ...at("server.postgres.database.azure.com"), ...required, user: "u@server" },
  ],
  [
    "postgresql://doadmin:pw@db-do-user-1-0.b.db.ondigitalocean.com:25060/defaultdb?sslmode=require",
    {
      ...at("db-do-user-1-0.b.db.ondigitalocean.com", 25060),
      ...{ ...required, user: "doadmin", database: "defaultdb" },
    },
  ],
  [
    "host=/cloudsql/project:europe-west1:name user=u password=pw dbname=db",
    { ...socket("/cloudsql/project:europe-west1:name/.s.PGSQL.5432"), password: "pw" },
  ],
  ["postgres://u:pw@app-db.flycast:5432/db?sslmode=disable", at("app-db.flycast")],
]);

table("settings of the session", [
  // Ours win.
  ["?search_path=x&timezone=Europe/Berlin&statement_timeout=5&TimeZone=UTC", as_is],
  ["?options=-c%20search_path%3Dx%20-cstatement_timeout%3D5s%20--lock-timeout%3D1", as_is],
  ["?work_mem=64MB&role=owner", { session: { work_mem: "64MB", role: "owner" } }],
  ["?options=-c%20role%3Downer%20-cwork_mem%3D64MB", { session: { role: "owner", work_mem: "64MB" } }],
  ["?options=--work-mem%3D64MB%20endpoint%3Dx", { session: { work_mem: "64MB", options: "endpoint=x" } }],
  ["?options=-c%20app.name%3Da%5C%20b", { session: { "app.name": "a b" } }],
  ["?app.tenant=x", { session: { "app.tenant": "x" } }],
  ["?options=", as_is],
  ["?options=-B%205", "options must be settings such as -c name=value"],
  ["?options=-c%20work_mem", "options must be settings such as -c name=value"],
  ["?options=-c%20frobnicate%3D1", '"frobnicate" is no parameter that can be set here'],
  ["?default_transaction_read_only=on", "default_transaction_read_only cannot be used: psqlqueue writes"],
  [
    "?options=-c%20default_transaction_read_only%3Don",
    "default_transaction_read_only cannot be used: psqlqueue writes",
  ],
  ["?session_replication_role=replica", "session_replication_role cannot be used"],
  ["?zero_damaged_pages=on", "zero_damaged_pages cannot be used: it would destroy data"],
  ["?frobnicate=1", '"frobnicate" is no parameter that can be set here'],
  ["?sslmod=require", '"sslmod" is no parameter that can be set here (the nearest is sslmode)'],
  ["?aplication_name=x", '"aplication_name" is no parameter that can be set here (the nearest is application_name)'],
  ["?SSLMODE=require", '"SSLMODE" is no parameter that can be set here (the nearest is sslmode)'],
  ["?frobnicate=", '"frobnicate" is no parameter'],
  ["?sslmode", "a parameter behind the ? has no =: write name=value"],
  ["?&sslmode=require&", { tls: { mode: "require" } }],
  ["?__proto__=1", '"__proto__" is no parameter'],
  ["?constructor=1", '"constructor" is no parameter'],
]);

test("no connection string changes a setting of the session that is ours", () => {
  const ours = Object.keys(sessionSettings(5000)).filter((name) => name !== "application_name");
  expect(ours.filter((name) => fateOf(name) !== "ignored")).toEqual([]);
});
