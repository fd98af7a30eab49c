"""The stages of mnist-predict are measured."""

from __future__ import annotations

from benchmarks import batch


def test_every_stage_takes_time(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "ROUNDS", 1)
    batch.write_pictures(tmp_path, 3)
    cost = batch.stages(sorted(tmp_path.rglob("*.png")))
    assert list(cost) == ["read", "decode", "infer", "encode"]
    assert cost["infer"] > 0
