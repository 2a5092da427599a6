// Files that Bun embeds under `with { type: "file" }`: the import is the path of the embedded copy.
declare module "*.wasm" {
  const path: string;
  export default path;
}
declare module "*.data" {
  const path: string;
  export default path;
}
