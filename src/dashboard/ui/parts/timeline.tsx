import { moment, relative } from "../format.ts";
import type { Message } from "../shapes.ts";

type Step = { at: string; kind: string; title: string; text?: string | undefined };

const titles: Record<string, string> = {
  nacked: "Failed",
  lease_expired: "Lease ran out",
  dead_lettered: "Dead-lettered",
  redriven: "Redriven",
  renamed: "New id",
};
const reasons: Record<string, string> = {
  max_deliveries: "its deliveries were used up",
  rejected: "a consumer rejected it",
  expired: "it expired",
};

function textOf(event: string, error: string | undefined): string | undefined {
  if (event === "renamed") return `it was ${error}: another message of that id was here`;
  return event === "dead_lettered" ? reasons[error ?? ""] : error;
}

function stepsOf(message: Message): Step[] {
  const { created_at, events = [], state, lease_expires_at, visible_at, delivery_attempts } = message;
  const past = events.map(({ at, event, attempt, error }): Step => {
    const title = titles[event] ?? event;
    const numbered = event === "nacked" || event === "lease_expired" ? `${title}, delivery ${attempt}` : title;
    return { at, kind: event, title: numbered, text: textOf(event, error) };
  });
  const now: Step[] = [];
  if (state === "leased" && lease_expires_at) {
    now.push({
      at: lease_expires_at,
      kind: "leased",
      title: `With a consumer, delivery ${delivery_attempts}`,
      text: "until its lease ends",
    });
  } else if ((state === "delayed" || state === "backing_off") && visible_at) {
    now.push({ at: visible_at, kind: state, title: "Will be visible" });
  }
  return [{ at: created_at, kind: "published", title: "Published" }, ...past, ...now];
}

/** What happened to a message: its failures are kept, its successes need no explanation. */
export function Timeline({ message }: { message: Message }) {
  const steps = stepsOf(message);
  // The server keeps the first failure and the latest ones.
  const has_gap = (message.events?.length ?? 0) >= 20;
  return (
    <ol class="timeline">
      {steps.map(({ at, kind, title, text }, i) => (
        <li key={`${at} ${kind} ${title}`} data-kind={kind}>
          <span class="timeline-title">{title}</span>
          <time dateTime={at} title={relative(at)}>
            {moment(at)}
          </time>
          {text && <span class="timeline-text">{text}</span>}
          {has_gap && i === 1 && <span class="timeline-text muted">… some failures in between are not kept …</span>}
        </li>
      ))}
      {(message.state === "acked" || message.state === "expired") && (
        <li data-kind={message.state}>
          <span class="timeline-title">{message.state === "acked" ? "Acked" : "Expired"}</span>
        </li>
      )}
    </ol>
  );
}
