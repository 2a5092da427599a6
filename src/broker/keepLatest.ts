/**
 * Remembers a value by its name as the latest of at most `known_max`; when there are too many the oldest is forgotten.
 * For what costs a statement more when it is not known.
 */
export function keepLatest<Value>(known: Map<string, Value>, name: string, own: Value, known_max: number): void {
  known.delete(name);
  if (known.size >= known_max) known.delete(known.keys().next().value ?? "");
  known.set(name, own);
}
