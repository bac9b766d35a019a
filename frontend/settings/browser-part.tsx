/** What this browser alone keeps: theme, sound, notifications, keys. Nothing of it concerns the server. */

import { Bell, Keyboard, Volume2 } from "lucide-react";
import { useState } from "react";
import { chime } from "@/app/announcements";
import { type Theme, usePreferences } from "@/app/preferences";
import { openWindow } from "@/app/window";
import { Button } from "@/ui/button";
import { Toggle } from "@/ui/fields";
import { Segments } from "@/ui/segments";
import { Panel } from "@/ui/status";

const THEMES: { value: Theme; label: string }[] = [
  { value: "system", label: "As the system" },
  { value: "light", label: "Light" },
  { value: "dark", label: "Dark" },
];

const AVAILABLE = "Notification" in window;

export function BrowserPart() {
  const { theme, sound, notifications } = usePreferences();
  const [refused, setRefused] = useState(AVAILABLE && Notification.permission === "denied");

  async function notify(on: boolean) {
    if (!on) return usePreferences.setState({ notifications: false });
    const answer = await Notification.requestPermission();
    setRefused(answer === "denied");
    usePreferences.setState({ notifications: answer === "granted" });
  }

  return (
    <div className="space-y-4">
      <Panel title="Theme">
        <div className="max-w-sm">
          <Segments
            label="Theme"
            value={theme}
            choices={THEMES}
            onChange={(next) => usePreferences.setState({ theme: next })}
          />
        </div>
      </Panel>
      <Panel title="When a clip ends">
        <div className="space-y-3">
          <div className="flex flex-wrap items-center justify-between gap-3">
            <Toggle
              label="Play two soft notes"
              hint="Also while the page is in the background."
              checked={sound}
              onChange={(on) => usePreferences.setState({ sound: on })}
            />
            <Button size="small" icon={Volume2} onClick={chime}>
              Test the sound
            </Button>
          </div>
          <div className="flex flex-wrap items-center justify-between gap-3">
            <Toggle
              label="Show a notification of the system"
              hint={
                !AVAILABLE
                  ? "This browser has none, or not on an address without TLS."
                  : refused
                    ? "This browser refuses them for this page. Allow them beside its address first."
                    : "While the page is in the background. The browser asks once."
              }
              checked={notifications && !refused}
              disabled={!AVAILABLE || refused}
              onChange={(on) => void notify(on)}
            />
            <Button
              size="small"
              icon={Bell}
              disabled={!AVAILABLE || refused || !notifications}
              onClick={() => new Notification("wan22", { body: "This is how it looks.", tag: "wan22" })}
            >
              Test it
            </Button>
          </div>
        </div>
      </Panel>
      <Panel title="Keys">
        <div className="flex flex-wrap items-center justify-between gap-3">
          <p className="text-soft">
            Everything on this page has a key or can have one. The sheet shows, changes and resets them.
          </p>
          <Button icon={Keyboard} onClick={() => openWindow("keys")}>
            Show all keys
          </Button>
        </div>
      </Panel>
    </div>
  );
}
