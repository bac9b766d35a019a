/**
 * Two clips under one clock: they play, seek, step and loop together, whatever their lengths and rates. The longer one
 * leads; the other is led back by its speed while it is off by little, and by a jump when it is off by much.
 */

import { type Clip, lengthOf, seeked, timeOf } from "../viewer/frames";

/** Farther off than this the follower jumps, in frames of the slower clip. */
const JUMP = 0.8;
/** Share of an offset that is made up for within a second, and the greatest change of speed. */
const PULL = 1.5;
const MOST = 0.25;

/** The step of a pair: a frame of the clip that has more of them in a second. */
export function stepOf(a: Clip, b: Clip): number {
  return 1 / Math.max(a.fps, b.fps);
}

/** The number of steps in the longer clip. */
export function stepsOf(a: Clip, b: Clip): number {
  return Math.max(1, Math.round(Math.max(lengthOf(a), lengthOf(b)) / stepOf(a, b)));
}

/** Where a clip is at a time of the pair: a shorter one waits at its last frame. */
export function timeIn(clip: Clip, seconds: number): number {
  return Math.max(0, Math.min(seconds, timeOf(clip, clip.num_frames - 1)));
}

/** What brings a follower back that is `drift` seconds ahead: a jump, or a factor for its speed. */
export function correction(drift: number, frame: number): { jump: boolean; factor: number } {
  if (Math.abs(drift) > frame * JUMP) return { jump: true, factor: 1 };
  return { jump: false, factor: 1 - Math.max(-MOST, Math.min(MOST, drift * PULL)) };
}

export class Pair {
  loop = true;
  private speed = 1;
  private timer = 0;
  private turn = 0;
  private readonly leader: HTMLVideoElement;
  private readonly follower: HTMLVideoElement;
  private readonly clips: { leader: Clip; follower: Clip };
  private wanted = false;

  constructor(
    private readonly a: HTMLVideoElement,
    private readonly b: HTMLVideoElement,
    first: Clip,
    second: Clip,
    private readonly report: (state: { time: number; playing: boolean }) => void,
  ) {
    const led = lengthOf(first) >= lengthOf(second);
    this.leader = led ? a : b;
    this.follower = led ? b : a;
    this.clips = led ? { leader: first, follower: second } : { leader: second, follower: first };
    this.follow = this.follow.bind(this);
  }

  get playing(): boolean {
    return this.wanted;
  }

  get time(): number {
    return this.leader.currentTime;
  }

  setSpeed(speed: number): void {
    this.speed = speed;
    for (const one of [this.a, this.b]) one.playbackRate = speed;
  }

  pause(): void {
    this.wanted = false;
    this.turn += 1;
    cancelAnimationFrame(this.timer);
    for (const one of [this.a, this.b]) one.pause();
    this.tell();
  }

  /** Goes to a time and stays there. */
  async seek(seconds: number): Promise<void> {
    this.pause();
    await this.place(seconds);
    this.tell();
  }

  async play(): Promise<void> {
    this.wanted = true;
    this.turn += 1;
    const { turn } = this;
    const atEnd = this.leader.ended || this.time >= timeOf(this.clips.leader, this.clips.leader.num_frames - 1);
    await this.place(atEnd ? 0 : this.time);
    if (turn !== this.turn) return;
    await this.start();
  }

  /** Ends it for good. */
  stop(): void {
    this.wanted = false;
    this.turn += 1;
    cancelAnimationFrame(this.timer);
  }

  private async place(seconds: number): Promise<void> {
    this.leader.currentTime = timeIn(this.clips.leader, seconds);
    this.follower.currentTime = timeIn(this.clips.follower, seconds);
    await Promise.all([seeked(this.leader), seeked(this.follower)]);
  }

  private async start(): Promise<void> {
    this.setSpeed(this.speed);
    try {
      await Promise.all([this.leader.play(), this.follower.play()]);
    } catch {
      // Paused meanwhile, or the browser plays nothing: the frames can still be stepped through.
      if (this.wanted) this.pause();
      return;
    }
    cancelAnimationFrame(this.timer);
    this.timer = requestAnimationFrame(this.follow);
  }

  private follow(): void {
    if (!this.wanted) return;
    const { leader, follower, clips } = this;
    if (leader.ended) {
      void this.again();
      return;
    }
    const time = leader.currentTime;
    const waits = time >= timeIn(clips.follower, time) + 1 / clips.follower.fps;
    if (waits) {
      follower.pause();
    } else if (!leader.paused) {
      const { jump, factor } = correction(
        follower.currentTime - time,
        1 / Math.max(clips.leader.fps, clips.follower.fps),
      );
      if (jump && !follower.seeking) follower.currentTime = timeIn(clips.follower, time);
      follower.playbackRate = this.speed * factor;
      if (follower.paused && !follower.ended) void follower.play().catch(() => undefined);
    }
    this.tell();
    this.timer = requestAnimationFrame(this.follow);
  }

  private async again(): Promise<void> {
    if (!this.loop) {
      this.pause();
      return;
    }
    const { turn } = this;
    await this.place(0);
    if (turn === this.turn && this.wanted) await this.start();
  }

  private tell(): void {
    this.report({ time: this.time, playing: this.wanted });
  }
}
