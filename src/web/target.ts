// What a request line asks for, as it was written. `URL` would resolve `..` and read `\` as `/`, so that an id of a
// client's client could climb to another resource.

const absolute_form = /^https?:\/\/[^/?#]*/i;
const dot_segment = /^(?:\.|%2e){1,2}$/i;

/**
 * Path and query of a request target; undefined for one whose path is not what it seems to be: with a dot segment,
 * plain or encoded, a backslash, an empty segment, or a fragment.
 */
export function readTarget(target: string): string | undefined {
  const own = target.startsWith("/") ? target : target.replace(absolute_form, "");
  const query_start = own.indexOf("?");
  const path = query_start < 0 ? own : own.slice(0, query_start);
  if (path === "") return target === own ? undefined : `/${own}`;
  if (!path.startsWith("/") || path.includes("//") || path.includes("\\") || path.includes("#")) return undefined;
  if (!path.includes(".") && !/%2e/i.test(path)) return own;
  return path.split("/").some((segment) => dot_segment.test(segment)) ? undefined : own;
}
