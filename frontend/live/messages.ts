/** The live messages that this page reads; `docs/asyncapi.json` describes all of them. */

import type { Schemas } from "@/http/client";

export const TOPICS = [
  "queue_updates",
  "generation_progress",
  "gallery_updates",
  "download_progress",
  "system_stats",
  "alerts",
  "model_status",
  "health_monitoring",
] as const;

type TaskStatus = Schemas["TaskStatus"];

export type TaskUpdate = {
  task_id: string;
  status: TaskStatus;
  progress: number;
  message?: string;
  output_path?: string;
};

export type DetailedProgress = {
  task_id: string;
  stage: string;
  status: string;
  progress: number;
  message?: string;
  estimated_time_remaining: number | null;
  current_step?: number;
  total_steps?: number;
  preview_step?: number;
};

export type Alert = {
  alert_type: string;
  severity: "info" | "warning" | "critical";
  message: string;
  task_id?: string;
};

type OutputChange = { output_id: string; change: "trashed" | "restored" | "deleted" | "marked" };

export type Message = { event_id?: number } & (
  | { type: "task_update"; data: TaskUpdate }
  | { type: "detailed_generation_progress"; data: DetailedProgress }
  | { type: "queue_update"; data: { paused: boolean } & Record<string, unknown> }
  | { type: "output_update"; data: OutputChange }
  | { type: "system_stats_update"; data: Schemas["SystemStats"] }
  | { type: "alert"; data: Alert }
  | { type: "replay_gap"; data: { reason: string } }
  | { type: "download_progress_update" | "download_status_change"; data: Schemas["DownloadView"] }
  | { type: "model_status_update" | "batch_model_status_update" | "model_download_complete"; data: unknown }
  | { type: "system_health_report"; data: Schemas["HealthView"] }
  | { type: "other"; data: unknown }
);
