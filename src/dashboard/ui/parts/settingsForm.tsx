import { useState } from "preact/hooks";
import { duration } from "../format.ts";
import type { Queue } from "../shapes.ts";
import { Button, Field } from "./basics.tsx";

type Setting = {
  name: string;
  label: string;
  kind: "seconds" | "number" | "switch" | "queue" | "choice";
  hint?: string;
  /** Empty is an answer of its own. */
  empty?: string;
  values?: string[];
};

/** Every setting of a queue, in groups; `retry_policy.` and `rate_limit.` lead to their members. */
const groups: { title: string; settings: Setting[] }[] = [
  {
    title: "Delivery",
    settings: [
      {
        name: "ack_deadline_seconds",
        label: "Ack deadline",
        kind: "seconds",
        hint: "A delivered message is hidden for so long",
      },
      {
        name: "message_retention_seconds",
        label: "Retention",
        kind: "seconds",
        hint: "An unacked message is kept for so long",
      },
      {
        name: "delivery_delay_seconds",
        label: "Delay",
        kind: "seconds",
        hint: "A published message stays hidden for so long",
      },
      {
        name: "receive_wait_seconds",
        label: "Receive wait",
        kind: "seconds",
        hint: "A receive waits so long for a message",
      },
      {
        name: "max_lease_seconds",
        label: "Longest lease",
        kind: "seconds",
        hint: "With all extensions; 0 is unlimited",
      },
      { name: "strict_leases", label: "Strict leases", kind: "switch", hint: "No ack after the deadline" },
      { name: "allow_tokenless_extend", label: "Extend without token", kind: "switch" },
    ],
  },
  {
    title: "Failures",
    settings: [
      { name: "dead_queue_id", label: "Dead-letter queue", kind: "queue", empty: "none" },
      { name: "message_max_deliveries", label: "Deliveries at most", kind: "number", empty: "unlimited" },
      { name: "dead_letter_on_expiry", label: "Dead-letter expired messages", kind: "switch" },
      { name: "retry_policy.min_seconds", label: "First retry after", kind: "seconds" },
      { name: "retry_policy.max_seconds", label: "Retry after at most", kind: "seconds" },
      {
        name: "retry_policy.multiplier",
        label: "Multiplier",
        kind: "number",
        hint: "Each retry waits so many times longer",
      },
      { name: "retry_policy.jitter", label: "Jitter", kind: "choice", values: ["none", "equal", "full"] },
    ],
  },
  {
    title: "Order",
    settings: [
      { name: "ordering_scope", label: "Kept in", kind: "choice", values: ["key", "key_label"] },
      {
        name: "on_dead",
        label: "When a message dies",
        kind: "choice",
        values: ["move", "block"],
        hint: "block keeps its key closed until it is redriven or gone",
      },
      { name: "allow_delayed_ordering", label: "Delays of its own", kind: "switch", hint: "Its key waits for them" },
    ],
  },
  {
    title: "Priority",
    settings: [
      { name: "priority_enabled", label: "Priorities", kind: "switch", hint: "-100 to 100, higher ones first" },
      {
        name: "priority_aging_seconds",
        label: "A step of ageing",
        kind: "seconds",
        empty: "none",
        hint: "So much waiting counts as one step of priority",
      },
    ],
  },
  {
    title: "Caps and sharing",
    settings: [
      { name: "max_in_flight", label: "In flight at most", kind: "number", empty: "unlimited" },
      { name: "rate_limit.count", label: "Deliveries", kind: "number", empty: "unlimited" },
      { name: "rate_limit.per_seconds", label: "In so many seconds", kind: "number", empty: "unlimited" },
      { name: "rate_limit.burst", label: "At once after a rest", kind: "number", empty: "as many" },
      {
        name: "fair_by",
        label: "Shared by",
        kind: "choice",
        values: ["fairness_key", "ordering_key", "label"],
        empty: "nothing",
        hint: "Its keys take turns, however many messages each has",
      },
      {
        name: "max_in_flight_per_key",
        label: "In flight of a key",
        kind: "number",
        empty: "unlimited",
        hint: "Needs keys that share the queue",
      },
    ],
  },
  {
    title: "Duplicates",
    settings: [
      { name: "dedup_scope", label: "Counted in", kind: "choice", values: ["queue", "ordering_key"] },
      { name: "dedup_window_seconds", label: "Window", kind: "seconds", hint: "0 is off" },
      { name: "content_dedup", label: "By content", kind: "switch", hint: "Without an id, the body is one" },
      { name: "dedup_strict", label: "Strict", kind: "switch", hint: "The same id with another body is refused" },
    ],
  },
  {
    title: "Limits and archive",
    settings: [
      { name: "max_message_bytes", label: "Bytes of a message", kind: "number", empty: "unlimited" },
      { name: "max_depth", label: "Messages", kind: "number", empty: "unlimited" },
      { name: "max_bytes", label: "Bytes of all messages", kind: "number", empty: "unlimited" },
      {
        name: "archive_retention_seconds",
        label: "Archive",
        kind: "seconds",
        empty: "as long as the retention",
        hint: "0 keeps no acked messages",
      },
      {
        name: "encrypt",
        label: "Encrypt bodies",
        kind: "switch",
        hint: "From now on; the server needs a master key",
      },
    ],
  },
];

export type Values = Record<string, string>;

const textOf = (value: unknown) => (value === null || value === undefined ? "" : String(value));

/** The settings of a queue as the form's texts. */
export function valuesOf(queue: Partial<Queue>): Values {
  return Object.fromEntries(
    groups.flatMap(({ settings }) =>
      settings.map(({ name }) => {
        const [first = "", member] = name.split(".");
        const own = queue[first];
        return [name, textOf(member === undefined ? own : (own as Record<string, unknown> | null)?.[member])];
      }),
    ),
  );
}

/** The form's texts as a request gives them: empty is null, the server's default. */
export function settingsOf(values: Values): Record<string, unknown> {
  const body: Record<string, unknown> = {};
  for (const { name, kind } of groups.flatMap(({ settings }) => settings)) {
    const text = values[name] ?? "";
    const value =
      text === ""
        ? null
        : kind === "switch"
          ? text === "true"
          : kind === "queue" || kind === "choice"
            ? text
            : Number(text);
    const [first = "", member] = name.split(".");
    if (member === undefined) body[first] = value;
    else if (value !== null) body[first] = { ...(body[first] as object), [member]: value };
    // Nothing of it is given: it has none.
    else body[first] ??= null;
  }
  return body;
}

type ControlProps = { setting: Setting; value: string; onChange: (value: string) => void };

function Control({ setting, value, onChange }: ControlProps) {
  const { name, kind, empty, values } = setting;
  if (kind === "switch") {
    return (
      <input
        name={name}
        type="checkbox"
        checked={value === "true"}
        onChange={(event) => onChange(String(event.currentTarget.checked))}
      />
    );
  }
  if (kind === "choice") {
    return (
      <select name={name} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {empty !== undefined && <option value="">{empty}</option>}
        {values?.map((own) => (
          <option key={own}>{own}</option>
        ))}
      </select>
    );
  }
  const is_text = kind === "queue";
  return (
    <input
      name={name}
      type={is_text ? "text" : "number"}
      step={name.endsWith("multiplier") ? "any" : 1}
      min={0}
      spellcheck={false}
      list={is_text ? "queue-ids" : undefined}
      required={empty === undefined}
      placeholder={empty}
      value={value}
      onInput={(event) => onChange(event.currentTarget.value)}
    />
  );
}

const hintOf = ({ kind, hint }: Setting, value: string): string | undefined => {
  const is_long = kind === "seconds" && Number(value) >= 60;
  return [is_long && duration(Number(value)), hint].filter(Boolean).join(". ") || undefined;
};

type SettingsFormProps = {
  values: Values;
  onChange: (values: Values) => void;
  /** Ids that a dead-letter queue may be chosen from. */
  queue_ids: string[];
};

/** The fields of every setting. */
export function SettingsFields({ values, onChange, queue_ids }: SettingsFormProps) {
  const [shows_all, setShowsAll] = useState(false);
  const shown = shows_all ? groups : groups.slice(0, 2);
  return (
    <>
      <datalist id="queue-ids">
        {queue_ids.map((id) => (
          <option key={id} value={id} />
        ))}
      </datalist>
      {shown.map(({ title, settings }) => (
        <fieldset class="fields" key={title}>
          <legend>{title}</legend>
          {settings.map((setting) => {
            const value = values[setting.name] ?? "";
            return (
              <Field
                key={setting.name}
                label={setting.label}
                unit={setting.kind === "seconds" ? "seconds" : undefined}
                hint={hintOf(setting, value)}
              >
                <Control
                  setting={setting}
                  value={value}
                  onChange={(next) => onChange({ ...values, [setting.name]: next })}
                />
              </Field>
            );
          })}
        </fieldset>
      ))}
      {!shows_all && (
        <Button kind="quiet" onClick={() => setShowsAll(true)}>
          Order, duplicates, limits and archive…
        </Button>
      )}
    </>
  );
}
