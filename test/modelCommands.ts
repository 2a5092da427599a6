import type fc from "fast-check";

/** A step of a run that is always possible, and says in a counter-example what it does. */
export const command = <Model extends object>(
  text: string,
  run: (model: Model) => Promise<unknown>,
): fc.AsyncCommand<Model, object> => ({
  check: () => true,
  run: async (model) => {
    await run(model);
  },
  toString: () => text,
});
