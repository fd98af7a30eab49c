"""The service changes its models in one order for all threads."""

from __future__ import annotations

from serving.models.model import Model
from tests.serving.models.bundles import publish
from tests.support import application


def test_unloading_waits_for_a_version_that_a_scan_loads_meanwhile(models, monkeypatch):
    drained = []
    monkeypatch.setattr(Model, "drain", lambda model, _: drained.append(model.version))
    with application(repository=models, poll=0) as client:
        service = client.app.state.service

        class Lock:
            """A scan holds it first."""

            def __enter__(self):
                publish(models, 2)
                service.repository.scan()

            def __exit__(self, *_):
                pass

        service._changing = Lock()
        service.unload_model("mnist")
    assert sorted(drained) == ["1", "2"]
