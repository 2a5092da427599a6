import type { Broker } from "../broker/broker.ts";
import type { Config } from "../config.ts";
import { BrokerError } from "../errors.ts";
import type { App } from "../http/app.ts";
import { refusal } from "../http/output.ts";
import { createRecent } from "../sqs/recent.ts";
import { createSqs, isSqs } from "../sqs/sqs.ts";
import type { Auth } from "../web/keyCache.ts";
import { ownNames } from "./listeners.ts";
import type { Told } from "./workerMessages.ts";

type Fetch = (request: Request) => Promise<Response>;

export type Edges = {
  /** Answers what comes to the port of the API: each edge what is its own. */
  main: Fetch;
  /** Answers what comes to the port of SQS; undefined when it is off. */
  sqs: Fetch | undefined;
  /** What happened at another worker. */
  hear(about: "purged" | "deleted", queue_id: string): void;
};

/**
 * Puts the edges beside each other. Which one a request is for is told by its path and headers, before its body is
 * read; log, request id, limits and metrics are the gateway's, which each edge has one of.
 */
export function createEdges(
  broker: Broker,
  app: App,
  config: Config,
  auth: Auth | undefined,
  isStopping: () => boolean,
  tell: (told: Told) => void = () => {},
): Edges {
  const http: Fetch = (request) => Promise.resolve(app.fetch(request));
  if (config.PSQLQUEUE_SQS === "off") return { main: http, sqs: undefined, hear: () => {} };
  const keys = config.PSQLQUEUE_SQS_ACCESS_KEYS;
  // Where API keys are asked for, SQS is no way round them.
  const are_signed = config.PSQLQUEUE_AUTH === "on" || (config.PSQLQUEUE_SQS_AUTH !== "off" && keys.size > 0);
  const remember = (about: "purged" | "deleted") => createRecent((queue_id) => tell({ about, queue_id }));
  const recent = {
    purged: config.PSQLQUEUE_SQS_PURGE_LIMIT === "on" ? remember("purged") : undefined,
    deleted: config.PSQLQUEUE_SQS_NAME_LIMIT === "on" ? remember("deleted") : undefined,
  };
  const sqs = createSqs(broker, {
    body_bytes_max: config.PSQLQUEUE_MAX_BODY_BYTES,
    cors_origins: config.PSQLQUEUE_CORS_ORIGINS,
    own_names: ownNames(config),
    isStopping,
    place: {
      account_id: config.PSQLQUEUE_SQS_ACCOUNT_ID,
      region: config.PSQLQUEUE_SQS_REGION,
      public_url: config.PSQLQUEUE_SQS_PUBLIC_URL,
    },
    trusted_proxies: config.PSQLQUEUE_TRUSTED_PROXIES,
    is_strict: config.PSQLQUEUE_SQS_LIMITS === "strict",
    wait_seconds_max: config.PSQLQUEUE_MAX_WAIT_SECONDS,
    has_legacy_handles: config.PSQLQUEUE_SQS_LEGACY_HANDLES === "on",
    ...recent,
    signatures: are_signed
      ? {
          async findKey(id) {
            const secret = keys.get(id);
            return secret === undefined ? await auth?.findSigner(id) : { secret };
          },
          takes_unsigned_payload: config.PSQLQUEUE_SQS_UNSIGNED_PAYLOAD === "on",
        }
      : undefined,
    unknown: () => refusal(new BrokerError("route_not_found")),
  });
  return {
    main: (request) => (isSqs(request) ? sqs.fetch(request) : http(request)),
    sqs: sqs.fetch,
    hear: (about, queue_id) => recent[about]?.hear(queue_id),
  };
}
