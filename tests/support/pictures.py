"""Pictures of pages, compared with kept ones: what a page looks like, without what differs from minute to minute.

`PICTURES=new pytest tests/web/test_looks.py` writes them anew. Look at each before it is committed.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image
from playwright.sync_api import Page

KEPT: Final = Path(__file__).parents[1] / "web" / "pictures"
#: A kept picture is at most this wide.
_WIDTH: Final = 480
#: Side of the squares that are compared, in pixels of the kept picture, and how far their mean may be off, of 255.
#: Two runs of one browser were off by up to 14 levels, a line of text that moved by 44 and more. Others were not tried.
_SQUARE: Final = 8
_TOLERANCE: Final = 20.0

#: Shows a lifeless copy of the page: without the contents of fields, charts and players, and with one text for every
#: number, name of a process, path and identifier, and for the phases of a clip, which are ordered by their time.
_STILL: Final = """() => {
  const root = document.body, copy = root.cloneNode(true);
  const texts = document.createTreeWalker(copy, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const node = texts.currentNode;
    node.nodeValue = node.nodeValue
      .replace(/\\S+:\\d+:\\S+/g, "process").replace(/(?:\\/[\\w.~-]+){2,}/g, "/path")
      .replace(/\\b(?=\\w*\\d)[0-9a-f]{8,}\\b/g, "id").replace(/\\d+(?:[.,:]\\d+)*/g, "0")
      .replace(/\\b[AP]M\\b/g, "M").replace(/\\b[KMG]i?B\\b/g, "B")
      .replace(/\\bclient listens\\b/, "clients listen")
      .replace(/^(Decoding|Denoising, .*|Reading the prompt|Loading the model|Saving.*)$/, "Phase");
  }
  for (const row of copy.querySelectorAll("tr")) if (row.firstElementChild.textContent === "Took") row.remove();
  // Bars, whose length is a measured time, and figures, whose colour is the load of the machine.
  const volatile = 'img, video, canvas, .uplot, svg rect[width], [style*="width:"], [data-testid$="-usage"]';
  for (const one of copy.querySelectorAll(volatile)) one.style.visibility = "hidden";
  document.documentElement.replaceChild(copy, root);
  window.restored = () => document.documentElement.replaceChild(root, copy);
}"""


def check_picture(page: Page, name: str) -> None:
    """Compare what the window shows with the kept picture of this name.

    Raises:
        AssertionError: they differ; the message names where the new picture lies.
    """
    page.evaluate(_STILL)
    try:
        taken = Image.open(io.BytesIO(page.screenshot(animations="disabled", caret="hide"))).convert("RGB")
    finally:
        page.evaluate("window.restored()")
    factor = -(-taken.width // _WIDTH)
    taken = taken.reduce(factor)
    kept = KEPT / f"{name}.png"
    if os.environ.get("PICTURES") == "new":
        KEPT.mkdir(exist_ok=True)
        taken.quantize(256, dither=Image.Dither.NONE).save(kept, optimize=True)
        return
    assert kept.exists(), f"{kept.name} is not there; PICTURES=new writes it"
    wanted = Image.open(kept).convert("RGB")
    where = Path(os.environ.get("TMPDIR", "/tmp")) / f"wan22-{kept.name}"
    off = _squares(wanted, taken) if wanted.size == taken.size else None
    if off is None or off.max() > _TOLERANCE:
        taken.save(where)
        worst = "its size" if off is None else f"{off.max():.0f} of 255 levels, near {_place(off)}"
        raise AssertionError(f"{kept.name} is off by {worst}; the new one is {where}")


def _squares(one: Image.Image, other: Image.Image) -> npt.NDArray[np.float64]:
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    height, width = (side // _SQUARE * _SQUARE for side in difference.shape[:2])
    squares = difference[:height, :width].reshape(height // _SQUARE, _SQUARE, width // _SQUARE, _SQUARE, 3)
    means: npt.NDArray[np.float64] = np.abs(squares.mean((1, 3))).max(-1)
    return means


def _place(off: npt.NDArray[np.float64]) -> tuple[int, int]:
    row, column = np.unravel_index(int(off.argmax()), off.shape)
    return int(column) * _SQUARE, int(row) * _SQUARE
