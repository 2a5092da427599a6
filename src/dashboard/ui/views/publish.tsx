import { useEffect, useState } from "preact/hooks";
import { ask, queuePath, reasonOf } from "../api.ts";
import { bytes, plural } from "../format.ts";
import { indentJson } from "../json.ts";
import { Button, Card, Field, Loading, Notice } from "../parts/basics.tsx";
import { attempt, tell } from "../parts/toasts.tsx";
import { hrefOf, Link, usePlace } from "../router.tsx";
import type { Message } from "../shapes.ts";

type Attribute = { name: string; value: string };
type Draft = {
  body: string;
  label: string;
  delay_seconds: string;
  ttl_seconds: string;
  dedup_id: string;
  ordering_key: string;
  attributes: Attribute[];
};

const blank: Draft = {
  body: "",
  label: "",
  delay_seconds: "",
  ttl_seconds: "",
  dedup_id: "",
  ordering_key: "",
  attributes: [],
};

const draftOf = ({ body = "", label, ordering_key = "", attributes }: Message): Draft => ({
  ...blank,
  body,
  label: label ?? "",
  ordering_key,
  attributes: Object.entries(attributes ?? {}).map(([name, value]) => ({ name, value })),
});

/** What is sent: members that were left empty are left out. */
function requestOf({ body, label, delay_seconds, ttl_seconds, dedup_id, ordering_key, attributes }: Draft) {
  const named = attributes.filter(({ name }) => name !== "");
  return {
    body,
    ...(label && { label }),
    ...(delay_seconds && { delay_seconds: Number(delay_seconds) }),
    ...(ttl_seconds && { ttl_seconds: Number(ttl_seconds) }),
    ...(dedup_id && { dedup_id }),
    ...(ordering_key && { ordering_key }),
    ...(named.length > 0 && { attributes: Object.fromEntries(named.map(({ name, value }) => [name, value])) }),
  };
}

function jsonOf(text: string): { is_json: boolean; formatted?: string } {
  try {
    return { is_json: true, formatted: indentJson(text) };
  } catch {
    return { is_json: false };
  }
}

type PartProps = { draft: Draft; onChange: (next: Partial<Draft>) => void };

function BodyField({ draft, onChange }: PartProps) {
  const { is_json, formatted } = jsonOf(draft.body);
  const size = bytes(new TextEncoder().encode(draft.body).length);
  const looks_like_json = /^\s*[[{]/.test(draft.body);
  const hint =
    draft.body === "" ? "Any text" : `${is_json ? "JSON" : looks_like_json ? "Text, not valid JSON" : "Text"}, ${size}`;
  return (
    <>
      <Field label="Body" hint={hint} is_wide>
        <textarea
          name="body"
          rows={12}
          required
          spellcheck={false}
          value={draft.body}
          onInput={(event) => onChange({ body: event.currentTarget.value })}
        />
      </Field>
      <div class="field-tools">
        <Button
          kind="quiet"
          disabled={!is_json || formatted === draft.body}
          onClick={() => onChange({ body: formatted ?? "" })}
        >
          Format JSON
        </Button>
      </div>
    </>
  );
}

function AttributeFields({ draft, onChange }: PartProps) {
  const { attributes } = draft;
  const put = (i: number, next: Partial<Attribute>) =>
    onChange({ attributes: attributes.map((own, at) => (at === i ? { ...own, ...next } : own)) });
  return (
    <fieldset class="pairs">
      <legend>Attributes</legend>
      {attributes.map(({ name, value }, i) => (
        <div class="pair" key={i}>
          <input
            aria-label={`Name of attribute ${i + 1}`}
            placeholder="name"
            value={name}
            onInput={(event) => put(i, { name: event.currentTarget.value })}
          />
          <input
            aria-label={`Value of attribute ${i + 1}`}
            placeholder="value"
            value={value}
            onInput={(event) => put(i, { value: event.currentTarget.value })}
          />
          <Button
            kind="quiet"
            label={`Remove attribute ${i + 1}`}
            onClick={() => onChange({ attributes: attributes.filter((_, at) => at !== i) })}
          >
            Remove
          </Button>
        </div>
      ))}
      <Button kind="quiet" onClick={() => onChange({ attributes: [...attributes, { name: "", value: "" }] })}>
        Add an attribute
      </Button>
    </fieldset>
  );
}

const options: {
  name: "label" | "delay_seconds" | "ttl_seconds" | "dedup_id" | "ordering_key";
  label: string;
  hint?: string;
  is_number?: boolean;
}[] = [
  { name: "label", label: "Label" },
  { name: "delay_seconds", label: "Delay", hint: "Seconds until it is visible", is_number: true },
  { name: "ttl_seconds", label: "Time to live", hint: "Seconds until it expires", is_number: true },
  { name: "dedup_id", label: "Dedup id", hint: "A second one within the window is a duplicate" },
  { name: "ordering_key", label: "Ordering key", hint: "Delivered in order, one at a time" },
];

type PublishFormProps = {
  initial?: Draft;
  action: string;
  /** Sends it, and answers what to tell. */
  onPublish: (message: object) => Promise<string>;
};

/** A form for one message. */
export function PublishForm({ initial = blank, action, onPublish }: PublishFormProps) {
  const [draft, setDraft] = useState(initial);
  const [is_busy, setIsBusy] = useState(false);
  const onChange = (next: Partial<Draft>) => setDraft((before) => ({ ...before, ...next }));
  const send = async () => {
    setIsBusy(true);
    await attempt(async () => tell(await onPublish(requestOf(draft))));
    setIsBusy(false);
  };
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void send();
      }}
    >
      <BodyField draft={draft} onChange={onChange} />
      <div class="fields">
        {options.map(({ name, label, hint, is_number }) => (
          <Field key={name} label={label} hint={hint}>
            <input
              name={name}
              {...(is_number ? { type: "number" as const, min: name === "ttl_seconds" ? 1 : 0 } : {})}
              value={draft[name]}
              onInput={(event) => onChange({ [name]: event.currentTarget.value })}
            />
          </Field>
        ))}
      </div>
      <AttributeFields draft={draft} onChange={onChange} />
      <div class="form-actions">
        <Button kind="primary" type="submit" disabled={is_busy}>
          {action}
        </Button>
      </div>
    </form>
  );
}

/** The message that is to be published again; undefined while it is asked for. */
function useOriginal(queue_id: string, id: string | null) {
  const [state, setState] = useState<{ draft?: Draft; error?: string }>(id === null ? { draft: blank } : {});
  useEffect(() => {
    if (id === null) return setState({ draft: blank });
    const controller = new AbortController();
    ask<Message>("GET", queuePath(queue_id, "messages", id), undefined, controller.signal)
      .then((message) => setState({ draft: draftOf(message) }))
      .catch((error) => {
        if (!controller.signal.aborted) setState({ draft: blank, error: reasonOf(error) });
      });
    return () => controller.abort();
  }, [queue_id, id]);
  return state;
}

/** Publishes a message to a queue: a new one, or one again with changes. */
export function PublishView({ queue_id }: { queue_id: string }) {
  const { query } = usePlace();
  const from = query.get("from");
  const { draft, error } = useOriginal(query.get("of") ?? queue_id, from);
  const [sent, setSent] = useState<string[]>([]);
  const publish = async (message: object) => {
    const path = queuePath(queue_id, "messages", "batch");
    const { data } = await ask<{ data: { id: string; deduplicated: boolean }[] }>("POST", path, {
      messages: [message],
    });
    const [one] = data;
    if (one !== undefined) setSent((before) => [one.id, ...before].slice(0, 10));
    return one?.deduplicated ? "A duplicate of a message that was published before" : "Published";
  };
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>
          <span class="crumb">
            <Link to={hrefOf(["queues", queue_id])}>{queue_id}</Link> /{" "}
          </span>
          {from === null ? "Publish" : "Publish again"}
        </h1>
      </div>
      {error && <Notice>{error}</Notice>}
      {draft === undefined ? (
        <Loading />
      ) : (
        <Card title="Message">
          <PublishForm key={from ?? ""} initial={draft} action="Publish" onPublish={publish} />
        </Card>
      )}
      {sent.length > 0 && (
        <Card title={plural(sent.length, "message") + " published"}>
          <ul class="sent">
            {sent.map((id) => (
              <li key={id}>
                <Link to={hrefOf(["queues", queue_id, "messages", id])}>{id}</Link>
              </li>
            ))}
          </ul>
        </Card>
      )}
    </>
  );
}
