type Filters = Record<string, string[] | null> | null;

/** Does a message pass? It must by every name, with one of its values; a name without values passes nothing. */
export function passes(filters: Filters, attributes: Record<string, string>): boolean {
  return Object.entries(filters ?? {}).every(([name, values]) => {
    const value = attributes[name];
    return value !== undefined && (values ?? []).includes(value);
  });
}

/** Attributes as somebody types them; undefined when they are not a map of strings. */
export function readAttributes(text: string): Record<string, string> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
    const entries = Object.entries(value);
    if (!entries.every(([, own]) => typeof own === "string" || own === null)) return undefined;
    return Object.fromEntries(entries.map(([name, own]) => [name, own ?? ""]));
  } catch {
    return undefined;
  }
}
