/** Joins class names. Of two that set the same property the style sheet decides, not the order: do not rely on it. */

import { type ClassValue, clsx } from "clsx";

export function classes(...names: ClassValue[]): string {
  return clsx(names);
}
