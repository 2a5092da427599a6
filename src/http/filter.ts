import { Type } from "@sinclair/typebox";
import type { Filter } from "../broker/manage/filter.ts";
import { type State, states } from "../broker/manage/seen.ts";
import { member } from "./schema.ts";

// Which messages: the same members wherever messages are listed, counted, or all acted upon.

export type PeekState = State | "dead" | "all";

const search_characters_max = 200;

/** Members that a message must match; those left out do not count. */
export const filter_members = {
  label: Type.Optional(member.text("Only this label")),
  search: Type.Optional(
    Type.String({
      format: "text",
      maxLength: search_characters_max,
      description: "Part of the id, the body's first 16,384 characters, an attribute or the last error, in any case",
    }),
  ),
  error_group: Type.Optional(
    Type.String({ pattern: "^[0-9a-f]{32}$", description: "Only with this error, numbers and ids folded" }),
  ),
  reason: Type.Optional(member.choice(["max_deliveries", "rejected", "expired"], "Only messages that died of this")),
  source_queue_id: Type.Optional(member.id("Only messages that came from this queue")),
  message_id: Type.Optional(member.text("Only this message")),
  ordering_key: Type.Optional(member.text("Only this ordering key")),
};

/** The state of messages to look at. */
export const state_member = (description: string) =>
  Type.Optional(member.choice([...states, "dead", "all"], description));

/** Where a page goes on. */
export const after_member = Type.Optional(
  Type.String({ pattern: "^(a?[0-7][0-9A-HJKMNP-TV-Z]{25}|a)$", description: "`next` of the page before" }),
);

/** The query of what lists and counts messages. */
export const peek_filter = { state: state_member("Default ready"), ...filter_members, after: after_member };

type Given = { [name in keyof Filter]?: string };

/** An empty search finds everything. */
export const filterOf = (given: Given): Filter => ({
  label: given.label ?? null,
  search: given.search || null,
  error_group: given.error_group ?? null,
  reason: given.reason ?? null,
  source_queue_id: given.source_queue_id ?? null,
  message_id: given.message_id ?? null,
  ordering_key: given.ordering_key ?? null,
});
