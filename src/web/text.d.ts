// Files that Bun takes in as text under `with { type: "text" }`.
declare module "*.css" {
  const text: string;
  export default text;
}
