/** What a browser loads before it shows the page: the scripts that index.html names. */

import { readFileSync } from "node:fs";

const web = "../backend/assets/web";
const page = readFileSync(`${web}/index.html`, "utf8");
const scripts = [...page.matchAll(/(?:src|href)="\.\/(assets\/[^"]+\.js)"/g)].map(([, path]) => `${web}/${path}`);

export default [{ name: "initial JavaScript", path: scripts, limit: "180 kB", gzip: true }];
