// The machine's own pace: a server without any code of ours. Prints its URL; ends with its standard input.

const server = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => new Response(null, { status: 204 }) });
console.log(`http://127.0.0.1:${server.port}`);
for await (const _ of Bun.stdin.stream()) {
  // Until the parent closes it.
}
process.exit(0);

export {};
