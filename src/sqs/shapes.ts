// The shapes of what goes in and out, said once for both protocols: JSON has arrays and objects, the query protocol
// numbered parameters and repeated elements.

export type Shape =
  | { kind: "text" }
  | { kind: "integer" }
  /** Base64 on the wire, and here too: it is decoded where its bytes are needed. */
  | { kind: "blob" }
  /** `name`: of one item, in the query protocol. */
  | { kind: "list"; of: Shape; name: string }
  | { kind: "map"; of: Shape; name: string; key: string; value: string }
  | { kind: "members"; members: Record<string, Shape> };

type Members = Record<string, Shape>;

/** What a shape holds; every member may be absent. */
export type Held<S> = S extends { kind: "integer" }
  ? number
  : S extends { kind: "text" | "blob" }
    ? string
    : S extends { kind: "list"; of: infer Item }
      ? Held<Item>[]
      : S extends { kind: "map"; of: infer Item }
        ? Record<string, Held<Item>>
        : S extends { kind: "members"; members: infer All }
          ? { [Name in keyof All]?: Held<All[Name]> | undefined }
          : never;

const text = { kind: "text" } as const;
const integer = { kind: "integer" } as const;
const blob = { kind: "blob" } as const;
const list = <const Item extends Shape>(name: string, of: Item) => ({ kind: "list", of, name }) as const;
const map = <const Item extends Shape>(name: string, of: Item, key = "Name", value = "Value") =>
  ({ kind: "map", of, name, key, value }) as const;
const members = <const All extends Members>(all: All) => ({ kind: "members", members: all }) as const;

const MessageAttribute = members({
  StringValue: text,
  BinaryValue: blob,
  DataType: text,
  StringListValues: list("StringListValue", text),
  BinaryListValues: list("BinaryListValue", blob),
});

/** An attribute of a message as it is sent. */
export type GivenAttribute = Held<typeof MessageAttribute>;

const outgoing = {
  MessageBody: text,
  DelaySeconds: integer,
  MessageAttributes: map("MessageAttribute", MessageAttribute),
  MessageSystemAttributes: map("MessageSystemAttribute", MessageAttribute),
  MessageDeduplicationId: text,
  MessageGroupId: text,
};
const Outgoing = members(outgoing);

/** A message as it is sent. */
export type GivenMessage = Held<typeof Outgoing>;

const queue = { QueueUrl: text };
const page = { MaxResults: integer, NextToken: text };
const handle = { ReceiptHandle: text };
const entry = { Id: text };

/** What each action takes. */
export const inputs = {
  AddPermission: members({
    ...queue,
    Label: text,
    AWSAccountIds: list("AWSAccountId", text),
    Actions: list("ActionName", text),
  }),
  CancelMessageMoveTask: members({ TaskHandle: text }),
  ChangeMessageVisibility: members({ ...queue, ...handle, VisibilityTimeout: integer }),
  ChangeMessageVisibilityBatch: members({
    ...queue,
    Entries: list(
      "ChangeMessageVisibilityBatchRequestEntry",
      members({ ...entry, ...handle, VisibilityTimeout: integer }),
    ),
  }),
  CreateQueue: members({
    QueueName: text,
    Attributes: map("Attribute", text),
    tags: map("Tag", text, "Key"),
  }),
  DeleteMessage: members({ ...queue, ...handle }),
  DeleteMessageBatch: members({
    ...queue,
    Entries: list("DeleteMessageBatchRequestEntry", members({ ...entry, ...handle })),
  }),
  DeleteQueue: members(queue),
  GetQueueAttributes: members({ ...queue, AttributeNames: list("AttributeName", text) }),
  GetQueueUrl: members({ QueueName: text, QueueOwnerAWSAccountId: text }),
  ListDeadLetterSourceQueues: members({ ...queue, ...page }),
  ListMessageMoveTasks: members({ SourceArn: text, MaxResults: integer }),
  ListQueueTags: members(queue),
  ListQueues: members({ QueueNamePrefix: text, ...page }),
  PurgeQueue: members(queue),
  ReceiveMessage: members({
    ...queue,
    AttributeNames: list("AttributeName", text),
    MessageSystemAttributeNames: list("MessageSystemAttributeName", text),
    MessageAttributeNames: list("MessageAttributeName", text),
    MaxNumberOfMessages: integer,
    VisibilityTimeout: integer,
    WaitTimeSeconds: integer,
    ReceiveRequestAttemptId: text,
  }),
  RemovePermission: members({ ...queue, Label: text }),
  SendMessage: members({ ...queue, ...outgoing }),
  SendMessageBatch: members({
    ...queue,
    Entries: list("SendMessageBatchRequestEntry", members({ ...entry, ...outgoing })),
  }),
  SetQueueAttributes: members({ ...queue, Attributes: map("Attribute", text) }),
  StartMessageMoveTask: members({ SourceArn: text, DestinationArn: text, MaxNumberOfMessagesPerSecond: integer }),
  TagQueue: members({ ...queue, Tags: map("Tag", text, "Key") }),
  UntagQueue: members({ ...queue, TagKeys: list("TagKey", text) }),
};

export type Action = keyof typeof inputs;
export type Input<A extends Action> = Held<(typeof inputs)[A]>;

const Failed = list("BatchResultErrorEntry", members({ Id: text, SenderFault: text, Code: text, Message: text }));
const sent = {
  MessageId: text,
  MD5OfMessageBody: text,
  MD5OfMessageAttributes: text,
  MD5OfMessageSystemAttributes: text,
  SequenceNumber: text,
};
const none = members({});

/** What each action answers, as the query protocol writes it. */
export const outputs: Record<Action, Shape & { kind: "members" }> = {
  AddPermission: none,
  CancelMessageMoveTask: members({ ApproximateNumberOfMessagesMoved: integer }),
  ChangeMessageVisibility: none,
  ChangeMessageVisibilityBatch: members({
    Successful: list("ChangeMessageVisibilityBatchResultEntry", members(entry)),
    Failed,
  }),
  CreateQueue: members(queue),
  DeleteMessage: none,
  DeleteMessageBatch: members({ Successful: list("DeleteMessageBatchResultEntry", members(entry)), Failed }),
  DeleteQueue: none,
  GetQueueAttributes: members({ Attributes: map("Attribute", text) }),
  GetQueueUrl: members(queue),
  ListDeadLetterSourceQueues: members({ queueUrls: list("QueueUrl", text), NextToken: text }),
  ListMessageMoveTasks: members({
    Results: list(
      "ListMessageMoveTasksResultEntry",
      members({
        TaskHandle: text,
        Status: text,
        SourceArn: text,
        DestinationArn: text,
        MaxNumberOfMessagesPerSecond: integer,
        ApproximateNumberOfMessagesMoved: integer,
        ApproximateNumberOfMessagesToMove: integer,
        FailureReason: text,
        StartedTimestamp: integer,
      }),
    ),
  }),
  ListQueueTags: members({ Tags: map("Tag", text, "Key") }),
  ListQueues: members({ QueueUrls: list("QueueUrl", text), NextToken: text }),
  PurgeQueue: none,
  ReceiveMessage: members({
    Messages: list(
      "Message",
      members({
        MessageId: text,
        ReceiptHandle: text,
        MD5OfBody: text,
        Body: text,
        Attributes: map("Attribute", text),
        MD5OfMessageAttributes: text,
        MessageAttributes: map("MessageAttribute", MessageAttribute),
      }),
    ),
  }),
  RemovePermission: none,
  SendMessage: members(sent),
  SendMessageBatch: members({
    Successful: list("SendMessageBatchResultEntry", members({ ...entry, ...sent })),
    Failed,
  }),
  SetQueueAttributes: none,
  StartMessageMoveTask: members({ TaskHandle: text }),
  TagQueue: none,
  UntagQueue: none,
};

/** Is it the name of an action? */
export const isAction = (name: string): name is Action => Object.hasOwn(inputs, name);
