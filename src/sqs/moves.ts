import { no_filter } from "../broker/manage/filter.ts";
import type { StartedRedrive } from "../broker/manage/redrives.ts";
import { BrokerError } from "../errors.ts";
import { invalidParameter, invalidValue, missing, SqsError } from "./errors.ts";
import { arnOf, nameOfArn, type Place } from "./names.ts";
import type { Act, Service } from "./service.ts";

// Moving messages of a dead-letter queue back: StartMessageMoveTask and its kin.

const rate_max = 500;
const results_max = 10;

const isMissingQueue = (error: unknown) => error instanceof BrokerError && error.error === "queue_not_found";

const noResource = (parameter: string) =>
  new SqsError(
    "ResourceNotFoundException",
    `The resource that you specified for the ${parameter} parameter doesn't exist.`,
  );

/** The queue that an ARN names, when there is one. Throws MissingParameter, ResourceNotFoundException. */
async function findQueue({ broker }: Service, arn: string | undefined, parameter: string): Promise<string> {
  if (arn === undefined || arn === "") throw missing(parameter);
  const name = nameOfArn(arn);
  if (name === undefined) throw noResource(parameter);
  try {
    return (await broker.getQueue(name)).id;
  } catch (error) {
    throw isMissingQueue(error) ? noResource(parameter) : error;
  }
}

type Task = { taskId: string; sourceArn: string };

const writeTask = (task: Task) => Buffer.from(JSON.stringify(task)).toString("base64");

function readTask(handle: string): Task {
  try {
    const { taskId, sourceArn } = JSON.parse(Buffer.from(handle, "base64").toString()) as Partial<Task>;
    if (typeof taskId === "string" && typeof sourceArn === "string") return { taskId, sourceArn };
  } catch {
    // Not of our making: said below.
  }
  throw invalidParameter("Value for parameter TaskHandle is invalid.");
}

/** Starts moving what a dead-letter queue holds back, or elsewhere. */
export const startMessageMoveTask: Act<"StartMessageMoveTask"> = async (service, input) => {
  const { broker } = service;
  const { SourceArn, DestinationArn, MaxNumberOfMessagesPerSecond: rate } = input;
  const source = await findQueue(service, SourceArn, "SourceArn");
  if (rate !== undefined && (rate < 1 || rate > rate_max)) {
    throw invalidValue(rate, "MaxNumberOfMessagesPerSecond", `Must be between 1 and ${rate_max}, if provided.`);
  }
  const destination = DestinationArn === undefined ? null : await findQueue(service, DestinationArn, "DestinationArn");
  if ((await broker.listDeadLetterSources(source, "", 1)).length === 0) {
    throw invalidParameter("Source queue must be configured as a Dead Letter Queue.");
  }
  const options = {
    ...no_filter,
    destination_queue_id: destination,
    limit: null,
    rate_per_second: rate ?? null,
    delay_seconds: 0,
    reset_attempts: true,
  };
  try {
    const { task_id } = await broker.redrive(source, options, false);
    return { TaskHandle: writeTask({ taskId: task_id, sourceArn: arnOf(service.place, source) }) };
  } catch (error) {
    if (!(error instanceof BrokerError && error.error === "queue_in_use")) throw error;
    throw invalidParameter(
      "There is already a task running. Only one active task is allowed for a source queue arn at a given time.",
    );
  }
};

const statuses = { running: "RUNNING", completed: "COMPLETED", cancelled: "CANCELLED", failed: "FAILED" } as const;

function show(place: Place, source: string, task: StartedRedrive): object {
  // What has no place to go to any more stays where it is: at Amazon the task has failed then.
  const is_left = task.state === "completed" && task.failed > 0;
  const reason = is_left ? "AWS.SimpleQueueService.NonExistentQueue" : task.error;
  const { destination_queue_id, rate_per_second } = task;
  return {
    ...(task.state === "running" && { TaskHandle: writeTask({ taskId: task.id, sourceArn: arnOf(place, source) }) }),
    Status: is_left ? "FAILED" : statuses[task.state],
    SourceArn: arnOf(place, source),
    ...(destination_queue_id !== null && { DestinationArn: arnOf(place, destination_queue_id) }),
    ...(rate_per_second !== null && { MaxNumberOfMessagesPerSecond: rate_per_second }),
    ApproximateNumberOfMessagesMoved: task.moved,
    ApproximateNumberOfMessagesToMove: task.total_estimate,
    ...(reason !== null && { FailureReason: reason }),
    StartedTimestamp: Date.parse(task.created_at),
  };
}

/** The last move tasks of a queue, newest first. */
export const listMessageMoveTasks: Act<"ListMessageMoveTasks"> = async (service, input) => {
  const { MaxResults: limit = 1 } = input;
  const source = await findQueue(service, input.SourceArn, "SourceArn");
  if (limit < 1 || limit > results_max) {
    throw invalidValue(limit, "MaxResults", `Must be between 1 and ${results_max}, if provided.`);
  }
  const tasks = await service.broker.listRedrives(source, limit);
  return { Results: tasks.map((task) => show(service.place, source, task)) };
};

/** Ends a move task; what was moved stays moved. */
export const cancelMessageMoveTask: Act<"CancelMessageMoveTask"> = async (service, input) => {
  const { broker } = service;
  if (input.TaskHandle === undefined || input.TaskHandle === "") throw missing("TaskHandle");
  const { taskId, sourceArn } = readTask(input.TaskHandle);
  await findQueue(service, sourceArn, "SourceArn");
  const gone = new SqsError("ResourceNotFoundException", "Task does not exist.");
  if (!/^[!-~]{1,64}$/.test(taskId)) throw gone;
  try {
    const { state } = await broker.getTask(taskId);
    if (state !== "running") throw gone;
    await broker.cancelTask(taskId);
    return { ApproximateNumberOfMessagesMoved: (await broker.getTask(taskId)).moved };
  } catch (error) {
    throw error instanceof BrokerError && error.error === "task_not_found" ? gone : error;
  }
};
