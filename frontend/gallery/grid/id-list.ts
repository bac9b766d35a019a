/** The ids of all clips of a list, as the server packs them: sixteen bytes each, and a text only where one is asked for. */

const BYTES = 16;
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

export class IdList {
  readonly length: number;
  private readonly bytes: Uint8Array;
  private readonly words: Uint32Array;

  constructor(packed: ArrayBuffer) {
    this.length = Math.floor(packed.byteLength / BYTES);
    this.bytes = new Uint8Array(packed, 0, this.length * BYTES);
    this.words = new Uint32Array(packed, 0, this.length * 4);
  }

  static of(ids: readonly string[]): IdList {
    const bytes = new Uint8Array(ids.length * BYTES);
    for (const [place, id] of ids.entries()) bytes.set(bytesOf(id), place * BYTES);
    return new IdList(bytes.buffer);
  }

  /** The id at a place; an empty text outside the list. */
  at(index: number): string {
    if (index < 0 || index >= this.length) return "";
    let text = "";
    for (let byte = 0; byte < BYTES; byte += 1) {
      text += HEX[this.bytes[index * BYTES + byte] as number];
      if (byte === 3 || byte === 5 || byte === 7 || byte === 9) text += "-";
    }
    return text;
  }

  /** The place of an id, -1 if it is not in the list. Reads a million ids in some milliseconds. */
  indexOf(id: string): number {
    if (id.length !== 36) return -1;
    const [a, b, c, d] = new Uint32Array(bytesOf(id).buffer);
    const { words } = this;
    for (let index = 0, word = 0; index < this.length; index += 1, word += 4) {
      if (words[word] === a && words[word + 1] === b && words[word + 2] === c && words[word + 3] === d) return index;
    }
    return -1;
  }

  /** The ids between two places, both included. */
  between(first: number, last: number): string[] {
    const [from, to] = first < last ? [first, last] : [last, first];
    const found: string[] = [];
    for (let index = Math.max(0, from); index <= Math.min(this.length - 1, to); index += 1) found.push(this.at(index));
    return found;
  }

  /** The list without some ids; itself if it has none of them. */
  without(ids: Iterable<string>): IdList {
    const places = [...new Set([...ids].map((id) => this.indexOf(id)))]
      .filter((place) => place >= 0)
      .sort((a, b) => a - b);
    if (places.length === 0) return this;
    const kept = new Uint8Array((this.length - places.length) * BYTES);
    let [from, to] = [0, 0];
    for (const place of [...places, this.length]) {
      kept.set(this.bytes.subarray(from * BYTES, place * BYTES), to * BYTES);
      to += place - from;
      from = place + 1;
    }
    return new IdList(kept.buffer);
  }
}

function bytesOf(id: string): Uint8Array<ArrayBuffer> {
  const digits = id.replaceAll("-", "");
  const bytes = new Uint8Array(BYTES);
  for (let byte = 0; byte < BYTES; byte += 1) bytes[byte] = Number.parseInt(digits.slice(byte * 2, byte * 2 + 2), 16);
  return bytes;
}
