// A small writer of XML: elements and text. What is not legal in XML 1.0 cannot be written at all, whatever the escape,
// so it becomes U+FFFD; messages that hold such characters are refused when they come by this endpoint.

const illegal = /[^\t\n\r\u{20}-\u{d7ff}\u{e000}-\u{fffd}\u{10000}-\u{10ffff}]/gu;
/** What most texts are made of, and is told sooner. */
const plain = /^[\t\n\r\x20-\x7e]*$/;
// A carriage return as it is would be read as a line feed.
const special = /[&<>"'\r]/g;
const escapes: Record<string, string> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&apos;",
  "\r": "&#13;",
};

/** Does the text hold only characters that XML can carry? */
export const isXmlText = (text: string): boolean => plain.test(text) || text.search(illegal) < 0;

/** The text as XML can carry it. */
export const legalXml = (text: string): string => (isXmlText(text) ? text : text.replace(illegal, "\ufffd"));

/** Text as it stands between tags, or in an attribute. */
export const escapeXml = (text: string): string =>
  legalXml(text).replace(special, (character) => escapes[character] ?? character);

/** An element around XML; without content it closes itself. */
export const element = (name: string, content: string): string =>
  content === "" ? `<${name}/>` : `<${name}>${content}</${name}>`;
