import { emptyDirectory, sourceProgram } from "./child.ts";
import { uniqueId } from "./harness.ts";

/** A terminal that a test types into and reads; `url` is the server of its commands. Needs tmux. */
export function openTerminal(url: string) {
  const session = uniqueId("psqlqueue");
  const tmux = (...args: string[]) => Bun.spawnSync(["tmux", "-L", session, ...args]).stdout.toString();
  const environment = `PSQLQUEUE_URL=${url} HOME=${emptyDirectory()}`;
  tmux("-f", "/dev/null", "new-session", "-d", "-s", session, "-x", "100", "-y", "30", "sh");
  return {
    type: (...keys: string[]) => tmux("send-keys", "-t", session, ...keys),
    run: (args: string) =>
      tmux("send-keys", "-t", session, "-l", `${environment} ${sourceProgram.join(" ")} ${args}\n`),
    screen: () => tmux("capture-pane", "-p", "-t", session),
    resize: (columns: number, rows: number) =>
      tmux("resize-window", "-t", session, "-x", String(columns), "-y", String(rows)),
    close: () => tmux("kill-server"),
  };
}
