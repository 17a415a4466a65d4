"""Promises of the project as a whole: what an import brings along, and what happens when a folder shadows ours."""

import os
import subprocess
import sys

import jax.numpy as jnp
import jaxtyping
import pytest

from envs import pendulum


def python(program: str, folder=None) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter, started in a folder, which is then searched for packages first."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False, timeout=120
    )


@pytest.mark.parametrize(
    ("module", "heavy"),
    [("mpc", ("flax", "gymnasium", "mujoco", "matplotlib", "optax")), ("mpc.agent.cli.main", ("mujoco", "matplotlib"))],
)
def test_imports_bring_no_heavy_libraries_along(module, heavy):
    done = python(f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_a_folder_that_shadows_envs_is_named_and_mpc_alone_still_works(tmp_path):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "__init__.py").write_text("")
    program = (
        "import mpc, jax.numpy as jnp, jax\n"
        "p = mpc.Problem(lambda p, s, a: s + a, lambda p, s, a, t: s @ s, horizon=2, action_space=mpc.Box([-1.], [1.]))\n"
        "print(float(mpc.solve(mpc.gradient(p, starts=2), None, jnp.ones(1), jax.random.key(0), 50).actions[0, 0]))\n"
        "from mpc.agent.perception.packages import ours\n"
        "ours('envs')\n"
    )
    done = python(program, tmp_path)
    assert done.returncode == 1 and float(done.stdout) < -0.9
    assert "ImportError" in done.stderr and "envs" in done.stderr and str(tmp_path) in done.stderr


def test_hoisting_can_be_turned_off_and_keeps_the_users_own_flags():
    program = "import os, mpc; print(os.environ.get('XLA_FLAGS', ''), '|', mpc.loops_hoisted)"
    before = os.environ.pop("XLA_FLAGS", None)
    try:
        on, off = python(program), python("import os; os.environ['CRAIK_HOIST_LOOPS'] = '0'\n" + program)
        own = python("import os; os.environ['XLA_FLAGS'] = '--xla_cpu_enable_fast_math=false'\n" + program)
    finally:
        if before is not None:
            os.environ["XLA_FLAGS"] = before
    assert "while_loop" in on.stdout and "while_loop" not in off.stdout.split("|")[0]
    assert own.stdout.startswith("--xla_cpu_enable_fast_math=false ") and "while_loop" in own.stdout


def test_shape_types_are_checked_while_testing():
    with pytest.raises(jaxtyping.TypeCheckError):
        pendulum.observe(jnp.zeros(3))
