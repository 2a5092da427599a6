import { onEmbedded } from "./onEmbedded.ts";

onEmbedded(0, 2);
