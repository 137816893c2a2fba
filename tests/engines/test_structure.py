"""Modules of engines import in one direction, imports for types and inside functions counted."""

import grimp


def test_no_module_of_engines_imports_itself_by_way_of_others():
    graph = grimp.build_graph("flyball")
    ours = {m for m in graph.modules if m.startswith("flyball.engines")}
    imports = {m: graph.find_modules_directly_imported_by(m) & ours for m in ours}
    while free := [m for m in imports if not imports[m] & imports.keys()]:  # nobody left that they wait for
        for m in free:
            del imports[m]
    assert imports == {}, f"in a circle, or above one: {sorted(imports)}"
