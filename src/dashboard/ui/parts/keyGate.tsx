import { useEffect, useState } from "preact/hooks";
import { askedForKey, giveKey, watchKey } from "../api.ts";
import { Button, Field } from "./basics.tsx";
import { Dialog } from "./dialog.tsx";

/** Asks for an API key when the server does. Only this page knows it, until it is closed. */
export function KeyGate() {
  const [asked, setAsked] = useState(askedForKey);
  const [text, setText] = useState("");
  useEffect(() => {
    const look = () => setAsked(askedForKey());
    // It may have been asked for since the page was drawn.
    look();
    return watchKey(look);
  }, []);
  if (asked === undefined) return null;
  return (
    <Dialog title="This server asks for a key" onClose={() => giveKey(text)}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          giveKey(text);
        }}
      >
        <Field
          label="API key"
          hint={
            asked === "key"
              ? "It is kept in this page only, and gone when the page is closed"
              : "The server does not take the key that was given: is it whole, and still valid?"
          }
        >
          <input
            type="password"
            autoComplete="off"
            spellcheck={false}
            required
            placeholder="pq_…"
            value={text}
            onInput={(event) => setText(event.currentTarget.value)}
          />
        </Field>
        <div class="dialog-actions">
          <Button kind="primary" type="submit">
            Use this key
          </Button>
        </div>
      </form>
    </Dialog>
  );
}
