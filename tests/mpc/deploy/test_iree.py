"""The same plans without Python: compiled by IREE, called from C."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import mpc
from benchmarks.faults import cart
from mpc.deploy import runtime
from mpc.deploy.runtime import ArtefactError

EXAMPLE = Path(__file__).parents[3] / "examples" / "iree" / "planner.c"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_c_program_comes_to_the_same_plans(tmp_path):
    pytest.importorskip("iree.compiler", reason="IREE's compiler is not installed: pip install 'craik[iree]'")
    runner, compiler = Path(sys.executable).parent / "iree-run-module", shutil.which("cc")
    if not runner.exists() or compiler is None:
        pytest.skip(f"no C compiler ({compiler}) or no {runner}: pip install 'craik[iree]'")
    from mpc.deploy import iree

    artefact = cart()
    folder = iree.compiled(artefact, tmp_path / "cart", cpu="generic")
    program = tmp_path / "planner"
    build = [compiler, "-Wall", "-Wextra", "-Werror", "-I", str(folder), "-o", str(program), str(EXAMPLE)]
    subprocess.run(build, check=True, timeout=60)
    seen = np.array([[1.0, 0.0], [0.9, -0.1], [0.7, -0.3], [-0.5, 0.2]], np.float32)
    lines = "\n".join(" ".join(map(str, row)) for row in seen)
    done = subprocess.run(
        [str(program), str(folder), str(runner)], input=lines, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    plans = np.array([line.split() for line in done.stdout.splitlines()], np.float32)
    state = artefact.init(seen[0])
    for observation, plan in zip(seen, plans, strict=True):
        expected = artefact.step(observation, state)
        state = expected.state
        np.testing.assert_allclose(plan, expected.actions.ravel(), atol=1e-4)
    assert np.ptp(plans, axis=0).max() > 0.01  # of different observations


def test_artefacts_that_iree_has_no_place_for_are_refused():
    pytest.importorskip("iree.compiler", reason="IREE's compiler is not installed: pip install 'craik[iree]'")
    from mpc.deploy import iree

    space = mpc.Discrete(3)
    problem = mpc.Problem(lambda p, s, a: s + a[:1], lambda p, s, a, t: s @ s, horizon=2, action_space=space)
    decisions = mpc.policy(mpc.gradient(problem, starts=1), iterations=1)
    for batch, reason in ((None, "float32 alone"), (2, "one observation at a time")):
        data = mpc.export(decisions, None, np.zeros(1), platforms=("cpu",), batch=batch)
        with pytest.raises(ArtefactError, match=reason):
            iree.compiled(runtime.loads(data, prepare=False), "never")
    assert not Path("never").exists()
