import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { Empty } from "./parts/basics.tsx";
import { Header } from "./parts/header.tsx";
import { KeyGate } from "./parts/keyGate.tsx";
import { Toasts } from "./parts/toasts.tsx";
import { learnRights } from "./rights.ts";
import { hrefOf, Link, type Place, usePlace } from "./router.tsx";
import { KeysView } from "./views/keys.tsx";
import { MessageView } from "./views/message.tsx";
import { NewQueueView } from "./views/newQueue.tsx";
import { PublishView } from "./views/publish.tsx";
import { QueueView } from "./views/queue.tsx";
import { QueuesView } from "./views/queues.tsx";
import { TasksView } from "./views/tasks.tsx";
import { TopicsView, TopicView } from "./views/topics.tsx";

const tabs = new Set<string | undefined>([undefined, "messages", "dead", "settings"]);

const Unknown = () => (
  <Empty title="There is nothing here">
    <p>
      The address names no view. <Link to={hrefOf([])}>All queues</Link>
    </p>
  </Empty>
);

function viewOf({ parts }: Place) {
  const [view, id, tab, last] = parts;
  if (view === undefined || (view === "queues" && id === undefined)) return <QueuesView />;
  if (view === "new") return <NewQueueView />;
  if (view === "tasks") return <TasksView />;
  if (view === "keys") return <KeysView />;
  if (view === "topics") return id === undefined ? <TopicsView /> : <TopicView key={id} topic_id={id} />;
  if (view !== "queues" || id === undefined) return <Unknown />;
  if (tab === "messages" && last !== undefined) return <MessageView key={`${id}/${last}`} queue_id={id} id={last} />;
  if (tab === "publish") return <PublishView key={id} queue_id={id} />;
  return tabs.has(tab) ? <QueueView key={id} queue_id={id} /> : <Unknown />;
}

/** `/` goes to the search, unless somebody is typing. */
function onKey(event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName)) return;
  const search = document.querySelector<HTMLElement>("[data-search]");
  if (search === null) return;
  event.preventDefault();
  search.focus();
}

function App() {
  const place = usePlace();
  const main = useRef<HTMLElement>(null);
  const view = place.parts.join("/");
  const is_first = useRef(true);
  useEffect(() => {
    document.title = [...view.split("/").slice(0, 3).reverse(), "psqlqueue"].filter(Boolean).join(" · ");
    if (is_first.current) {
      is_first.current = false;
      return;
    }
    // A reader of the screen is told of the new view, and the keyboard goes on from its beginning.
    main.current?.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
  }, [view]);
  useEffect(() => {
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, []);
  return (
    <>
      <a class="skip" href="#main">
        To the content
      </a>
      <Header view={place.parts[0] ?? ""} />
      <main id="main" ref={main}>
        {viewOf(place)}
      </main>
      <KeyGate />
      <Toasts />
    </>
  );
}

const root = document.getElementById("app");
learnRights();
if (root !== null) render(<App />, root);
