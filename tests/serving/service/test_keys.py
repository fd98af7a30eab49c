"""Key files whose keys no client could send are rejected when the service starts."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from serving.errors import NoKeyError, SettingsError
from serving.service import keys
from serving.service.keys import Keys
from serving.settings import Settings


@pytest.mark.parametrize("content", ["good\nb\0d\n", "b\x7fd", "\x1b[1m", "k" * 8001])
def test_key_that_no_header_can_have_is_rejected(content, tmp_path):
    (tmp_path / "keys").write_text(content)
    with pytest.raises(SettingsError, match=r"--predict-keys-file .*: cannot be read: it has a key with a control"):
        Keys(Settings(predict_keys_file=str(tmp_path / "keys")))
    with pytest.raises(SettingsError, match="--admin-keys: it has a key with a control"):
        Keys(Settings(admin_keys=content))


def test_error_for_a_missing_file_names_it_once(tmp_path):
    missing = tmp_path / "none.keys"
    with pytest.raises(SettingsError, match=f"^--admin-keys-file {missing}: cannot be read: No such file"):
        Keys(Settings(admin_keys_file=str(missing)))


def test_file_that_never_ends_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(keys, "MAX_FILE", 1000)
    with pytest.raises(SettingsError, match="more than 1000 characters"):
        Keys(Settings(predict_keys_file="/dev/zero"))


def test_wrong_key_costs_no_more_calls_with_many_keys():
    def calls(count):
        many = Keys(Settings(predict_keys="\n".join(f"key-{number}" for number in range(count))))
        offered = [(b"x-api-key", b"%d" % number) for number in range(keys.MAX_OFFERED)]
        found = []
        sys.setprofile(lambda _, event, __: found.append(event))
        try:
            with pytest.raises(NoKeyError):
                many.check_prediction(SimpleNamespace(raw_headers=offered))
        finally:
            sys.setprofile(None)
        return len(found)

    assert calls(10_000) == calls(1)


def test_keys_with_other_letters_and_spaces_are_valid(tmp_path):
    (tmp_path / "keys").write_text("\ufeffschlüssel\r\na b\tc # comment\n\n", encoding="utf-8")
    assert len(Keys(Settings(predict_keys_file=str(tmp_path / "keys"))).prediction) == 2
