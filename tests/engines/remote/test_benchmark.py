"""The benchmark compares what it says it compares."""

import remote_engine


def test_the_benchmark_times_equal_work():
    rows = remote_engine.measure("mujoco", (1, 2), seconds=0.001, blocks=2)
    assert [r["what"] for r in rows] == ["round trip", "1 worlds", "2 worlds"]
    assert all(r["quartile_low"] <= r["ratio"] <= r["quartile_high"] and r["there_us"] > 0 for r in rows)
    assert rows[1]["here_us"] > rows[0]["here_us"]  # ten substeps of a robot take longer than a call that does nothing
