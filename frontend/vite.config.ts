import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

/** The server that `make ui` shows the page of. */
const SERVER = process.env.WAN22_URL ?? "http://127.0.0.1:8000";

/** Paths that the server answers; everything else belongs to the page. */
const SERVED = ["/api", "/v1", "/docs", "/openapi.json", "/thumbnails", "/live", "/ready", "/metrics"];

const proxied = {
  target: SERVER,
  changeOrigin: true,
  // The server refuses changes that come from the page of another origin, as it should.
  headers: { Origin: SERVER },
};

export default defineConfig({
  // Relative, so that the page also works below a prefix that a proxy adds; `<base>` names the prefix.
  base: "./",
  plugins: [react(), tailwindcss()],
  resolve: { alias: { "@": import.meta.dirname } },
  build: {
    outDir: "../backend/assets/web",
    emptyOutDir: true,
    target: "es2023",
    // A preload that is inlined as a `data:` URL would break the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
  server: {
    port: 5173,
    proxy: { ...Object.fromEntries(SERVED.map((path) => [path, proxied])), "/ws": { ...proxied, ws: true } },
  },
  test: { environment: "happy-dom", include: ["**/*.test.{ts,tsx}"], globals: false, restoreMocks: true },
});
