"""Figures of an episode whose numbers are known."""

import csv

import gymnasium
import numpy as np
from matplotlib.figure import Figure

import envs  # noqa: F401  (registers craik/…)
from mpc.agent.viz import figures, images
from mpc.agent.viz.episode import Episode


def episode(**given) -> Episode:
    """Two steps to a goal."""
    made = Episode(
        observations=np.zeros((3, 1)),
        actions=np.zeros((2, 1)),
        rewards=np.array([0.5, 1.0]),
        frames=[],
        futures=[np.zeros((1, 2, 4))] * 2,
        ages=np.zeros(2, int),
        success=np.array([0.0, 1.0]),
        goal=np.ones(1),
        distances=np.array([3.0, 2.0, 0.25]),
    )
    return made._replace(**given)


def table(made: Episode, path) -> list[dict[str, str]]:
    figures.table(made, path)
    return list(csv.DictReader(path.read_text().splitlines()))


def test_an_episode_is_written_step_by_step(tmp_path):
    rows = table(episode(), tmp_path / "episode.csv")
    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert [row["reward"] for row in rows] == ["", "0.5", "1.0"]
    assert [row["distance"] for row in rows] == ["3.0", "2.0", "0.25"]
    assert [row["success"] for row in rows] == ["", "0.0", "1.0"]
    rows = table(episode(success=np.full(2, np.nan), goal=None, distances=None), tmp_path / "episode.csv")
    assert {row["distance"] for row in rows} == {row["success"] for row in rows} == {""}


def test_success_is_that_of_the_end_where_the_environment_tells():
    assert episode().succeeded is True and episode(success=np.array([1.0, 0.0])).succeeded is False
    assert episode(success=np.full(2, np.nan)).succeeded is None


def test_a_strobe_shows_every_place_that_something_passed():
    frames = [np.full((2, 6, 3), 200, np.uint8) for _ in range(6)]
    for place, frame in enumerate(frames):
        frame[0, place] = 10
    shown = figures.strobe(frames, count=6)
    assert (shown[0] == 10).all() and (shown[1] == 200).all()


def test_errors_are_in_standard_deviations_of_what_was_observed():
    real = np.array([[[0.0], [2.0], [4.0]]])
    found = figures._errors(real, real + 1.0, np.array([[-2.0], [2.0]]), image=False)
    np.testing.assert_allclose(found["imagined"], 0.5)
    np.testing.assert_allclose(found["unchanged"], [0.0, 1.0, 2.0])


def test_observations_are_called_by_their_names_where_there_are_any():
    assert episode(names=("x (m)",)).label(0) == "x (m)" and episode().label(2) == "observation 2"
    made = gymnasium.make("craik/CartPoleSwingUp-v0")
    assert made.metadata["observation_names"] == ("p (m)", "cos θ", "sin θ", "v (m/s)", "ω (rad/s)")
    assert "observation_names" not in gymnasium.make("craik/TwoRooms-v0").metadata  # an image has none


def test_a_legend_stands_beside_the_data():
    figure = Figure(layout="constrained")
    axis = figure.add_subplot()
    axis.plot([0, 1], label="a line")
    figures.legend_beside(axis)
    figure.draw_without_rendering()
    legend = axis.get_legend()
    assert legend is not None and legend.get_window_extent().x0 > axis.get_window_extent().x1


def test_a_caption_is_written_into_a_corner():
    image = np.full((120, 160, 3), 255, np.uint8)
    shown = images.captioned(image, "1.0 s")
    assert (shown[:40, :80] < 255).any() and (shown[60:] == 255).all() and (image == 255).all()
