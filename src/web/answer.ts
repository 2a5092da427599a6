import { isIncoming } from "./request.ts";

type Carried = Response & {
  carried_text?: string;
  is_stream?: boolean;
  onUnsent?: (() => void) | undefined;
  onSent?: (() => void) | undefined;
};

/** The text of a response that carries it. */
export const carriedText = (response: Response): string | undefined => (response as Carried).carried_text;

/**
 * `onUnsent` is called, once, when the response could not be handed over to the client whole: it was gone. For what
 * must be undone then.
 */
export function whenUnsent(response: Response, onUnsent: () => void): Response {
  (response as Carried).onUnsent = onUnsent;
  return response;
}

/** What is to be undone when this response cannot be handed over; at most once. */
export function takeUnsent(response: Response): (() => void) | undefined {
  const { onUnsent } = response as Carried;
  if (onUnsent !== undefined) (response as Carried).onUnsent = undefined;
  return onUnsent;
}

/**
 * `onSent` is called, once, when nothing of the response is kept here any more: the client has it, or nobody is
 * there to be sent it. At once for a request that came by no connection.
 */
export function whenSent(request: Request, response: Response, onSent: () => void): void {
  if (isIncoming(request)) (response as Carried).onSent = onSent;
  else onSent();
}

/** What is to be told when nothing of this response is kept any more; at most once. */
export function takeSent(response: Response): (() => void) | undefined {
  const { onSent } = response as Carried;
  if (onSent !== undefined) (response as Carried).onSent = undefined;
  return onSent;
}

/** Says that the body is made while it is written, and is not to be gathered first. */
export function markStream(response: Response): Response {
  (response as Carried).is_stream = true;
  return response;
}

/** Is the body made while it is written? */
export const isStream = (response: Response): boolean => (response as Carried).is_stream === true;
