"""``flyball evaluate``: a file of variations holds on top of the drawn worlds."""

import json

from flyball.apps.cli.main import main

SLIPPERY = '["geom:box.friction[0]"]\nkind = "constant"\nhow = "scale"\nvalue = 0.05\n'
RUN = ["evaluate", "lift-fragile-v1", "--trials", "3", "--policy", "expert", "--json"]


def test_variations_hold(tmp_path, capsys):
    file = tmp_path / "vary.toml"
    file.write_text(SLIPPERY)
    assert main(RUN) == 0
    plain = json.loads(capsys.readouterr().out)["engines"][0]["outcomes"]
    assert main([*RUN, "--vary", str(file)]) == 0
    slippery = json.loads(capsys.readouterr().out)["engines"][0]["outcomes"]
    assert plain == [""] * 3 and all(slippery), "nothing holds a box of a twentieth of its friction"


def test_what_cannot_hold_is_refused(tmp_path, capsys):
    file = tmp_path / "vary.toml"
    file.write_text('["light:sun.diffuse[0]"]\nkind = "constant"\nvalue = 0.5\n')
    assert main([*RUN, "--vary", str(file)]) == 2
    err = capsys.readouterr().err
    assert "light:sun.diffuse" in err and err.count("\n") == 1
