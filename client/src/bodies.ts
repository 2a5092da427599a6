import { InvalidBodyError } from "./errors.ts";

type Issue = { readonly message: string };
type Judged<Output> = { readonly value: Output; readonly issues?: undefined } | { readonly issues: readonly Issue[] };

/** A validator as https://standardschema.dev describes it: zod, valibot, arktype and others are. */
export type StandardSchema<Input = unknown, Output = Input> = {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => Judged<Output> | Promise<Judged<Output>>;
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
};

/** How a queue's bodies are written and read. */
export type Bodies<Input, Output> = {
  /** Throws InvalidBodyError. */
  write(body: Input): Promise<string>;
  /** Throws InvalidBodyError. */
  read(text: string): Promise<Output>;
};

/** Bodies are text, and nothing is done to them. */
export const plain_bodies: Bodies<string, string> = {
  write: async (body) => body,
  read: async (text) => text,
};

/**
 * Bodies are JSON. What is sent is what was given, once the schema takes it; what arrives is what the schema makes of
 * it.
 */
export function jsonBodies<Input, Output>(schema: StandardSchema<Input, Output>): Bodies<Input, Output> {
  const { validate } = schema["~standard"];
  const judge = async (value: unknown): Promise<Output> => {
    const judged = await validate(value);
    if (judged.issues === undefined) return judged.value;
    const why = judged.issues.map(({ message }) => message).join("; ");
    throw new InvalidBodyError(`the schema refuses the body: ${why}`, judged.issues);
  };
  return {
    async write(body) {
      await judge(body);
      return JSON.stringify(body);
    },
    async read(text) {
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch (cause) {
        throw new InvalidBodyError("the body is not JSON", [], { cause });
      }
      return await judge(value);
    },
  };
}
