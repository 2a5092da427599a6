import type { ComponentChildren, TargetedMouseEvent } from "preact";
import { useEffect, useState } from "preact/hooks";
import { root } from "./api.ts";

/** A view as its address says it: the path's parts below `/ui`, and the query. */
export type Place = { parts: string[]; query: URLSearchParams };

const base = new URL("ui/", root).pathname;

function placeNow(): Place {
  const below = location.pathname.startsWith(base) ? location.pathname.slice(base.length) : "";
  const parts = below
    .split("/")
    .filter((part) => part !== "")
    .map(decodeURIComponent);
  return { parts, query: new URLSearchParams(location.search) };
}

const watchers = new Set<() => void>();
addEventListener("popstate", () => {
  for (const watch of watchers) watch();
});

/** The address of a view. */
export function hrefOf(parts: string[], query: Record<string, string | undefined> = {}): string {
  const given = Object.entries(query).filter((entry): entry is [string, string] => Boolean(entry[1]));
  const text = new URLSearchParams(given).toString();
  return base.replace(/\/$/, "") + parts.map((part) => `/${encodeURIComponent(part)}`).join("") + (text && `?${text}`);
}

/** Goes to a view; with `replaces` the way back skips the one before. */
export function go(href: string, replaces = false): void {
  if (href === location.pathname + location.search) return;
  if (replaces) history.replaceState(null, "", href);
  else {
    history.pushState(null, "", href);
    scrollTo(0, 0);
  }
  for (const watch of watchers) watch();
}

/** The view that is shown now; renders again when it changes. */
export function usePlace(): Place {
  const [place, setPlace] = useState(placeNow);
  useEffect(() => {
    const watch = () => setPlace(placeNow());
    watchers.add(watch);
    return () => {
      watchers.delete(watch);
    };
  }, []);
  return place;
}

type LinkProps = {
  to: string;
  class?: string;
  is_current?: boolean;
  title?: string;
  label?: string;
  children: ComponentChildren;
};

/** A link to a view: an ordinary one, so that it can be copied and opened elsewhere. */
export function Link({ to, is_current, label, children, ...rest }: LinkProps) {
  const onClick = (event: TargetedMouseEvent<HTMLAnchorElement>) => {
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={onClick} aria-current={is_current ? "page" : undefined} aria-label={label} {...rest}>
      {children}
    </a>
  );
}
