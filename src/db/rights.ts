import { type MigrationMeta, readMigrationFiles } from "drizzle-orm/migrator";
import type { drizzle } from "drizzle-orm/postgres-js";
import type postgres from "postgres";
import { MigrationError } from "../errors.ts";

const schema = "psqlqueue";

/**
 * Throws MigrationError, saying how to make another, for a database that cannot hold every text: messages are UTF-8.
 * With any other encoding some could not be stored, and only when somebody sends one.
 */
export async function checkEncoding(client: postgres.Sql): Promise<void> {
  const [row] = await client`
    select pg_encoding_to_char(encoding) as encoding, datname as name from pg_database
    where datname = current_database()`;
  if (row?.["encoding"] === "UTF8") return;
  throw new MigrationError(
    `the database "${row?.["name"]}" has the encoding ${row?.["encoding"]}, and messages are UTF-8: make another one, ` +
      "`create database psqlqueue encoding 'UTF8' locale 'C' template template0`, and name it in PSQLQUEUE_DATABASE_URL",
  );
}

type Rights = {
  user: string;
  database: string;
  may_create: boolean;
  has_schema: boolean;
  owns_schema: boolean;
  may_use_schema: boolean;
};

async function readRights(client: postgres.Sql): Promise<Rights> {
  const [row] = await client`
    select quote_ident(current_user) as user, quote_ident(current_database()) as database,
      has_database_privilege(current_database(), 'CREATE') as may_create,
      namespace.oid is not null as has_schema,
      coalesce(pg_has_role(namespace.nspowner, 'USAGE'), false) as owns_schema,
      coalesce(has_schema_privilege(namespace.oid, 'USAGE'), false) as may_use_schema
    from (select) as one
    left join pg_namespace as namespace on namespace.nspname = ${schema}`;
  return row as unknown as Rights;
}

const notOurs = ({ user, database }: Pick<Rights, "user" | "database">) =>
  new MigrationError(
    `the schema ${schema} in database ${database} belongs to another role than ${user}: work as that role, or run ` +
      `\`alter schema ${schema} owner to ${user}\` and \`reassign owned by OWNER to ${user}\` as its owner`,
  );

/** May this role look into our schema, where there is one? Throws MigrationError with what has to be run. */
export async function checkUsage(client: postgres.Sql): Promise<void> {
  const rights = await readRights(client);
  if (rights.has_schema && !rights.may_use_schema) throw notOurs(rights);
}

/**
 * May this role make our tables? Throws MigrationError with what an administrator has to run. `is_schema_given`: the
 * schema is there and must not be made again, which PostgreSQL refuses before it looks whether it exists.
 */
export async function checkRights(client: postgres.Sql): Promise<{ is_schema_given: boolean }> {
  const { user, database, may_create, has_schema, owns_schema } = await readRights(client);
  if (has_schema && !owns_schema) throw notOurs({ user, database });
  if (has_schema || may_create) return { is_schema_given: has_schema && !may_create };
  throw new MigrationError(
    `the role ${user} may not make the schema ${schema} in database ${database}: run ` +
      `\`grant create on database ${database} to ${user}\`, or \`create schema ${schema} authorization ${user}\`, there ` +
      "as its owner, and migrate again",
  );
}

const isSchemaMade = (statement: string) => /^\s*create schema if not exists/i.test(statement);

type Session = { execute(query: unknown): Promise<unknown> };
type Internals = {
  dialect: { migrate(all: MigrationMeta[], session: Session, own: object): Promise<void> };
  session: Session;
};

/** What Drizzle's `migrate` does, in a schema that is there and cannot be made by this role. */
export async function migrateGivenSchema(
  orm: ReturnType<typeof drizzle>,
  options: { migrationsFolder: string; migrationsSchema: string; migrationsTable: string },
): Promise<void> {
  const { dialect, session } = orm as unknown as Internals;
  const migrations = readMigrationFiles(options).map((migration) => ({
    ...migration,
    sql: migration.sql.filter((statement) => !isSchemaMade(statement)),
  }));
  let is_first = true;
  // Its first statement makes the schema.
  const execute = async (query: unknown) => {
    if (!is_first) return await session.execute(query);
    is_first = false;
    return [];
  };
  await dialect.migrate(migrations, Object.create(session, { execute: { value: execute } }) as Session, options);
}
