// Made of the OpenAPI document by test/clientTypes.test.ts: what can be asked of a server.

import type {
  AckBatchInput,
  AckInput,
  ApiKeyInput,
  BatchInput,
  ChangeInput,
  ExtendBatchInput,
  ExtendInput,
  MatchingInput,
  MessageInput,
  NackBatchInput,
  NackInput,
  PauseInput,
  QueueInput,
  QueueUpdate,
  RedriveInput,
  SubscriptionInput,
  TopicInput,
} from "./inputs.ts";
import type {
  ApiKeyPage,
  ErrorGroups,
  ExtendedLease,
  FannedOut,
  FanOutResults,
  Health,
  Info,
  Maintenance,
  MessageCount,
  Moved,
  NewApiKey,
  OrderingKeyPage,
  Published,
  PublishResults,
  Queue,
  QueueMinutes,
  QueuePage,
  QueueStats,
  QueueSummaryPage,
  QueueTrends,
  ReceivedMessages,
  RepairedQueue,
  SeenMessagePage,
  SeenMessageWithEvents,
  SettleResults,
  StartedTask,
  Subscription,
  SubscriptionPage,
  Task,
  TaskPage,
  Topic,
  TopicPage,
} from "./outputs.ts";

/** Method and path of every operation. */
export const operations = {
  createQueue: "POST /v1/queues",
  listQueues: "GET /v1/queues",
  getQueue: "GET /v1/queues/{queue_id}",
  updateQueue: "PUT /v1/queues/{queue_id}",
  deleteQueue: "DELETE /v1/queues/{queue_id}",
  pauseQueue: "PUT /v1/queues/{queue_id}/pause",
  resumeQueue: "PUT /v1/queues/{queue_id}/resume",
  getQueueStats: "GET /v1/queues/{queue_id}/stats",
  purgeQueue: "PUT /v1/queues/{queue_id}/purge",
  cleanUpQueue: "PUT /v1/queues/{queue_id}/cleanup",
  listOrderingKeys: "GET /v1/queues/{queue_id}/keys",
  repairQueue: "POST /v1/queues/{queue_id}/repair",
  publishMessage: "POST /v1/queues/{queue_id}/messages",
  receiveMessages: "GET /v1/queues/{queue_id}/messages",
  publishMessages: "POST /v1/queues/{queue_id}/messages/batch",
  peekMessages: "GET /v1/queues/{queue_id}/messages/peek",
  getMessage: "GET /v1/queues/{queue_id}/messages/{message_id}",
  changeMessage: "PUT /v1/queues/{queue_id}/messages/{message_id}",
  deleteMessage: "DELETE /v1/queues/{queue_id}/messages/{message_id}",
  countMessages: "GET /v1/queues/{queue_id}/messages/count",
  groupDeadLetters: "GET /v1/queues/{queue_id}/messages/groups",
  actOnMatching: "POST /v1/queues/{queue_id}/messages/matching",
  ackMessage: "PUT /v1/queues/{queue_id}/messages/{message_id}/ack",
  nackMessage: "PUT /v1/queues/{queue_id}/messages/{message_id}/nack",
  extendLease: "PUT /v1/queues/{queue_id}/messages/{message_id}/extend",
  ackMessages: "POST /v1/queues/{queue_id}/ack",
  nackMessages: "POST /v1/queues/{queue_id}/nack",
  extendLeases: "POST /v1/queues/{queue_id}/extend",
  publishToTopic: "POST /v1/topics/{topic_id}/messages",
  publishManyToTopic: "POST /v1/topics/{topic_id}/messages/batch",
  redriveMessages: "POST /v1/queues/{queue_id}/redrive",
  listTasks: "GET /v1/tasks",
  getTask: "GET /v1/tasks/{task_id}",
  cancelTask: "DELETE /v1/tasks/{task_id}",
  createKey: "POST /v1/keys",
  listKeys: "GET /v1/keys",
  deleteKey: "DELETE /v1/keys/{key_id}",
  listStats: "GET /v1/stats",
  listTrends: "GET /v1/rates",
  listRates: "GET /v1/queues/{queue_id}/rates",
  createTopic: "POST /v1/topics",
  listTopics: "GET /v1/topics",
  getTopic: "GET /v1/topics/{topic_id}",
  deleteTopic: "DELETE /v1/topics/{topic_id}",
  createSubscription: "POST /v1/subscriptions",
  listSubscriptions: "GET /v1/subscriptions",
  getSubscription: "GET /v1/subscriptions/{subscription_id}",
  deleteSubscription: "DELETE /v1/subscriptions/{subscription_id}",
  getInfo: "GET /v1/info",
  getMaintenance: "GET /v1/maintenance",
  getHealth: "GET /v1/healthz",
} as const;

export type OperationName = keyof typeof operations;

/** What an operation takes and answers. */
export type Operations = {
  /** Create a queue. */
  createQueue: { body: QueueInput; result: Queue };
  /** List queues by id. */
  listQueues: { query: { limit?: number | undefined; offset?: number | undefined }; result: QueuePage };
  /** Get a queue. */
  getQueue: { result: Queue };
  /** Replace a queue's settings. */
  updateQueue: { body: QueueUpdate; result: Queue };
  /** Delete a queue, its messages and its subscriptions. */
  deleteQueue: { query: { async?: boolean | undefined; force?: boolean | undefined }; result: StartedTask | undefined };
  /** Pause consuming (default) or publishing. */
  pauseQueue: { body: PauseInput; result: Queue };
  /** Resume both. */
  resumeQueue: { result: Queue };
  /** Numbers of a queue. */
  getQueueStats: { result: QueueStats };
  /** Remove every message. */
  purgeQueue: { query: { async?: boolean | undefined }; result: StartedTask | undefined };
  /** Remove acked and expired messages. */
  cleanUpQueue: { query: { async?: boolean | undefined }; result: StartedTask | undefined };
  /** List ordering keys with unfinished messages. */
  listOrderingKeys: {
    query: {
      state?: "ready" | "leased" | "waiting" | "blocked" | undefined;
      limit?: number | undefined;
      offset?: number | undefined;
    };
    result: OrderingKeyPage;
  };
  /** Look at every key of the queue, and mend those that have lost their first message or their turns. */
  repairQueue: { result: RepairedQueue };
  /** Publish a message. */
  publishMessage: { body: MessageInput; result: Published | undefined };
  /** Receive messages: leases them for the queue's ack deadline. */
  receiveMessages: {
    query: {
      label?: string | undefined;
      limit?: number | undefined;
      wait_seconds?: number | undefined;
      max_per_key?: number | undefined;
      ack_deadline_seconds?: number | undefined;
    };
    result: ReceivedMessages;
  };
  /** Publish up to 1000 messages, all or nothing. */
  publishMessages: { query: { atomic?: boolean | undefined }; body: BatchInput; result: PublishResults };
  /** Look at messages by state, without leasing. */
  peekMessages: {
    query: {
      state?: "ready" | "delayed" | "leased" | "backing_off" | "acked" | "expired" | "dead" | "all" | undefined;
      label?: string | undefined;
      search?: string | undefined;
      error_group?: string | undefined;
      reason?: "max_deliveries" | "rejected" | "expired" | undefined;
      source_queue_id?: string | undefined;
      message_id?: string | undefined;
      ordering_key?: string | undefined;
      after?: string | undefined;
      limit?: number | undefined;
      body?: boolean | undefined;
      body_characters_max?: number | undefined;
    };
    result: SeenMessagePage;
  };
  /** Look at one message. */
  getMessage: { result: SeenMessageWithEvents };
  /** Reschedule or relabel a message that nobody holds. */
  changeMessage: { body: ChangeInput; result: SeenMessageWithEvents };
  /** Delete a message, whatever its state, unless somebody holds it. */
  deleteMessage: { query: { lease_token?: string | undefined }; result: undefined };
  /** Count messages that match, a bounded number of rows a call. */
  countMessages: {
    query: {
      state?: "ready" | "delayed" | "leased" | "backing_off" | "acked" | "expired" | "dead" | "all" | undefined;
      label?: string | undefined;
      search?: string | undefined;
      error_group?: string | undefined;
      reason?: "max_deliveries" | "rejected" | "expired" | undefined;
      source_queue_id?: string | undefined;
      message_id?: string | undefined;
      ordering_key?: string | undefined;
      after?: string | undefined;
    };
    result: MessageCount;
  };
  /** Group dead letters by their error, a bounded number of rows a call. */
  groupDeadLetters: { query: { after?: string | undefined }; result: ErrorGroups };
  /** Delete or nack every message that matches, as a task. */
  actOnMatching: { body: MatchingInput; result: StartedTask };
  /** Ack a message: it never comes back. */
  ackMessage: { query: { lease_token?: string | undefined }; body: AckInput; result: undefined };
  /** Nack a message: visible again at once, or after a while. */
  nackMessage: {
    query: { visibility_timeout_seconds?: number | undefined; lease_token?: string | undefined };
    body: NackInput;
    result: undefined;
  };
  /** Extend a lease, or give it back. */
  extendLease: { query: { lease_token?: string | undefined }; body: ExtendInput; result: ExtendedLease | undefined };
  /** Ack up to 1000 messages. */
  ackMessages: { body: AckBatchInput; result: SettleResults };
  /** Nack up to 1000 messages. */
  nackMessages: { body: NackBatchInput; result: SettleResults };
  /** Extend up to 1000 leases. */
  extendLeases: { body: ExtendBatchInput; result: SettleResults };
  /** Publish to a topic: a copy for each subscription whose filter matches. */
  publishToTopic: { body: MessageInput; result: FannedOut | undefined };
  /** Publish up to 1000 messages to a topic, in one transaction. */
  publishManyToTopic: { query: { atomic?: boolean | undefined }; body: BatchInput; result: FanOutResults };
  /** Move messages of a dead-letter queue back. */
  redriveMessages: { query: { wait?: boolean | undefined }; body: RedriveInput; result: Moved | StartedTask };
  /** List tasks, the latest first; those that ended are kept for a week. */
  listTasks: {
    query: { limit?: number | undefined; offset?: number | undefined; queue_id?: string | undefined };
    result: TaskPage;
  };
  /** Get a task. */
  getTask: { result: Task };
  /** Cancel a task; what it did stays done. */
  cancelTask: { result: undefined };
  /** Create an API key. */
  createKey: { body: ApiKeyInput; result: NewApiKey };
  /** List API keys, without their secrets. */
  listKeys: { query: { limit?: number | undefined; offset?: number | undefined }; result: ApiKeyPage };
  /** Revoke an API key: on every server within a second. */
  deleteKey: { result: undefined };
  /** Numbers of many queues, by id; large ones are estimates. */
  listStats: {
    query: { limit?: number | undefined; offset?: number | undefined; search?: string | undefined };
    result: QueueSummaryPage;
  };
  /** Publishes and acks a minute of several queues, oldest first. */
  listTrends: { query: { queue_ids?: string | undefined; minutes?: number | undefined }; result: QueueTrends };
  /** What happened to a queue, minute by minute, for the last day; of the first 1000 queues by id. */
  listRates: { query: { since?: string | undefined }; result: QueueMinutes };
  /** Create a topic. */
  createTopic: { body: TopicInput; result: Topic };
  /** List topics by id. */
  listTopics: { query: { limit?: number | undefined; offset?: number | undefined }; result: TopicPage };
  /** Get a topic. */
  getTopic: { result: Topic };
  /** Delete a topic and its subscriptions; queues and messages stay. */
  deleteTopic: { result: undefined };
  /** Subscribe a queue to a topic. */
  createSubscription: { body: SubscriptionInput; result: Subscription };
  /** List subscriptions by id. */
  listSubscriptions: { query: { limit?: number | undefined; offset?: number | undefined }; result: SubscriptionPage };
  /** Get a subscription. */
  getSubscription: { result: Subscription };
  /** Delete a subscription. */
  deleteSubscription: { result: undefined };
  /** Name, version and features. */
  getInfo: { result: Info };
  /** Dead rows and sizes per table, and the oldest snapshot that keeps vacuum from removing them. */
  getMaintenance: { result: Maintenance };
  /** Can requests be served?. */
  getHealth: { result: Health };
};
