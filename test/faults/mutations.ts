// Faults that the suite must find, as changes of the source. A text that is not found any more stops the run: a
// mutation that changes nothing would prove nothing.

// biome-ignore-all lint/suspicious/noTemplateCurlyInString: pieces of source

export type Edit = { file: string; search: string; replace: string };

/** What is run against the changed copy, and must fail. */
export type Trial =
  | { scenario: string; dose: number }
  /** Why nothing that kills processes can notice. */
  | { undetectable: string };

export type Mutation = { id: string; title: string; edits: Edit[]; trial: Trial };

const publish = "src/broker/publish/publish.ts";
const storing = "src/broker/publish/storing.ts";
const lease = "src/broker/deliver/lease.ts";
const fenced = "src/broker/settle/fenced.ts";
const sent = `    const [tally] = await db.run("publish", () => plainly.execute(values), true);\n`;
const again = "where exists (select from once)\n    order by item.n`);";

/** m1 to m12 of the plan, and of what came after it. */
export const mutations: Mutation[] = [
  {
    id: "m1",
    title: "a publish is answered before it has committed",
    edits: [
      {
        file: publish,
        search: sent,
        replace: `    db.run("publish", () => plainly.execute(values), true).catch(() => {});
    const tally = { now: "", count: items.length, ns: items.map((_, i) => i + 1).join(",") };\n`,
      },
    ],
    trial: { scenario: "F2", dose: 0.02 },
  },
  {
    id: "m2",
    title: "a receive takes rows without locking them, and changes them by their id",
    edits: [
      { file: lease, search: `      .for("update", { skipLocked: true })\n`, replace: "" },
      { file: lease, search: "sql<string>`${messages}.ctid`", replace: "sql<string>`${messages}.id`" },
      { file: lease, search: "where message.ctid = pick.tid and", replace: "where message.id = pick.tid and" },
    ],
    trial: { scenario: "F7", dose: 0.03 },
  },
  {
    id: "m3",
    title: "settling looks at no token",
    edits: [
      {
        file: fenced,
        search: "or message.lease_token = given.lease_token and",
        replace: "or message.lease_token is not null and",
      },
    ],
    trial: { scenario: "F7", dose: 0.03 },
  },
  {
    id: "m4",
    title: "synchronous_commit=off",
    edits: [{ file: "src/db/session.ts", search: 'synchronous_commit: "on"', replace: 'synchronous_commit: "off"' }],
    trial: { scenario: "F2", dose: 0.1 },
  },
  {
    id: "m5",
    title: "readiness is judged by the server's clock",
    edits: [
      {
        file: lease,
        search: "lte(messages.visible_at, sql`now()`),",
        replace: 'lte(messages.visible_at, sql`${value("clock")}::timestamptz`),',
      },
      {
        file: "src/broker/deliver/receive.ts",
        search: "const values = { queue_id, limit, lease_seconds, floor,",
        replace: "const values = { clock: new Date().toISOString(), queue_id, limit, lease_seconds, floor,",
      },
    ],
    trial: { scenario: "F8", dose: 0.1 },
  },
  {
    id: "m6",
    title: "the keys of settled messages are not locked before they are looked at",
    edits: [
      {
        file: "drizzle/0008_ordering_functions.sql",
        search: `	select given.queue_no, given.ordering_group, 0
	from unnest(p_queue_nos, p_groups) as given (queue_no, ordering_group)
	order by given.queue_no, given.ordering_group collate "C"
	on conflict (queue_no, ordering_group) do update set floor_seq = held.floor_seq where false;`,
        replace: `	select given.queue_no, given.ordering_group, 0
	from unnest(p_queue_nos, p_groups) as given (queue_no, ordering_group)
	order by given.queue_no, given.ordering_group collate "C"
	on conflict (queue_no, ordering_group) do nothing;`,
      },
    ],
    trial: { scenario: "F0", dose: 0.1 },
  },
  {
    id: "m7",
    title: "the scan floor moves on, and nothing scans behind it",
    edits: [
      {
        file: "src/broker/deliver/scanFloors.ts",
        search: "if (started_ms - entry.full_scanned_ms >= full_scan_every_ms) {",
        replace: "if (started_ms < 0) {",
      },
      {
        file: "src/broker/deliver/scanFloors.ts",
        search: "if (started_ms - entry.rescanned_ms >= rescan_every_ms) {",
        replace: "if (started_ms < 0) {",
      },
      {
        file: "src/broker/deliver/scanFloors.ts",
        search: "if (started_ms - entry.looked_back_ms >= look_back_every_ms) {",
        replace: "if (started_ms < 0) {",
      },
    ],
    trial: { scenario: "F3", dose: 0.05 },
  },
  {
    id: "m8",
    title: "PostgreSQL with fsync = off",
    edits: [],
    trial: {
      undetectable:
        "the operating system keeps what killed processes have written; only a loss of power shows it. " +
        "A server warns of it at its start, and the doctor calls it a problem",
    },
  },
  {
    id: "m9",
    title: "a repeated publish is told by its messages instead of its batch",
    edits: [{ file: storing, search: again, replace: "order by item.n\n    on conflict do nothing`);" }],
    trial: { scenario: "F4", dose: 0.1 },
  },
  {
    id: "m10",
    title: "a publish is repeated with new ids",
    edits: [
      {
        file: publish,
        search: sent,
        replace: `    let tries = 0;
    const renewed = () => columns(items.map((item) => ({ ...item, id: nextId() })), values.bodies);
    const statement = () => plainly.execute(tries++ === 0 ? values : renewed());
    const [tally] = await db.run("publish", statement, true);\n`,
      },
    ],
    trial: { scenario: "F4", dose: 0.05 },
  },
  {
    id: "m11",
    title: "the embedded database's fsync reaches no disk",
    edits: [
      {
        file: "src/db/embedded/nodeFs.ts",
        search: "    if (!this.#is_durable) return;\n",
        replace: "    if (operations !== undefined) return;\n",
      },
    ],
    trial: { scenario: "F15", dose: 0.02 },
  },
  {
    id: "m12",
    title: "an order's number is cast to 32 bits, where sequences are beyond them",
    edits: [
      {
        file: "drizzle/0013_function_plans.sql",
        search: "from unnest(p_queue_nos, p_groups, p_heads) as given (queue_no, ordering_group, head_seq)",
        replace: "from unnest(p_queue_nos, p_groups, p_heads::int[]) as given (queue_no, ordering_group, head_seq)",
      },
    ],
    trial: { scenario: "F0", dose: 0.02 },
  },
  {
    id: "m13",
    title: "a worker goes on when its parent is gone",
    edits: [
      {
        file: "src/commands/worker.ts",
        search: 'process.once("disconnect", () => resolve(1))',
        replace: 'process.once("disconnect", () => resolve)',
      },
    ],
    trial: { scenario: "F19", dose: 0.05 },
  },
  {
    id: "m14",
    title: "a repeated publish to a topic is another one",
    edits: [
      {
        file: "src/broker/publish/fanOut.ts",
        search: `db.run("fanout", () => statement.execute(values), true)`,
        replace: `db.run("fanout", () => statement.execute({ ...values, ...renewed() }), true)`,
      },
      {
        file: "src/broker/publish/fanOut.ts",
        search: "    const forms = items.map(formsOf);\n",
        replace: `    const forms = items.map(formsOf);
    const renewed = () => ({ batch_id: nextId(), ids: items.map(() => nextId().slice(0, 22) + "0000") });\n`,
      },
    ],
    trial: { scenario: "F20", dose: 0.1 },
  },
  {
    id: "m15",
    title: "a FIFO queue of Amazon's protocol passes over deduplication ids",
    edits: [
      {
        file: "src/sqs/send.ts",
        search: `const dedup_key = dedup_id === undefined ? null : deduplicationKey("id", dedup_id);`,
        replace: `const dedup_key = dedup_id === undefined ? deduplicationKey("id", "") : null;`,
      },
    ],
    trial: { scenario: "F21", dose: 0.2 },
  },
  {
    id: "m16",
    title: "a receipt handle deletes also when the message has been received again",
    edits: [
      {
        file: "src/sqs/settle.ts",
        search: "if (has_legacy_handles) await",
        replace: "if (!isFifo(queue)) await",
      },
    ],
    trial: { scenario: "F21", dose: 0.2 },
  },
  {
    id: "m17",
    title: "statements without names follow others on a connection before those have ended",
    edits: [{ file: "src/db/driver.ts", search: "{ max_pipeline: 0 }", replace: "{ max_pipeline: 100 }" }],
    trial: { scenario: "F23", dose: 0.2 },
  },
];
