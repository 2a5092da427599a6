// Rows about how much is stored: backlog, leases, labels, queues.

import { createQueue, createQueues, fillInFlight, fillQueues, newQueueId } from "../queues.ts";
import { compare } from "../rounds.ts";
import { type Bed, createSide, type FlatRow, grouped, label, text } from "./bed.ts";

const rounds = 15;
/** Ready messages of the easy side; its rounds read 6000 of them. */
const few = 16_000;

/** Receives at a large backlog against a small one. */
export async function measureBacklog(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, load, options } = bed;
  const [a, b] = [await createQueue(subject, "few"), await createQueue(subject, "backlog")];
  const fill = { body_bytes: options.body_bytes, label };
  await fillQueues(subject, load, { ...fill, queue_ids: [a], count: few });
  await fillQueues(subject, load, { ...fill, queue_ids: [b], count: size });
  const errors = {};
  const side = createSide(bed, errors);
  const compared = await compare(
    rounds,
    () => side.receive({ queues: [a] }),
    () => side.receive({ queues: [b] }),
  );
  return [
    {
      what: `receive 10 at a backlog of ${grouped(size)} / 10 000`,
      unit: "ms, p50",
      a: text(compared.a),
      b: text(compared.b),
      ratio: compared.ratio,
      bar: { max: 1.2 },
      errors,
    },
  ];
}

/** Receives behind messages that are leased against none. */
export async function measureInFlight(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, load, options } = bed;
  const [a, b] = [await createQueue(subject, "none-leased"), await createQueue(subject, "leased")];
  const fill = { body_bytes: options.body_bytes, label };
  await fillInFlight(subject, load, { ...fill, queue_ids: [b], count: size });
  await fillQueues(subject, load, { ...fill, queue_ids: [a, b], count: few });
  const errors = {};
  const side = createSide(bed, errors);
  const compared = await compare(
    rounds,
    () => side.receive({ queues: [a] }),
    () => side.receive({ queues: [b] }),
  );
  return [
    {
      what: `receive 10 behind ${grouped(size)} leased / none`,
      unit: "ms, p50",
      a: text(compared.a),
      b: text(compared.b),
      ratio: compared.ratio,
      bar: { max: 1.2 },
      errors,
    },
  ];
}

const rare_count = 5;

/** Receives by a label that hardly any message has against unlabelled ones. */
export async function measureRareLabel(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, load, options } = bed;
  const queue_id = await createQueue(subject, "labels");
  const fill = { queue_ids: [queue_id], body_bytes: options.body_bytes };
  await fillQueues(subject, load, { ...fill, count: Math.round(size * 0.6), label: "common" });
  await fillQueues(subject, load, { ...fill, count: rare_count, label: "rare" });
  await fillQueues(subject, load, { ...fill, count: Math.round(size * 0.4), label: "common" });
  const errors = {};
  const side = createSide(bed, errors);
  // Nacked afterwards, so that the rare ones are there again; the same is done to the others.
  const own = { queues: [queue_id], limit: rare_count, after: "nack" as const };
  const compared = await compare(
    rounds,
    () => side.receive(own),
    () => side.receive({ ...own, filter: "rare" }),
  );
  return [
    {
      what: `receive 5 by a label that 5 of ${grouped(size)} have / any`,
      unit: "ms, p50",
      a: text(compared.a),
      b: text(compared.b),
      ratio: compared.ratio,
      bar: { max: 1.5 },
      errors,
    },
  ];
}

const messages_per_queue = 60;

/** Publishes to, and receives from, a random one of many queues against one queue. */
export async function measureQueues(bed: Bed, size: number): Promise<FlatRow[]> {
  const { subject, load, options } = bed;
  const one = await createQueue(subject, "one");
  const many = Array.from({ length: size }, () => newQueueId("many"));
  await createQueues(subject, many);
  const errors = {};
  const side = createSide(bed, errors);
  const seconds = Math.min(2, options.seconds);
  const published = await compare(
    5,
    () => side.throughput({ kind: "publish", queues: [one] }, seconds, 0.3),
    () => side.throughput({ kind: "publish", queues: many }, seconds, 0.3),
  );
  const publish_errors = { ...errors };
  const fill = { body_bytes: options.body_bytes, label };
  await fillQueues(subject, load, { ...fill, queue_ids: [one], count: messages_per_queue * size });
  await fillQueues(subject, load, { ...fill, queue_ids: many, count: messages_per_queue });
  const received = await compare(
    rounds,
    () => side.receive({ queues: [one] }),
    () => side.receive({ queues: many }),
  );
  return [
    {
      what: `publish to ${grouped(size)} queues at random / to one`,
      unit: "messages/s",
      a: text(published.a),
      b: text(published.b),
      ratio: published.ratio,
      bar: { min: 0.8 },
      errors: publish_errors,
    },
    {
      what: `receive 10 from ${grouped(size)} queues at random / from one`,
      unit: "ms, p50",
      a: text(received.a),
      b: text(received.b),
      ratio: received.ratio,
      bar: { max: 1.5 },
      errors,
    },
  ];
}
