import { createHash } from "node:crypto";

type Element = { start: number; end: number };

/** What stands in a DER element at `at`. */
function elementAt(der: Buffer, at: number): Element {
  const short = der.readUInt8(at + 1);
  if (short < 0x80) return { start: at + 2, end: at + 2 + short };
  const size = short & 0x7f;
  return { start: at + 2 + size, end: at + 2 + size + der.readUIntBE(at + 2, size) };
}

const ecdsa = "2a8648ce3d0403";
const rsa = "2a864886f70d0101";
/** By the signature's object identifier. Older ones than SHA-256 are replaced by it (RFC 5929). */
const hashes: Record<string, string> = {
  [`${ecdsa}02`]: "sha256",
  [`${ecdsa}03`]: "sha384",
  [`${ecdsa}04`]: "sha512",
  [`${rsa}04`]: "sha256",
  [`${rsa}05`]: "sha256",
  [`${rsa}0b`]: "sha256",
  [`${rsa}0c`]: "sha384",
  [`${rsa}0d`]: "sha512",
};

/**
 * `tls-server-end-point` of RFC 5929: the hash of the server's certificate, by which SCRAM makes sure that nobody
 * stands between. Undefined for a signature that has no hash known here.
 */
export function endPointOf(certificate: Buffer): Buffer | undefined {
  const whole = elementAt(certificate, 0);
  const content = elementAt(certificate, whole.start);
  const algorithm = elementAt(certificate, content.end);
  const identifier = elementAt(certificate, algorithm.start);
  const hash = hashes[certificate.toString("hex", identifier.start, identifier.end)];
  return hash === undefined ? undefined : createHash(hash).update(certificate).digest();
}
