/** Frames of a clip: which one is shown at a time, where one lies, and a frame as a picture. */

/** How long a seek may take, in milliseconds. */
const SEEK_PATIENCE = 5_000;

export type Clip = { fps: number; num_frames: number };

/** The number of the frame that is shown at a time, from 0. */
export function frameAt(clip: Clip, seconds: number): number {
  // Times of frames are rounded in files: a thousandth of a frame is not the frame before.
  return Math.max(0, Math.min(clip.num_frames - 1, Math.floor(seconds * clip.fps + 1e-3)));
}

/** The middle of a frame, in seconds: a seek to its edge may show the one before. */
export function timeOf(clip: Clip, frame: number): number {
  return (Math.max(0, Math.min(clip.num_frames - 1, frame)) + 0.5) / clip.fps;
}

export function lengthOf(clip: Clip): number {
  return clip.num_frames / clip.fps;
}

/** A time with the number of its frame, as `0:01.25 · frame 11 of 17`. */
export function timeInWords(clip: Clip, seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  const rest = (seconds % 60).toFixed(2).padStart(5, "0");
  return `${minutes}:${rest} · frame ${frameAt(clip, seconds) + 1} of ${clip.num_frames}`;
}

/** Part of a file name: the first words of a prompt. */
export function nameOf(prompt: string): string {
  const words =
    prompt
      .normalize("NFKD")
      .toLowerCase()
      .match(/[a-z0-9]+/g) ?? [];
  return words.slice(0, 6).join("-").slice(0, 60) || "clip";
}

/** What a player shows now, as a PNG of the size of the clip. */
export async function pictureOf(video: HTMLVideoElement): Promise<Blob> {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d")?.drawImage(video, 0, 0);
  const picture = await new Promise<Blob | null>((resolve) => canvas.toBlob(resolve, "image/png"));
  if (!picture) throw new Error("The frame cannot be read.");
  return picture;
}

/** Waits until a player has come to where it was sent. */
export function seeked(video: HTMLVideoElement): Promise<void> {
  if (!video.seeking && video.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA) return Promise.resolve();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(failed, SEEK_PATIENCE);
    function stop() {
      clearTimeout(timer);
      video.removeEventListener("seeked", ready);
      video.removeEventListener("loadeddata", ready);
      video.removeEventListener("error", failed);
    }
    function ready() {
      if (video.seeking || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) return;
      stop();
      resolve();
    }
    function failed() {
      stop();
      reject(new Error("The clip cannot be read."));
    }
    video.addEventListener("seeked", ready);
    video.addEventListener("loadeddata", ready);
    video.addEventListener("error", failed);
  });
}

/** A frame of a file that no player shows. */
export async function frameOf(url: string, clip: Clip, frame: number): Promise<Blob> {
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  video.src = url;
  try {
    await seeked(video);
    video.currentTime = timeOf(clip, frame);
    await seeked(video);
    return await pictureOf(video);
  } finally {
    video.removeAttribute("src");
    video.load();
  }
}
