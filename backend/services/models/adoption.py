"""Uses the model files of other programs on this machine, on request of a client, without copying them.

Searches the usual folders of this account and those that the server's owner names in `model_roots`, and no others: a
client sends ids of models, never a path. Reads every byte once, in a thread, one model after the other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from backend.core.catalogue.table import ModelSpec
from backend.core.errors.base import WanError
from backend.core.errors.lookups import StateConflict
from backend.core.paths import Home
from backend.models.adoption.assembly import assemble
from backend.models.adoption.plans import Plan, plans
from backend.models.adoption.survey import scan_folders, usual_roots
from backend.models.folder.manager import ModelManager

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class AdoptionStep:
    """How far one model's adoption is."""

    spec: ModelSpec
    total_bytes: int
    done_bytes: int = 0
    ended: bool = False
    complete: bool = False  #: False once ended: a download completes it
    error: WanError | None = None


class ModelAdoption:
    """Surveys, plans and adopts; any thread may call."""

    def __init__(self, home: Home, manager: ModelManager, roots: Sequence[Path]) -> None:
        """`roots` are the folders that the server's owner allows besides the usual ones."""
        self._home = home
        self._manager = manager
        self._roots = tuple(roots)
        self._lock = threading.Lock()
        self._steps: dict[str, AdoptionStep] = {}

    def roots(self) -> list[Path]:
        """Return the folders that are searched."""
        from backend.models.download.local_files import hugging_face_cache  # loads the hub's library

        try:
            usual = [hugging_face_cache(), *usual_roots(Path.home())]
        except RuntimeError:  # an account without a home folder
            usual = []
        return [root for root in (*usual, *(root.expanduser().absolute() for root in self._roots)) if root.exists()]

    def survey(self) -> list[Plan]:
        """Search the folders, and return the plan of each model of which something was found; changes nothing."""
        return [plan for plan in plans(scan_folders(self.roots()), self._manager, {}) if plan.parts.files]

    def steps(self) -> list[AdoptionStep]:
        """Return the models of the newest request."""
        with self._lock:
            return list(self._steps.values())

    def start(self, specs: Sequence[ModelSpec]) -> list[AdoptionStep]:
        """Search again, and adopt these models in the background.

        Raises:
            StateConflict: others are still being adopted, or nothing was found of one of them.
        """
        found = {plan.spec.id: plan for plan in self.survey()}
        missing = [spec.id for spec in specs if spec.id not in found]
        if missing:
            raise StateConflict(
                f"No files were found for {', '.join(missing)}", suggestions=("Search again: they may have moved.",)
            )
        chosen = [found[spec.id] for spec in specs]
        with self._lock:
            if any(not step.ended for step in self._steps.values()):
                raise StateConflict("Models are being adopted already", suggestions=("Wait for the end.",))
            self._steps = {plan.spec.id: AdoptionStep(plan.spec, plan.size_bytes) for plan in chosen}
        threading.Thread(target=self._run, args=(chosen,), name="adoption", daemon=True).start()
        return self.steps()

    def _run(self, chosen: Sequence[Plan]) -> None:
        for plan in chosen:
            self._adopt(plan)

    def _adopt(self, plan: Plan) -> None:
        name = plan.spec.id

        def on_read(_file: str, count: int) -> None:
            with self._lock:
                step = self._steps[name]
                self._steps[name] = replace(step, done_bytes=step.done_bytes + count)

        complete, error = False, None
        try:
            complete = assemble(self._home, plan.spec, plan.parts, on_read=on_read).complete
        except WanError as failure:
            error = failure
        except OSError as failure:  # the thread is the boundary: whoever asks hears of it
            log.exception("adoption.failed", model=name)
            error = StateConflict(f"The files of {name} could not be linked ({type(failure).__name__})")
        with self._lock:
            self._steps[name] = replace(self._steps[name], ended=True, complete=complete, error=error)
