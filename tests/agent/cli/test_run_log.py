"""A table that is continued, by rows and by columns."""

import csv

from mpc.agent.cli.run_log import Table


def test_a_table_is_continued_and_takes_new_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    Table(path, ("timesteps",)).write({"timesteps": 1, "loss": 0.5})
    table = Table(path, ("timesteps",))
    table.write({"timesteps": 2})
    table.write({"timesteps": 3, "reward": -1.0})
    assert list(csv.reader(path.read_text().splitlines())) == [
        ["timesteps", "loss", "reward"],
        ["1", "0.5", ""],
        ["2", "", ""],
        ["3", "", "-1.0"],
    ]
    assert list(tmp_path.iterdir()) == [path]
