/** Addresses of a clip's files; those of a clip in the trash say so. */

import { place } from "@/http/client";

type Placed = {
  id: string;
  video_url: string;
  thumbnail_url: string;
  download_url: string;
  trashed_at?: string | null;
};

/** Adds a parameter to an address, which may be signed and so have some already. */
export function withParameter(url: string, name: string, value: string): string {
  return `${url}${url.includes("?") ? "&" : "?"}${name}=${encodeURIComponent(value)}`;
}

function reachable(url: string, { trashed_at }: Placed): string {
  return trashed_at ? withParameter(place(url), "trash", "true") : place(url);
}

export function posterOf(video: Placed): string {
  return reachable(video.thumbnail_url, video);
}

export function fileOf(video: Placed): string {
  return reachable(video.video_url, video);
}

/** The address of a file to keep, with the record of how it was made or without it. */
export function downloadOf(video: Placed, withRecord: boolean): string {
  return withRecord ? place(video.download_url) : withParameter(place(video.download_url), "metadata", "false");
}

/** Has the browser save what an address sends. */
export function save(url: string, name?: string): void {
  const link = document.createElement("a");
  link.href = url;
  link.download = name ?? "";
  link.click();
}
