import type { ApiKey, ApiKeyInput, OrderingKey } from "../../client/src/client.ts";
import { CommandError, type Context, type Runner } from "./context.ts";
import { take } from "./topics.ts";

type Action = ApiKeyInput["scopes"][number]["actions"][number];

const actions: Action[] = ["publish", "consume", "peek", "manage", "*"];

const listOf = (text: string | undefined) => text?.split(",").map((own) => own.trim());

function actionsOf(text: string | undefined): Action[] {
  const given = listOf(text) ?? [];
  const unknown = given.find((own) => !actions.some((action) => action === own));
  if (unknown === undefined && given.length > 0) return given as Action[];
  const what = unknown === undefined ? "key create needs --allow" : `--allow ${JSON.stringify(unknown)} is no right`;
  throw new CommandError(`${what}: give some of ${actions.join(", ")}, with commas, as --allow publish,consume`, 2);
}

type CreateOptions = {
  allow?: string;
  queues?: string;
  topics?: string;
  namespace?: string;
  expires_at?: string;
  rate?: number;
};

/** `key create` */
export const create: Runner = {
  async run({ client, out }: Context, [name = ""]: string[], options: CreateOptions) {
    const { namespace, expires_at, rate } = options;
    const scope = { actions: actionsOf(options.allow), queues: listOf(options.queues), topics: listOf(options.topics) };
    const rate_limit = rate === undefined ? undefined : { count: rate, per_seconds: 1, burst: rate };
    const made = await client.keys.create({ name, scopes: [scope], namespace, expires_at, rate_limit });
    await out.item(made.key, made);
    out.note(`key ${made.id} created; its text is shown this once`);
    return 0;
  },
};

/** Rights as a person reads them: `publish,consume on orders-*`. */
const rightsOf = ({ scopes }: ApiKey) =>
  scopes
    .map(({ actions: own, queues = [], topics = [] }) => {
      const on = [...queues, ...topics.map((topic) => `topic ${topic}`)];
      return `${own.join(",")} on ${on.length === 0 ? "everything" : on.join(", ")}`;
    })
    .join("; ");

/** `key list` */
export const list: Runner = {
  async run({ client, out }: Context, _: string[], options: { limit?: number }) {
    const keys = await take<ApiKey>(client.keys.all(), options);
    const shown = out.is_json ? keys : keys.map((own) => ({ ...own, rights: rightsOf(own) }));
    await out.rows(shown, ["id", "name", "namespace", "expires_at", "last_used_at", "rights"]);
    return 0;
  },
};

/** `key delete` */
export const remove: Runner = {
  async run({ client, out, confirm }: Context, [id = ""]: string[], options: { yes?: boolean }) {
    await confirm(`revokes key ${id}`, id, options);
    await client.keys.delete(id);
    await out.done(`key ${id} revoked`);
    return 0;
  },
};

const ordering_headings = ["ordering_key", "state", "pending", "head_id", "blocked_since", "dead_message_id"];

/** `queue keys` */
export const ordering: Runner = {
  async run({ client, out }: Context, [id = ""]: string[], options: { state?: OrderingKey["state"]; limit?: number }) {
    const { state, limit = 10 } = options;
    const { data } = await client.queue(id).orderingKeys({ state, limit });
    await out.rows(data, ordering_headings);
    return 0;
  },
};

/** `queue repair` */
export const repair: Runner = {
  async run({ client, out }: Context, [id = ""]: string[]) {
    const done = await client.queue(id).repair();
    await out.done(`${done.checked} keys looked at, ${done.repaired} repaired`, done);
    return 0;
  },
};
