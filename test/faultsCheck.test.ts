// A checker that cannot fail proves nothing: each promise is broken once in a history made by hand, and only the
// invariant that it breaks may say so.

import { expect, setDefaultTimeout, test } from "bun:test";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { emptyDirectory } from "./child.ts";
import { check, type Findings, failuresOf, invariants, type Rules } from "./faults/check.ts";
import { Disk, type Survival } from "./faults/crashImage.ts";
import { createHistory, type Delivery, type History, hashOf, lost, timeOf, unsure } from "./faults/history.ts";
import { createRandom } from "./faults/random.ts";
import type { FileChange } from "./faults/recordedFs.ts";

setDefaultTimeout(90_000);

const lease_ms = 1000;
const queue = "q";
const rules: Rules = { deliveries_max: null };

type GivenTry = Partial<History["tries"][number]> & { id?: string };

/** A history that grows by what a test says; times are milliseconds from 0. */
function story() {
  const history = createHistory();
  const hash = (message: string) => hashOf({ body: message, label: null, attributes: null, ordering_key: null });
  return {
    history,
    publish(message: string, at_ms: number, { id = `id-${message}`, ...given }: GivenTry = {}) {
      const known = { message, hash: hash(message), dedup_id: null, ordering_key: null, delay_ms: 0 };
      const asked = { kind: "publish" as const, ...known, sent_ms: at_ms, answered_ms: at_ms + 5 };
      history.tries.push({ ...asked, status: 204, copies: [{ queue, id }], ...given });
    },
    deliver(message: string, at_ms: number, given: Partial<Delivery> = {}) {
      const token = `${message}@${at_ms}`;
      const known = { message, hash: hash(message), queue, id: `id-${message}`, token, ordering_key: null };
      const times = { created_ms: 0, leased_ms: at_ms, until_ms: at_ms + lease_ms };
      history.deliveries.push({ kind: "delivery", ...known, attempts: 1, ...times, ...given });
      return given.token ?? token;
    },
    settle(message: string, token: string, at_ms: number, given: Partial<History["settles"][number]> = {}) {
      const known = { verb: "ack" as const, id: `id-${message}`, token, visibility_ms: 0 };
      const times = { sent_ms: at_ms, answered_ms: at_ms + 5, until_ms: 0 };
      history.settles.push({ kind: "settle", ...known, ...times, status: 204, ...given });
    },
  };
}

type Story = ReturnType<typeof story>;

/** Two messages, one of them delivered twice; nothing is wrong. */
function soundStory(): Story {
  const told = story();
  told.publish("a", 0);
  told.publish("b", 10);
  told.settle("a", told.deliver("a", 20), 40);
  const first = told.deliver("b", 30);
  const second = told.deliver("b", 1030, { attempts: 2 });
  told.settle("b", first, 1050, { status: 409 });
  told.settle("b", second, 1060);
  return told;
}

const brokenIn = ({ broken }: Findings) =>
  Object.fromEntries(Object.entries(broken).filter(([, cases]) => cases.length > 0)) as Record<string, string[]>;

/** What the checker says of the sound story after `spoil` has changed it. */
function judge(spoil: (told: Story) => void, own_rules = rules): Record<string, string[]> {
  const told = soundStory();
  spoil(told);
  return brokenIn(check(told.history, own_rules));
}

test("a sound history breaks nothing, and is counted", () => {
  const findings = check(soundStory().history, rules);
  expect(brokenIn(findings)).toEqual({});
  expect(failuresOf(findings)).toEqual([]);
  expect(findings).toMatchObject({
    attempted: 2,
    acknowledged: 2,
    acked: 2,
    buried: 0,
    recovered: 0,
    redelivered: 1,
    fenced: 1,
    recover_ms: null,
  });
});

test("a message that was acknowledged and never delivered is lost", () => {
  expect(Object.keys(judge((told) => told.publish("c", 50)))).toEqual(["lost"]);
  // Delivered, but its ack was refused and no other came.
  const refusedAck = judge((told) => {
    told.publish("c", 50);
    told.settle("c", told.deliver("c", 60), 2000, { status: 409 });
  });
  expect(Object.keys(refusedAck)).toEqual(["lost"]);
});

test("a publish to several queues is a message in each of them", () => {
  const copies = ["q", "r"].map((own) => ({ queue: own, id: `c in ${own}` }));
  const told =
    (...arrived: { queue: string; id: string }[]) =>
    (own: Story) => {
      own.publish("c", 50, { copies, delivered_queues: 2 });
      for (const given of arrived) own.settle("c", own.deliver("c", 60, given), 70, { id: given.id });
    };
  expect(judge(told(...copies))).toEqual({});
  expect(judge(told(...copies.slice(1)))).toEqual({ lost: ["c in q c in q"] });
  expect(Object.keys(judge(told(...copies, { queue: "s", id: "another" })))).toEqual(["unexpected"]);
  expect(Object.keys(judge(told(...copies, { queue: "r", id: "another" })))).toEqual(["doubled"]);
  const fewer = judge((own) => {
    told(...copies)(own);
    Object.assign(own.history.tries.at(-1) ?? {}, { delivered_queues: 1 });
  });
  expect(Object.keys(fewer)).toEqual(["dishonest"]);
  const unnamed = (...arrived: string[]) =>
    judge((own) => {
      own.publish("c", 50, { copies: [{ queue, id: "" }] });
      for (const id of arrived) own.settle("c", own.deliver("c", 60, { id }), 70, { id });
    });
  expect(unnamed("x")).toEqual({});
  expect(Object.keys(unnamed())).toEqual(["lost"]);
  expect(Object.keys(unnamed("x", "y"))).toEqual(["doubled"]);
});

test("where answers do not tell the times of a lease, only what is sure breaks a promise", () => {
  const { asked_ms, ...late } = { asked_ms: 100, leased_ms: 150, until_ms: 1100 };
  const again = (at_ms: number, given: Partial<Delivery> = {}) =>
    judge((told) => {
      told.publish("c", 0);
      const first = told.deliver("c", 100, { asked_ms, ...late });
      told.settle("c", first, 160, { verb: "extend", until_ms: 1200 });
      const next = { leased_ms: at_ms, until_ms: at_ms + 900, attempts: 2, asked_ms: at_ms - 100, ...given };
      told.settle("c", told.deliver("c", at_ms, next), at_ms + 10);
    });
  expect(again(1200)).toEqual({});
  expect(Object.keys(again(1199))).toEqual(["overlaps"]);
  expect(Object.keys(again(1300, { attempts: 1 }))).toEqual(["attempts"]);
  // It was asked for before the ack, and may have been leased then.
  const acked = (own_asked_ms: number) =>
    judge((told) => {
      told.publish("c", 0);
      told.settle("c", told.deliver("c", 100, { asked_ms, ...late }), 200);
      told.deliver("c", 1300, { attempts: 2, asked_ms: own_asked_ms });
    });
  expect(acked(200)).toEqual({});
  expect(Object.keys(acked(210))).toEqual(["undone"]);
});

test("an ack that is answered in any case ends a message only when its lease was not superseded", () => {
  const unsurely = (sent_ms: number) =>
    judge((told) => {
      told.publish("c", 0);
      const first = told.deliver("c", 100);
      told.deliver("c", 1150, { attempts: 2 });
      told.settle("c", first, sent_ms, { status: unsure });
    });
  expect(unsurely(1100)).toEqual({});
  expect(Object.keys(unsurely(1160))).toEqual(["lost"]);
});

test("what came after a nacked one of its key in the same answer goes with it, and may not be counted", () => {
  const after = (let_go_ms: number | undefined) =>
    judge((told) => {
      for (const message of ["c", "d"]) told.publish(message, 0, { ordering_key: "k" });
      const key = { ordering_key: "k", asked_ms: 90 };
      told.settle("c", told.deliver("c", 100, key), 110, { verb: "nack" });
      told.deliver("d", 100, { ...key, ...(let_go_ms !== undefined && { let_go_ms }) });
      told.settle("c", told.deliver("c", 200, { ...key, asked_ms: 190, attempts: 2 }), 210);
      told.settle("d", told.deliver("d", 300, { ...key, asked_ms: 290 }), 310);
    });
  expect(after(110)).toEqual({});
  expect(Object.keys(after(undefined))).toEqual(["overlaps", "attempts", "disordered"]);
});

test("what nobody acknowledged may be lost, and may arrive", () => {
  const told = soundStory();
  told.publish("c", 50, { status: lost, id: "" });
  told.publish("d", 50, { status: 503, id: "" });
  told.settle("d", told.deliver("d", 60), 70);
  const findings = check(told.history, rules);
  expect(brokenIn(findings)).toEqual({});
  expect(findings).toMatchObject({ attempted: 4, acknowledged: 2, recovered: 1 });
});

test("an ack whose outcome is unknown ends a message for the checker; one that was refused does not", () => {
  const acked = (status: number) =>
    judge((told) => {
      told.publish("c", 50);
      told.settle("c", told.deliver("c", 60), 70, { status });
    });
  expect(acked(lost)).toEqual({});
  expect(acked(503)).toEqual({});
  expect(Object.keys(acked(409))).toEqual(["lost", "unfenced"]);
});

test("a message that was stored twice is doubled, unless its client sent it twice without a key", () => {
  const copy = (told: Story) => told.settle("a2", told.deliver("a", 50, { id: "id-a2" }), 60);
  expect(Object.keys(judge(copy))).toEqual(["doubled"]);
  const repeated = judge((told) => {
    told.publish("a", -10, { status: lost, id: "" });
    copy(told);
  });
  expect(repeated).toEqual({});
  const with_key = judge((told) => {
    for (const one of told.history.tries) one.dedup_id = "k";
    told.publish("a", -10, { status: lost, id: "", dedup_id: "k" });
    copy(told);
  });
  expect(Object.keys(with_key)).toEqual(["doubled"]);
});

test("a repeated publish with a key that is answered with another id is doubled", () => {
  const spoiled = judge((told) => {
    told.publish("c", 50, { dedup_id: "k", id: "id-c1", status: 204 });
    told.publish("c", 60, { dedup_id: "k", id: "id-c2", status: 204 });
    told.settle("c1", "x", 70);
    told.settle("c2", "y", 70);
  });
  expect(Object.keys(spoiled)).toEqual(["doubled"]);
});

test("what nobody published, or what was changed on the way, is unexpected", () => {
  const stranger = judge((told) => told.settle("z", told.deliver("z", 50), 60));
  expect(Object.keys(stranger)).toEqual(["unexpected"]);
  const changed = judge(({ history }) => {
    (history.deliveries[0] as Delivery).hash = "another";
  });
  expect(Object.keys(changed)).toEqual(["unexpected"]);
});

test("two leases of one message that overlap are found, by the database's times", () => {
  const overlap = (at_ms: number) =>
    judge(({ history }) => {
      (history.deliveries[2] as Delivery).leased_ms = at_ms;
    });
  expect(overlap(1030)).toEqual({});
  expect(Object.keys(overlap(1029))).toEqual(["overlaps"]);
});

test("a lease ends when its ack or nack is sent, and later when it was extended", () => {
  const again = (verb: "nack" | "extend", until_ms: number) =>
    judge((told) => {
      told.publish("c", 0);
      const first = told.deliver("c", 100);
      told.settle("c", first, 200, { verb, until_ms });
      told.settle("c", told.deliver("c", 1150, { attempts: 2 }), 1200);
    });
  expect(again("nack", 0)).toEqual({});
  expect(again("extend", 1100)).toEqual({});
  expect(Object.keys(again("extend", 1200))).toEqual(["overlaps"]);
});

test("a token that counts after it was superseded is unfenced, and so is a lease that is lost too soon", () => {
  const stale = judge(({ history }) => {
    const refusal = history.settles[1];
    if (refusal) Object.assign(refusal, { status: 204, sent_ms: 1040, answered_ms: 1045 });
  });
  expect(Object.keys(stale)).toContain("unfenced");
  // An ack after the newer holder's is answered like a repetition of that.
  const repetition = judge((told) => told.settle("b", "b@30", 1100));
  expect(repetition).toEqual({});
  const too_soon = judge((told) => told.settle("b", "b@30", 500, { verb: "extend", status: 409 }));
  expect(Object.keys(too_soon)).toEqual(["unfenced"]);
});

test("a message that comes back after its ack was answered is an ack undone", () => {
  const undone = judge((told) => told.deliver("a", 100, { attempts: 2 }));
  expect(Object.keys(undone)).toEqual(["undone"]);
  // Unknown: it may not have happened.
  const unknown = judge((told) => {
    (told.history.settles[0] as History["settles"][number]).status = lost;
    told.settle("a", told.deliver("a", 100, { attempts: 2 }), 120);
  });
  expect(unknown).toEqual({});
});

test("attempts rise, and never beyond the maximum", () => {
  const attempts = (count: number, own_rules = rules) =>
    Object.keys(
      judge(({ history }) => {
        (history.deliveries[2] as Delivery).attempts = count;
      }, own_rules),
    );
  expect(attempts(2)).toEqual([]);
  expect(attempts(1)).toEqual(["attempts"]);
  expect(attempts(3)).toEqual([]);
  expect(attempts(3, { deliveries_max: 2 })).toEqual(["attempts"]);
});

test("a message is buried at its maximum, and not when it was acked", () => {
  const bury = (message: string, attempts: number) =>
    judge(
      (told) => {
        told.publish("c", 50);
        const { hash } = told.history.tries.find((one) => one.message === message) ?? { hash: "" };
        told.history.burials.push({ kind: "burial", message, queue, hash, reason: "max_deliveries", attempts });
        if (message !== "c") told.settle("c", told.deliver("c", 60), 70);
      },
      { deliveries_max: 5 },
    );
  expect(bury("c", 5)).toEqual({});
  expect(Object.keys(bury("c", 4))).toEqual(["attempts"]);
  expect(Object.keys(bury("a", 5))).toEqual(["undone"]);
});

/** Three messages of one key, delivered in the order that is given, `gap_ms` apart. */
function keyed(order: string[], gap_ms: number): Record<string, string[]> {
  const told = story();
  for (const [i, message] of ["a", "b", "c"].entries()) told.publish(message, i * 10, { ordering_key: "k" });
  for (const [i, message] of order.entries()) {
    const at_ms = 100 + i * gap_ms;
    told.settle(message, told.deliver(message, at_ms, { ordering_key: "k" }), at_ms + 50);
  }
  return brokenIn(check(told.history, rules));
}

test("an inversion in an ordering key is found, and so are two of it in flight at once", () => {
  expect(keyed(["a", "b", "c"], 100)).toEqual({});
  expect(Object.keys(keyed(["a", "c", "b"], 100))).toEqual(["disordered"]);
  expect(Object.keys(keyed(["c", "a", "b"], 100))).toEqual(["disordered"]);
  expect(Object.keys(keyed(["a", "b", "c"], 49))).toEqual(["disordered"]);
});

test("publishes that were under way at the same time have no order", () => {
  const told = story();
  told.publish("a", 0, { ordering_key: "k", answered_ms: 50 });
  told.publish("b", 40, { ordering_key: "k" });
  for (const [i, message] of ["b", "a"].entries()) {
    const at_ms = 100 + i * 100;
    told.settle(message, told.deliver(message, at_ms, { ordering_key: "k" }), at_ms + 50);
  }
  expect(brokenIn(check(told.history, rules))).toEqual({});
});

test("a delivery before the end of a delay is early, that of a publish and that of a nack", () => {
  const delayed = (leased_ms: number) =>
    Object.keys(
      judge((told) => {
        told.publish("c", 0, { delay_ms: 1000 });
        told.settle("c", told.deliver("c", leased_ms, { created_ms: 2 }), leased_ms + 10);
      }),
    );
  expect(delayed(1002)).toEqual([]);
  expect(delayed(1001)).toEqual(["early"]);
  const nacked = (leased_ms: number) =>
    Object.keys(
      judge((told) => {
        told.publish("c", 0);
        told.settle("c", told.deliver("c", 10), 20, { verb: "nack", visibility_ms: 500 });
        told.settle("c", told.deliver("c", leased_ms, { attempts: 2 }), leased_ms + 10);
      }),
    );
  expect(nacked(520)).toEqual([]);
  expect(nacked(519)).toEqual(["early"]);
});

test("a refusal that the request did not deserve is dishonest, a request without an end is hung", () => {
  const answered = (status: number) => Object.keys(judge((told) => told.publish("c", 50, { status, id: "" })));
  expect(answered(503)).toEqual([]);
  expect(answered(400)).toEqual(["dishonest"]);
  expect(answered(500)).toEqual(["dishonest"]);
  expect(answered(-2)).toEqual(["hung"]);
});

test("the time to recover is the longest after a fault in which no publish was acknowledged", () => {
  const recoveryAfter = (...faults: number[]) => {
    const told = soundStory();
    for (const at_ms of faults) told.history.faults.push({ kind: "fault", name: "x", at_ms });
    told.publish("c", 300, { answered_ms: 700, status: 503, id: "" });
    told.publish("d", 900, { answered_ms: 950 });
    return check(told.history, rules).recover_ms;
  };
  expect(recoveryAfter()).toBe(null);
  expect(recoveryAfter(100)).toBe(850);
  // Answers still came at 5 and at 15.
  expect(recoveryAfter(2)).toBe(935);
  // The long pause belongs to the fault that it followed.
  expect(recoveryAfter(940)).toBe(10);
});

test("every failure is told with how often, and as what", () => {
  const told = soundStory();
  for (let n = 0; n < 5; n++) told.publish(`lost-${n}`, 50);
  const [line, ...others] = failuresOf(check(told.history, rules));
  expect(others).toEqual([]);
  expect(line).toStartWith(`${invariants.lost}: 5 times, as lost-0 in q id-lost-0; lost-1`);
});

test("twenty thousand messages are checked at once", () => {
  const told = story();
  for (let n = 0; n < 20_000; n++) {
    const [message, key] = [`m${n}`, n % 5 === 0 ? `k${n % 320}` : null];
    told.publish(message, n, { ordering_key: key });
    told.settle(message, told.deliver(message, n + 10, { ordering_key: key }), n + 12);
  }
  expect(brokenIn(check(told.history, rules))).toEqual({});
});

test("a time of an answer keeps its microseconds", () => {
  expect(timeOf("2026-01-31T12:00:00.123456Z") - Date.parse("2026-01-31T12:00:00.123Z")).toBeCloseTo(0.456, 2);
  expect(timeOf("2026-01-31T12:00:00.5Z") - Date.parse("2026-01-31T12:00:00Z")).toBe(500);
});

test("a seed decides all numbers, and forks do not disturb each other", () => {
  const [one, same, other] = [createRandom(1), createRandom(1), createRandom(2)];
  const take = (random: typeof one) => Array.from({ length: 5 }, () => random.below(1000));
  const numbers = take(one);
  expect(take(same)).toEqual(numbers);
  expect(take(other)).not.toEqual(numbers);
  expect(take(one.fork("a"))).toEqual(take(same.fork("a")));
  expect(take(one.fork("a"))).not.toEqual(take(one.fork("b")));
});

/** What a crash leaves of a directory with `old` ("abc") and `dir/`, after changes. */
function crashed(survival: Survival, changes: FileChange[], seed = 1): Record<string, string> {
  const base = emptyDirectory();
  writeFileSync(path.join(base, "old"), "abc");
  mkdirSync(path.join(base, "dir"));
  const disk = new Disk(base, ["old", "dir/"]);
  for (const change of changes) disk.apply(change);
  const target = path.join(emptyDirectory(), "restored");
  disk.restore(target, survival, createRandom(seed));
  const files = readdirSync(target, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  return Object.fromEntries(
    files.map(({ name, parentPath }) => [
      path.relative(target, path.join(parentPath, name)),
      readFileSync(path.join(parentPath, name), "utf8"),
    ]),
  );
}

const written = (place: string, at: number, text: string): FileChange => ({
  op: "write",
  path: place,
  at,
  bytes: Buffer.from(text),
});

test("a crash leaves of a file what was flushed, and after a kill all that was written", () => {
  const changes: FileChange[] = [written("old", 1, "X"), { op: "sync", path: "old" }, written("old", 2, "YZ")];
  expect(crashed("flushed", changes)).toEqual({ old: "aXc" });
  expect(crashed("written", changes)).toEqual({ old: "aXYZ" });
  const cut: FileChange[] = [{ op: "truncate", path: "old", size: 1 }];
  expect(crashed("flushed", cut)).toEqual({ old: "abc" });
  expect(crashed("written", cut)).toEqual({ old: "a" });
});

test("names survive a crash once their file or their directory was flushed", () => {
  const made: FileChange[] = [{ op: "create", path: "dir/new", is_directory: false }, written("dir/new", 0, "n")];
  const moved: FileChange[] = [...made, { op: "rename", path: "dir/new", to: "dir/moved" }];
  expect(crashed("flushed", made)).toEqual({ old: "abc" });
  expect(crashed("flushed", [...made, { op: "sync", path: "dir/new" }])).toEqual({ old: "abc", "dir/new": "n" });
  expect(crashed("flushed", [...made, { op: "sync", path: "dir" }])).toEqual({ old: "abc", "dir/new": "" });
  expect(crashed("flushed", [...made, { op: "sync", path: "dir/new" }, ...moved.slice(2)])).toEqual({
    old: "abc",
    "dir/new": "n",
  });
  expect(crashed("written", moved)).toEqual({ old: "abc", "dir/moved": "n" });
  const gone: FileChange[] = [{ op: "remove", path: "old" }];
  expect(crashed("flushed", gone)).toEqual({ old: "abc" });
  expect(crashed("flushed", [...gone, { op: "sync", path: "" }])).toEqual({});
});

test("of what was not flushed a part survives, in no order, and the last of it cut in a sector", () => {
  const blocks = Array.from({ length: 8 }, (_, n) => written("old", n * 1024, String(n).repeat(1024)));
  const images = Array.from({ length: 20 }, (_, seed) => crashed("torn", blocks, seed)["old"] ?? "");
  expect(new Set(images).size).toBeGreaterThan(15);
  const isTorn = (image: string) => image.length % 1024 === 512;
  expect(images.some(isTorn)).toBe(true);
  const isOutOfOrder = (image: string) => image.slice(3072).includes("7") && image.charCodeAt(1024) === 0;
  expect(images.some(isOutOfOrder)).toBe(true);
  expect(crashed("torn", [...blocks, { op: "sync", path: "old" }])["old"]).toHaveLength(8192);
});
