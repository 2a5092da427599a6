import { useEffect, useState } from "preact/hooks";
import { reasonOf } from "../api.ts";

type Toast = { id: number; text: string; is_error: boolean };

const shown_ms = 6000;
let toasts: Toast[] = [];
let made = 0;
const watchers = new Set<() => void>();

function change(next: Toast[]): void {
  toasts = next;
  for (const watch of watchers) watch();
}

function add(text: string, is_error: boolean): void {
  made += 1;
  const toast = { id: made, text, is_error };
  change([...toasts.slice(-3), toast]);
  setTimeout(() => change(toasts.filter((own) => own !== toast)), is_error ? 2 * shown_ms : shown_ms);
}

/** Tells that something was done. */
export const tell = (text: string): void => add(text, false);

/** Runs what somebody asked for; tells why when it does not work, and answers whether it did. */
export async function attempt(work: () => Promise<unknown>, done?: string): Promise<boolean> {
  try {
    await work();
    if (done !== undefined) tell(done);
    return true;
  } catch (error) {
    add(reasonOf(error), true);
    return false;
  }
}

/** The corner in which things are told, also to a screen reader. */
export function Toasts() {
  const [, render] = useState(0);
  useEffect(() => {
    const watch = () => render((before) => before + 1);
    watchers.add(watch);
    return () => {
      watchers.delete(watch);
    };
  }, []);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {toasts.map(({ id, text, is_error }) => (
        <p key={id} class={is_error ? "toast error" : "toast"}>
          {text}
        </p>
      ))}
    </div>
  );
}
