import { type AnyElysia, Elysia, ParseError } from "elysia";
import type { Broker } from "../broker/broker.ts";
import { BrokerError } from "../errors.ts";
import { observe } from "../observe.ts";
import { createGateway, type GatewayOptions, requestId } from "../web/gateway.ts";
import { needs } from "./actions.ts";
import { checksResponses, type Route } from "./checkedResponses.ts";
import { docsRoutes } from "./docs.ts";
import { healthRoutes } from "./health.ts";
import { keyRoutes } from "./keys.ts";
import { maintenanceRoutes } from "./maintenance.ts";
import { matchingRoutes } from "./matching.ts";
import { infoRoutes, messageRoutes } from "./messages.ts";
import { orderingKeyRoutes } from "./orderingKeys.ts";
import { refusal, refusalOf } from "./output.ts";
import { publishRoutes, topicPublishRoutes } from "./publish.ts";
import { queueRoutes } from "./queues.ts";
import { receiveRoutes } from "./receive.ts";
import { settleBatchRoutes, settleRoutes } from "./settle.ts";
import { createStart, type StartOptions } from "./start.ts";
import { statsRoutes } from "./stats.ts";
import { subscriptionRoutes } from "./subscriptions.ts";
import { taskRoutes } from "./tasks.ts";
import { topicRoutes } from "./topics.ts";

export type AppOptions = GatewayOptions &
  StartOptions & {
    /** Routes of other edges beside the API's. */
    beside?: AnyElysia[];
    /** Messages that one receive returns at most. */
    receive_limit_max: number;
    /** An answer that is not what the document says is a 500: for tests and development. */
    checks_responses?: boolean;
    /** Seconds that a receive waits at most. */
    wait_seconds_max: number;
  };

/** The one place where an error becomes a response. */
function renderError(thrown: unknown, request: Request, where: string): Response {
  // Elysia wraps what a parser throws.
  const error = thrown instanceof ParseError ? thrown.cause : thrown;
  if (error instanceof BrokerError && error.error === "malformed_body") {
    observe({ kind: "malformed_request", reason: error.details ?? "", request_id: requestId(request) });
  }
  return refusal(refusalOf(error, where, requestId(request)));
}

// No id that exists has other characters: such a path is simply not found, and NUL would upset the database.
const possible_id = /^[!-~]+$/;

const resources = (broker: Broker, options: AppOptions) =>
  new Elysia({ normalize: false })
    .use(queueRoutes(broker))
    .use(orderingKeyRoutes(broker))
    .use(publishRoutes(broker))
    .use(receiveRoutes(broker, options))
    .use(messageRoutes(broker))
    .use(matchingRoutes(broker))
    .use(settleRoutes(broker))
    .use(settleBatchRoutes(broker))
    .use(topicPublishRoutes(broker))
    .use(taskRoutes(broker))
    .use(keyRoutes(broker))
    .use(statsRoutes(broker))
    .use(topicRoutes(broker))
    .use(subscriptionRoutes(broker))
    .use(infoRoutes(options.version))
    .use(maintenanceRoutes(broker))
    .use(healthRoutes(broker, options.isStopping ?? (() => false)));

/**
 * The HTTP service. `app.handle(request)` answers without a port; `app.listen` serves. The system router of Bun is off,
 * so that both go the same way: through the gateway, which knows paths, methods and browsers before Elysia is asked.
 */
export function createApp(broker: Broker, options: AppOptions) {
  let routes: Route[] = [];
  const gateway = createGateway(options, {
    refusal,
    start: createStart(options),
    failure: (error, request) => renderError(error, request, "authentication"),
    needs,
    is_open: options.auth === undefined,
  });
  const app = new Elysia({
    normalize: false,
    systemRouter: false,
    // Otherwise a Host of one or two letters shifts where the path begins.
    handler: { standardHostname: false },
  })
    .wrap(
      (fetch) => (request: Request) =>
        gateway.enter(fetch as unknown as (request: Request) => Promise<Response>, request),
    )
    .onError({ as: "global" }, ({ error, request, route }) => renderError(error, request, route ?? ""))
    .onTransform({ as: "global" }, ({ params }) => {
      const ids = params as Record<string, string> | undefined;
      for (const name in ids) if (!possible_id.test(ids[name] ?? "")) ids[name] = " ";
    })
    .use(options.checks_responses ? checksResponses(() => routes) : new Elysia())
    .use(resources(broker, options))
    .use(docsRoutes(() => resources(broker, options), options));
  for (const own of options.beside ?? []) app.use(own);
  routes = app.routes;
  gateway.open(app);
  return app;
}

export type App = ReturnType<typeof createApp>;
