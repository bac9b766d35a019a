/**
 * The one WebSocket of the page. It comes back by itself and asks for what it missed, so that nothing is lost while a
 * laptop sleeps or the server restarts.
 */

import type { QueryClient } from "@tanstack/react-query";
import { PREFIX } from "@/http/client";
import { useConnection } from "./connection";
import { type Message, TOPICS } from "./messages";
import { apply, Refresher } from "./reducer";

/** First and longest pause before the next attempt, and how long silence is believed, in milliseconds. */
const FIRST_PAUSE = 400;
const LONGEST_PAUSE = 10_000;
const SILENCE = 60_000;

type Listener = (message: Message) => void;
const listeners = new Set<Listener>();

/** Calls `listener` for every message, after the cache has it. */
export function onMessage(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function connect(cache: QueryClient): () => void {
  const refresh = new Refresher(cache);
  let socket: WebSocket | null = null;
  let newest: number | undefined;
  let pause = FIRST_PAUSE;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let heardAt = Date.now();
  let ended = false;

  function open() {
    if (ended) return;
    clearTimeout(timer);
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(`${scheme}//${location.host}${PREFIX}/ws`);
    socket.onopen = () => {
      pause = FIRST_PAUSE;
      heardAt = Date.now();
      const since = newest === undefined ? {} : { since: newest };
      socket?.send(JSON.stringify({ type: "subscribe", data: { topics: TOPICS, ...since } }));
      useConnection.setState({ state: "live", lostAt: null });
      void cache.invalidateQueries();
    };
    socket.onmessage = (event) => {
      heardAt = Date.now();
      const message = JSON.parse(event.data as string) as Message;
      if (typeof message.event_id === "number") newest = Math.max(newest ?? 0, message.event_id);
      apply(cache, refresh, message);
      for (const listener of listeners) listener(message);
    };
    socket.onclose = () => {
      if (ended) return;
      useConnection.setState((now) => ({ state: "lost", lostAt: now.lostAt ?? Date.now() }));
      timer = setTimeout(open, pause * (0.75 + Math.random() / 2));
      pause = Math.min(LONGEST_PAUSE, pause * 2);
    };
  }

  function hurry() {
    if (document.visibilityState === "visible" && socket?.readyState === WebSocket.CLOSED) {
      pause = FIRST_PAUSE;
      open();
    }
  }

  // A connection that died without a word, as after sleep, is noticed by its silence.
  const watch = setInterval(() => {
    if (Date.now() - heardAt > SILENCE && socket?.readyState === WebSocket.OPEN) socket.close();
  }, SILENCE / 4);
  document.addEventListener("visibilitychange", hurry);
  window.addEventListener("online", hurry);
  open();
  return () => {
    ended = true;
    clearTimeout(timer);
    clearInterval(watch);
    document.removeEventListener("visibilitychange", hurry);
    window.removeEventListener("online", hurry);
    socket?.close();
  };
}
