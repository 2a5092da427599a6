import { useState } from "preact/hooks";
import { ask } from "../api.ts";
import { Button, Card, Field } from "../parts/basics.tsx";
import { SettingsFields, settingsOf, valuesOf } from "../parts/settingsForm.tsx";
import { attempt } from "../parts/toasts.tsx";
import { go, hrefOf, Link } from "../router.tsx";
import { useQueueIds } from "./settings.tsx";

/** What a queue of nobody's special wishes has: half a minute to ack, a fortnight to be received. */
const usual = {
  ack_deadline_seconds: 30,
  message_retention_seconds: 1_209_600,
  delivery_delay_seconds: 0,
  receive_wait_seconds: 0,
  max_lease_seconds: 43_200,
  strict_leases: false,
  allow_tokenless_extend: false,
  dead_letter_on_expiry: false,
  retry_policy: { min_seconds: 0, max_seconds: 600, multiplier: 2, jitter: "none" },
  ordering_scope: "key",
  on_dead: "move",
  allow_delayed_ordering: false,
  dedup_scope: "queue",
  dedup_window_seconds: 300,
  content_dedup: false,
  dedup_strict: false,
  encrypt: false,
};

/** Makes a queue. */
export function NewQueueView() {
  const [id, setId] = useState("");
  const [values, setValues] = useState(() => valuesOf(usual));
  const [is_busy, setIsBusy] = useState(false);
  const queue_ids = useQueueIds();
  const create = async () => {
    setIsBusy(true);
    const is_made = await attempt(() => ask("POST", "queues", { id, ...settingsOf(values) }), `Made ${id}`);
    setIsBusy(false);
    if (is_made) go(hrefOf(["queues", id]));
  };
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>New queue</h1>
      </div>
      <Card title="Settings">
        <form
          class="form"
          onSubmit={(event) => {
            event.preventDefault();
            void create();
          }}
        >
          <fieldset class="fields">
            <legend>Name</legend>
            <Field label="Id" hint="Letters, digits, dots, dashes and underscores" is_wide>
              <input
                name="id"
                value={id}
                required
                maxLength={255}
                pattern="[a-zA-Z0-9._\-]+"
                autoComplete="off"
                spellcheck={false}
                onInput={(event) => setId(event.currentTarget.value)}
              />
            </Field>
          </fieldset>
          <SettingsFields values={values} onChange={setValues} queue_ids={queue_ids} />
          <div class="form-actions">
            <Button kind="primary" type="submit" disabled={is_busy}>
              Create queue
            </Button>
            <Link to={hrefOf([])} class="button">
              Cancel
            </Link>
          </div>
        </form>
      </Card>
    </>
  );
}
