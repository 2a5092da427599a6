import { useEffect, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import { compact } from "../format.ts";

export type Series = { label: string; color: string; values: (number | null)[]; is_filled?: boolean };

type ChartProps = {
  title: string;
  unit: string;
  /** Seconds since 1970, rising. */
  times: number[];
  series: Series[];
  format?: (value: number) => string;
};

const chart_height = 180;

/** The value of a colour of the style sheet now. */
function paint(name: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const color = getComputedStyle(probe).color;
  probe.remove();
  return color;
}

const faint = (color: string) => color.replace(/^rgb\((.*)\)$/, "rgba($1, 0.12)");

/** Where nobody points, the legend tells the latest values. */
function showLatest(plot: uPlot): void {
  if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 }, false);
}

function optionsOf({ series, format = compact }: ChartProps, width: number): uPlot.Options {
  const paints = series.map(({ color }) => paint(color));
  const axis: uPlot.Axis = {
    stroke: paint("muted"),
    grid: { stroke: paint("line"), width: 1 },
    ticks: { show: false },
    font: "11px system-ui, sans-serif",
  };
  return {
    width,
    height: chart_height,
    padding: [8, 12, 0, 0],
    hooks: { setCursor: [showLatest], setData: [showLatest], ready: [showLatest] },
    legend: { live: true, markers: { width: 0, fill: (_, i) => paints[i - 1] ?? "" } },
    cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false }, sync: { key: "history" } },
    scales: { y: { range: (_, __, most) => [0, Math.max(1, (most ?? 0) * 1.1)] } },
    axes: [
      { ...axis, size: 26, space: 70, values: "{HH}:{mm}" as unknown as uPlot.Axis.Values },
      { ...axis, size: 46, values: (_, splits) => splits.map((value) => format(value)) },
    ],
    series: [
      { label: "Time", value: "{HH}:{mm}" },
      ...series.map(({ label, is_filled }, i) => {
        const stroke = paints[i] ?? "";
        return {
          label,
          stroke,
          width: 1.5,
          points: { show: false },
          value: (_: uPlot, value: number | null) => (value == null ? "–" : format(value)),
          ...(is_filled && { fill: faint(stroke) }),
        };
      }),
    ],
  };
}

const dataOf = ({ times, series }: ChartProps): uPlot.AlignedData => [times, ...series.map(({ values }) => values)];

/** The same numbers as a table, for those who do not see the chart. */
function Numbers({ title, times, series, format = compact }: ChartProps) {
  const every = Math.max(1, Math.floor(times.length / 60));
  const rows = times.map((_, i) => i).filter((i) => (times.length - 1 - i) % every === 0);
  return (
    <details class="chart-numbers">
      <summary>Numbers</summary>
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard */}
      <section class="table" aria-label={`${title}, numbers`} tabIndex={0}>
        <table>
          <thead>
            <tr>
              <th scope="col">Time</th>
              {series.map(({ label }) => (
                <th key={label} scope="col" class="number">
                  {label}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {rows.map((i) => (
              <tr key={times[i]}>
                <td>{new Date((times[i] ?? 0) * 1000).toTimeString().slice(0, 5)}</td>
                {series.map(({ label, values }) => (
                  <td key={label} class="number">
                    {values[i] == null ? "–" : format(values[i])}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </section>
    </details>
  );
}

/** Lines over time. Painted by uPlot; its numbers stand below as a table. */
export function Chart(props: ChartProps) {
  const { title, unit, series } = props;
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [painted, setPainted] = useState(0);
  const shape = series.map(({ label }) => label).join();

  useEffect(() => {
    const again = () => setPainted((before) => before + 1);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", again);
    addEventListener("psqlqueue:theme", again);
    return () => {
      scheme.removeEventListener("change", again);
      removeEventListener("psqlqueue:theme", again);
    };
  }, []);

  // New data goes into the plot that is there.
  useEffect(() => {
    const own = place.current;
    if (own === null) return;
    const made = new uPlot(optionsOf(props, own.clientWidth), dataOf(props), own);
    plot.current = made;
    const watch = new ResizeObserver(() => made.setSize({ width: own.clientWidth, height: chart_height }));
    watch.observe(own);
    return () => {
      watch.disconnect();
      made.destroy();
    };
  }, [shape, painted]);

  useEffect(() => {
    plot.current?.setData(dataOf(props));
  }, [props]);

  return (
    <figure class="chart">
      <figcaption>
        <span class="chart-title">{title}</span> <span class="chart-unit">{unit}</span>
      </figcaption>
      <div ref={place} class="chart-place" aria-hidden="true" />
      <Numbers {...props} />
    </figure>
  );
}
