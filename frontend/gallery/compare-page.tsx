/** Two clips against each other, under one clock: the pictures in four views, and the settings in a table. */

import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import {
  ArrowLeftRight,
  ChevronLeft,
  ChevronRight,
  Columns2,
  Download,
  Heart,
  Images,
  RefreshCw,
  X,
} from "lucide-react";
import { useEffect, useRef, useState } from "react";
import { useCommands, useShown } from "@/app/commands";
import { api, data } from "@/http/client";
import { KEYS } from "@/http/queries";
import { useAllowed } from "@/system/session";
import { Button, IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { SelectField } from "@/ui/fields";
import { Segments } from "@/ui/segments";
import { Empty, Note, Panel, Skeleton } from "@/ui/status";
import { useActions } from "./actions";
import { Controls } from "./compare/controls";
import { differencesOf, sameFrames } from "./compare/differences";
import { Stage, type View } from "./compare/stage";
import { useDeeds } from "./deeds";
import { details, useVideo, type Video } from "./grid/details";
import { lastSearch, useIds } from "./lists";
import { downloadOf, save } from "./media";

const VIEWS = [
  { value: "side", label: "Side by side" },
  { value: "slider", label: "Slider" },
  { value: "difference", label: "Difference" },
  { value: "turns", label: "In turns" },
] as const;
const GAINS = ["1", "4", "16"].map((value) => ({ value, label: `${value}× brighter` }));

export default function ComparePage() {
  const { a, b } = useSearch({ from: "/compare" });
  const navigate = useNavigate();
  const allowed = useAllowed("generate");
  const actions = useActions(useDeeds());
  const { data: ids } = useIds(lastSearch());
  const [one, two] = [useClip(a), useClip(b)];
  const [view, setView] = useState<View>("side");
  const [turn, setTurn] = useState<"a" | "b">("a");
  const [gain, setGain] = useState("4");
  const [first, second] = [useRef<HTMLVideoElement>(null), useRef<HTMLVideoElement>(null)];

  useEffect(() => {
    details.want("compare", [a, b].filter(Boolean));
    return () => details.want("compare", []);
  }, [a, b]);

  const go = (next: { a: string; b: string }) => void navigate({ to: "/compare", search: next, replace: true });
  const leave = () => void navigate({ to: "/gallery", search: lastSearch() });
  /** The clip beside one in the list, past the one that it is compared with; an empty text at the end of the list. */
  function beside(id: string, other: string, by: 1 | -1): string {
    const index = ids?.indexOf(id) ?? -1;
    if (!ids || index < 0) return "";
    const next = ids.at(index + by);
    return next === other ? ids.at(index + 2 * by) : next;
  }
  const pick = (side: "a" | "b", by: 1 | -1) => {
    const next = side === "a" ? beside(a, b, by) : beside(b, a, by);
    if (next) go(side === "a" ? { a: next, b } : { a, b: next });
  };
  const swap = () => go({ a: b, b: a });
  const flip = () => {
    setView("turns");
    setTurn(view === "turns" && turn === "a" ? "b" : "a");
  };
  const nextView = () =>
    setView(VIEWS[(VIEWS.findIndex((each) => each.value === view) + 1) % VIEWS.length]?.value ?? "side");
  const star = (id: string) => allowed && actions.favourite([id]);
  const keep = (video: Video | null | undefined) => video && save(downloadOf(video, true));
  useCommands([
    { id: "compare.close", title: "Back to the gallery", group: "Compare", icon: X, key: "escape", run: leave },
    { id: "compare.view", title: "The next view", group: "Compare", icon: Columns2, key: "v", run: nextView },
    { id: "compare.flip", title: "Show the other one", group: "Compare", icon: RefreshCw, key: "b", run: flip },
    { id: "compare.swap", title: "Swap A and B", group: "Compare", icon: ArrowLeftRight, key: "x", run: swap },
    {
      id: "compare.before-b",
      title: "The clip before as B",
      group: "Compare",
      icon: ChevronLeft,
      key: "alt+arrowleft",
      run: () => pick("b", -1),
    },
    {
      id: "compare.after-b",
      title: "The clip after as B",
      group: "Compare",
      icon: ChevronRight,
      key: "alt+arrowright",
      run: () => pick("b", 1),
    },
    {
      id: "compare.before-a",
      title: "The clip before as A",
      group: "Compare",
      icon: ChevronLeft,
      key: "alt+arrowup",
      run: () => pick("a", -1),
    },
    {
      id: "compare.after-a",
      title: "The clip after as A",
      group: "Compare",
      icon: ChevronRight,
      key: "alt+arrowdown",
      run: () => pick("a", 1),
    },
    {
      id: "compare.star-a",
      title: "Favourite A",
      group: "Compare",
      icon: Heart,
      key: "f",
      enabled: allowed,
      run: () => star(a),
    },
    {
      id: "compare.star-b",
      title: "Favourite B",
      group: "Compare",
      icon: Heart,
      key: "shift+f",
      enabled: allowed,
      run: () => star(b),
    },
    { id: "compare.keep-a", title: "Download A", group: "Compare", icon: Download, key: "s", run: () => keep(one) },
    {
      id: "compare.keep-b",
      title: "Download B",
      group: "Compare",
      icon: Download,
      key: "shift+s",
      run: () => keep(two),
    },
  ]);
  const keys = { close: useShown("compare.close"), swap: useShown("compare.swap"), flip: useShown("compare.flip") };

  if (!a || !b || one === null || two === null) {
    return (
      <Empty icon={Columns2} title={a && b ? "One of these clips is gone" : "Choose two clips to compare"}>
        <p className="mb-3">In the gallery, select two clips and press C.</p>
        <Button kind="primary" icon={Images} onClick={leave}>
          Go to the gallery
        </Button>
      </Empty>
    );
  }
  const shapes = one && two && one.resolution !== two.resolution;
  return (
    <div className="flex h-full flex-col overflow-y-auto" data-testid="compare">
      <header className="flex min-h-14 shrink-0 flex-wrap items-center gap-2 px-3 py-2 md:px-4">
        <div className="flex w-full items-center gap-1 pr-40 md:w-auto md:pr-0">
          <IconButton icon={X} label="Back to the gallery" shortcut={keys.close} onClick={leave} />
          <h1 className="text-lg font-semibold">Compare</h1>
        </div>
        <div className="max-w-full overflow-x-auto">
          <Segments label="View" value={view} choices={VIEWS} onChange={setView} />
        </div>
        {view === "difference" && (
          <div className="w-36">
            <SelectField label="Brightness of the difference" bare value={gain} choices={GAINS} onChange={setGain} />
          </div>
        )}
        {view === "turns" && (
          <Button icon={RefreshCw} onClick={flip}>
            Show {turn === "a" ? "B" : "A"}
          </Button>
        )}
        <IconButton icon={ArrowLeftRight} label="Swap A and B" shortcut={keys.swap} onClick={swap} />
      </header>
      <div className="flex min-h-[26rem] flex-1 shrink-0 flex-col gap-1 px-3 md:min-h-[30rem] md:px-4">
        {one && two ? (
          <>
            <Stage a={one} b={two} view={view} turn={turn} gain={Number(gain)} first={first} second={second} />
            <Controls a={one} b={two} first={first} second={second} />
          </>
        ) : (
          <Skeleton className="flex-1" />
        )}
      </div>
      <div className="grid grid-cols-1 gap-3 p-3 md:grid-cols-2 md:px-4">
        <Side name="A" video={one} allowed={allowed} onStar={() => star(a)} onPick={(by) => pick("a", by)} />
        <Side name="B" video={two} allowed={allowed} onStar={() => star(b)} onPick={(by) => pick("b", by)} />
      </div>
      {shapes && view !== "side" && (
        <div className="px-3 pb-3 md:px-4">
          <Note tone="warn">The clips differ in size: each is fitted into the same box.</Note>
        </div>
      )}
      {one && two && <Differences a={one} b={two} />}
    </div>
  );
}

/** A clip with its record: marks as they are known at once, the record when it has come. */
function useClip(id: string): Video | null | undefined {
  const known = useVideo(id);
  const { data: full } = useQuery({
    queryKey: [...KEYS.outputs, "one", id],
    queryFn: () =>
      data(api.GET("/api/v1/outputs/{output_id}", { params: { path: { output_id: id }, query: { trash: true } } })),
    enabled: id !== "",
    retry: false,
  });
  return known ? { ...known, metadata: full?.metadata } : known;
}

type SideProps = {
  name: "A" | "B";
  video: Video | undefined;
  allowed: boolean;
  onStar: () => void;
  onPick: (by: 1 | -1) => void;
};

function Side({ name, video, allowed, onStar, onPick }: SideProps) {
  const letter = name.toLowerCase();
  const keys = {
    star: useShown(`compare.star-${letter}`),
    keep: useShown(`compare.keep-${letter}`),
    before: useShown(`compare.before-${letter}`),
    after: useShown(`compare.after-${letter}`),
  };
  return (
    <section
      aria-label={name}
      data-testid={`side-${letter}`}
      className="flex min-w-0 items-center gap-1 rounded-lg border border-edge bg-panel py-1.5 pr-1.5 pl-3"
    >
      <p className="min-w-0 flex-1 truncate">
        <strong className="mr-1.5">{name}</strong>
        {video?.prompt || "Without a prompt"}
      </p>
      <IconButton
        size="small"
        icon={ChevronLeft}
        label={`The clip before as ${name}`}
        shortcut={keys.before}
        onClick={() => onPick(-1)}
      />
      <IconButton
        size="small"
        icon={ChevronRight}
        label={`The clip after as ${name}`}
        shortcut={keys.after}
        onClick={() => onPick(1)}
      />
      <IconButton
        size="small"
        icon={Heart}
        label={`Favourite ${name}`}
        shortcut={keys.star}
        pressed={video?.favourite ?? false}
        disabled={!allowed || !video}
        onClick={onStar}
      />
      <IconButton
        size="small"
        icon={Download}
        label={`Download ${name}`}
        shortcut={keys.keep}
        disabled={!video}
        onClick={() => video && save(downloadOf(video, true))}
      />
    </section>
  );
}

function Differences({ a, b }: { a: Video; b: Video }) {
  const [all, setAll] = useState(false);
  const rows = differencesOf(a, b);
  const shown = all ? rows : rows.filter((row) => !row.same);
  const same = sameFrames(a, b);
  const hidden = rows.length - shown.length;
  return (
    <div className="px-3 pb-4 md:px-4">
      <Panel
        title="What differs"
        aside={
          <Button size="small" kind="quiet" onClick={() => setAll(!all)}>
            {all ? "Only differences" : `Show ${hidden} equal ones`}
          </Button>
        }
      >
        {same !== undefined && (
          <p data-testid="same-frames" className={classes("mb-2", same ? "text-good" : "text-soft")}>
            {same ? "The frames are the same to the bit." : "The frames differ."}
          </p>
        )}
        {shown.length === 0 ? (
          <p className="text-soft">Both were made with the same settings.</p>
        ) : (
          <table data-testid="differences" className="w-full table-fixed text-left">
            <thead className="text-soft">
              <tr>
                <th scope="col" className="w-1/4 py-1 font-medium">
                  Setting
                </th>
                <th scope="col" className="py-1 font-medium">
                  A
                </th>
                <th scope="col" className="py-1 font-medium">
                  B
                </th>
              </tr>
            </thead>
            <tbody>
              {shown.map((row) => (
                <tr key={row.label} className={classes("border-t border-edge align-top", !row.same && "font-medium")}>
                  <th scope="row" className="py-1 pr-2 font-normal break-words text-soft">
                    {row.label}
                  </th>
                  <td className="py-1 pr-2 break-words">{row.a}</td>
                  <td className="py-1 break-words">{row.b}</td>
                </tr>
              ))}
            </tbody>
          </table>
        )}
      </Panel>
    </div>
  );
}
