/** Starts the page: theme, keys, the live connection, and the views. */

import "./styles.css";
import { Tooltip } from "@base-ui/react/tooltip";
import { QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { listenToKeys } from "@/app/commands";
import { followTheme } from "@/app/preferences";
import { router } from "@/app/router";
import { queries } from "@/http/queries";
import { Toasts } from "@/ui/toasts";

followTheme();
listenToKeys();

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no #root");
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <Tooltip.Provider delay={500}>
        <Toasts>
          <RouterProvider router={router} />
        </Toasts>
      </Tooltip.Provider>
    </QueryClientProvider>
  </StrictMode>,
);
