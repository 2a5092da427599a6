import { type TSchema, Type } from "@sinclair/typebox";
import { member } from "./schema.ts";

/** Rows of one page of a list at most. */
const list_limit_max = 1000;
/** And when nobody says. */
export const list_limit = 10;

/** The query of every list. */
export const ListQuery = Type.Object({
  limit: Type.Optional(member.limit(list_limit_max, "Rows to return; lowered to 1000", list_limit)),
  offset: Type.Optional(member.offset),
});

/** The schema of a page of a list. */
export const pageOf = (item: TSchema) =>
  Type.Object(
    { data: Type.Array(item), offset: Type.Optional(Type.Integer()), limit: Type.Integer() },
    { title: `${item.title}Page`, example: { data: [item["example"]], limit: 10 } },
  );
