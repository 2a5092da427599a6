import { onEmbedded } from "./onEmbedded.ts";

onEmbedded(1, 2);
