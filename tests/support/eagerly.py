"""Training without compiling: of a tiny network, five steps take less time than that."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def never_compiling() -> Iterator[None]:
    """Trains step by step meanwhile."""
    from utils.training.learner import SpeakerLearner

    compile_learner = SpeakerLearner.compile

    def compile_eagerly(learner: SpeakerLearner, **options: Any) -> None:
        compile_learner(learner, **{**options, "run_eagerly": True, "jit_compile": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SpeakerLearner, "compile", compile_eagerly)
        yield
