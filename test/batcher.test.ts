import { describe, expect, setDefaultTimeout, test } from "bun:test";
import { type BatcherOptions, createBatcher, full_lane_min, patience_ms } from "../src/batcher.ts";
import { BrokerError, DatabaseError } from "../src/errors.ts";
import { until } from "./harness.ts";

setDefaultTimeout(90_000);

type Flush = { items: number[]; answer: (results?: (number | BrokerError)[]) => void; fail: (error: unknown) => void };

/** A batcher of numbers whose flushes stay in flight until the test answers them; an item's result is its double. */
function start(own: Partial<BatcherOptions<number, number>> = {}) {
  const flushes: Flush[] = [];
  const batcher = createBatcher<number, number>({
    name: "test",
    flush: (items) =>
      new Promise((resolve, reject) => {
        flushes.push({ items, answer: (results) => resolve(results ?? items.map((item) => item * 2)), fail: reject });
      }),
    lanes: 2,
    items_max: 1000,
    weight: () => 1,
    weight_max: 1000,
    waiting_max: 10_000,
    waiting_ms_max: 60_000,
    ...own,
  });
  const flight = async (n: number): Promise<Flush> => {
    await until(() => flushes.length > n);
    return flushes[n] as Flush;
  };
  const callAll = (items: number[]) => items.map((item) => batcher.call(item));
  return { ...batcher, flushes, flight, callAll };
}

const numbers = (count: number) => Array.from({ length: count }, (_, i) => i);
const outcomes = async (calls: Promise<number>[]) =>
  (await Promise.allSettled(calls)).map((one) => (one.status === "fulfilled" ? one.value : one.reason));
const failure = (kind: "rejected" | "conflict" | "unavailable" | "lost", code = "XX000") =>
  new DatabaseError(kind, code, "a statement");

describe("a call leaves", () => {
  test("at once when nothing is in flight, with those of the same turn", async () => {
    const { callAll, flight } = start();
    const calls = callAll([1, 2, 3]);
    const first = await flight(0);
    expect(first.items).toEqual([1, 2, 3]);
    first.answer();
    expect(await outcomes(calls)).toEqual([2, 4, 6]);
  });

  test("in the same turn when the one before was alone", async () => {
    const { call, callAll, flight, flushes } = start();
    const alone = call(1);
    (await flight(0)).answer();
    await alone;
    await new Promise(setImmediate);
    const calls = callAll([2, 3, 4]);
    expect(flushes.map(({ items }) => items)).toEqual([[1], [2]]);
    // And those who came with it leave together.
    expect((await flight(2)).items).toEqual([3, 4]);
    for (const { answer } of flushes.slice(1)) answer();
    expect(await outcomes(calls)).toEqual([4, 6, 8]);
  });

  test("together with all that gathered meanwhile, when the flush in flight comes back", async () => {
    const { call, callAll, flight, flushes, size } = start();
    const early = call(1);
    const first = await flight(0);
    const late = callAll([2, 3]);
    expect({ flights: flushes.length, size: size() }).toEqual({ flights: 1, size: 3 });
    first.answer();
    const second = await flight(1);
    expect(second.items).toEqual([2, 3]);
    second.answer();
    expect(await outcomes([early, ...late])).toEqual([2, 4, 6]);
    expect(size()).toBe(0);
  });

  test("with those whose flush has come back, where these are waited for", async () => {
    const { callAll, flight, flushes } = start({ lanes: 1, regather_ms: 10_000 });
    const calls = callAll([1, 2, 3, 4]);
    const first = await flight(0);
    calls.push(...callAll([5, 6]));
    first.answer();
    await new Promise(setImmediate);
    // Three of four are as good as all.
    calls.push(...callAll([7, 8]));
    await new Promise(setImmediate);
    expect(flushes.length).toBe(1);
    calls.push(...callAll([9]));
    const second = await flight(1);
    expect(second.items).toEqual([5, 6, 7, 8, 9]);
    second.answer();
    expect(await outcomes(calls)).toEqual([2, 4, 6, 8, 10, 12, 14, 16, 18]);
  });

  test("without them when they do not come, and at once after a flush of one", async () => {
    const { callAll, flight } = start({ lanes: 1, regather_ms: 20 });
    const calls = callAll([1, 2]);
    const first = await flight(0);
    calls.push(...callAll([3]));
    const since_ms = performance.now();
    first.answer();
    const second = await flight(1);
    expect(performance.now() - since_ms).toBeGreaterThan(15);
    expect(second.items).toEqual([3]);
    second.answer();
    expect(await outcomes(calls)).toEqual([2, 4, 6]);
    const alone = start({ lanes: 1, regather_ms: 10_000 });
    const [one] = alone.callAll([1]);
    (await alone.flight(0)).answer();
    await one;
    alone.callAll([2]);
    (await alone.flight(1)).answer();
  });

  test("on a further lane when it is one of many, and on no more lanes than there are", async () => {
    const { call, callAll, flight, flushes } = start();
    const calls = [call(-1)];
    const first = await flight(0);
    calls.push(...callAll(numbers(full_lane_min)));
    const second = await flight(1);
    expect(second.items).toEqual(numbers(full_lane_min));
    calls.push(...callAll(numbers(2 * full_lane_min)));
    await Bun.sleep(2 * patience_ms);
    expect(flushes.length).toBe(2);
    first.answer();
    (await flight(2)).answer();
    second.answer();
    expect((await outcomes(calls)).length).toBe(1 + 3 * full_lane_min);
  });

  test("on a further lane when the flush in flight is stuck, though nobody comes after it", async () => {
    const { call, flight } = start();
    const stuck = call(1);
    const first = await flight(0);
    const patient = call(2);
    (await flight(1)).answer();
    expect(await patient).toBe(4);
    first.answer();
    expect(await stuck).toBe(2);
  });
});

describe("limits", () => {
  test("a flush holds at most so many items and so much weight; what is too heavy goes alone", async () => {
    const { call, callAll, flight, flushes } = start({
      lanes: 1,
      items_max: 3,
      weight: (item) => item,
      weight_max: 10,
    });
    const calls = [call(0)];
    (await flight(0)).answer();
    calls.push(...callAll([4, 5, 6, 99, 1, 1, 1, 1]));
    for (let n = 1; n <= 5; n++) (await flight(n)).answer();
    expect(flushes.slice(1).map(({ items }) => items)).toEqual([[4, 5], [6], [99], [1, 1, 1], [1]]);
    expect((await outcomes(calls)).length).toBe(9);
  });

  test("one more than may wait is refused at once", async () => {
    const { call, callAll, flight } = start({ waiting_max: 2 });
    const first = call(0);
    const flying = await flight(0);
    const waiting = callAll([1, 2]);
    await expect(call(3)).rejects.toMatchObject({ name: "BrokerError", error: "unavailable" });
    flying.answer();
    (await flight(1)).answer();
    expect(await outcomes([first, ...waiting])).toEqual([0, 2, 4]);
  });

  test("who waited too long is refused instead of being sent", async () => {
    const { call, flight, flushes } = start({ lanes: 1, waiting_ms_max: 200 });
    const first = call(0);
    const flying = await flight(0);
    const late = call(1);
    await Bun.sleep(300);
    flying.answer();
    await expect(late).rejects.toMatchObject({ error: "unavailable" });
    await first;
    expect(flushes.length).toBe(1);
  });
});

describe("a flush that fails", () => {
  test("for one item fails that item alone", async () => {
    const { callAll, flight } = start();
    const calls = callAll([1, 2]);
    (await flight(0)).answer([new BrokerError("queue_not_found"), 4]);
    expect(await outcomes(calls)).toMatchObject([{ error: "queue_not_found" }, 4]);
  });

  test("because of a value that the database refuses is halved until that value fails alone", async () => {
    const bad = 5;
    let statements = 0;
    const { callAll } = start({
      flush: async (items) => {
        statements += 1;
        if (items.includes(bad)) throw failure("rejected", "22P02");
        return items.map((item) => item * 2);
      },
    });
    const found = await outcomes(callAll(numbers(16)));
    expect(found.filter((one) => one instanceof DatabaseError)).toMatchObject([{ code: "22P02" }]);
    expect(found.filter((one) => typeof one === "number")).toEqual(
      numbers(16).flatMap((i) => (i === bad ? [] : [i * 2])),
    );
    expect(statements).toBeLessThan(12);
  });

  test("by a conflict is sent again, and not for ever", async () => {
    let tries = 0;
    const { call } = start({
      flush: async (items) => {
        tries += 1;
        if (items[0] === 1 || tries === 1) throw failure("conflict", "40P01");
        return items;
      },
    });
    expect(await call(7)).toBe(7);
    expect(tries).toBe(2);
    tries = 0;
    await expect(call(1)).rejects.toMatchObject({ code: "40P01" });
    expect(tries).toBe(4);
  });

  test("by a database that is away refuses those who wait too, without asking it again for each", async () => {
    const { call, callAll, flight, flushes } = start({ lanes: 1 });
    const calls = [call(0)];
    const flying = await flight(0);
    calls.push(...callAll([1, 2, 3]));
    flying.fail(failure("unavailable", "ECONNREFUSED"));
    expect(await outcomes(calls)).toMatchObject(numbers(4).map(() => ({ code: "ECONNREFUSED" })));
    expect(flushes.length).toBe(1);
  });
});
