import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Button, Field } from "./basics.tsx";

type DialogProps = { title: string; onClose: () => void; children: ComponentChildren };

/** A modal dialog; the browser's own, which keeps the focus inside. `onClose`: its reader closed it, with Escape. */
export function Dialog({ title, onClose, children }: DialogProps) {
  const element = useRef<HTMLDialogElement>(null);
  const is_shown = useRef(true);
  useEffect(() => {
    const own = element.current;
    is_shown.current = true;
    own?.showModal();
    return () => {
      // The browser tells of it later: whoever took it away knows, and may be asking the next thing by then.
      is_shown.current = false;
      own?.close();
    };
  }, []);
  return (
    <dialog ref={element} class="dialog" aria-label={title} onClose={() => is_shown.current && onClose()}>
      <h2>{title}</h2>
      {children}
    </dialog>
  );
}

type ConfirmProps = {
  title: string;
  action: string;
  kind?: "primary" | "danger";
  /** Must be typed before the action can be chosen. */
  typed?: string;
  is_ready?: boolean;
  onConfirm: () => void;
  onClose: () => void;
  children: ComponentChildren;
};

/** Asks before something is done that cannot be undone. */
export function Confirm(props: ConfirmProps) {
  const { title, action, kind = "danger", typed, is_ready = true, onConfirm, onClose, children } = props;
  const [text, setText] = useState("");
  const is_allowed = is_ready && (typed === undefined || text === typed);
  return (
    <Dialog title={title} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (is_allowed) onConfirm();
        }}
      >
        <div class="dialog-text">{children}</div>
        {typed !== undefined && (
          <Field label={`Type ${typed} to confirm`}>
            <input
              value={text}
              autoComplete="off"
              spellcheck={false}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          </Field>
        )}
        <div class="dialog-actions">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind={kind} type="submit" disabled={!is_allowed}>
            {action}
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
