import { useState } from "preact/hooks";
import { ask, askAll } from "../api.ts";
import { Ago, Button, Card, Empty, Field, Loading, Notice, Table } from "../parts/basics.tsx";
import { Confirm } from "../parts/dialog.tsx";
import { attempt } from "../parts/toasts.tsx";
import { usePoll } from "../poll.ts";
import type { ApiKey } from "../shapes.ts";

const asked_ms = 10_000;
const day_ms = 86_400_000;
const actions = ["publish", "consume", "peek", "manage"] as const;

/** `a, b*` as a list; undefined when nothing is named. */
function patternsOf(text: string): string[] | undefined {
  const patterns = text.split(/[\s,]+/).filter((part) => part !== "");
  return patterns.length === 0 ? undefined : patterns;
}

/** What a key may do, in a line. */
const rightsOf = ({ scopes, namespace }: ApiKey) =>
  scopes
    .map(({ actions: own, queues, topics }) => {
      const on = [
        ...(queues ?? []),
        ...(topics ?? []).map((pattern) => `topic ${pattern}`),
        ...(queues === undefined && topics === undefined ? ["everything"] : []),
      ];
      return `${own.join(", ")} on ${on.join(", ")}`;
    })
    .concat(namespace === null ? [] : [`only ids that begin with ${namespace}.`])
    .join("; ");

type Made = { name: string; key: string };

function NewKey({ onMade }: { onMade: (made: Made) => void }) {
  const [name, setName] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set(["publish", "consume"]));
  const [queues, setQueues] = useState("");
  const [topics, setTopics] = useState("");
  const [days, setDays] = useState("");
  const toggle = (action: string) => {
    const next = new Set(chosen);
    if (!next.delete(action)) next.add(action);
    setChosen(next);
  };
  const create = () =>
    attempt(async () => {
      const [queue_patterns, topic_patterns] = [patternsOf(queues), patternsOf(topics)];
      const scope = {
        actions: actions.filter((action) => chosen.has(action)),
        ...(queue_patterns && { queues: queue_patterns }),
        ...(topic_patterns && { topics: topic_patterns }),
      };
      const expires_at = days === "" ? null : new Date(Date.now() + Number(days) * day_ms).toISOString();
      onMade(await ask<Made>("POST", "keys", { name, scopes: [scope], expires_at }));
      setName("");
    }, `Made a key for ${name}`);
  return (
    <Card title="New key">
      <form
        class="form"
        onSubmit={(event) => {
          event.preventDefault();
          void create();
        }}
      >
        <div class="fields">
          <Field label="Name" hint="Who uses it">
            <input required value={name} onInput={(event) => setName(event.currentTarget.value)} />
          </Field>
          <Field label="Queues" hint="Ids or patterns such as orders*; with neither, for everything">
            <input spellcheck={false} value={queues} onInput={(event) => setQueues(event.currentTarget.value)} />
          </Field>
          <Field label="Topics" hint="To publish to, or to look at">
            <input spellcheck={false} value={topics} onInput={(event) => setTopics(event.currentTarget.value)} />
          </Field>
          <Field label="Ends after" unit="days" hint="Never, when empty">
            <input
              type="number"
              min={1}
              max={36500}
              value={days}
              onInput={(event) => setDays(event.currentTarget.value)}
            />
          </Field>
        </div>
        <fieldset class="fields">
          <legend>What it may do</legend>
          {actions.map((action) => (
            <Field key={action} label={action}>
              <input type="checkbox" checked={chosen.has(action)} onChange={() => toggle(action)} />
            </Field>
          ))}
        </fieldset>
        <div class="form-actions">
          <Button type="submit" disabled={chosen.size === 0}>
            Create key
          </Button>
        </div>
      </form>
    </Card>
  );
}

/** The text of a key that was made just now. */
const MadeKey = ({ made }: { made: Made }) => (
  <Notice kind="warning">
    <p>The key of {made.name}, shown this once:</p>
    <p class="mono key-text">{made.key}</p>
    <Button kind="quiet" onClick={() => void attempt(() => navigator.clipboard.writeText(made.key), "Key copied")}>
      Copy key
    </Button>
  </Notice>
);

/** Who may do what: the API keys of this server. */
export function KeysView() {
  const { data, error, refresh } = usePoll<ApiKey[]>("keys", () => askAll<ApiKey>("keys"), asked_ms);
  const [made, setMade] = useState<Made>();
  const [asked, setAsked] = useState<ApiKey>();
  const revoke = async ({ id, name }: ApiKey) => {
    await attempt(() => ask("DELETE", `keys/${encodeURIComponent(id)}`), `Revoked the key of ${name}`);
    setAsked(undefined);
    refresh();
  };
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>Keys</h1>
      </div>
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      <div class="stack">
        {data?.length === 0 && (
          <Empty title="No keys">Requests need one where the server runs with PSQLQUEUE_AUTH=on.</Empty>
        )}
        {data !== undefined && data.length > 0 && (
          <Table label="Keys">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col">May</th>
                <th scope="col" class="p1">
                  Id
                </th>
                <th scope="col" class="number p1">
                  Ends
                </th>
                <th scope="col" class="number">
                  Used
                </th>
                <th scope="col">
                  <span class="hidden">Actions</span>
                </th>
              </tr>
            </thead>
            <tbody>
              {data.map((key) => (
                <tr key={key.id}>
                  <th scope="row" class="name">
                    {key.name}
                  </th>
                  <td>{rightsOf(key)}</td>
                  <td class="p1 mono muted">{key.id}</td>
                  <td class="number nowrap p1">
                    {key.expires_at === null ? <span class="muted">never</span> : <Ago time={key.expires_at} />}
                  </td>
                  <td class="number nowrap">
                    {key.last_used_at === null ? <span class="muted">never</span> : <Ago time={key.last_used_at} />}
                  </td>
                  <td class="number">
                    <Button kind="quiet" label={`Revoke the key of ${key.name}`} onClick={() => setAsked(key)}>
                      Revoke…
                    </Button>
                  </td>
                </tr>
              ))}
            </tbody>
          </Table>
        )}
        {data !== undefined && (
          <NewKey
            onMade={(own) => {
              setMade(own);
              refresh();
            }}
          />
        )}
        {made && <MadeKey made={made} />}
      </div>
      {asked && (
        <Confirm
          title="Revoke this key"
          action="Revoke"
          onClose={() => setAsked(undefined)}
          onConfirm={() => void revoke(asked)}
        >
          <p>Whoever uses the key of {asked.name} is refused from now on, on every server.</p>
        </Confirm>
      )}
    </>
  );
}
