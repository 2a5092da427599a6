const width = 96;
const height = 22;

const pathOf = (values: number[], most: number) =>
  values
    .map((value, i) => {
      const x = (i / Math.max(1, values.length - 1)) * width;
      return `${i === 0 ? "M" : "L"}${x.toFixed(1)} ${(height - 1 - (value / most) * (height - 3)).toFixed(1)}`;
    })
    .join("");

type SparklineProps = { published: number[]; acked: number[] };

/** The last hour at a glance: publishes as an area, acks as a line. */
export function Sparkline({ published, acked }: SparklineProps) {
  const most = Math.max(1, ...published, ...acked);
  const total = published.reduce((sum, value) => sum + value, 0);
  const area = `${pathOf(published, most)}L${width} ${height}L0 ${height}Z`;
  return (
    <svg
      class="sparkline"
      viewBox={`0 0 ${width} ${height}`}
      role="img"
      aria-label={`${total} published in the last hour`}
    >
      <path class="spark-area" d={area} />
      <path class="spark-published" d={pathOf(published, most)} />
      <path class="spark-acked" d={pathOf(acked, most)} />
    </svg>
  );
}
