import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
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

/** The font comes with the page or stays away until the next one: text that changes its font changes its width. */
const font: Plugin = {
  name: "font-without-a-jump",
  apply: "build",
  generateBundle(_, bundle) {
    for (const one of Object.values(bundle))
      if (one.type === "asset" && one.fileName.endsWith(".css"))
        one.source = String(one.source).replaceAll(/font-display:\s*swap/g, "font-display:optional");
  },
  transformIndexHtml: (_, { bundle }) =>
    Object.keys(bundle ?? {})
      .filter((name) => name.includes("inter-latin-wght-normal"))
      .map((name) => ({
        tag: "link",
        attrs: { rel: "preload", as: "font", type: "font/woff2", href: `./${name}`, crossorigin: true },
        injectTo: "head",
      })),
};

export default defineConfig({
  // Relative, so that the page also works below a prefix that a proxy adds; `<base>` names the prefix.
  base: "./",
  plugins: [react(), tailwindcss(), font],
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
