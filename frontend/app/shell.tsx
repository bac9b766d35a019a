/** What is around every view: navigation, the state of the queue, and the windows that open over any page. */

import { Link, Outlet, useNavigate } from "@tanstack/react-router";
import {
  Activity,
  Boxes,
  Clapperboard,
  Images,
  Keyboard,
  ListVideo,
  type LucideIcon,
  Moon,
  Search,
  Settings,
  Sparkles,
} from "lucide-react";
import { lazy, Suspense } from "react";
import { OfflineBanner } from "@/live/banner";
import { LoginPage } from "@/system/login-page";
import { useSession } from "@/system/session";
import { useRecalled } from "@/tasks/draft";
import { QueueButton } from "@/tasks/queue-button";
import { IconButton } from "@/ui/button";
import { Announcements } from "./announcements";
import { useCommands, useShown } from "./commands";
import { DropTarget } from "./drop-target";
import { usePreferences } from "./preferences";
import { openWindow, useWindows } from "./window";

const CommandPalette = lazy(() => import("./palette"));
const QueueDrawer = lazy(() => import("@/tasks/queue-drawer"));
const RecallDialog = lazy(() => import("@/compose/recall-dialog"));
const KeySheet = lazy(() => import("./key-sheet"));

type Place = { to: string; title: string; icon: LucideIcon; key: string; testId?: string };

const PLACES: Place[] = [
  { to: "/", title: "Create", icon: Clapperboard, key: "1", testId: "generation-tab" },
  { to: "/gallery", title: "Gallery", icon: Images, key: "2", testId: "gallery-tab" },
  { to: "/models", title: "Models", icon: Boxes, key: "3", testId: "models-tab" },
  { to: "/loras", title: "LoRAs", icon: Sparkles, key: "4", testId: "loras-tab" },
  { to: "/system", title: "System", icon: Activity, key: "5", testId: "monitoring-tab" },
  { to: "/settings", title: "Settings", icon: Settings, key: "6", testId: "settings-tab" },
];

function nextTheme() {
  const order = ["system", "light", "dark"] as const;
  usePreferences.setState(({ theme }) => ({ theme: order[(order.indexOf(theme) + 1) % order.length] }));
}

export function Shell() {
  const { needsLogin } = useSession();
  const navigate = useNavigate();
  const theme = usePreferences((now) => now.theme);
  const open = useWindows((now) => now.open);
  const recalling = useRecalled((now) => now.recalled !== null);
  useCommands([
    ...PLACES.map((place) => ({
      id: `go.${place.title.toLowerCase()}`,
      title: `Go to ${place.title}`,
      group: "Go to",
      icon: place.icon,
      key: place.key,
      run: () => void navigate({ to: place.to }),
    })),
    {
      id: "window.queue",
      title: "Show the queue",
      group: "Windows",
      icon: ListVideo,
      key: "q",
      run: () => openWindow("queue"),
    },
    {
      id: "window.palette",
      title: "Find a command",
      group: "Windows",
      icon: Search,
      key: "mod+k",
      run: () => openWindow("palette"),
    },
    {
      id: "window.keys",
      title: "Show all keys",
      group: "Windows",
      icon: Keyboard,
      key: "?",
      run: () => openWindow("keys"),
    },
    { id: "page.theme", title: "Change the theme", group: "Page", icon: Moon, run: nextTheme },
  ]);
  const paletteKey = useShown("window.palette");
  const keysKey = useShown("window.keys");
  if (needsLogin) return <LoginPage />;
  const close = () => useWindows.setState({ open: null });
  return (
    <DropTarget>
      <OfflineBanner />
      <Announcements />
      <a href="#content" className="sr-only z-50 rounded bg-accent p-2 text-on-accent focus:not-sr-only focus:absolute">
        Skip to the content
      </a>
      <div className="flex h-full flex-col md:flex-row">
        <nav
          aria-label="Pages"
          className="order-last flex shrink-0 border-t border-edge bg-panel md:order-first md:w-20 md:flex-col md:border-t-0 md:border-r md:py-2"
        >
          {PLACES.map(({ to, title, icon: Icon, testId }) => (
            <Link
              key={to}
              to={to}
              data-testid={testId}
              activeOptions={{ exact: to === "/", includeSearch: false }}
              className="flex min-w-0 flex-1 flex-col items-center gap-0.5 px-1 py-2 text-[0.6875rem] text-soft hover:text-ink data-[status=active]:font-medium data-[status=active]:text-accent-strong md:flex-none md:py-2.5 md:text-xs"
            >
              <Icon aria-hidden className="size-5" />
              {title}
            </Link>
          ))}
          <div className="mt-auto hidden flex-col items-center gap-1 md:flex">
            <IconButton
              label="Find a command"
              shortcut={paletteKey}
              icon={Search}
              onClick={() => openWindow("palette")}
            />
            <IconButton label="Keys" shortcut={keysKey} icon={Keyboard} onClick={() => openWindow("keys")} />
            <IconButton label={`Theme: ${theme}`} icon={Moon} onClick={nextTheme} />
          </div>
        </nav>
        <main id="content" tabIndex={-1} className="relative min-h-0 min-w-0 flex-1 outline-none">
          <Outlet />
        </main>
      </div>
      <QueueButton />
      <Suspense>
        {open === "queue" && <QueueDrawer open onClose={close} />}
        {open === "palette" && <CommandPalette open onClose={close} />}
        {recalling && <RecallDialog />}
        {open === "keys" && <KeySheet open onClose={close} />}
      </Suspense>
    </DropTarget>
  );
}
