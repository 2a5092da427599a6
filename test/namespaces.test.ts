// The networks that the fault suite cuts: what is said to be lost is lost, and nothing else. Only root can make them.

import { afterAll, beforeAll, describe, expect, setDefaultTimeout, test } from "bun:test";
import { createNetwork, type Network, type Place, whyNoNetwork } from "./faults/namespaces.ts";
import { until } from "./harness.ts";

setDefaultTimeout(90_000);

/** Answers each datagram with its own content, and says when it listens. */
const echo = `
  const socket = await Bun.udpSocket({
    hostname: process.argv[1], port: 7007,
    socket: { data: (own, data, port, address) => { console.log(data.toString()); own.send(data, port, address); } },
  });
  console.log("ready");`;

let network: Network;
let place: Place;
let child: Bun.Subprocess<"ignore", "pipe", "inherit">;
let socket: Bun.udp.Socket<"buffer">;
let heard = "";
const answers: string[] = [];

beforeAll(async () => {
  if (whyNoNetwork() !== "") return;
  network = createNetwork();
  place = network.place("far");
  const command = [...place.enter, process.execPath, "-e", echo, place.address];
  child = Bun.spawn(command, { stdin: "ignore", stdout: "pipe", stderr: "inherit" });
  void (async () => {
    for await (const chunk of child.stdout) heard += new TextDecoder().decode(chunk);
  })();
  const data = (_: unknown, content: Buffer) => void answers.push(content.toString());
  socket = await Bun.udpSocket({ hostname: network.home.address, port: 0, socket: { data } });
  await until(() => heard.includes("ready"));
});

afterAll(async () => {
  socket?.close();
  await network?.remove();
});

const send = (text: string) => socket.send(text, 7007, place.address);
/** Again and again: the first ones may wait for a card's address. */
const arrives = (text: string) =>
  until(() => {
    send(text);
    return answers.includes(text);
  });

describe.if(whyNoNetwork() === "")("a network of namespaces", () => {
  test("what is sent one way is lost, and the other way arrives", async () => {
    await arrives("whole");
    network.drop(place, network.home);
    send("answer lost");
    await until(() => heard.includes("answer lost"));
    network.heal();
    await arrives("healed");
    network.drop(network.home, place);
    send("request lost");
    network.heal();
    await arrives("healed again");
    expect(answers.filter((text) => text.endsWith("lost"))).toEqual([]);
    expect(heard).not.toContain("request lost");
  });

  test("nothing of it is left", async () => {
    await network.remove();
    expect(await child.exited).toBe(137);
    const { stdout } = Bun.spawnSync(["ip", "netns", "list"]);
    expect(stdout.toString()).not.toContain(`psqlqueue-${process.pid}-`);
    await until(() => !Bun.spawnSync(["ip", "-br", "link"]).stdout.toString().includes(`pq${process.pid}-`));
  });
});
