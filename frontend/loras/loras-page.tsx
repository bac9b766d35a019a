/** The LoRAs of this server: what each is for, what it costs, and how to bring new ones. */

import { useQuery } from "@tanstack/react-query";
import { Sparkles } from "lucide-react";
import { useState } from "react";
import { bytes, counted } from "@/app/format";
import { api, data } from "@/http/client";
import { ProblemNote } from "@/http/problem-note";
import { KEYS } from "@/http/queries";
import { useAllowed, useLacks } from "@/system/session";
import { TextField } from "@/ui/fields";
import { PageFrame } from "@/ui/page";
import { Empty, Note, Skeleton } from "@/ui/status";
import { LoraCard } from "./lora-card";
import { UploadZone } from "./upload-zone";

const MIB = 1024 * 1024;

export default function LorasPage() {
  const allowed = useAllowed("models");
  const lacks = useLacks("models");
  const loras = useQuery({ queryKey: KEYS.loras, queryFn: () => data(api.GET("/api/v1/lora")) });
  const [search, setSearch] = useState("");
  const wanted = search.trim().toLowerCase();
  const shown = (loras.data?.loras ?? []).filter((one) =>
    [one.id, one.title, one.base ?? "", ...one.trigger_words, ...one.compatible_models]
      .join(" ")
      .toLowerCase()
      .includes(wanted),
  );
  return (
    <PageFrame
      title="LoRAs"
      about="Small files that teach a model a style, a subject or a motion. Which model and which expert one is for is read from the file."
    >
      {loras.error && !loras.data && <ProblemNote error={loras.error} retry={() => void loras.refetch()} />}
      {!loras.data && !loras.error && (
        <div className="space-y-4">
          <Skeleton className="h-20" />
          <div className="grid gap-3 lg:grid-cols-2">
            <Skeleton className="h-64" />
            <Skeleton className="h-64" />
          </div>
        </div>
      )}
      {loras.data && (
        <>
          {lacks && <Note tone="warn">Your key may look at LoRAs, not add or delete them.</Note>}
          <UploadZone allowed={allowed} />
          <div className="flex flex-wrap items-center gap-3">
            <div className="w-64 max-w-full">
              <TextField
                label="Search LoRAs"
                bare
                type="search"
                placeholder="Name, word or model"
                value={search}
                onChange={(event) => setSearch(event.target.value)}
              />
            </div>
            <p className="text-soft">
              {counted(loras.data.total_count, "LoRA")}, {bytes(loras.data.total_size_mb * MIB)}
            </p>
          </div>
          {shown.length === 0 && (
            <Empty icon={Sparkles} title={wanted ? "No LoRA is like that" : "No LoRAs yet"}>
              Add the .safetensors files that you have, from any of the usual trainers.
            </Empty>
          )}
          <div className="grid items-stretch gap-3 lg:grid-cols-2">
            {shown.map((lora) => (
              <LoraCard key={lora.id} lora={lora} allowed={allowed} />
            ))}
          </div>
        </>
      )}
    </PageFrame>
  );
}
