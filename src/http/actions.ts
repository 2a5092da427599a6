import type { Action, Need, Needs } from "../web/identity.ts";

const need = (action: Action, on: Need["on"]): Need => ({ action, on });

/** Every route of the API by method and path. A route that is not here cannot be served. */
export const needs: Needs = {
  "GET /v1/healthz": "healthz",
  "GET /v1/info": "info",
  "GET /v1/maintenance": need("peek", "all"),
  "GET /v1/swagger": "docs",
  "GET /v1/swagger/index.html": "docs",
  "GET /v1/swagger/doc.json": "docs",
  "GET /v1/swagger/start.js": "docs",
  "GET /v1/swagger/swagger-theme.js": "docs",
  "GET /v1/swagger/swagger-header.css": "docs",
  "GET /v1/swagger/swagger-ui-bundle.js": "docs",
  "GET /v1/swagger/swagger-ui.css": "docs",

  "POST /v1/queues": need("manage", "route"),
  "GET /v1/queues": need("peek", "any"),
  "GET /v1/queues/:queue_id": need("peek", "queue"),
  "PUT /v1/queues/:queue_id": need("manage", "queue"),
  "DELETE /v1/queues/:queue_id": need("manage", "queue"),
  "PUT /v1/queues/:queue_id/pause": need("manage", "queue"),
  "PUT /v1/queues/:queue_id/resume": need("manage", "queue"),
  "GET /v1/queues/:queue_id/stats": need("peek", "queue"),
  "PUT /v1/queues/:queue_id/purge": need("manage", "queue"),
  "PUT /v1/queues/:queue_id/cleanup": need("manage", "queue"),
  "POST /v1/queues/:queue_id/redrive": need("manage", "queue"),
  "GET /v1/queues/:queue_id/keys": need("peek", "queue"),
  "POST /v1/queues/:queue_id/repair": need("manage", "queue"),

  "POST /v1/queues/:queue_id/messages": need("publish", "queue"),
  "POST /v1/queues/:queue_id/messages/batch": need("publish", "queue"),
  "GET /v1/queues/:queue_id/messages": need("consume", "queue"),
  "PUT /v1/queues/:queue_id/messages/:message_id/ack": need("consume", "queue"),
  "PUT /v1/queues/:queue_id/messages/:message_id/nack": need("consume", "queue"),
  "PUT /v1/queues/:queue_id/messages/:message_id/extend": need("consume", "queue"),
  "POST /v1/queues/:queue_id/ack": need("consume", "queue"),
  "POST /v1/queues/:queue_id/nack": need("consume", "queue"),
  "POST /v1/queues/:queue_id/extend": need("consume", "queue"),
  "GET /v1/queues/:queue_id/messages/peek": need("peek", "queue"),
  "GET /v1/queues/:queue_id/messages/:message_id": need("peek", "queue"),
  "PUT /v1/queues/:queue_id/messages/:message_id": need("manage", "queue"),
  "DELETE /v1/queues/:queue_id/messages/:message_id": need("manage", "queue"),

  "POST /v1/topics": need("manage", "route"),
  "GET /v1/topics": need("peek", "any"),
  "GET /v1/topics/:topic_id": need("peek", "topic"),
  "DELETE /v1/topics/:topic_id": need("manage", "topic"),
  "POST /v1/topics/:topic_id/messages": need("publish", "topic"),
  "POST /v1/topics/:topic_id/messages/batch": need("publish", "topic"),

  "POST /v1/subscriptions": need("manage", "route"),
  "GET /v1/subscriptions": need("peek", "any"),
  "GET /v1/subscriptions/:subscription_id": need("peek", "route"),
  "DELETE /v1/subscriptions/:subscription_id": need("manage", "route"),

  "GET /v1/queues/:queue_id/messages/count": need("peek", "queue"),
  "GET /v1/queues/:queue_id/messages/groups": need("peek", "queue"),
  "POST /v1/queues/:queue_id/messages/matching": need("manage", "queue"),
  "GET /v1/queues/:queue_id/rates": need("peek", "queue"),
  "GET /v1/rates": need("peek", "any"),
  "GET /v1/stats": need("peek", "any"),

  "GET /v1/tasks": need("peek", "any"),
  "GET /v1/tasks/:task_id": need("peek", "route"),
  "DELETE /v1/tasks/:task_id": need("manage", "route"),

  "POST /v1/keys": need("manage", "all"),
  "GET /v1/keys": need("manage", "all"),
  "DELETE /v1/keys/:key_id": need("manage", "all"),
};
