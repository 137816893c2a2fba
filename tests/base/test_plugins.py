"""Plug-ins: in-tree by name, others through entry points."""

from importlib.metadata import EntryPoint

import pytest

from flyball.base import Missing, NotPossible, PluginTable, plugins


@pytest.fixture
def installed(monkeypatch):
    """Pretends that other packages offer these; counts how often all that is installed was looked through."""
    looked = []

    def entry_points(*, group):
        looked.append(group)
        return [EntryPoint("deque", "collections:deque", group), EntryPoint("json", "json:nothing", group)]

    plugins._outside.cache_clear()
    monkeypatch.setattr(plugins, "entry_points", entry_points)
    yield looked
    plugins._outside.cache_clear()


def test_entries_of_the_tree_and_of_other_packages(installed):
    table = PluginTable("thing", "flyball.things", {"json": "json:dumps"})
    assert table.names() == ["deque", "json"]
    assert table.load("deque").__name__ == "deque"
    assert table.load("json")([1]) == "[1]", "the tree's own entry comes first"
    for _ in range(10):
        table.load("deque")
    assert installed == ["flyball.things"], "once per process"


def test_an_unknown_name_says_what_there_is(installed):
    with pytest.raises(Missing, match=r"no thing named 'jsno'; allowed: did you mean 'json'\? deque, json"):
        PluginTable("thing", "flyball.things", {}).load("jsno")


def test_a_library_that_is_missing_is_named():
    table = PluginTable("thing", "flyball.things", {"a": "surely_not_installed.inner:x", "b": "flyball.nowhere:x"})
    with pytest.raises(NotPossible, match="'surely_not_installed'; try: pip install surely_not_installed"):
        table.load("a")
    with pytest.raises(ModuleNotFoundError):  # a defect of ours is not the user's
        table.load("b")
