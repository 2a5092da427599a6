import { useState } from "preact/hooks";
import { ask, queuePath } from "../api.ts";
import type { Queue } from "../shapes.ts";
import { Button, Field } from "./basics.tsx";
import { Dialog } from "./dialog.tsx";
import { attempt } from "./toasts.tsx";

type PauseDialogProps = { queue: Queue; onClose: () => void; onDone: () => void };

function PauseDialog({ queue, onClose, onDone }: PauseDialogProps) {
  const [consume, setConsume] = useState(true);
  const [publish, setPublish] = useState(false);
  const pause = async () => {
    const is_done = await attempt(() => ask("PUT", queuePath(queue.id, "pause"), { consume, publish }), "Paused");
    onClose();
    if (is_done) onDone();
  };
  return (
    <Dialog title={`Pause ${queue.id}`} onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void pause();
        }}
      >
        <Field label="Consuming" hint="Consumers get nothing; what they hold they can still ack">
          <input type="checkbox" checked={consume} onChange={(event) => setConsume(event.currentTarget.checked)} />
        </Field>
        <Field label="Publishing" hint="Publishers are refused: queue closed">
          <input type="checkbox" checked={publish} onChange={(event) => setPublish(event.currentTarget.checked)} />
        </Field>
        <div class="dialog-actions">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit" disabled={!consume && !publish}>
            Pause
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

/** Pauses a queue, or resumes it. */
export function PauseButton({ queue, onChange }: { queue: Queue; onChange: () => void }) {
  const [is_asked, setIsAsked] = useState(false);
  const is_paused = queue.paused !== undefined && (queue.paused.consume || queue.paused.publish);
  if (is_paused) {
    const resume = () => attempt(() => ask("PUT", queuePath(queue.id, "resume")), "Resumed").then(onChange);
    return <Button onClick={() => void resume()}>Resume</Button>;
  }
  return (
    <>
      <Button onClick={() => setIsAsked(true)}>Pause…</Button>
      {is_asked && <PauseDialog queue={queue} onClose={() => setIsAsked(false)} onDone={onChange} />}
    </>
  );
}
