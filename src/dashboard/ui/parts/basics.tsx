import type { ComponentChildren, JSX } from "preact";
import { moment, relative, words } from "../format.ts";

type ButtonProps = {
  onClick?: () => void;
  kind?: "plain" | "primary" | "danger" | "quiet";
  type?: "button" | "submit";
  disabled?: boolean;
  label?: string;
  pressed?: boolean;
  children: ComponentChildren;
};

/** A button. `label` is what a screen reader says instead of its content. */
export function Button({ onClick, kind = "plain", type = "button", disabled, label, pressed, children }: ButtonProps) {
  return (
    <button
      class={`button ${kind}`}
      type={type}
      onClick={onClick}
      disabled={disabled}
      aria-label={label}
      aria-pressed={pressed}
    >
      {children}
    </button>
  );
}

/** The state of a message or task: a dot and its word. */
export const StateBadge = ({ state }: { state: string }) => (
  <span class="state" data-state={state}>
    {words(state)}
  </span>
);

/** A short remark on something. */
export const Tag = ({ kind = "", children }: { kind?: string; children: ComponentChildren }) => (
  <span class={`tag ${kind}`}>{children}</span>
);

/** A time as its distance from now; the whole time on hover. */
export const Ago = ({ time }: { time: string }) => (
  <time dateTime={time} title={moment(time)}>
    {relative(time)}
  </time>
);

/** What is shown instead of an empty list. */
export const Empty = ({ title, children }: { title: string; children?: ComponentChildren }) => (
  <div class="empty">
    <p class="empty-title">{title}</p>
    {children && <div class="empty-text">{children}</div>}
  </div>
);

/** Something went wrong, or must be known. */
export const Notice = ({ kind = "error", children }: { kind?: "error" | "warning"; children: ComponentChildren }) => (
  <div class={`notice ${kind}`} role={kind === "error" ? "alert" : "status"}>
    {children}
  </div>
);

/** A box with a heading. */
export function Card({
  title,
  aside,
  children,
}: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
}) {
  return (
    <section class="card">
      <div class="card-head">
        <h2>{title}</h2>
        {aside}
      </div>
      {children}
    </section>
  );
}

/** Where a list is awaited. */
export const Loading = () => (
  <p class="loading" role="status">
    Loading…
  </p>
);

type FieldProps = {
  label: string;
  unit?: string | undefined;
  hint?: ComponentChildren;
  is_wide?: boolean;
  children: JSX.Element;
};

/** A form's control with its name and what there is to know of it. */
export const Field = ({ label, unit, hint, is_wide, children }: FieldProps) => (
  // biome-ignore lint/a11y/noLabelWithoutControl: the control is among the children
  <label class={is_wide ? "field wide" : "field"}>
    <span class="field-label">
      {label} {unit && <span class="field-unit">{unit}</span>}
    </span>
    {children}
    {hint !== undefined && <span class="field-hint">{hint}</span>}
  </label>
);

type TableProps = {
  label: string;
  /** Where there is little room, a row becomes two lines. */
  is_stacked?: boolean;
  children: ComponentChildren;
};

/** A table that scrolls sideways where the page is too narrow. */
export const Table = ({ label, is_stacked, children }: TableProps) => (
  // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard
  <section class={is_stacked ? "table stacked" : "table"} aria-label={label} tabIndex={0}>
    <table>{children}</table>
  </section>
);
