// The other processes of one server, which share its port and know each other without the database.

/** Something became ready in a queue: under which label, and when, as the database writes it; null: not known. */
export type Ready = { queue_id: string; label: string | null; at: string | null };

export type Siblings = {
  /** How many there are besides this one. */
  count: number;
  /** Somebody waits here from now on: what becomes ready elsewhere is to be told. Cheap, and repeatable. */
  want(): void;
  /** Tells those of them that want it what became ready here. Cheap: gathers what is told within a few milliseconds. */
  tellReady(ready: Ready): void;
  /** Tells them how many processes of other servers there are. */
  tellOthers(count: number): void;
  /** Tells them whether a queue needs the statement for caps, rates and priorities. */
  tellGoverned(queue_id: string, is_governed: boolean): void;
};
