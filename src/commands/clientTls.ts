import { readFileSync } from "node:fs";
import tls from "node:tls";
import { describeError } from "../log.ts";
import type { CertificateFiles } from "../terminal/profile.ts";
import { type ClientFetch, CommandError } from "./context.ts";

function read(file: string | undefined, what: string): string | undefined {
  if (file === undefined) return undefined;
  try {
    return readFileSync(file, "utf8");
  } catch (cause) {
    const why = `${what} ${JSON.stringify(file)} cannot be read (${(cause as NodeJS.ErrnoException).code})`;
    throw new CommandError(`${why}: correct the path, or who may read it`, 2);
  }
}

/**
 * Asks with a certificate of one's own, and trusts an authority of one's own in the place of the public ones. Without
 * files it is the platform's `fetch`. Throws CommandError for files that cannot be used.
 */
export function createFetch(files: CertificateFiles): ClientFetch {
  const { cacert, client_cert: cert, client_cert_key: cert_key } = files;
  if (cacert === undefined && cert === undefined && cert_key === undefined) return (url, init) => fetch(url, init);
  if ((cert === undefined) !== (cert_key === undefined)) {
    const [given, missing] = cert === undefined ? ["a key", "its certificate"] : ["a certificate", "its key"];
    throw new CommandError(
      `there is ${given} without ${missing}: set both PSQLQUEUE_CLIENT_CERT and PSQLQUEUE_CLIENT_CERT_KEY, or client_cert and ` +
        "client_cert_key of the profile",
      2,
    );
  }
  const own = {
    ca: read(cacert, "the authority"),
    cert: read(cert, "the certificate"),
    key: read(cert_key, "the key of the certificate"),
  };
  try {
    tls.createSecureContext(own);
  } catch (cause) {
    const names = [cacert, cert, cert_key].filter((file) => file !== undefined).map((file) => JSON.stringify(file));
    throw new CommandError(
      `${names.join(", ")} cannot be used: ${describeError(cause)}; allowed: an authority, a certificate and its own ` +
        "key without a passphrase, each in PEM",
      2,
    );
  }
  return (url, init) => fetch(url, { ...init, tls: own } as RequestInit);
}
