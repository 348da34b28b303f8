"""The fuzz target over its own seeds and some plain mutations of them, so that it cannot rot."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def target() -> ModuleType:
    """The target, loaded from its file as it is run."""
    spec = importlib.util.spec_from_file_location("fuzz_decoder", Path(__file__).with_name("fuzz_decoder.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_not_empty_and_reaches_every_reader(target: ModuleType, tmp_path: Path) -> None:
    target.fill(tmp_path / "corpus")
    found = [path.read_bytes() for path in (tmp_path / "corpus").iterdir()]
    assert sorted(found) == sorted(set(target.seeds()))
    assert {seed[0] for seed in found} == set(range(len(target.READERS)))


def test_seeds_are_accepted(target: ModuleType) -> None:
    for seed in target.seeds():
        target.READERS[seed[0]](seed[1], seed[2:])


def test_mutated_seeds(target: ModuleType) -> None:
    rng = random.Random(1)
    for seed in target.seeds():
        for _ in range(12):
            data = bytearray(seed)
            for _ in range(rng.randint(1, 6)):
                at = rng.randrange(1, len(data))
                data[at : at + rng.randint(0, 3)] = rng.randbytes(rng.randint(0, 3))
            target.test_one_input(bytes(data))
