/** Search, filters and order of the gallery. All of it is in the address, so that a view can be shared or kept. */

import { useNavigate } from "@tanstack/react-router";
import { FolderOpen, ListFilter, Search, Trash2, X } from "lucide-react";
import { type RefObject, useEffect, useState } from "react";
import { usePreferences } from "@/app/preferences";
import type { GallerySearch } from "@/app/router";
import { useModels } from "@/tasks/submit";
import { Button, IconButton } from "@/ui/button";
import { classes } from "@/ui/classes";
import { SelectField, SliderField, TextField } from "@/ui/fields";
import { type FilterName, filtersOf, inWords, MODES, SORTS, unfiltered } from "./filters";
import { useBoards, useTags } from "./lists";
import { openGalleryWindow } from "./windows";

/** Pause after the last letter of a search, in milliseconds. */
const TYPING_PAUSE = 250;
const ANY = { value: "", label: "Any" };
const FLAG = [ANY, { value: "yes", label: "Only these" }];

/** Changes filters in the address; undefined takes one away. */
export function useFilters() {
  const navigate = useNavigate({ from: "/gallery" });
  return (changes: Partial<GallerySearch>) =>
    void navigate({ search: (now) => ({ ...now, ...changes }), replace: true });
}

type FilterBarProps = { search: GallerySearch; field: RefObject<HTMLInputElement | null> };

export function FilterBar({ search, field }: FilterBarProps) {
  const change = useFilters();
  const [open, setOpen] = useState(false);
  const [text, setText] = useState(search.search ?? "");
  const { data: boards } = useBoards();
  const set = filtersOf(search);

  // What was typed goes into the address after a pause; what the address says comes back at once.
  useEffect(() => setText(search.search ?? ""), [search.search]);
  // biome-ignore lint/correctness/useExhaustiveDependencies: only a text that was typed is sent
  useEffect(() => {
    if (text === (search.search ?? "")) return;
    const timer = setTimeout(() => change({ search: text || undefined }), TYPING_PAUSE);
    return () => clearTimeout(timer);
  }, [text]);

  const boardName = boards?.find((board) => board.id === search.board)?.name;
  return (
    <div className="space-y-2">
      <div className="flex flex-wrap items-center gap-2">
        <div className="relative min-w-40 flex-1 md:max-w-md">
          <Search aria-hidden className="absolute top-1/2 left-2.5 size-4 -translate-y-1/2 text-soft" />
          <input
            ref={field}
            type="search"
            aria-label="Search prompts"
            placeholder="Search prompts"
            data-testid="gallery-search"
            value={text}
            onChange={(event) => setText(event.target.value)}
            className="field-box pl-8!"
          />
        </div>
        <Button icon={ListFilter} aria-expanded={open} aria-controls="gallery-filters" onClick={() => setOpen(!open)}>
          Filters{set.length > 0 && ` (${set.length})`}
        </Button>
        <div className="w-36">
          <SelectField
            label="Order"
            bare
            value={(SORTS.find((sort) => sort.value === search.sort) ?? SORTS[0]).value}
            choices={SORTS}
            onChange={(sort) => change({ sort: sort === "newest" ? undefined : sort })}
          />
        </div>
        <IconButton
          icon={Trash2}
          label={search.trash ? "Leave the trash" : "Show the trash"}
          pressed={search.trash ?? false}
          data-testid="trash-button"
          onClick={() => change({ trash: search.trash ? undefined : true })}
        />
      </div>
      {open && <Filters search={search} change={change} />}
      {set.length > 0 && (
        <ul aria-label="Filters that are set" className="flex flex-wrap gap-1.5">
          {set.map((name) => (
            <li key={name}>
              <button
                type="button"
                data-testid="filter-chip"
                className="flex h-7 items-center gap-1 rounded-full border border-accent bg-tint px-2.5 text-accent-strong"
                aria-label={`Take away the filter ${inWords(name, search, boardName)}`}
                onClick={() => change({ [name]: undefined })}
              >
                {inWords(name, search, boardName)}
                <X aria-hidden className="size-3.5" />
              </button>
            </li>
          ))}
          {set.length > 1 && (
            <li>
              <Button
                size="small"
                kind="quiet"
                onClick={() =>
                  change({ ...Object.fromEntries(set.map((name) => [name, undefined])), ...unfiltered(search) })
                }
              >
                Take away all
              </Button>
            </li>
          )}
        </ul>
      )}
    </div>
  );
}

type FiltersProps = { search: GallerySearch; change: (changes: Partial<GallerySearch>) => void };

function Filters({ search, change }: FiltersProps) {
  const { data: models } = useModels();
  const { data: boards } = useBoards();
  const { data: tags } = useTags();
  const tile = usePreferences((now) => now.tile);
  const choose = (name: FilterName) => (value: string) => change({ [name]: value || undefined });
  const flag = (name: "favourite" | "mock" | "imported", label: string) => (
    <SelectField
      label={label}
      value={search[name] ? "yes" : ""}
      choices={FLAG}
      onChange={(value) => change({ [name]: value ? true : undefined })}
    />
  );
  const named = (models?.models ?? []).map((model) => ({ value: model.id, label: model.id }));
  return (
    <div
      id="gallery-filters"
      className={classes(
        "grid grid-cols-2 gap-3 rounded-xl border border-edge bg-panel p-3 md:grid-cols-4 xl:grid-cols-6",
        "max-h-[45vh] overflow-y-auto",
      )}
    >
      <SelectField label="Made" value={search.mode ?? ""} choices={[ANY, ...MODES]} onChange={choose("mode")} />
      <SelectField label="Model" value={search.model ?? ""} choices={[ANY, ...named]} onChange={choose("model")} />
      <SelectField
        label="Board"
        value={search.board ?? ""}
        choices={[
          ANY,
          { value: "none", label: "On no board" },
          ...(boards ?? []).map((board) => ({ value: board.id, label: `${board.name} (${board.videos})` })),
        ]}
        onChange={choose("board")}
        aside={
          <button
            type="button"
            className="text-xs text-accent-strong underline"
            onClick={() => openGalleryWindow({ kind: "board", ids: [] })}
          >
            <FolderOpen aria-hidden className="mr-0.5 inline size-3" />
            Edit boards
          </button>
        }
      />
      <SelectField
        label="Tag"
        value={search.tag ?? ""}
        choices={[ANY, ...(tags ?? []).map((one) => ({ value: one.tag, label: `${one.tag} (${one.videos})` }))]}
        onChange={choose("tag")}
      />
      <TextField
        label="From"
        type="date"
        value={search.after ?? ""}
        onChange={(event) => choose("after")(event.target.value)}
      />
      <TextField
        label="Until"
        type="date"
        value={search.before ?? ""}
        onChange={(event) => choose("before")(event.target.value)}
      />
      {flag("favourite", "Favourites")}
      {flag("mock", "Mocks")}
      {flag("imported", "Uploaded clips")}
      <div className="col-span-2">
        <SliderField
          label="Size of tiles"
          value={tile}
          min={140}
          max={480}
          step={20}
          shown={`${tile} px`}
          onChange={(value) => usePreferences.setState({ tile: value })}
        />
      </div>
    </div>
  );
}
