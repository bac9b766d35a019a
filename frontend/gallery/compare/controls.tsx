/** The one set of controls for both clips, and the keys for it. */

import { ChevronFirst, ChevronLast, Pause, Play, Repeat } from "lucide-react";
import { type RefObject, useEffect, useRef, useState } from "react";
import { useCommands, useShown } from "@/app/commands";
import { IconButton } from "@/ui/button";
import { SelectField } from "@/ui/fields";
import type { Video } from "../grid/details";
import { frameAt } from "../viewer/frames";
import { otherSpeed, SPEEDS, usePlayback } from "../viewer/player";
import { Pair, stepOf, stepsOf, timeIn } from "./pair";

type ControlsProps = {
  a: Video;
  b: Video;
  first: RefObject<HTMLVideoElement | null>;
  second: RefObject<HTMLVideoElement | null>;
};

const still = window.matchMedia("(prefers-reduced-motion: reduce)");

export function Controls({ a, b, first, second }: ControlsProps) {
  const { loop, speed } = usePlayback();
  const [{ time, playing }, setState] = useState({ time: 0, playing: false });
  const pair = useRef<Pair>(null);
  const [step, steps] = [stepOf(a, b), stepsOf(a, b)];

  // biome-ignore lint/correctness/useExhaustiveDependencies: a pair belongs to two files, not to what is known of them
  useEffect(() => {
    if (!first.current || !second.current) return;
    const made = new Pair(first.current, second.current, a, b, setState);
    pair.current = made;
    setState({ time: 0, playing: false });
    if (!still.matches) void made.play().catch(() => undefined);
    return () => made.stop();
  }, [a.id, b.id]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: a new pair takes them, too
  useEffect(() => {
    if (!pair.current) return;
    pair.current.loop = loop;
    pair.current.setSpeed(Number(speed));
  }, [loop, speed, a.id, b.id]);

  const place = Math.max(0, Math.min(steps - 1, Math.floor(time / step + 1e-3)));
  const goTo = (next: number) => void pair.current?.seek((next + 0.5) * step).catch(() => undefined);
  // From where the pair is, not from what was drawn last: keys may come faster than frames.
  const by = (count: number) => {
    const now = Math.floor((pair.current?.time ?? 0) / step + 1e-3);
    goTo((Math.min(now, steps - 1) + count + steps) % steps);
  };
  const toggle = () => {
    if (pair.current?.playing) pair.current.pause();
    else void pair.current?.play().catch(() => undefined);
  };
  const setLoop = () => usePlayback.setState({ loop: !loop });
  const setSpeed = (way: 1 | -1) => usePlayback.setState({ speed: otherSpeed(speed, way) });
  useCommands([
    { id: "compare.play", title: playing ? "Pause both" : "Play both", group: "Compare", key: "space", run: toggle },
    { id: "compare.back", title: "One frame back", group: "Compare", key: ",", run: () => by(-1) },
    { id: "compare.forward", title: "One frame on", group: "Compare", key: ".", run: () => by(1) },
    { id: "compare.loop", title: loop ? "Play once" : "Play in a loop", group: "Compare", key: "l", run: setLoop },
    { id: "compare.slower", title: "Slower", group: "Compare", key: "<", run: () => setSpeed(-1) },
    { id: "compare.faster", title: "Faster", group: "Compare", key: ">", run: () => setSpeed(1) },
  ]);
  const keys = {
    play: useShown("compare.play"),
    back: useShown("compare.back"),
    forward: useShown("compare.forward"),
    loop: useShown("compare.loop"),
  };
  const frame = (video: Video) => `${frameAt(video, timeIn(video, time)) + 1} of ${video.num_frames}`;
  const words = `${time.toFixed(2)} s · A frame ${frame(a)} · B frame ${frame(b)}`;
  return (
    <div className="flex flex-wrap items-center gap-x-1">
      <input
        type="range"
        aria-label="Time of both clips"
        aria-valuetext={words}
        className="h-6 w-full accent-accent"
        min={0}
        max={steps - 1}
        step={1}
        value={place}
        onChange={(event) => goTo(event.target.valueAsNumber)}
      />
      <IconButton icon={ChevronFirst} label="One frame back" shortcut={keys.back} onClick={() => by(-1)} />
      <IconButton
        icon={playing ? Pause : Play}
        label={playing ? "Pause both" : "Play both"}
        shortcut={keys.play}
        onClick={toggle}
      />
      <IconButton icon={ChevronLast} label="One frame on" shortcut={keys.forward} onClick={() => by(1)} />
      <p data-testid="compare-time" className="min-w-64 px-1 text-xs text-soft tabular-nums">
        {words}
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
    </div>
  );
}
