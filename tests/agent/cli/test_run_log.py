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


def test_rows_after_the_last_checkpoint_of_a_killed_run_are_dropped(tmp_path):
    path = tmp_path / "metrics.csv"
    table = Table(path, ("timesteps", "updates"))
    for step in (10, 20, 30):
        table.write({"timesteps": step, "updates": step // 2})
    with open(path, "a") as file:
        file.write("4")  # of a row that was being written
    Table(path, ("timesteps",), {"timesteps": 20, "updates": 10}).write({"timesteps": 21, "updates": 10})
    assert [row["timesteps"] for row in csv.DictReader(path.read_text().splitlines())] == ["10", "20", "21"]
