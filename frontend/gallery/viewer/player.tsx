/** The player of one clip: the browser's own `<video>` with controls that know frames. */

import { Camera, ChevronFirst, ChevronLast, Expand, Pause, Play, Repeat } from "lucide-react";
import { type RefObject, useEffect, useRef, useState } from "react";
import { create } from "zustand";
import { useCommands, useShown } from "@/app/commands";
import { IconButton } from "@/ui/button";
import { SelectField } from "@/ui/fields";
import { say } from "@/ui/toasts";
import type { Video } from "../grid/details";
import { fileOf, posterOf, save } from "../media";
import { frameAt, nameOf, pictureOf, seeked, timeInWords, timeOf } from "./frames";

export const SPEEDS = ["0.1", "0.25", "0.5", "1", "2", "4"].map((value) => ({ value, label: `${value}×` }));

/** How clips are played; stays from one clip to the next. */
export const usePlayback = create(() => ({ loop: true, speed: "1" }));

/** The next speed up or down the list. */
export function otherSpeed(speed: string, by: 1 | -1): string {
  const place = SPEEDS.findIndex((one) => one.value === speed) + by;
  return SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, place))]?.value ?? "1";
}

type PlayerProps = { video: Video; player: RefObject<HTMLVideoElement | null> };

const still = window.matchMedia("(prefers-reduced-motion: reduce)");

export function Player({ video, player }: PlayerProps) {
  const box = useRef<HTMLDivElement>(null);
  const { loop, speed } = usePlayback();
  const [playing, setPlaying] = useState(false);
  const [time, setTime] = useState(0);
  const [failed, setFailed] = useState(false);

  useEffect(() => {
    if (player.current) player.current.playbackRate = Number(speed);
  }, [speed, player]);

  // The time of the frame that is on the screen, where the browser says it.
  useEffect(() => {
    const element = player.current;
    if (!element) return;
    let handle = 0;
    const shown = (_: number, { mediaTime }: { mediaTime: number }) => {
      setTime(mediaTime);
      handle = element.requestVideoFrameCallback(shown);
    };
    handle = element.requestVideoFrameCallback(shown);
    return () => element.cancelVideoFrameCallback(handle);
  }, [player]);

  function toggle() {
    const element = player.current;
    if (!element) return;
    if (element.paused) void element.play().catch(() => setFailed(element.error !== null));
    else element.pause();
  }

  function goTo(frame: number) {
    const element = player.current;
    if (!element) return;
    element.pause();
    element.currentTime = timeOf(video, frame);
    setTime(element.currentTime);
  }

  function step(by: number) {
    const element = player.current;
    if (element) goTo((frameAt(video, element.currentTime) + by + video.num_frames) % video.num_frames);
  }

  async function saveFrame() {
    const element = player.current;
    if (!element) return;
    try {
      await seeked(element);
      const frame = frameAt(video, element.currentTime) + 1;
      const url = URL.createObjectURL(await pictureOf(element));
      save(url, `${nameOf(video.prompt)}-frame-${String(frame).padStart(3, "0")}.png`);
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
      say({ title: `Frame ${frame} saved` });
    } catch (error) {
      say({ title: error instanceof Error ? error.message : "The frame cannot be read.", urgent: true });
    }
  }

  function full() {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void box.current?.requestFullscreen().catch(() => undefined);
  }

  const setLoop = () => usePlayback.setState({ loop: !loop });
  const setSpeed = (by: 1 | -1) => usePlayback.setState({ speed: otherSpeed(speed, by) });
  useCommands([
    { id: "clip.play", title: playing ? "Pause" : "Play", group: "Clip", key: "space", run: toggle },
    { id: "clip.back", title: "One frame back", group: "Clip", key: ",", run: () => step(-1) },
    { id: "clip.forward", title: "One frame on", group: "Clip", key: ".", run: () => step(1) },
    { id: "clip.loop", title: loop ? "Play once" : "Play in a loop", group: "Clip", key: "l", run: setLoop },
    { id: "clip.slower", title: "Slower", group: "Clip", key: "<", run: () => setSpeed(-1) },
    { id: "clip.faster", title: "Faster", group: "Clip", key: ">", run: () => setSpeed(1) },
    { id: "clip.frame", title: "Save this frame as PNG", group: "Clip", key: "s", run: () => void saveFrame() },
    { id: "clip.full", title: "Full screen", group: "Clip", key: "shift+f", run: full },
  ]);
  const keys = {
    play: useShown("clip.play"),
    back: useShown("clip.back"),
    forward: useShown("clip.forward"),
    loop: useShown("clip.loop"),
    frame: useShown("clip.frame"),
    full: useShown("clip.full"),
  };

  const frame = frameAt(video, time);
  return (
    <div ref={box} className="flex min-h-0 flex-1 flex-col bg-ground">
      <div className="relative min-h-0 flex-1 p-2">
        <video
          ref={player}
          src={fileOf(video)}
          poster={posterOf(video)}
          data-testid="video-player"
          aria-label={video.prompt || "Clip"}
          autoPlay={!still.matches}
          loop={loop}
          muted
          playsInline
          className="size-full object-contain"
          onClick={toggle}
          onPlay={() => setPlaying(true)}
          onPause={() => setPlaying(false)}
          onEnded={() => setPlaying(false)}
          onError={() => setFailed(true)}
          onLoadedMetadata={(event) => {
            event.currentTarget.playbackRate = Number(speed);
          }}
        />
        {video.mock && (
          <strong className="pointer-events-none absolute top-4 left-4 rounded bg-[#8a5300] px-2 py-0.5 text-white">
            MOCK: no model made this
          </strong>
        )}
        {failed && (
          <p
            role="alert"
            className="absolute inset-0 m-auto h-fit w-fit rounded-lg border border-danger bg-panel px-3 py-2 text-danger"
          >
            The browser cannot play this file. It can still be downloaded.
          </p>
        )}
      </div>
      <div className="flex flex-wrap items-center gap-x-1 gap-y-0.5 px-3 pb-2">
        <input
          type="range"
          aria-label="Frame"
          aria-valuetext={timeInWords(video, time)}
          className="h-6 w-full accent-accent"
          min={0}
          max={video.num_frames - 1}
          step={1}
          value={frame}
          onChange={(event) => goTo(event.target.valueAsNumber)}
        />
        <IconButton icon={ChevronFirst} label="One frame back" shortcut={keys.back} onClick={() => step(-1)} />
        <IconButton
          icon={playing ? Pause : Play}
          label={playing ? "Pause" : "Play"}
          shortcut={keys.play}
          onClick={toggle}
        />
        <IconButton icon={ChevronLast} label="One frame on" shortcut={keys.forward} onClick={() => step(1)} />
        <p data-testid="player-time" className="min-w-44 px-1 text-xs tabular-nums text-soft">
          {timeInWords(video, time)}
        </p>
        <span className="flex-1" />
        <IconButton icon={Repeat} label="Loop" shortcut={keys.loop} pressed={loop} onClick={setLoop} />
        <div className="w-20">
          <SelectField
            label="Speed"
            bare
            value={speed}
            choices={SPEEDS}
            onChange={(value) => usePlayback.setState({ speed: value })}
          />
        </div>
        <IconButton
          icon={Camera}
          label="Save this frame as PNG"
          shortcut={keys.frame}
          onClick={() => void saveFrame()}
        />
        <IconButton icon={Expand} label="Full screen" shortcut={keys.full} onClick={full} />
      </div>
    </div>
  );
}
