import { version as package_version } from "../package.json";

declare const PSQLQUEUE_COMMIT: string | undefined;

/** The version of this program. */
export const version: string = package_version;

/** The commit it was built from; "source" when it runs from a checkout. Replaced at build time. */
export const commit: string = typeof PSQLQUEUE_COMMIT === "string" ? PSQLQUEUE_COMMIT : "source";
