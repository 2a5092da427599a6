/** A row that became ready by a settlement. */
export type OnReady = (queue_id: string, label: string | null, at: string) => void;
