"""Identifies a model's weights by a digest that is computed while the model already works.

Reads files; knows nothing about tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

from backend.core.errors.models import ModelDamaged
from backend.engine.loading.model_files import ModelFiles, over_all


class WeightsDigest:
    """SHA-256 over a model's weights, computed in the background so that no run waits for 69 GB to be read."""

    def __init__(self, files: ModelFiles, *, decoder_only: bool = False) -> None:
        """Start the computation; with `decoder_only` only the files of the VAE are read."""
        self._files = files
        self._vae: str | None = None
        self._value: str | None = None
        self._of_files: Mapping[str, str] = MappingProxyType({})
        self._error: OSError | None = None
        self._vae_done = threading.Event()
        self._thread = threading.Thread(target=self._compute, args=(decoder_only,), name="weights-digest", daemon=True)
        self._thread.start()

    def _compute(self, decoder_only: bool) -> None:
        try:
            self._of_files = self._files.digests("vae")
            self._vae = over_all(self._of_files)
            self._vae_done.set()
            if not decoder_only:
                self._of_files = self._files.digests(known=self._of_files)
                self._value = over_all(self._of_files)
        except OSError as error:  # raised again in the reading thread
            self._error = error
        finally:
            self._vae_done.set()

    @property
    def value_so_far(self) -> str | None:
        """The digest over all weights if it is ready, else None; never waits."""
        return self._value

    @property
    def value(self) -> str:
        """The digest over all weights as 64 hexadecimal digits; waits until it is ready.

        Raises:
            ModelDamaged: a weight file disappeared or can no longer be read.
        """
        self._thread.join()
        return self._known(self._value)

    @property
    def vae(self) -> str:
        """The digest over the VAE's weights alone; waits until it is ready. Raises like `value`."""
        self._vae_done.wait()
        return self._known(self._vae)

    @property
    def of_files(self) -> Mapping[str, str]:
        """The SHA-256 of each file by its name; waits until they are ready. Without those that cannot be read."""
        self._thread.join()
        return self._of_files

    def _known(self, value: str | None) -> str:
        if value is None:
            raise ModelDamaged(f"The weights cannot be read: {self._error}") from self._error
        return value
