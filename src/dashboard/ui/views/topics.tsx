import { useMemo, useState } from "preact/hooks";
import { ask, askAll } from "../api.ts";
import { plural } from "../format.ts";
import { Allowed } from "../parts/allowed.tsx";
import { Ago, Button, Card, Empty, Field, Loading, Notice, Table, Tag } from "../parts/basics.tsx";
import { Confirm } from "../parts/dialog.tsx";
import { passes, readAttributes } from "../parts/filterTrial.ts";
import { attempt } from "../parts/toasts.tsx";
import { usePoll } from "../poll.ts";
import { go, hrefOf, Link } from "../router.tsx";
import type { Subscription, Topic } from "../shapes.ts";
import { PublishForm } from "./publish.tsx";
import { useQueueIds } from "./settings.tsx";

const asked_ms = 10_000;

type Known = { topics: Topic[]; subscriptions: Subscription[] };

/** Every topic and every subscription. */
const useTopics = () =>
  usePoll<Known>(
    "topics",
    async () => {
      const [topics, subscriptions] = await Promise.all([
        askAll<Topic>("topics"),
        askAll<Subscription>("subscriptions"),
      ]);
      return { topics, subscriptions };
    },
    asked_ms,
  );

function NewTopic({ onMade }: { onMade: () => void }) {
  const [id, setId] = useState("");
  return (
    <form
      class="inline-form"
      onSubmit={(event) => {
        event.preventDefault();
        void attempt(() => ask("POST", "topics", { id }), `Made ${id}`).then((is_made) => {
          if (is_made) setId("");
          onMade();
        });
      }}
    >
      <input
        aria-label="Id of a new topic"
        placeholder="New topic"
        required
        value={id}
        onInput={(event) => setId(event.currentTarget.value)}
      />
      <Button type="submit">Create topic</Button>
    </form>
  );
}

/** Every topic, with the queues that it copies to. */
export function TopicsView() {
  const { data, error, refresh } = useTopics();
  const by_topic = useMemo(() => Map.groupBy(data?.subscriptions ?? [], ({ topic_id }) => topic_id), [data]);
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>Topics</h1>
        <span class="spring" />
        <Allowed right="manage">
          <NewTopic onMade={refresh} />
        </Allowed>
      </div>
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      {data?.topics.length === 0 && (
        <Empty title="No topics yet">
          A topic copies what is published to it to every queue that subscribes to it.
        </Empty>
      )}
      {data !== undefined && data.topics.length > 0 && (
        <Table label="Topics">
          <thead>
            <tr>
              <th scope="col">Topic</th>
              <th scope="col">Copies to</th>
              <th scope="col" class="number p1">
                Made
              </th>
            </tr>
          </thead>
          <tbody>
            {data.topics.map(({ id, created_at }) => (
              <tr key={id}>
                <th scope="row" class="name">
                  <Link to={hrefOf(["topics", id])}>{id}</Link>
                </th>
                <td>
                  {by_topic
                    .get(id)
                    ?.map(({ queue_id }) => queue_id)
                    .slice(0, 8)
                    .join(", ") ?? <span class="muted">no queue</span>}
                </td>
                <td class="number p1 nowrap">
                  <Ago time={created_at} />
                </td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
    </>
  );
}

const filtersText = (filters: Subscription["message_filters"]) =>
  filters === null || Object.keys(filters).length === 0 ? "every message" : JSON.stringify(filters);

function NewSubscription({ topic_id, onMade }: { topic_id: string; onMade: () => void }) {
  const [queue_id, setQueueId] = useState("");
  const [filters, setFilters] = useState("");
  const queue_ids = useQueueIds();
  const create = () =>
    attempt(async () => {
      const message_filters = filters.trim() === "" ? {} : { message_filters: JSON.parse(filters) as unknown };
      await ask("POST", "subscriptions", { id: `${topic_id}.${queue_id}`, topic_id, queue_id, ...message_filters });
    }, `${queue_id} subscribes now`);
  return (
    <form
      class="form"
      onSubmit={(event) => {
        event.preventDefault();
        void create().then(onMade);
      }}
    >
      <div class="fields">
        <Field label="Queue">
          <input
            list="subscription-queues"
            required
            value={queue_id}
            spellcheck={false}
            onInput={(event) => setQueueId(event.currentTarget.value)}
          />
        </Field>
        <Field label="Filter" hint={'Attributes and the values that pass, as JSON: {"status":["paid"]}'} is_wide>
          <input
            value={filters}
            placeholder="every message"
            spellcheck={false}
            onInput={(event) => setFilters(event.currentTarget.value)}
          />
        </Field>
      </div>
      <datalist id="subscription-queues">
        {queue_ids.map((id) => (
          <option key={id} value={id} />
        ))}
      </datalist>
      <div class="form-actions">
        <Button type="submit">Subscribe</Button>
      </div>
    </form>
  );
}

type SubscriptionsProps = { topic_id: string; subscriptions: Subscription[]; onChange: () => void };

function Subscriptions({ topic_id, subscriptions, onChange }: SubscriptionsProps) {
  const remove = (id: string) =>
    void attempt(() => ask("DELETE", `subscriptions/${encodeURIComponent(id)}`), "Subscription deleted").then(onChange);
  const [tried, setTried] = useState("");
  const attributes = tried.trim() === "" ? undefined : readAttributes(tried);
  return (
    <Card title={plural(subscriptions.length, "subscription")}>
      {subscriptions.length > 0 && (
        <div class="form">
          <Field
            label="Try the filters"
            hint={
              tried.trim() !== "" && attributes === undefined
                ? "Not a map of texts as JSON"
                : 'Attributes of a message, as JSON: {"status":"paid"}'
            }
            is_wide
          >
            <input spellcheck={false} value={tried} onInput={(event) => setTried(event.currentTarget.value)} />
          </Field>
        </div>
      )}
      {subscriptions.length > 0 && (
        <Table label="Subscriptions">
          <thead>
            <tr>
              <th scope="col">Queue</th>
              <th scope="col">Gets</th>
              <th scope="col" class="p1">
                Id
              </th>
              <th scope="col">
                <span class="hidden">Actions</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {subscriptions.map(({ id, queue_id, message_filters }) => (
              <tr key={id}>
                <th scope="row" class="name">
                  <Link to={hrefOf(["queues", queue_id])}>{queue_id}</Link>
                </th>
                <td class="mono">
                  {filtersText(message_filters)}{" "}
                  {attributes !== undefined &&
                    (passes(message_filters, attributes) ? (
                      <Tag>would get it</Tag>
                    ) : (
                      <span class="muted">not this</span>
                    ))}
                </td>
                <td class="p1 muted">{id}</td>
                <td class="number">
                  <Allowed right="manage">
                    <Button kind="quiet" label={`Delete subscription ${id}`} onClick={() => remove(id)}>
                      Delete
                    </Button>
                  </Allowed>
                </td>
              </tr>
            ))}
          </tbody>
        </Table>
      )}
      <Allowed right="manage">
        <NewSubscription topic_id={topic_id} onMade={onChange} />
      </Allowed>
    </Card>
  );
}

/** One topic: who gets a copy, and publishing to it. */
export function TopicView({ topic_id }: { topic_id: string }) {
  const { data, error, refresh } = useTopics();
  const [is_asked, setIsAsked] = useState(false);
  const path = `topics/${encodeURIComponent(topic_id)}`;
  const own = data?.subscriptions.filter((subscription) => subscription.topic_id === topic_id) ?? [];
  const publish = async (message: object) => {
    const { data: sent } = await ask<{ data: { delivered_queues: number }[] }>("POST", `${path}/messages/batch`, {
      messages: [message],
    });
    return `Copied to ${plural(sent[0]?.delivered_queues ?? 0, "queue")}`;
  };
  const is_known = data?.topics.some(({ id }) => id === topic_id);
  return (
    <>
      <div class="title">
        <h1 tabIndex={-1}>
          <span class="crumb">
            <Link to={hrefOf(["topics"])}>Topics</Link> /{" "}
          </span>
          {topic_id}
        </h1>
        <span class="spring" />
        {is_known && (
          <Allowed right="manage">
            <Button kind="danger" onClick={() => setIsAsked(true)}>
              Delete…
            </Button>
          </Allowed>
        )}
      </div>
      {error && <Notice>{error}</Notice>}
      {data === undefined && !error && <Loading />}
      {data !== undefined && !is_known && <Notice>Topic not found</Notice>}
      {is_known && (
        <div class="stack">
          <Subscriptions topic_id={topic_id} subscriptions={own} onChange={refresh} />
          <Allowed right="publish">
            <Card title="Publish to this topic">
              <PublishForm action="Publish" onPublish={publish} />
            </Card>
          </Allowed>
        </div>
      )}
      {is_asked && (
        <Confirm
          title="Delete this topic"
          action="Delete"
          typed={topic_id}
          onClose={() => setIsAsked(false)}
          onConfirm={() =>
            void attempt(() => ask("DELETE", path), `Deleted ${topic_id}`).then((is_done) =>
              is_done ? go(hrefOf(["topics"])) : setIsAsked(false),
            )
          }
        >
          <p>The topic goes with its {plural(own.length, "subscription")}. Queues and their messages stay.</p>
        </Confirm>
      )}
    </>
  );
}
