import type { ComponentChildren } from "preact";
import { type Right, useRights } from "../rights.ts";

/** What is offered only to readers whose key allows it somewhere. */
export function Allowed({ right, children }: { right: Right; children: ComponentChildren }) {
  const may = useRights();
  return may(right) ? children : null;
}
