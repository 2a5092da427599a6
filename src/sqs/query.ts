import { SqsError } from "./errors.ts";
import { isBase64 } from "./json.ts";
import type { Shape } from "./shapes.ts";
import { element, escapeXml } from "./xml.ts";

// The query protocol of 2012-11-05: a form in, XML out. `A.1.B=x` is the first A's B.

/** Parameters of one request, and parts of a name, at most. */
const parameters_max = 25_000;
const parts_max = 8;

type Node = { text: string | undefined; children: Map<string, Node> | undefined };

/** The parameters of a request, first by whole name, then as the tree that their names make. */
export type Parameters = { byName: Map<string, string>; tree: Node };

const decode = (raw: string): string => {
  if (!raw.includes("%") && !raw.includes("+")) return raw;
  try {
    return decodeURIComponent(raw.replaceAll("+", " "));
  } catch {
    throw new SqsError("SerializationException", "A parameter is not valid percent-encoded UTF-8.");
  }
};

/** Reads forms, of which the first to name a parameter wins. Throws SerializationException. */
export function parseForms(...forms: string[]): Parameters {
  const byName = new Map<string, string>();
  const tree: Node = { text: undefined, children: undefined };
  let count = 0;
  for (const pair of forms.flatMap((form) => (form === "" ? [] : form.split("&", parameters_max + 1)))) {
    count += 1;
    if (count > parameters_max) {
      throw new SqsError("SerializationException", `A request may have ${parameters_max} parameters.`);
    }
    const equals = pair.indexOf("=");
    const name = decode(equals < 0 ? pair : pair.slice(0, equals));
    if (name === "" || byName.has(name)) continue;
    const text = equals < 0 ? "" : decode(pair.slice(equals + 1));
    byName.set(name, text);
    const parts = name.split(".", parts_max + 1);
    if (parts.length > parts_max) continue;
    let node = tree;
    for (const part of parts) {
      node.children ??= new Map();
      const next = node.children.get(part) ?? { text: undefined, children: undefined };
      node.children.set(part, next);
      node = next;
    }
    node.text = text;
  }
  return { byName, tree };
}

const refuse = (path: string, what: string) => new SqsError("SerializationException", `${path} must be ${what}.`);

/** The items of a list: numbered, or one without a number. */
function itemsOf(node: Node): Node[] {
  const inner = node.children?.get("member") ?? node;
  const numbered = [...(inner.children ?? [])].filter(([part]) => /^\d{1,9}$/.test(part));
  if (numbered.length === 0) return node.text === "" && node.children === undefined ? [] : [node];
  return numbered.sort(([a], [b]) => Number(a) - Number(b)).map(([, item]) => item);
}

/** Where a member stands: under the name of its items, or under its own. */
function childOf(node: Node, name: string, shape: Shape): Node | undefined {
  const own = node.children?.get(name);
  if (shape.kind !== "list" && shape.kind !== "map") return own;
  return node.children?.get(shape.name) ?? own;
}

/** What a node holds of a shape; undefined: nothing. Throws SerializationException for a value of another type. */
export function readQuery(shape: Shape, node: Node, path: string): unknown {
  switch (shape.kind) {
    case "text":
      return node.text;
    case "blob":
      if (node.text !== undefined && !isBase64(node.text)) throw refuse(path, "base64");
      return node.text;
    case "integer":
      if (node.text === undefined) return undefined;
      if (!/^[+-]?\d{1,15}$/.test(node.text)) throw refuse(path, "an integer");
      return Number(node.text);
    case "list":
      return itemsOf(node).map((item, i) => readQuery(shape.of, item, `${path}.${i + 1}`) ?? "");
    case "map":
      return Object.fromEntries(
        itemsOf(node).flatMap((item, i) => {
          const name = item.children?.get(shape.key)?.text;
          const value = item.children?.get(shape.value);
          if (name === undefined) return [];
          const empty = { text: "", children: undefined };
          return [[name, readQuery(shape.of, value ?? empty, `${path}.${i + 1}.${shape.value}`) ?? ""]];
        }),
      );
    case "members": {
      const read: Record<string, unknown> = {};
      for (const name in shape.members) {
        const own = shape.members[name] as Shape;
        const child = childOf(node, name, own);
        const value = child && readQuery(own, child, path === "" ? name : `${path}.${name}`);
        if (value !== undefined) read[name] = value;
      }
      return read;
    }
  }
}

/** A value as XML: lists and maps are repeated elements of their items' name. */
function writeXml(shape: Shape, name: string, value: unknown): string {
  switch (shape.kind) {
    case "list":
      return (value as unknown[]).map((item) => writeXml(shape.of, shape.name, item)).join("");
    case "map":
      return Object.entries(value as Record<string, unknown>)
        .map(([key, item]) =>
          element(shape.name, element(shape.key, escapeXml(key)) + writeXml(shape.of, shape.value, item)),
        )
        .join("");
    case "members":
      return element(name, writeMembers(shape.members, value as Record<string, unknown>));
    default:
      return element(name, escapeXml(String(value)));
  }
}

function writeMembers(members: Record<string, Shape>, value: Record<string, unknown>): string {
  let text = "";
  for (const name in members) {
    if (value[name] !== undefined) text += writeXml(members[name] as Shape, name, value[name]);
  }
  return text;
}

const namespace = "http://queue.amazonaws.com/doc/2012-11-05/";

/** The answer of an action. One that never answers anything has no result element. */
export function writeResponse(action: string, shape: Shape & { kind: "members" }, output: object, id: string): string {
  const content = writeMembers(shape.members, output as Record<string, unknown>);
  const result = Object.keys(shape.members).length === 0 ? "" : element(`${action}Result`, content);
  const metadata = element("ResponseMetadata", element("RequestId", escapeXml(id)));
  return `<?xml version="1.0"?><${action}Response xmlns="${namespace}">${result}${metadata}</${action}Response>`;
}

/** The answer of a refusal. */
export function writeError(error: { code: string; message: string; fault: string }, id: string): string {
  const own =
    element("Type", error.fault) +
    element("Code", escapeXml(error.code)) +
    element("Message", escapeXml(error.message)) +
    element("Detail", "");
  return (
    `<?xml version="1.0"?><ErrorResponse xmlns="${namespace}">` +
    `${element("Error", own)}${element("RequestId", escapeXml(id))}</ErrorResponse>`
  );
}
