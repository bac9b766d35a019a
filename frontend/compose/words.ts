/** What changed between two texts, word by word. */

export type Piece = { kind: "same" | "added" | "removed"; text: string };

/** The longest common subsequence of words decides what stayed. */
export function compared(before: string, after: string): Piece[] {
  const split = (text: string) => text.split(/(\s+|[,.;:!?])/).filter((part) => part !== "");
  const [a, b] = [split(before), split(after)];
  const lengths = Array.from({ length: a.length + 1 }, () => new Array<number>(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const [row, next] = [lengths[i] as number[], lengths[i + 1] as number[]];
      row[j] = a[i] === b[j] ? (next[j + 1] as number) + 1 : Math.max(next[j] as number, row[j + 1] as number);
    }
  }
  const pieces: Piece[] = [];
  const push = (kind: Piece["kind"], text: string) => {
    const last = pieces.at(-1);
    if (last?.kind === kind) last.text += text;
    else pieces.push({ kind, text });
  };
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      push("same", a[i] as string);
      i++;
      j++;
    } else if (j < b.length && (i === a.length || (lengths[i]?.[j + 1] ?? 0) >= (lengths[i + 1]?.[j] ?? 0))) {
      push("added", b[j] as string);
      j++;
    } else {
      push("removed", a[i] as string);
      i++;
    }
  }
  return pieces;
}
