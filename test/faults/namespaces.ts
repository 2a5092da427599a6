// Machines of their own, as far as the network goes: Linux network namespaces on a switch. What one of them sends to
// another can be lost without a word, one way or both.

import type { Machine } from "../postgres.ts";

export type Place = Machine & { name: string };

export type Network = {
  /** This process, and what it starts without entering a place. */
  home: Place;
  place(name: string): Place;
  /** From now on what `from` sends to `to` is lost. The other way is as it was. */
  drop(from: Place, to: Place): void;
  /** Everything arrives again. */
  heal(): void;
  /** Ends what still runs in the places, and takes all away. May be called twice. */
  remove(): Promise<void>;
};

/** One attempt, with the text of what went wrong. */
function attempt(command: string[]): string | undefined {
  const { exitCode, stderr } = Bun.spawnSync(command, { stdout: "ignore", stderr: "pipe" });
  return exitCode === 0 ? undefined : `${command.join(" ")}: ${stderr.toString().trim()}`;
}

function run(...commands: string[]): void {
  for (const command of commands) {
    const complaint = attempt(command.split(" "));
    if (complaint !== undefined) throw new Error(complaint);
  }
}

let refusal: string | undefined;

/** Why there can be no such network here; empty: there can. */
export function whyNoNetwork(): string {
  refusal ??= findRefusal();
  return refusal;
}

function findRefusal(): string {
  const programs = { ip: "iproute2", setpriv: "util-linux" };
  const missing = Object.entries(programs).filter(([program]) => Bun.which(program) === null);
  if (process.platform !== "linux") return "network namespaces are Linux's";
  if (missing.length > 0) {
    return `network namespaces are made with ${missing.map(([program, of]) => `${program} (package ${of})`).join(", ")}`;
  }
  if (process.getuid?.() !== 0) return "network namespaces are made by root (CAP_SYS_ADMIN and CAP_NET_ADMIN)";
  const name = `psqlqueue-${process.pid}-trial`;
  const complaint =
    attempt(["ip", "netns", "add", name]) ??
    attempt(["ip", "-n", name, "link", "add", "bridge", "type", "bridge"]) ??
    attempt(["ip", "-n", name, "link", "add", "one", "type", "veth", "peer", "name", "two"]) ??
    attempt(["ip", "netns", "exec", name, "true"]);
  attempt(["ip", "netns", "del", name]);
  return complaint === undefined ? "" : `no network namespace can be made: ${complaint}`;
}

/** Takes everything away as soon as this process is gone, also after kill -9. */
function guardNetwork(prefix: string) {
  const script = `
    trap '' TERM INT
    cat >/dev/null
    for place in $(ip netns list | cut -d' ' -f1 | grep "^$1-"); do
      for pid in $(ip netns pids "$place"); do kill -9 "$pid"; done
      ip netns del "$place"
    done`;
  const shell = Bun.spawn(["sh", "-c", script, "guard", prefix], {
    ...{ stdin: "pipe", stdout: "ignore", stderr: "ignore" },
    detached: true,
  });
  shell.unref();
  return async () => {
    shell.ref();
    await shell.stdin.end();
    await shell.exited;
  };
}

/** Of the networks for benchmarks (RFC 2544), one that nobody here uses. */
function freeNetwork(): string {
  for (let n = 0; n < 256; n++) {
    const network = `198.18.${(process.pid + n) % 256}`;
    const { stdout } = Bun.spawnSync(["ip", "-4", "route", "show", "to", "root", `${network}.0/24`]);
    if (stdout.toString().trim() === "") return network;
  }
  throw new Error("all of 198.18.0.0/16 is in use here");
}

let networks = 0;
/** A card's address that nobody has. */
const nowhere = "02:00:00:00:00:99";

/** A switch, and this process on it. Its places and its interface are named by this process. */
export function createNetwork(): Network {
  const network = freeNetwork();
  // The names of interfaces have 15 characters.
  const id = `${process.pid}-${networks++}`;
  const prefix = `psqlqueue-${id}`;
  const hub = `${prefix}-switch`;
  const remove = guardNetwork(prefix);
  const home: Place = { name: "home", address: `${network}.1`, enter: [] };
  const places: Place[] = [home];
  const dropped = new Map<Place, Set<Place>>();

  const deviceOf = (place: Place) => (place === home ? `pq${id}` : "eth0");

  /** A cable from the switch to `place`. */
  function plug(place: Place, namespace: string | undefined): void {
    const [port, device] = [`to-${place.address.split(".")[3]}`, deviceOf(place)];
    const at = namespace === undefined ? "ip" : `ip -n ${namespace}`;
    run(
      `ip -n ${hub} link add ${port} type veth peer name ${device} netns ${namespace ?? process.pid}`,
      `ip -n ${hub} link set ${port} master bridge up`,
      `${at} addr add ${place.address}/24 dev ${device}`,
      `${at} link set ${device} up`,
    );
  }

  // The switch is in a place of its own as well: rules of this machine for what it forwards do not touch it.
  run(`ip netns add ${hub}`, `ip -n ${hub} link add bridge type bridge`, `ip -n ${hub} link set bridge up`);
  plug(home, undefined);

  return {
    home,
    place(name) {
      const namespace = `${prefix}-${name}`;
      const enter = ["ip", "netns", "exec", namespace];
      const place = { name, address: `${network}.${places.length + 1}`, enter };
      run(`ip netns add ${namespace}`, `ip -n ${namespace} link set lo up`);
      plug(place, namespace);
      places.push(place);
      return place;
    },
    // Sent on, to a card that does not exist: neither end is told, and no firewall is needed.
    drop(from, to) {
      const [ip] = [[...from.enter, "ip"].join(" ")];
      run(`${ip} neigh replace ${to.address} lladdr ${nowhere} nud permanent dev ${deviceOf(from)}`);
      dropped.set(from, (dropped.get(from) ?? new Set()).add(to));
    },
    heal() {
      for (const [from, all] of dropped) {
        for (const to of all) run(`${[...from.enter, "ip"].join(" ")} neigh del ${to.address} dev ${deviceOf(from)}`);
      }
      dropped.clear();
    },
    remove,
  };
}
