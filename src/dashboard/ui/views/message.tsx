import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import { ask, queuePath } from "../api.ts";
import { moment, whyUnreadable } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Ago, Button, Card, Field, Loading, Notice, StateBadge, Tag } from "../parts/basics.tsx";
import { Body } from "../parts/body.tsx";
import { Confirm, Dialog } from "../parts/dialog.tsx";
import { Timeline } from "../parts/timeline.tsx";
import { attempt } from "../parts/toasts.tsx";
import { usePoll } from "../poll.ts";
import { go, hrefOf, Link } from "../router.tsx";
import type { Message } from "../shapes.ts";

const asked_ms = 4000;

const Fact = ({ name, children }: { name: string; children: ComponentChildren }) => (
  <div>
    <dt>{name}</dt>
    <dd>{children}</dd>
  </div>
);

const When = ({ time }: { time: string }) => (
  <>
    {moment(time)} <span class="muted">({<Ago time={time} />})</span>
  </>
);

function Facts({ message }: { message: Message }) {
  const { label, delivery_attempts, created_at, visible_at, lease_expires_at, expires_at, dead, state, ordering_key } =
    message;
  const is_hidden = state === "delayed" || state === "backing_off";
  return (
    <dl class="facts">
      <Fact name="State">
        <StateBadge state={state} /> {dead && <Tag kind="danger">dead letter</Tag>}
      </Fact>
      <Fact name="Label">{label ?? <span class="muted">none</span>}</Fact>
      {ordering_key !== undefined && <Fact name="Ordering key">{ordering_key}</Fact>}
      <Fact name="Deliveries">{delivery_attempts}</Fact>
      <Fact name="Published">
        <When time={created_at} />
      </Fact>
      {is_hidden && visible_at && (
        <Fact name="Visible">
          <When time={visible_at} />
        </Fact>
      )}
      {lease_expires_at && (
        <Fact name="Lease ends">
          <When time={lease_expires_at} />
        </Fact>
      )}
      {expires_at && (
        <Fact name="Expires">
          <When time={expires_at} />
        </Fact>
      )}
      {dead && (
        <Fact name="Came from">
          <Link to={hrefOf(["queues", dead.source_queue_id])}>{dead.source_queue_id}</Link>
        </Fact>
      )}
    </dl>
  );
}

function Attributes({ attributes }: { attributes: Record<string, string> | null }) {
  const entries = Object.entries(attributes ?? {});
  if (entries.length === 0) return <p class="muted pad">No attributes.</p>;
  return (
    <dl class="attributes">
      {entries.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

function Reschedule({ message, onClose, onDone }: { message: Message; onClose: () => void; onDone: () => void }) {
  const [seconds, setSeconds] = useState("60");
  const put = async () => {
    const deliver_at = new Date(Date.now() + Number(seconds) * 1000).toISOString();
    const path = queuePath(message.queue_id, "messages", message.id);
    if (await attempt(() => ask("PUT", path, { deliver_at }), "Rescheduled")) onDone();
  };
  return (
    <Dialog title="Reschedule" onClose={onClose}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void put();
        }}
      >
        <Field label="Visible in" hint="Seconds from now; at most a year">
          <input
            type="number"
            min={0}
            max={31_536_000}
            required
            value={seconds}
            onInput={(event) => setSeconds(event.currentTarget.value)}
          />
        </Field>
        <div class="dialog-actions">
          <Button onClick={onClose}>Cancel</Button>
          <Button kind="primary" type="submit">
            Reschedule
          </Button>
        </div>
      </form>
    </Dialog>
  );
}

type ActionsProps = { message: Message; onChange: () => void; onGone: () => void };

function Actions({ message, onChange, onGone }: ActionsProps) {
  const [asked, setAsked] = useState<"delete" | "reschedule">();
  const { id, queue_id, state, dead } = message;
  const path = queuePath(queue_id, "messages", id);
  const is_live = state !== "acked" && state !== "expired";
  const is_held = state === "leased";
  const close = () => setAsked(undefined);
  const settle = (verb: "ack" | "nack", done: string) =>
    void attempt(
      () => ask("PUT", `${path}/${verb}`, verb === "nack" ? { visibility_timeout_seconds: 0 } : {}),
      done,
    ).then(onChange);
  const redrive = () =>
    attempt(
      () =>
        ask("POST", `${queuePath(queue_id, "redrive")}?wait=true`, {
          message_id: id,
          source_queue_id: dead?.source_queue_id,
          limit: 1,
        }),
      `Back in ${dead?.source_queue_id}`,
    );
  const source = dead?.source_queue_id ?? queue_id;
  return (
    <div class="actions">
      {dead && is_live && (
        <Allowed right="manage">
          <Button
            kind="primary"
            onClick={() => void redrive().then((is_done) => is_done && go(hrefOf(["queues", source, "messages", id])))}
          >
            Redrive
          </Button>
        </Allowed>
      )}
      <Allowed right="publish">
        <Link to={hrefOf(["queues", source, "publish"], { from: id, of: queue_id })} class="button">
          Publish again with changes
        </Link>
      </Allowed>
      <Allowed right="consume">
        {is_live && state !== "ready" && <Button onClick={() => settle("nack", "Visible now")}>Make visible</Button>}
        {is_live && <Button onClick={() => settle("ack", "Acked")}>Ack</Button>}
      </Allowed>
      <Allowed right="manage">
        {is_live && !is_held && <Button onClick={() => setAsked("reschedule")}>Reschedule…</Button>}
        {!is_held && (
          <Button kind="danger" onClick={() => setAsked("delete")}>
            Delete…
          </Button>
        )}
      </Allowed>
      {asked === "reschedule" && (
        <Reschedule
          message={message}
          onClose={close}
          onDone={() => {
            close();
            onChange();
          }}
        />
      )}
      {asked === "delete" && (
        <Confirm
          title="Delete this message"
          action="Delete"
          onClose={close}
          onConfirm={() =>
            void attempt(() => ask("DELETE", path), "Deleted").then((is_done) => (is_done ? onGone() : close()))
          }
        >
          <p>The message is gone for good, also from the archive.</p>
        </Confirm>
      )}
    </div>
  );
}

/** One message: what it says, what happened to it, and what can be done with it. */
export function MessageView({ queue_id, id }: { queue_id: string; id: string }) {
  const path = queuePath(queue_id, "messages", id);
  const {
    data: message,
    error,
    refresh,
  } = usePoll(`message ${path}`, (signal) => ask<Message>("GET", path, undefined, signal), asked_ms);
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1} class="mono">
          <span class="crumb">
            <Link to={hrefOf(["queues", queue_id])}>{queue_id}</Link> /{" "}
            <Link to={hrefOf(["queues", queue_id, "messages"])}>messages</Link> /{" "}
          </span>
          {id}
        </h1>
        <Button kind="quiet" onClick={() => void attempt(() => navigator.clipboard.writeText(id), "Id copied")}>
          Copy id
        </Button>
      </div>
      {error && (
        <Notice>
          {error === "Message not found"
            ? "This message is not here any more: it was moved, deleted, or its time in the archive is over."
            : error}
        </Notice>
      )}
      {message === undefined && !error && <Loading />}
      {message && (
        <>
          <Actions message={message} onChange={refresh} onGone={() => go(hrefOf(["queues", queue_id, "messages"]))} />
          <Facts message={message} />
          {message.last_error && (
            <Notice>
              <strong>Last error</strong>
              <pre>{message.last_error}</pre>
            </Notice>
          )}
          <div class="split">
            <Card title="Body">
              {message.unreadable === undefined ? (
                <Body text={message.body ?? ""} />
              ) : (
                <p class="muted pad">{whyUnreadable[message.unreadable]}</p>
              )}
            </Card>
            <div class="stack">
              <Card title="Attributes">
                <Attributes attributes={message.attributes} />
              </Card>
              <Card title="Timeline">
                <Timeline message={message} />
              </Card>
            </div>
          </div>
        </>
      )}
    </>
  );
}
