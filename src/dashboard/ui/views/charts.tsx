import { useEffect, useMemo, useState } from "preact/hooks";
import { ask, query, queuePath } from "../api.ts";
import { duration } from "../format.ts";
import { Button, Loading, Notice } from "../parts/basics.tsx";
import { Chart } from "../parts/chart.tsx";
import { usePoll } from "../poll.ts";
import type { Minute } from "../shapes.ts";

const minute_ms = 60_000;
const asked_ms = 30_000;
const day_minutes = 1440;
const hour: Range = { minutes: 60, step: 1 };
const day: Range = { minutes: day_minutes, step: 5 };

/** What is known so far, with what came since: only the newest minutes are asked for again. */
function useMinutes(queue_id: string): { minutes: Map<number, Minute> | undefined; error: string | undefined } {
  const [minutes, setMinutes] = useState<{ queue_id: string; known: Map<number, Minute> }>();
  const known = minutes?.queue_id === queue_id ? minutes.known : undefined;
  const latest = known === undefined ? undefined : [...known.values()].at(-1)?.minute;
  const { data, error } = usePoll(
    `minutes ${queue_id}`,
    async (signal) => {
      const path = `${queuePath(queue_id, "rates")}${query({ since: latest })}`;
      return (await ask<{ data: Minute[] }>("GET", path, undefined, signal)).data;
    },
    asked_ms,
  );
  useEffect(() => {
    if (data === undefined) return;
    setMinutes((before) => {
      const next = new Map(before?.queue_id === queue_id ? before.known : []);
      for (const minute of data) next.set(Date.parse(minute.minute), minute);
      const oldest_ms = Date.now() - day_minutes * minute_ms;
      for (const at of next.keys()) if (at < oldest_ms) next.delete(at);
      return { queue_id, known: next };
    });
  }, [data, queue_id]);
  return { minutes: known, error };
}

/** What stands for several minutes: their mean, or the most of them. */
type Fold = (values: number[]) => number;
const mean: Fold = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
const most: Fold = (values) => Math.max(...values);

type Grid = { times: number[]; of: (read: (minute: Minute) => number | null, fold: Fold) => (number | null)[] };
type Range = { minutes: number; step: number };

/**
 * Every step of the range: a minute that is missing had nothing to say, unless the queue was not there yet. The minute
 * that runs and the one before are not written down yet.
 */
function gridOf(minutes: Map<number, Minute>, { minutes: count, step }: Range, created_ms: number): Grid {
  const now_ms = Math.floor(Date.now() / minute_ms) * minute_ms;
  const last_ms = Math.max(now_ms - 2 * minute_ms, ...minutes.keys());
  const points = Array.from({ length: count / step }, (_, i) => last_ms - (count / step - 1 - i) * step * minute_ms);
  const valueAt = (ms: number, read: (minute: Minute) => number | null) => {
    const minute = minutes.get(ms);
    if (minute !== undefined) return read(minute);
    return ms < created_ms - minute_ms ? null : 0;
  };
  return {
    times: points.map((ms) => ms / 1000),
    of: (read, fold) =>
      points.map((ms) => {
        const values = Array.from({ length: step }, (_, i) => valueAt(ms - i * minute_ms, read));
        const known = values.filter((value) => value !== null);
        return known.length === 0 ? null : fold(known);
      }),
  };
}

const perSecond = (value: number) =>
  value === 0 ? "0" : value < 10 ? value.toFixed(value < 1 ? 2 : 1) : value.toFixed(0);

/** The last hour or day of a queue. */
export function Charts({ queue_id, created_at }: { queue_id: string; created_at: string }) {
  const { minutes, error } = useMinutes(queue_id);
  const [range, setRange] = useState(hour);
  const grid = useMemo(
    () => (minutes === undefined ? undefined : gridOf(minutes, range, Date.parse(created_at))),
    [minutes, range, created_at],
  );
  if (grid === undefined) return error === undefined ? <Loading /> : <Notice>{error}</Notice>;
  const each = (read: (minute: Minute) => number) => grid.of((minute) => read(minute) / 60, mean);
  return (
    <>
      <div class="section-head">
        <h2>History</h2>
        <fieldset class="segments">
          <legend class="hidden">Range</legend>
          <Button pressed={range === hour} onClick={() => setRange(hour)}>
            Hour
          </Button>
          <Button pressed={range === day} onClick={() => setRange(day)}>
            Day
          </Button>
        </fieldset>
      </div>
      <div class="charts">
        <Chart
          title="Rates"
          unit="messages per second"
          times={grid.times}
          format={perSecond}
          series={[
            { label: "Published", color: "accent", values: each(({ published }) => published), is_filled: true },
            { label: "Delivered", color: "delayed", values: each(({ delivered }) => delivered) },
            { label: "Acked", color: "good", values: each(({ acked }) => acked) },
            { label: "Failed", color: "danger", values: each(({ failed }) => failed) },
          ]}
        />
        <Chart
          title="Depth"
          unit="messages"
          times={grid.times}
          series={[
            { label: "Ready", color: "accent", values: grid.of(({ ready }) => ready, most), is_filled: true },
            { label: "Leased", color: "warn", values: grid.of(({ leased }) => leased, most) },
            { label: "Waiting", color: "delayed", values: grid.of(({ hidden }) => hidden, most) },
          ]}
        />
        <Chart
          title="Age"
          unit="of the oldest ready message"
          times={grid.times}
          format={duration}
          series={[
            {
              label: "Oldest",
              color: "backing-off",
              values: grid.of((minute) => minute.oldest_ready_age_seconds, most),
              is_filled: true,
            },
          ]}
        />
      </div>
    </>
  );
}
