/** The picture of a few colours that stands for a clip until its poster has come: a ThumbHash, drawn on a canvas. */

import { useEffect, useRef } from "react";
import { thumbHashToRGBA } from "thumbhash";
import { classes } from "@/ui/classes";

/** Pictures that were drawn before; a screen shows some sixty at a time. */
const KEPT = 600;
const drawn = new Map<string, ImageData>();

function pictureOf(hash: string): ImageData {
  const known = drawn.get(hash);
  if (known) return known;
  const bytes = Uint8Array.from(atob(hash), (letter) => letter.charCodeAt(0));
  const { w, h, rgba } = thumbHashToRGBA(bytes);
  const picture = new ImageData(new Uint8ClampedArray(rgba), w, h);
  if (drawn.size >= KEPT) drawn.delete(drawn.keys().next().value as string);
  drawn.set(hash, picture);
  return picture;
}

/** Fills its box; nothing where there is no hash, or one that is damaged. */
export function Placeholder({ hash, className }: { hash: string | null | undefined; className?: string }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    if (!canvas.current || !hash) return;
    try {
      const picture = pictureOf(hash);
      canvas.current.width = picture.width;
      canvas.current.height = picture.height;
      canvas.current.getContext("2d")?.putImageData(picture, 0, 0);
    } catch {
      // A damaged hash is no reason to break a page: the poster comes anyway.
      canvas.current.width = 1;
    }
  }, [hash]);
  return (
    <canvas
      ref={canvas}
      aria-hidden
      width={1}
      height={1}
      className={classes("absolute inset-0 size-full", !hash && "hidden", className)}
    />
  );
}
