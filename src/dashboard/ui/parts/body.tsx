import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import { bytes } from "../format.ts";
import { Digits, isNested, type Json, readJson } from "../json.ts";
import { Button } from "./basics.tsx";
import { attempt } from "./toasts.tsx";

/** Longer texts are shown as they are: a tree of them would stop the page. */
const tree_characters_max = 400_000;
/** Items of a list or map that are shown before one asks for more. */
const items_max = 100;
const open_depth = 2;

/** Text with what was searched for marked. Never markup: whatever a body holds stays text. */
function Marked({ text, needle }: { text: string; needle: string }) {
  if (needle === "") return <>{text}</>;
  const parts: ComponentChildren[] = [];
  const lower = text.toLowerCase();
  let at = 0;
  for (let found = lower.indexOf(needle); found >= 0 && parts.length < 400; found = lower.indexOf(needle, at)) {
    parts.push(text.slice(at, found), <mark key={found}>{text.slice(found, found + needle.length)}</mark>);
    at = found + needle.length;
  }
  parts.push(text.slice(at));
  return <>{parts}</>;
}

function kindOf(value: Json): string {
  if (value === null) return "null";
  return value instanceof Digits ? "number" : typeof value;
}

const holds = (value: Json, needle: string): boolean =>
  isNested(value)
    ? Object.entries(value).some(([name, own]) => name.toLowerCase().includes(needle) || holds(own, needle))
    : String(value).toLowerCase().includes(needle);

type NodeProps = { name?: string; value: Json; depth: number; needle: string };

function Name({ name, needle }: { name: string | undefined; needle: string }) {
  if (name === undefined) return null;
  return (
    <span class="json-name">
      <Marked text={name} needle={needle} />:{" "}
    </span>
  );
}

function Leaf({ name, value, needle }: NodeProps) {
  return (
    <div class="json-line">
      <Name name={name} needle={needle} />
      <span class="json-value" data-kind={kindOf(value)}>
        <Marked text={value instanceof Digits ? value.text : JSON.stringify(value)} needle={needle} />
      </span>
    </div>
  );
}

function Branch({ name, value, depth, needle }: NodeProps) {
  const entries = useMemo(() => Object.entries(value as Record<string, Json>), [value]);
  const [is_open, setIsOpen] = useState(depth < open_depth);
  const [shown, setShown] = useState(items_max);
  const is_found = needle !== "" && holds(value, needle);
  const is_list = Array.isArray(value);
  const summary = is_list ? `[ ${entries.length} ]` : `{ ${entries.length} }`;
  const opens = is_open || is_found;
  return (
    <div class="json-branch">
      <button type="button" class="json-toggle" aria-expanded={opens} onClick={() => setIsOpen(!opens)}>
        <Name name={name} needle={needle} />
        <span class="json-summary">{summary}</span>
      </button>
      {opens && (
        <div class="json-inside">
          {entries.slice(0, shown).map(([own, item]) => (
            <JsonNode key={own} name={own} value={item} depth={depth + 1} needle={needle} />
          ))}
          {entries.length > shown && (
            <Button kind="quiet" onClick={() => setShown(shown + 10 * items_max)}>
              {`${entries.length - shown} more`}
            </Button>
          )}
        </div>
      )}
    </div>
  );
}

const JsonNode = (props: NodeProps) =>
  isNested(props.value) && Object.keys(props.value).length > 0 ? <Branch {...props} /> : <Leaf {...props} />;

/** The value of JSON text that is worth a tree: a list or a map. */
function treeOf(text: string): Json | undefined {
  if (text.length > tree_characters_max) return undefined;
  try {
    const value = readJson(text);
    return isNested(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** A message's body: JSON as a tree that folds, anything else as text; searched and copied. */
export function Body({ text }: { text: string }) {
  const tree = useMemo(() => treeOf(text), [text]);
  const [is_raw, setIsRaw] = useState(false);
  const [search, setSearch] = useState("");
  const needle = search.toLowerCase();
  const size = new TextEncoder().encode(text).length;
  const shows_tree = tree !== undefined && !is_raw;
  return (
    <div class="body">
      <div class="body-tools">
        <span class="muted">
          {tree === undefined ? "Text" : "JSON"}, {bytes(size)}
        </span>
        <span class="spring" />
        <input
          type="search"
          class="small"
          aria-label="Find in the body"
          placeholder="Find in the body"
          value={search}
          onInput={(event) => setSearch(event.currentTarget.value)}
        />
        {tree !== undefined && (
          <Button kind="quiet" pressed={is_raw} onClick={() => setIsRaw(!is_raw)}>
            As sent
          </Button>
        )}
        <Button kind="quiet" onClick={() => void attempt(() => navigator.clipboard.writeText(text), "Body copied")}>
          Copy
        </Button>
      </div>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <section class="body-text" aria-label="Body" tabIndex={0}>
        {shows_tree ? (
          <JsonNode value={tree} depth={0} needle={needle} />
        ) : (
          <pre>
            <Marked text={text} needle={needle} />
          </pre>
        )}
      </section>
    </div>
  );
}
