"""docker-bake.hcl, compared with the Dockerfile that it builds."""

from __future__ import annotations

import re

from tests.support import ROOT

BAKE = (ROOT / "docker-bake.hcl").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def test_bake_file_builds_both_images_for_two_platforms_with_their_arguments():
    targets = dict(re.findall(r'(?ms)^target "(\w+)" \{\n(.*?)^\}', BAKE))
    assert targets.keys() == {"common", "serving", "pipeline"}
    assert 'platforms = ["linux/amd64", "linux/arm64"]' in targets["common"]
    assert 'attest    = ["type=provenance,mode=max", "type=sbom"]' in targets["common"]
    for name in "serving", "pipeline":
        assert 'inherits = ["common"]' in targets[name]
        assert f'target   = "{name}"' in targets[name]
        assert re.search(rf"(?m)^FROM \S+ AS {name}$", DOCKERFILE)
        for argument in re.findall(r"(\w+) = \w+", re.search(r"args .*", targets[name])[0].removeprefix("args")):
            assert re.search(rf"(?m)^ARG {argument}=", DOCKERFILE), argument


def test_bake_file_has_the_defaults_of_the_dockerfile():
    defaults = dict(re.findall(r'(?m)^variable "(\w+)" \{ default = "(.*)" \}$', BAKE))
    in_dockerfile = dict(re.findall(r"(?m)^ARG (\w+)=(.*)$", DOCKERFILE))
    assert {name: in_dockerfile[name] for name in defaults.keys() & in_dockerfile.keys()} == {
        name: value for name, value in defaults.items() if name in in_dockerfile
    }
    assert {"BASE", "PYTHON_VERSION", "DEBIAN_RELEASE", "EXTRAS", "TORCH_INDEX"} <= defaults.keys()
