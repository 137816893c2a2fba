"""The workspace: made once, opened often, refused clearly."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace


@pytest.mark.parametrize("below", ["", "a/b"])
def test_an_empty_folder_and_a_new_path_become_workspaces(tmp_path, below):
    w = Workspace(tmp_path / below)
    w.store.put("log", b"x", producer="p")
    names = {p.name for p in w.path.iterdir()}
    assert {"flyball.toml", "flyball.db", "inbox", "store", "quarantine", "reports", "tuf"} <= names
    assert len(Workspace(tmp_path / below).store.find("log")) == 1
    assert w.settings["layout"] == 1


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match=r"not a Flyball workspace.*empty"):
        Workspace(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_files_and_paths_below_files_are_refused(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        Workspace(tmp_path / "f")
    with pytest.raises(InputError, match=r"f/below"):
        Workspace(tmp_path / "f" / "below")


def test_opening_without_creating(tmp_path):
    with pytest.raises(Missing, match="no workspace"):
        Workspace(tmp_path / "w", create=False)
    assert not (tmp_path / "w").exists()
    Workspace(tmp_path / "w")
    Workspace(tmp_path / "w", create=False)


def test_settings_that_are_no_toml_name_the_file(tmp_path):
    Workspace(tmp_path)
    (tmp_path / "flyball.toml").write_text("layout = = 1")
    with pytest.raises(InputError, match=r"flyball\.toml: not valid TOML"):
        Workspace(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    Workspace(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, whom no mode bits stop
    with pytest.raises(InputError, match="not writable"):
        Workspace(tmp_path)


def test_many_may_create_the_same_one_at_once(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        for round_ in range(5):
            made = list(pool.map(lambda _, r=round_: Workspace(tmp_path / str(r)).store.root, range(8)))
            assert set(made) == {tmp_path / str(round_)}
